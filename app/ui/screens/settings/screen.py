"""Folders, excluded photos, appearance, unreadable files, the model and storage."""

from datetime import datetime
from pathlib import Path
from typing import Any

from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

from app.library.gallery import ModelAbout
from app.library.index import folders
from app.library.storage import Storage, measure_storage
from app.library.store.failures import list_failures
from app.library.store.patterns import list_patterns
from app.library.store.roots import Root, list_roots
from app.ui.grid.photo_grid import LEAST, MOST
from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.shell import AppScreen, ChangeTracker
from app.ui.kit.strings import MONTHS, file_size, job_line, n, t
from app.ui.kit.theme import theme
from app.ui.kit.widgets import IconButton, load_layout

SHOWN_FAILURES = 20


class SettingsGroup(BoxLayout):
    """Settings that belong together."""

    title = StringProperty("")


class SettingsRow(BoxLayout):
    """A row of a group, with room for a button at its end."""

    text = StringProperty("")
    note = StringProperty("")
    one_line = BooleanProperty(False)


def size_of(value: float) -> float:
    """Side of a photo in dp for a slider at 0 … 1; equal steps are equal ratios, which looks even."""
    return float(LEAST * (MOST / LEAST) ** value)


def value_of(cell: float) -> float:
    """Position of the slider for a side of a photo: the inverse of `size_of`."""
    import math

    return min(1.0, max(0.0, math.log(cell / LEAST) / math.log(MOST / LEAST)))


