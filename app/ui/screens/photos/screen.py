"""All photos by day; the same screen shows one album."""

from datetime import date
from typing import TYPE_CHECKING, Any

from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

from app.library.gallery import Filter, Timeline
from app.library.store.roots import list_roots
from app.ui.grid.sections import by_date
from app.ui.host import Host
from app.ui.kit.strings import job_line, n, t
from app.ui.kit.widgets import load_layout
from app.ui.screens.grid_screen import GridScreen
from mobileclip.errors import PocketclipError

if TYPE_CHECKING:
    from app.library.index.job import JobState


class JobLine(BoxLayout):
    """What the index job is doing, while it runs."""

    text = StringProperty("")
    value = NumericProperty(0.0)

    def show(self, state: "JobState | None") -> None:
        """Show how far the job is, or why it failed; nothing if it isn't running."""
        self.text = job_line(state) if state is not None and (state.running or state.stage == "failed") else ""
        self.value = state.done / state.total if state is not None and state.running and state.total else 0.0


class PhotosScreen(GridScreen):
    """Photos by day, newest first."""

    album = StringProperty("")
    own = BooleanProperty(False)
    cramped = BooleanProperty(False)
    heading = StringProperty("")
    note = StringProperty("")
    job: JobLine = ObjectProperty(None)
    title = ObjectProperty(None)

    def __init__(self, app: Host, album: str = "", own: bool = False, **kwargs: Any) -> None:
        self._timeline: Timeline | None = None
        self._by_month = False
        super().__init__(app, album=album, own=own, **kwargs)
        self.heading = album or t("nav.photos")
        app.session.changed += self.refresh
        app.session.job_changed += self._show_job
        if album:
            app.session.tags_changed += self.refresh
        self.grid.fbind("cell", lambda *_: self._update_sections())

    def close(self) -> None:
        """The screen of an album is done: stop listening, and cancel wanted pictures."""
        session = self.app.session
        session.changed -= self.refresh
        session.job_changed -= self._show_job
        session.tags_changed -= self.refresh
        session.drop(f"timeline {self.album}")
        self.grid.release()

    def on_pre_enter(self, *_: Any) -> None:
        super().on_pre_enter()
        if self._timeline is None:
            self.refresh()
        self._show_job()

    def refresh(self) -> None:
        """Read the timeline again; what is visible stays where it is."""
        if self.album and self.app.album_shown != self.album:
            return
        only = Filter(labels=(self.album,)) if self.album else Filter()
        lane = f"timeline {self.album}"
        self.app.session.ask(lambda gallery: gallery.timeline(only), self._show, self._failed, lane)

    def _show(self, timeline: Timeline) -> None:
        again = self._timeline is not None
        self._timeline = timeline
        self._by_month = self.grid.cell < 84
        self.grid.show(timeline.ids, by_date(timeline.days, self.grid.cell, date.today()), stay=again)
        self.note = n("photos", len(timeline.ids)) if len(timeline.ids) else ""
        self._show_notice()

    def _failed(self, error: PocketclipError) -> None:
        self.grid.notice.show("warning", t("broken.title"), str(error), t("broken.again"))

    def _show_notice(self) -> None:
        session = self.app.session
        if self._timeline is None or len(self._timeline.ids) or session.indexing:
            self.grid.notice.show()
            return
        roots = list_roots(session.quick.store) if session.quick else []
        job = session.job.state if session.job is not None else None
        if job is not None and job.stage == "failed" and not self.album:
            self.grid.notice.show("warning", t("photos.stopped.title"), job.error, t("photos.gone.action"))
        elif self.album or not roots:
            self.grid.notice.show("photos", t("photos.empty.title"), t("photos.empty.text"), t("photos.empty.action"))
        else:
            self.grid.notice.show(
                "folder", t("photos.gone.title"), t("photos.gone.text", folder=roots[0].path), t("photos.gone.action")
            )

    def notice_pressed(self) -> None:
        """Do what the notice offers."""
        if self.app.session.quick is None or not list_roots(self.app.session.quick.store):
            self.app.add_folder()
        else:
            self.app.session.index()

    def _update_sections(self) -> None:
        if self._timeline is not None and self._by_month != (self.grid.cell < 84):
            self._show(self._timeline)

    def _show_job(self) -> None:
        job = self.app.session.job
        self.job.show(job.state if job is not None and not self.album else None)
        self._show_notice()

    def edit(self) -> None:
        """Edit the custom label of this album."""
        self.app.edit_label(self.album)

    def on_back(self) -> bool:
        if super().on_back():
            return True
        if self.album:
            self.app.go("albums")
            return True
        return False


load_layout(__file__)
