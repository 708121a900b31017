"""All texts of the gallery in one table; a translation is another table with the same keys."""

from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.library.index.job import JobState

TEXTS: dict[str, str] = {
    "app.name": "pocketclip",
    # navigation
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
    "photos.empty.title": "No photos yet",
    "photos.empty.text": "Add a folder of photos. They stay where they are; pocketclip only reads them.",
    "photos.empty.action": "Add folder",
    "photos.gone.title": "No photos found in this folder",
    "photos.gone.text": "{folder} is empty or not available. Reconnect the drive or allow access to it. "
    "Your index is kept.",
    "photos.gone.action": "Retry",
    "photos.stopped.title": "Indexing stopped",
    "action.add_label": "Add label",
    "action.copy": "Copy path",
    "action.similar": "More like this",
    "action.clear": "Clear selection",
    "action.smaller": "Zoom out",
    "action.larger": "Zoom in",
    "action.back": "Back",
    "action.before": "Previous photo",
    "action.next": "Next photo",
    "action.close": "Close",
    "action.cancel": "Cancel",
    "action.undo": "Undo",
    "action.ok": "OK",
    "action.save": "Save",
    "message.copied.one": "Path copied",
    "message.copied.many": "{n} paths copied",
    "message.labeled.one": "{label} added to 1 photo",
    "message.labeled.many": "{label} added to {n} photos",
    # search
    "search.hint": "Search your photos",
    "search.start.title": "Search in your own words",
    "search.start.text": "Try “two dogs on a beach”. Put a minus sign before a word to exclude it.",
    "search.past": "Recent",
    "search.labels": "Labels",
    "search.forget": "Clear recent searches",
    "search.strong": "Best matches",
    "search.weak": "Weaker matches",
    "search.weak.note": "may be less relevant",
    "search.all": "Results",
    "search.none.title": "No matches",
    "search.none.text": "Try other words or remove a filter.",
    "search.found.one": "1 match",
    "search.found.many": "{n} matches",
    "search.found.weak": "{strong}, {weak} weaker",
    "search.working": "Searching…",
    "search.cannot": "Search is unavailable",
    "chip.label": "Label",
    "chip.dates": "Dates",
    "chip.folder": "Folder",
    "chip.without": "Without",
    "chip.like": "Like this photo",
    "chip.not": "not {word}",
    "chip.remove": "Remove {what}",
    "pick.label": "Choose a label",
    "pick.folder": "Choose a folder",
    "pick.without": "Exclude photos of…",
    "pick.without.hint": "Word or phrase",
    "pick.filter": "Filter",
    "pick.nothing": "No matches",
    "dates.title": "Date range",
    "dates.from": "From",
    "dates.to": "To",
    "dates.hint": "YYYY-MM-DD",
    "dates.wrong": "Enter dates like 2024-05-31.",
    "dates.week": "Last 7 days",
    "dates.month": "This month",
    "dates.year": "This year",
    "dates.last_year": "Last year",
    # albums and custom labels
    "albums.own": "Your labels",
    "albums.found": "Found in your photos",
    "albums.new": "New label",
    "albums.empty.title": "No albums yet",
    "albums.empty.text": "Each label that a photo has appears here as an album. You can also create your own labels.",
    "label.title.new": "New label",
    "label.title.edit": "Edit label",
    "label.name": "Name",
    "label.name.hint": "e.g., Grandma’s garden",
    "label.phrase": "Description",
    "label.phrase.hint": "e.g., a garden with roses",
    "label.phrase.note": "Separate descriptions with semicolons.",
    "label.strict": "Fewer",
    "label.generous": "More",
    "label.preview": "{photos} would match",
    "label.preview.none": "No matches yet. Add a description or move the slider toward More.",
    "label.delete": "Delete label",
    "label.delete.text": "This deletes the label and your corrections to it. Your photos aren’t affected.",
    "label.saved": "{label} saved: {photos}",
    # one photo
    "photo.details": "Details",
    "photo.labels": "Labels",
    "photo.labels.none": "No labels",
    "photo.add": "Add label",
    "photo.by_model": "Suggested",
    "photo.by_you": "Confirmed by you",
    "photo.rejected": "Rejected",
    "photo.accept": "Accept {label}",
    "photo.reject": "Reject {label}",
    "photo.undo": "Undo",
    "photo.where": "Find in photo",
    "photo.where.hint": "Find in this photo",
    "photo.where.cannot": "This model can’t find things in a photo",
    "photo.where.weak": "{text}: no clear match, showing the closest area",
    "photo.where.found": "{text}: best match outlined",
    "photo.similar": "Similar photos",
    "photo.similar.none": "No similar photos",
    "photo.unreadable": "This photo can’t be shown: {reason}",
    "photo.of": "{i} of {n}",
    "photo.taken": "Taken",
    "photo.taken.file": "file date",
    "photo.size": "Size",
    "photo.camera": "Camera",
    "photo.lens": "Lens",
    "photo.exposure": "Exposure",
    "photo.place": "Location",
    "photo.file": "File",
    "message.rejected": "{label} rejected",
    "message.accepted": "{label} accepted",
    "message.added": "{label} added",
    # review
    "review.question": "Is this “{label}”?",
    "review.given": "The model chose this label but wasn’t sure.",
    "review.nearly": "The model almost chose this label.",
    "review.yes": "Yes",
    "review.no": "No",
    "review.skip": "Skip",
    "review.left.one": "1 left",
    "review.left.many": "{n} left",
    "review.done.title": "All caught up",
    "review.done.text": "Nothing left to review. Your answers are kept.",
    "review.more": "Check again",
    "review.cannot": "Review is unavailable",
    # settings
    "settings.folders": "Folders",
    "settings.folders.add": "Add folder",
    "settings.folders.note": "Photos stay where they are and are never changed.",
    "settings.folders.photos": "{photos}, indexed {when}",
    "settings.folders.unread": "{photos}, indexing not finished",
    "settings.folders.missing": "not available; its photos are kept",
    "settings.folders.remove": "Remove from gallery",
    "settings.folders.remove.text": "{photos} will be removed from the gallery. The files stay where they are.",
    "settings.excluded": "Excluded",
    "settings.excluded.hint": "e.g., */Screenshots/*",
    "settings.excluded.add": "Exclude",
    "settings.excluded.none": "Nothing excluded",
    "settings.excluded.done": "{photos} hidden",
    "settings.excluded.back": "Pattern removed. Check for new photos to show the hidden ones again.",
    "settings.library": "Library",
    "settings.update": "Check for new photos",
    "settings.stop": "Stop",
    "settings.model": "Model",
    "settings.model.line": "{name} on {engine}",
    "settings.model.where": "can find things in a photo",
    "settings.model.nowhere": "can’t find things in a photo",
    "settings.model.none": "Model unavailable: {reason}",
    "settings.storage": "Storage",
    "settings.storage.index": "Index",
    "settings.storage.vectors": "Search data",
    "settings.storage.thumbnails": "Thumbnails",
    "settings.failures": "Unreadable files",
    "settings.failures.none": "None",
    "settings.failures.retry": "Try again",
    "settings.failures.more": "and {n} more",
    "settings.look": "Appearance",
    "settings.dark": "Dark theme",
    "settings.columns": "Photo size",
    "settings.privacy": "Privacy",
    "settings.privacy.text": "Nothing leaves this device. No account, no telemetry, no network access.",
    "settings.forget": "Delete all index data",
    "settings.forget.text": "This deletes labels, search data and thumbnails. Your photos aren’t affected. "
    "Keep your corrections and custom labels?",
    "settings.forget.keep": "Keep corrections",
    "settings.forget.all": "Delete everything",
    "settings.forgotten": "Index data deleted",
    # indexing
    "job.model": "Loading model…",
    "job.scan": "Finding photos: {n} so far",
    "job.dates": "Reading dates: {n} so far",
    "job.index": "Indexing photos: {done} of {total}",
    "job.rate": "{rate} per second",
    "job.done": "Up to date",
    "job.done.new": "Up to date: {photos} added",
    "job.failed": "Stopped: {reason}",
    "job.unreadable": "{files} could not be read",
    # first run
    "welcome.title": "Find any photo by describing it",
    "welcome.one.title": "Search with words",
    "welcome.one.text": "“Two dogs on a beach” finds the photo. No tags or albums needed.",
    "welcome.two.title": "Labels you control",
    "welcome.two.text": "Accept or reject suggestions. Your choice always overrides the model’s.",
    "welcome.three.title": "Nothing leaves this device",
    "welcome.three.text": "No account, no network access. Photos are only read, never changed.",
    "welcome.pick": "Choose photo folder",
    "picker.title": "Choose a folder",
    "picker.up": "Parent folder",
    "picker.use": "Use this folder",
    "picker.empty": "No folders here.",
    "picker.missing": "This folder doesn’t exist",
    "picker.closed": "You don’t have permission to open this folder",
    "picker.photos": "{photos} in this folder",
    # problems
    "broken.title": "The index can’t be opened",
    "broken.aside": "Back it up and rebuild",
    "broken.again": "Try again",
    "broken.aside.done": "The old index is saved as {name}",
    # keyboard shortcuts
    "help.title": "Keyboard shortcuts",
    "help.search": "Search",
    "help.move": "Move between photos",
    "help.open": "Open",
    "help.back": "Back",
    "help.choose": "Select",
    "help.all": "Select all",
    "help.copy": "Copy path",
    "help.full": "Full screen",
    "help.columns": "Photo size",
    "help.help": "Show this list",
    "help.review": "Accept, reject, skip",
    "key.arrows": "Arrows",
    "key.enter": "Enter",
    "key.escape": "Esc",
    "key.space": "Space",
    "key.ctrl": "Ctrl {letter}",
}

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def t(key: str, **values: Any) -> str:
    """The text for a key, with its {fields} filled in.

    Raises:
        KeyError: there is no such text.
    """
    return TEXTS[key].format(**values) if values else TEXTS[key]


def n(key: str, count: int, **values: Any) -> str:
    """The text for a count: `key.one` or `key.many`."""
    return t(f"{key}.one" if count == 1 else f"{key}.many", n=number(count), **values)


def number(value: int) -> str:
    """A number with its thousands separated by a narrow no-break space."""
    return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)


def day(value: date, today: date) -> str:
    """A day as a heading, such as Today or Tuesday, 12 May; with the year if it isn't the current one."""
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
    """A number of bytes for people to read."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def job_line(state: "JobState") -> str:
    """What an index job is doing, or how it ended, in one line."""
    if state.stage == "failed":
        return t("job.failed", reason=state.error)
    if state.stage == "done":
        new = state.report.embedded if state.report else 0
        line = t("job.done.new", photos=n("photos", new)) if new else t("job.done")
    elif state.stage == "index":
        line = t("job.index", done=number(state.done), total=number(state.total))
        if state.photos_per_second >= 0.1:
            line += " · " + t("job.rate", rate=f"{state.photos_per_second:.0f}")
    else:
        line = t(f"job.{state.stage}", n=number(state.done))
    if state.failed:
        line += " · " + t("job.unreadable", files=n("files", state.failed))
    return line