class SettingsScreen(AppScreen):
    """All settings in one column."""

    app = ObjectProperty(None)
    column = ObjectProperty(None)
    indexing = BooleanProperty(False)
    failing = BooleanProperty(False)
    progress = NumericProperty(0.0)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self._differs = ChangeTracker()
        super().__init__(app=app, **kwargs)
        app.session.job_changed += self._show_job
        app.session.changed += self.refresh
        app.session.tags_changed += self.refresh

    def on_pre_enter(self, *_: Any) -> None:
        """Read everything again."""
        self.ids.cell.value = value_of(self.app.session.settings.cell)
        self._show_job()
        self.refresh(force=True)

    def refresh(self, force: bool = False) -> None:
        """Read what may have changed, if the screen is visible."""
        session = self.app.session
        if session.quick is None or not (force or (self.manager and self.manager.current_screen is self)):
            return
        self._show_roots(list_roots(session.quick.store))
        self._show_excluded(list_patterns(session.quick.store))
        self._show_failures()
        self._show_model(session.model)
        session.chore(
            lambda gallery: measure_storage(gallery.store, gallery.thumbnails),
            self._show_storage,
            lambda _: None,
            "storage",
        )

    def _show_job(self) -> None:
        job = self.app.session.job
        state = job.state if job is not None else None
        self.indexing = self.app.session.indexing
        self.progress = state.done / state.total if state is not None and state.total else 0.0
        entry = self.ids.job
        entry.text = job_line(state) if state is not None else t("job.done")
        entry.note = "" if self.indexing else n("photos", self.app.session.counts().photos)
        if state is not None and not state.running:
            self.refresh()

    def update_or_stop(self) -> None:
        """Check for new photos, or stop."""
        if self.app.session.indexing:
            self.app.session.stop_indexing()
        else:
            self.app.session.index()

    # folders and patterns

    def _show_roots(self, roots: list[Root]) -> None:
        described = [(root, describe_root(root)) for root in roots]
        if not self._differs("roots", described):
            return
        holder = self.ids.roots
        holder.clear_widgets()
        for root, note in described:
            entry = SettingsRow(text=root.path, note=note, one_line=True)
            entry.add_widget(
                self._button("trash", t("settings.folders.remove"), lambda root=root: self._ask_remove(root))
            )
            holder.add_widget(entry)

    def _button(self, icon: str, description: str, call: Any) -> IconButton:
        button = IconButton(icon=icon, description=description, color=theme.soft)
        button.pos_hint = {"center_y": 0.5}
        button.bind(on_release=lambda _: call())
        return button

    def _ask_remove(self, root: Root) -> None:
        text = t("settings.folders.remove.text", photos=n("photos", root.photos))
        remove = t("settings.folders.remove")
        layers.confirm(self.app.shell, root.path, text, (remove, "danger", lambda: self._remove(root.path)))

    def _remove(self, path: str) -> None:
        session = self.app.session

        def gone(_: int) -> None:
            self.refresh(force=True)
            session.changed()
            session.state_changed()

        session.ask(lambda gallery: folders.forget_root(gallery.store, path), gone, self.app.trouble)

    def _show_excluded(self, patterns: list[str]) -> None:
        if not self._differs("excluded", patterns):
            return
        holder = self.ids.excluded
        holder.clear_widgets()
        for pattern in patterns:
            entry = SettingsRow(text=pattern)
            entry.add_widget(self._button("close", t("chip.remove", what=pattern), lambda p=pattern: self._include(p)))
            holder.add_widget(entry)
        if not patterns:
            holder.add_widget(SettingsRow(note=t("settings.excluded.none")))

    def exclude(self) -> None:
        """Exclude what matches the typed pattern."""
        pattern = self.ids.pattern.text.strip()
        if not pattern:
            return

        def hidden(count: int) -> None:
            self.ids.pattern.text = ""
            self.refresh(force=True)
            self.app.session.changed()
            layers.show_message(self.app.shell, t("settings.excluded.done", photos=n("photos", count)))

        self.app.session.ask(lambda gallery: folders.exclude(gallery.store, pattern), hidden, self.app.trouble)

    def _include(self, pattern: str) -> None:
        def back(_: None) -> None:
            self.refresh(force=True)
            message, action = t("settings.excluded.back"), t("settings.update")
            layers.show_message(self.app.shell, message, action, self.app.session.index)

        self.app.session.ask(lambda gallery: folders.include(gallery.store, pattern), back, self.app.trouble)

    # failures, model, storage

    def _show_failures(self) -> None:
        holder = self.ids.failed
        failures = list_failures(self.app.session.quick.store)
        if not self._differs("failures", failures):
            return
        self.failing = bool(failures)
        holder.clear_widgets()
        for failure in failures[:SHOWN_FAILURES]:
            reason = f"{failure.reason} ({failure.detail})" if failure.detail else failure.reason
            holder.add_widget(SettingsRow(text=failure.path, note=reason, one_line=True))
        if len(failures) > SHOWN_FAILURES:
            holder.add_widget(SettingsRow(note=t("settings.failures.more", n=len(failures) - SHOWN_FAILURES)))
        if not failures:
            holder.add_widget(SettingsRow(note=t("settings.failures.none")))

    def _show_model(self, about: ModelAbout | None) -> None:
        entry = self.ids.model
        if self.app.session.model_trouble:
            entry.text, entry.note = t("settings.model.none", reason=self.app.session.model_trouble), ""
        elif about is None:
            entry.text, entry.note = t("job.model"), ""
        else:
            entry.text = t("settings.model.line", name=about.name, engine=about.engine)
            where = t("settings.model.where" if about.can_localize else "settings.model.nowhere")
            entry.note = f"{n('labels', about.labels)} · {where} · {about.license}"

    def _show_storage(self, storage: Storage) -> None:
        if not self._differs("storage", storage):
            return
        holder = self.ids.storage
        holder.clear_widgets()
        for what, size in (
            ("settings.storage.index", storage.index),
            ("settings.storage.vectors", storage.vectors),
            ("settings.storage.thumbnails", storage.thumbnails),
        ):
            holder.add_widget(SettingsRow(text=t(what), note=file_size(size)))

    def ask_forget(self) -> None:
        """Ask before deleting all index data."""
        layers.confirm(
            self.app.shell,
            t("settings.forget"),
            t("settings.forget.text"),
            (t("settings.forget.all"), "danger", lambda: self._forget(False)),
            (t("settings.forget.keep"), "filled", lambda: self._forget(True)),
        )

    def _forget(self, keep: bool) -> None:
        def gone(_: None) -> None:
            self.app.pictures.forget()
            self.app.session.changed()
            self.app.session.tags_changed()
            self.app.session.state_changed()
            layers.show_message(self.app.shell, t("settings.forgotten"))

        self.app.session.forget_everything(keep, gone, self.app.trouble)

    # appearance

    def set_dark(self, dark: bool) -> None:
        """Switch between light and dark."""
        theme.dark = self.app.session.settings.dark = dark

    def set_cell(self, value: float) -> None:
        """Set how large photos are in the grid, from 0 to 1."""
        self.app.session.settings.cell = size_of(value)


def describe_root(root: Root) -> str:
    """How many photos a folder has, and when it was indexed."""
    if not Path(root.path).is_dir():
        return f"{n('photos', root.photos)} · {t('settings.folders.missing')}"
    if root.read_at is None:
        return t("settings.folders.unread", photos=n("photos", root.photos))
    when = datetime.fromtimestamp(root.read_at)
    text = f"{when.day} {MONTHS[when.month - 1][:3]} {when.year}, {when:%H:%M}"
    return t("settings.folders.photos", photos=n("photos", root.photos), when=text)


load_layout(__file__)
