"""Every text of the gallery, in one table: a translation is another table with the same keys."""

from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.library.index.job import JobState

TEXTS: dict[str, str] = {
    "app.name": "pocketclip",
    # places
    "nav.photos": "Photos",
    "nav.search": "Search",
    "nav.albums": "Albums",
    "nav.review": "Review",
    "nav.settings": "Settings",
    # counts: one, many
    "photos.one": "1 photo",
    "photos.many": "{n} photos",
    "files.one": "1 file",
    "files.many": "{n} files",
    "chosen.one": "1 selected",
    "chosen.many": "{n} selected",
    "labels.one": "1 label",
    "labels.many": "{n} labels",
    # photos
    "photos.today": "Today",
    "photos.yesterday": "Yesterday",
    "photos.empty.title": "No photos here yet",
    "photos.empty.text": "Add a folder of photos. They stay where they are; pocketclip only reads them.",
    "photos.empty.action": "Add a folder",
    "photos.gone.title": "Your folder shows no photos",
    "photos.gone.text": "{folder} cannot be seen or is empty. Plug the drive in or allow access; nothing is forgotten.",
    "photos.gone.action": "Look again",
    "photos.stopped.title": "Reading photos stopped",
    "action.add_label": "Add label",
    "action.copy": "Copy path",
    "action.similar": "More like this",
    "action.clear": "Clear selection",
    "action.smaller": "Smaller photos",
    "action.larger": "Larger photos",
    "action.back": "Back",
    "action.before": "Previous photo",
    "action.next": "Next photo",
    "action.close": "Close",
    "action.cancel": "Cancel",
    "action.undo": "Undo",
    "action.ok": "OK",
    "action.save": "Save",
    "said.copied.one": "Path copied",
    "said.copied.many": "{n} paths copied",
    "said.labelled.one": "{label} added to 1 photo",
    "said.labelled.many": "{label} added to {n} photos",
    # search
    "search.hint": "Search your photos",
    "search.start.title": "Search in your own words",
    "search.start.text": "Type what is in the photo: two dogs on a beach. Put a minus before a word to leave it out.",
    "search.past": "Recent",
    "search.labels": "Labels",
    "search.forget": "Clear recent",
    "search.strong": "Best matches",
    "search.weak": "Weaker matches",
    "search.weak.note": "related, but they do not stand out from your library",
    "search.all": "Results",
    "search.none.title": "Nothing matches",
    "search.none.text": "Try other words, or take a filter away.",
    "search.found.one": "1 match",
    "search.found.many": "{n} matches",
    "search.found.weak": "{strong}, {weak} weaker",
    "search.working": "Searching …",
    "chip.label": "Label",
    "chip.dates": "Dates",
    "chip.folder": "Folder",
    "chip.without": "Without",
    "chip.like": "Like this photo",
    "chip.not": "not {word}",
    "chip.remove": "Remove {what}",
    "pick.label": "Choose a label",
    "pick.folder": "Choose a folder",
    "pick.without": "Leave out photos of …",
    "pick.without.hint": "a word or phrase",
    "pick.filter": "Type to filter",
    "pick.nothing": "Nothing fits.",
    "dates.title": "Between two days",
    "dates.from": "From",
    "dates.to": "To",
    "dates.hint": "YYYY-MM-DD",
    "dates.wrong": "Write a day as 2024-05-31.",
    "dates.week": "Last 7 days",
    "dates.month": "This month",
    "dates.year": "This year",
    "dates.last_year": "Last year",
    # albums
    "albums.own": "Your labels",
    "albums.found": "Found in your photos",
    "albums.new": "New label",
    "albums.empty.title": "No albums yet",
    "albums.empty.text": "A label becomes an album as soon as one photo carries it. You can also make your own.",
    "own.title.new": "New label",
    "own.title.edit": "Edit label",
    "own.name": "Name",
    "own.name.hint": "e.g. Grandma's garden",
    "own.phrase": "What is to be seen",
    "own.phrase.hint": "e.g. a garden with roses",
    "own.phrase.note": "Several descriptions: divide them with a semicolon.",
    "own.strict": "Strict",
    "own.generous": "Generous",
    "own.preview": "Would hold {photos}",
    "own.preview.none": "Nothing yet. Describe it, or move the slider to the right.",
    "own.delete": "Delete label",
    "own.delete.text": "The label and what was decided about it are deleted. The photos stay.",
    "own.saved": "{label} holds {photos}",
    # photo
    "photo.details": "Details",
    "photo.labels": "Labels",
    "photo.labels.none": "No labels. That is a normal answer.",
    "photo.add": "Add a label",
    "photo.by_model": "suggested",
    "photo.by_you": "yours",
    "photo.rejected": "rejected",
    "photo.accept": "Accept {label}",
    "photo.reject": "Reject {label}",
    "photo.take_back": "Take back",
    "photo.where": "Where",
    "photo.where.hint": "Where is …",
    "photo.where.cannot": "This model cannot show where",
    "photo.where.weak": "{text}: no clear match; the map shows where it fits best",
    "photo.where.found": "{text}: outlined where it fits best",
    "photo.similar": "Similar photos",
    "photo.similar.none": "Nothing much like it.",
    "photo.unreadable": "This photo cannot be shown: {reason}",
    "photo.of": "{i} of {n}",
    "photo.taken": "Taken",
    "photo.taken.file": "file date",
    "photo.size": "Size",
    "photo.camera": "Camera",
    "photo.lens": "Lens",
    "photo.exposure": "Exposure",
    "photo.place": "Place",
    "photo.file": "File",
    "said.rejected": "{label} rejected",
    "said.accepted": "{label} accepted",
    "said.added": "{label} added",
    # review
    "review.question": "Is this “{label}”?",
    "review.given": "The model gave this label, but was not sure.",
    "review.nearly": "The model nearly gave this label.",
    "review.yes": "Yes",
    "review.no": "No",
    "review.skip": "Skip",
    "review.left.one": "1 left",
    "review.left.many": "{n} left",
    "review.done.title": "All caught up",
    "review.done.text": "The model is unsure of nothing now. Your answers stay for ever and make its labels better.",
    "review.more": "Look for more",
    # settings
    "settings.folders": "Folders",
    "settings.folders.add": "Add folder",
    "settings.folders.note": "Photos are read where they are and never changed.",
    "settings.folders.photos": "{photos}, read {when}",
    "settings.folders.unread": "{photos}, not read to the end yet",
    "settings.folders.missing": "cannot be seen now; its photos stay",
    "settings.folders.remove": "Remove from the gallery",
    "settings.folders.remove.text": "{photos} leave the gallery. The files stay where they are.",
    "settings.excluded": "Left out",
    "settings.excluded.hint": "Pattern, e.g. */Screenshots/*",
    "settings.excluded.add": "Leave out",
    "settings.excluded.none": "Nothing is left out.",
    "settings.excluded.done": "{photos} hidden",
    "settings.excluded.back": "The pattern is gone. Update the library to see its photos again.",
    "settings.library": "Library",
    "settings.update": "Look for new photos",
    "settings.stop": "Stop",
    "settings.model": "Model",
    "settings.model.line": "{name}, on {engine}",
    "settings.model.where": "shows where in a photo",
    "settings.model.nowhere": "cannot show where in a photo",
    "settings.model.none": "No model: {reason}",
    "settings.storage": "Storage",
    "settings.storage.index": "Index",
    "settings.storage.vectors": "Search vectors",
    "settings.storage.thumbnails": "Thumbnails",
    "settings.failures": "Files that could not be read",
    "settings.failures.none": "Every photo could be read.",
    "settings.failures.retry": "Try again",
    "settings.failures.more": "and {n} more",
    "settings.look": "Appearance",
    "settings.dark": "Dark",
    "settings.columns": "Photo size",
    "settings.privacy": "Privacy",
    "settings.privacy.text": "Nothing leaves this device. There is no account, no telemetry and no network.",
    "settings.forget": "Delete all index data",
    "settings.forget.text": "Labels, search vectors and thumbnails are deleted; photos are not touched. "
    "Should your decisions and own labels stay?",
    "settings.forget.keep": "Keep my decisions",
    "settings.forget.all": "Delete everything",
    "settings.forgotten": "Index data deleted",
    # indexing
    "job.model": "Opening the model …",
    "job.scan": "Looking for photos: {n} so far",
    "job.dates": "Reading dates: {n} so far",
    "job.index": "Reading photos: {done} of {total}",
    "job.rate": "{rate} a second",
    "job.done": "Up to date",
    "job.done.new": "Up to date: {photos} new",
    "job.failed": "Stopped: {reason}",
    "job.unreadable": "{files} could not be read",
    # first run
    "welcome.title": "Find any photo by describing it",
    "welcome.one.title": "Search in words",
    "welcome.one.text": "“Two dogs on a beach” finds it, with no tags and no album.",
    "welcome.two.title": "Labels that listen",
    "welcome.two.text": "Accept or reject them. Your word always counts more than the model’s.",
    "welcome.three.title": "Nothing leaves this device",
    "welcome.three.text": "No account, no network. Photos are only read, never changed.",
    "welcome.pick": "Choose a folder of photos",
    "picker.title": "Choose a folder",
    "picker.up": "Up",
    "picker.use": "Use this folder",
    "picker.empty": "There are no folders in it.",
    "picker.closed": "This folder may not be opened.",
    "picker.photos": "{photos} directly in it",
    # trouble
    "broken.title": "The index cannot be opened",
    "broken.aside": "Set it aside and start again",
    "broken.again": "Try again",
    "broken.aside.done": "The old index is kept as {name}",
    "search.cannot": "Search cannot be used now",
    # help
    "help.title": "Keys",
    "help.search": "Search",
    "help.arrows": "Arrows",
    "help.move": "Go from photo to photo",
    "help.open": "Open",
    "help.back": "Back",
    "help.choose": "Select",
    "help.all": "Select all",
    "help.copy": "Copy path",
    "help.full": "Full screen",
    "help.columns": "Photo size",
    "help.help": "This list",
    "help.review": "Accept, reject, skip",
}

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def t(key: str, **values: Any) -> str:
    """The text of a key, with its {fields} filled in.

    Raises:
        KeyError: no such text.
    """
    return TEXTS[key].format(**values) if values else TEXTS[key]


