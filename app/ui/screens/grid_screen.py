"""What all screens around a photo grid share: the grid's size, its selection and what can be done with it."""

from typing import Any

from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

from app.ui.grid.photo_grid import PhotoGrid
from app.ui.host import Host
from app.ui.kit.shell import AppScreen
from app.ui.kit.strings import n
from app.ui.kit.widgets import load_layout


class SelectionBar(BoxLayout):
    """What can be done with the selected photos."""

    text = StringProperty("")
    single = BooleanProperty(False)

    def __init__(self, **kwargs: Any) -> None:
        for event in ("on_clear", "on_similar", "on_label", "on_copy"):
            self.register_event_type(event)
        super().__init__(**kwargs)

    def on_clear(self) -> None:
        """Clear the selection."""

    def on_similar(self) -> None:
        """Search for photos like the selected one."""

    def on_label(self) -> None:
        """Add a label to the selected photos."""

    def on_copy(self) -> None:
        """Copy the paths of the selected photos."""


class GridScreen(AppScreen):
    """A screen around one photo grid, with a bar for its selection."""

    bars = ObjectProperty(None)
    grid: PhotoGrid = ObjectProperty(None)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self.app = app
        self._selection_bar = SelectionBar()
        super().__init__(**kwargs)
        self._usual_bars = list(reversed(self.bars.children))
        bar = self._selection_bar
        bar.bind(
            on_clear=lambda _: self.grid.selection.clear(),
            on_similar=lambda _: self.app.more_like(self.grid.selection.ids[0]),
            on_label=lambda _: self.app.actions.label_photos(self.grid.selection.ids, self.grid.selection.clear),
            on_copy=lambda _: self.app.actions.copy_paths(self.grid.selection.ids),
        )
        self.grid.feed(self.app.actions.photos_of, self.app.pictures)
        self.grid.cell = app.session.settings.cell
        self.grid.fbind("cell", self._cell_changed)

    def _cell_changed(self, _: Any, cell: float) -> None:
        self.app.session.settings.cell = float(cell)

    def on_pre_enter(self, *_: Any) -> None:
        self.grid.cell = self.app.session.settings.cell

    def selection_changed(self) -> None:
        """Show the selection bar, or the usual ones if nothing is selected."""
        selection = self.grid.selection
        wanted = [self._selection_bar] if len(selection) else self._usual_bars
        if list(reversed(self.bars.children)) != wanted:
            self.bars.clear_widgets()
            for bar in wanted:
                self.bars.add_widget(bar)
        self._selection_bar.text = n("chosen", len(selection))
        self._selection_bar.single = len(selection) == 1

    def open_photo(self, index: int) -> None:
        """Show one photo on top of everything."""
        self.app.open_photo(self.grid.ids_shown, index, self.grid)

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        if key == "c" and {"ctrl", "meta"} & modifiers and self.grid.keyboard.targets:
            self.app.actions.copy_paths(self.grid.keyboard.targets)
            return True
        return self.grid.keyboard.press(key, modifiers)

    def on_back(self) -> bool:
        if len(self.grid.selection):
            self.grid.selection.clear()
            return True
        return False


load_layout(__file__)
