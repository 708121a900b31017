"""One photo on top of everything, with its labels, details, similar photos and a heat map."""

from typing import TYPE_CHECKING, Any

import numpy as np
from kivy.animation import Animation
from kivy.core.text import Label as CoreLabel
from kivy.core.window import Window
from kivy.metrics import dp
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.widget import Widget
from numpy.typing import NDArray

from app.library.gallery import Photo
from app.library.pictures.thumbnails import Picture
from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.photo_view import PhotoView
from app.ui.kit.shell import Shell
from app.ui.kit.strings import number, t
from app.ui.kit.textures import picture_texture
from app.ui.kit.theme import theme
from app.ui.kit.widgets import TouchThroughBehavior, load_layout
from app.ui.screens.photo.model import Part, PhotoModel
from app.ui.screens.photo.panel import PhotoPanel
from app.ui.screens.photo.verbs import PhotoVerbs
from mobileclip.errors import PhotoError
from mobileclip.lru import LruCache

if TYPE_CHECKING:
    from app.ui.grid.photo_grid import PhotoGrid

PANEL = 348.0
"""Width of the panel next to the photo, in dp."""

KEPT = 5
"""Photos of which the large picture stays: this one, its neighbors, and two more for going back."""


class Legend(TouchThroughBehavior, ButtonBehavior, Widget):
    """What the heat map shows; a tap hides it."""

    text = StringProperty("")
    longest = NumericProperty(dp(250))
    needed = NumericProperty(0)

    def on_text(self, *_: Any) -> None:
        self.needed = CoreLabel(font_size=theme.label).get_extents(self.text)[0]


class Toolbar(TouchThroughBehavior, BoxLayout):
    """Buttons along the upper edge of the photo."""


class ThumbnailTarget:
    """Takes the thumbnail for a slot of the view until the large picture is there."""

    def __init__(self, layer: "PhotoLayer", slot: int, photo: Photo) -> None:
        self.layer, self.slot, self.photo = layer, slot, photo

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """The thumbnail has arrived."""
        self.layer.thumbnail_arrived(self, texture)