def n(key: str, count: int, **values: Any) -> str:
    """The text of a count: `key.one` or `key.many`."""
    return t(f"{key}.one" if count == 1 else f"{key}.many", n=number(count), **values)


def number(value: int) -> str:
    """A number with its thousands apart, by a narrow space that no line breaks at."""
    return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)


def day(value: date, today: date) -> str:
    """A day as a heading: Today, Tuesday, 12 May, and the year where it is not this one."""
    if value == today:
        return t("photos.today")
    if (today - value).days == 1:
        return t("photos.yesterday")
    text = f"{DAYS[value.weekday()]}, {value.day} {MONTHS[value.month - 1]}"
    return text if value.year == today.year else f"{text} {value.year}"


def month(value: date) -> str:
    """A month as a heading."""
    return f"{MONTHS[value.month - 1]} {value.year}"


def file_size(count: int) -> str:
    """A number of bytes as a person says it."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def job_line(state: "JobState") -> str:
    """One line on a job."""
    if state.stage == "failed":
        return t("job.failed", reason=state.error)
    if state.stage == "done":
        new = state.report.embedded if state.report else 0
        said = t("job.done.new", photos=n("photos", new)) if new else t("job.done")
    elif state.stage == "index":
        said = t("job.index", done=number(state.done), total=number(state.total))
        if state.photos_per_second >= 0.1:
            said += " · " + t("job.rate", rate=f"{state.photos_per_second:.0f}")
    else:
        said = t(f"job.{state.stage}", n=number(state.done))
    if state.failed:
        said += " · " + t("job.unreadable", files=n("files", state.failed))
    return said
