"""The conditions of a search as chips, and dialogs that add more."""

from collections.abc import Callable
from datetime import date
from typing import Any

from kivy.properties import ObjectProperty
from kivy.uix.boxlayout import BoxLayout

from app.library.gallery import Query
from app.library.search.query import parse_day
from app.library.store.photos import Folder, list_folders
from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.strings import t
from app.ui.kit.widgets import Chip
from app.ui.screens.search import conditions
from app.ui.screens.search.conditions import Condition, conditions_of, usual_ranges
from app.ui.screens.search.model import SearchModel

ICONS = {"label": "tag", "dates": "calendar", "folder": "folder", "without": "minus", "like": "similar"}


class FilterBar(BoxLayout):
    """A chip for each condition of the query, which removes it, and one for each kind that can be added."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shown: list[Condition] | None = None

    def attach(self, app: Host, model: SearchModel) -> None:
        """Say whose conditions to show and change; once, before anything is shown."""
        self._app, self._model = app, model

    def show(self) -> None:
        """Show the conditions of the query; chips stay as they are if nothing changed."""
        wanted = conditions_of(self._model.query)
        if wanted == self._shown:
            return
        self._shown = wanted
        self.clear_widgets()
        for condition in wanted:
            self._add_chip(
                Chip(text=condition.text, mark="close", on=True, icon=ICONS[condition.kind]),
                lambda condition=condition: self._change(conditions.remove, condition),  # type: ignore[misc]
            )
        self._add_chip(Chip(text=t("chip.label"), icon=ICONS["label"]), self.pick_label)
        self._add_chip(Chip(text=t("chip.dates"), icon=ICONS["dates"]), self.pick_dates)
        self._add_chip(Chip(text=t("chip.folder"), icon=ICONS["folder"]), self.pick_folder)
        self._add_chip(Chip(text=t("chip.without"), icon=ICONS["without"]), self.pick_without)

    def pick_label(self) -> None:
        """Let the user choose a label that all results must have."""
        self._app.actions.pick_label(
            t("pick.label"), lambda label: self._change(conditions.add_label, label), free=False
        )

    def pick_dates(self) -> None:
        """Let the user choose the first and the last day."""
        DatesDialog(lambda first, last: self._change(conditions.between, first, last)).open(self._app.shell)

    def pick_folder(self) -> None:
        """Let the user choose a folder that holds results."""
        self._app.session.ask(lambda gallery: list_folders(gallery.store), self._pick_one_of, self._app.trouble)

    def pick_without(self) -> None:
        """Let the user choose or type what results must not show."""
        choices = [(label, label, "") for label in self._app.session.labels]
        layers.PickDialog(
            lambda text: self._change(conditions.leave_out, text),
            choices,
            "minus",
            True,
            title=t("pick.without"),
            hint=t("pick.without.hint"),
        ).open(self._app.shell)

    def _pick_one_of(self, folders: list[Folder]) -> None:
        layers.PickDialog(
            lambda path: self._change(conditions.add_folder, path),
            [(folder.path, folder.path, str(folder.photos)) for folder in folders],
            "folder",
            title=t("pick.folder"),
            hint=t("pick.filter"),
            widest=560,
        ).open(self._app.shell)

    def _add_chip(self, chip: Chip, pressed: Callable[[], None]) -> None:
        chip.bind(on_release=lambda _: pressed())
        self.add_widget(chip)

    def _change(self, change: Callable[..., Query], *args: Any) -> None:
        self._model.refine(change(self._model.query, *args))


class DatesDialog(layers.Dialog):
    """Two days, or one of the usual ranges."""

    first = ObjectProperty(None)
    last = ObjectProperty(None)
    wrong = ObjectProperty(None)
    ranges = ObjectProperty(None)

    def __init__(self, picked: Callable[[date | None, date | None], None], **kwargs: Any) -> None:
        self._picked = picked
        super().__init__(title=t("dates.title"), **kwargs)
        self.move_to_body("ranges", "fields", "wrong")
        for name, first, last in usual_ranges(date.today()):
            chip = Chip(text=name)
            chip.bind(on_release=lambda _, days=(first, last): self._done(*days))
            self.ranges.add_widget(chip)
        self.add_action(t("action.cancel"), lambda: None)
        self.add_action(t("action.ok"), self.apply, "filled", closes=False)

    def apply(self) -> None:
        """Take the two days, if they are days."""
        try:
            first, last = parse_day(self.first.text), parse_day(self.last.text, end=True)
        except ValueError:
            self.wrong.text = t("dates.wrong")
            return
        self._done(first, last)

    def _done(self, first: date | None, last: date | None) -> None:
        self.close()
        self._picked(first, last)