class PhotoLayer(layers.Layer):
    """The open photo."""

    frame = ObjectProperty(None)
    tools = ObjectProperty(None)
    legend = ObjectProperty(None)
    position = StringProperty("")
    legend_text = StringProperty("")
    side_by_side = BooleanProperty(False)
    has_previous = BooleanProperty(False)
    has_next = BooleanProperty(False)
    can_localize = BooleanProperty(True)
    dark = NumericProperty(1.0)

    def __init__(self, app: Host, ids: NDArray[np.int64], index: int, grid: "PhotoGrid | None", **kwargs: Any) -> None:
        self.app, self._grid = app, grid
        super().__init__(can_localize=app.session.can_localize, **kwargs)
        self.model = PhotoModel(app.session, ids, index, self._changed)
        self.view = PhotoView(self._turned, self._tapped, self.close)
        self.frame.add_widget(self.view)
        self.verbs = PhotoVerbs(app, self.model, self._finding, self._open_similar)
        self.panel = PhotoPanel(app, self.verbs)
        self.panel_open: bool | None = None
        self._views: LruCache[str, Any] = LruCache(KEPT)
        self._tickets: dict[str, Any] = {}
        self._waiting: dict[int, ThumbnailTarget] = {}
        self.bind(size=lambda *_: self._arrange(), pos=lambda *_: self._arrange())

    def open(self, shell: Shell) -> None:
        self.shell = shell
        shell.add_layer(self)
        self.size = shell.size
        self.panel_open = shell.wide
        self._arrange()
        tile = self._grid.tiles.get(self.model.index) if self._grid is not None else None
        self.view.arrive_from((*tile.to_window(*tile.pos), *tile.size) if tile else None)
        self.dark = 0
        Animation(dark=1, duration=0.2).start(self)
        self.model.open()

    def close(self) -> None:
        for ticket in self._tickets.values():
            ticket.cancel()
        for waiting in self._waiting.values():
            self.app.pictures.release(waiting)
        self.panel.release()
        self.app.session.drop("where")
        if self._grid is not None and self.model.index < len(self._grid.ids_shown):
            self._grid.keyboard.go_to(self.model.index)
        super().close()

    def _arrange(self) -> None:
        if self.shell is None:
            return
        self.side_by_side = self.width >= dp(720)
        panel = self.panel
        if self.panel_open and panel.parent is None:
            self.add_widget(panel)
        elif not self.panel_open and panel.parent is not None:
            self.remove_widget(panel)
        panel.side_by_side = self.side_by_side
        panel.size_hint = None, None
        if self.side_by_side:
            panel.size = dp(PANEL), self.height
            panel.pos = self.right - panel.width, self.y
            room = self.width - (panel.width if self.panel_open else 0)
            self.frame.pos, self.frame.size = self.pos, (room, self.height)
        else:
            panel.size = self.width, self.height * 0.56
            panel.pos = self.pos
            lower = panel.height - dp(20) if self.panel_open else 0
            self.frame.pos, self.frame.size = (self.x, self.y + lower), (self.width, self.height - lower)
        self.view.pos, self.view.size = self.frame.pos, self.frame.size
        self.legend.longest = self.frame.width - dp(110)

    # what the model reports

    def _changed(self, part: Part) -> None:
        model = self.model
        if part == "photo":
            self._photo_changed()
        elif part == "where":
            self.view.show_where(model.where)
            self.legend_text = model.where_line
        elif part == "trouble" and model.trouble:
            layers.show_message(self.app.shell, model.trouble)
        self.panel.show(model, part)

    def _photo_changed(self) -> None:
        model = self.model
        self.view.rest()
        self.view.show_where(None)
        self.legend_text = ""
        self.position = t("photo.of", i=number(model.index + 1), n=number(len(model.ids)))
        neighbors = {0: model.photo, 1: model.neighbor(1), -1: model.neighbor(-1)}
        self.has_previous, self.has_next = neighbors[-1] is not None, neighbors[1] is not None
        for waiting in self._waiting.values():
            self.app.pictures.release(waiting)
        self._waiting = {}
        wanted = {photo.key for photo in neighbors.values() if photo}
        for key in [key for key in self._tickets if key not in wanted]:
            self._tickets.pop(key).cancel()
        # The current photo comes last, because the pool serves the newest request first.
        for slot in (-1, 1, 0):
            self._put(slot, neighbors[slot])

    def _put(self, slot: int, photo: Photo | None) -> None:
        if photo is None:
            self.view.forget(slot)
            return
        size = (photo.width, photo.height)
        kept = self._views.get(photo.key)
        if kept is not None:
            self.view.put(slot, kept, size)
            return
        self.view.put(slot, None, size)
        waiting = self._waiting[slot] = ThumbnailTarget(self, slot, photo)
        self.app.pictures.want(waiting, photo.key, photo.path)
        if photo.key not in self._tickets:
            self._tickets[photo.key] = self.app.session.pool.view(
                photo.path, self._longest(), lambda result: self.app.deliver(lambda: self._view_arrived(photo, result))
            )

    def _longest(self) -> int:
        return int(min(4096, max(1280, 1.5 * max(Window.size))))

    def thumbnail_arrived(self, waiting: ThumbnailTarget, texture: Any) -> None:
        """Show a small picture until the large one is there."""
        if texture is not None and self._waiting.get(waiting.slot) is waiting:
            photo = waiting.photo
            self.view.put(waiting.slot, texture, (photo.width, photo.height) if photo.width else texture.size)

    def _view_arrived(self, photo: Photo, result: Picture | PhotoError | None) -> None:
        if self._tickets.pop(photo.key, None) is None or self.shell is None:
            return
        slot = next((slot for slot in (0, -1, 1) if self._photo_at(slot) == photo.key), None)
        if isinstance(result, PhotoError):
            if slot == 0:
                layers.show_message(self.app.shell, t("photo.unreadable", reason=result.reason))
            return
        if result is None or slot is None:
            return
        texture = picture_texture(result)
        self._views.put(photo.key, texture)
        self._waiting.pop(slot, None)
        self.view.put(slot, texture, (result.width, result.height))

    def _photo_at(self, slot: int) -> str:
        photo = self.model.photo if slot == 0 else self.model.neighbor(slot)
        return photo.key if photo else ""

    # what the user does

    def turn(self, by: int) -> None:
        """Slide to the previous (−1) or next (1) photo."""
        self.view.turn(by)

    def _turned(self, by: int) -> bool:
        return self.model.step(by)

    def _tapped(self) -> None:
        """A tap on the photo hides the toolbar, or shows it again."""
        hidden = self.tools.opacity < 0.5
        Animation(opacity=1.0 if hidden else 0.0, duration=0.15).start(self.tools)

    def toggle_panel(self) -> None:
        """Show or hide labels and details."""
        self.panel_open = not self.panel_open
        self._arrange()

    def ask_where(self) -> None:
        """Let the user type what to find, or hide the heat map."""
        if self.model.where is not None or not self.can_localize:
            self.model.find("")
            return
        if not self.panel_open:
            self.toggle_panel()
        self.panel.focus_where()

    def more_like(self) -> None:
        """Search for photos like this one."""
        if self.model.photo is not None:
            self.app.more_like(self.model.photo.id)

    def _finding(self) -> None:
        """Close the panel on a small screen, so that the heat map is visible."""
        if not self.side_by_side and self.panel_open:
            self.toggle_panel()

    def _open_similar(self, ids: NDArray[np.int64], index: int) -> None:
        self.close()
        self.app.open_photo(ids, index)

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        command = bool({"ctrl", "meta"} & modifiers)
        if key == "escape":
            if self.model.where is not None:
                self.model.find("")
            else:
                self.close()
        elif key in ("left", "right"):
            self.turn(-1 if key == "left" else 1)
        elif key == "c" and command and self.model.photo:
            self.app.actions.copy_paths([self.model.photo.id])
        elif key == "i":
            self.toggle_panel()
        elif key == "w":
            self.ask_where()
        elif key in ("+", "=", "-"):
            self.view.zoom_about(self.view.center, self.view.zoom * (1 / 1.3 if key == "-" else 1.3))
        return True


load_layout(__file__)
