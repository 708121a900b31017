"""One photo over everything, with its labels, where in it something is, its details and photos like it."""

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
from app.ui.screens.photo.model import PhotoModel
from app.ui.screens.photo.panel import PhotoPanel
from app.ui.screens.photo.verbs import PhotoVerbs
from mobileclip.errors import PhotoError
from mobileclip.lru import LruCache

if TYPE_CHECKING:
    from app.ui.grid.photo_grid import PhotoGrid

PANEL = 348.0
"""Width of the panel beside the photo, in dp."""

KEPT = 5
"""Photos of which the large picture stays: this one, its neighbors, and two more for going back."""


class Legend(TouchThroughBehavior, ButtonBehavior, Widget):
    """What the map on the photo shows; a tap takes it away."""

    text = StringProperty("")
    longest = NumericProperty(dp(250))
    needed = NumericProperty(0)

    def on_text(self, *_: Any) -> None:
        self.needed = CoreLabel(font_size=theme.label).get_extents(self.text)[0]


class Toolbar(TouchThroughBehavior, BoxLayout):
    """What can be done with the photo, at its upper edge."""


class ThumbnailTarget:
    """Takes a thumbnail for a place in the view until the large picture is there."""

    def __init__(self, layer: "PhotoLayer", place: int, photo: Photo) -> None:
        self.layer, self.place, self.photo = layer, place, photo

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """The thumbnail has come."""
        self.layer.thumbnail_came(self, texture)


class PhotoLayer(layers.Layer):
    """The open photo."""

    frame = ObjectProperty(None)
    tools = ObjectProperty(None)
    legend = ObjectProperty(None)
    position = StringProperty("")
    legend_text = StringProperty("")
    beside = BooleanProperty(False)
    before = BooleanProperty(False)
    behind = BooleanProperty(False)
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
        tile = self._grid.tile_of(self.model.index) if self._grid is not None else None
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
            self._grid.cursor = self.model.index
            self._grid.bring(self.model.index)
        super().close()

    def _arrange(self) -> None:
        if self.shell is None:
            return
        self.beside = self.width >= dp(720)
        panel = self.panel
        if self.panel_open and panel.parent is None:
            self.add_widget(panel)
        elif not self.panel_open and panel.parent is not None:
            self.remove_widget(panel)
        panel.beside = self.beside
        panel.size_hint = None, None
        if self.beside:
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

    # what the model says

    def _changed(self, what: str) -> None:
        model = self.model
        if what == "photo":
            self._photo_changed()
        elif what == "where":
            self.view.show_where(model.where)
            self.legend_text = model.where_line
        elif what == "trouble" and model.trouble:
            layers.show_message(self.app.shell, model.trouble)
        self.panel.show(model, what)

    def _photo_changed(self) -> None:
        model = self.model
        self.view.rest()
        self.view.show_where(None)
        self.legend_text = ""
        self.position = t("photo.of", i=number(model.index + 1), n=number(len(model.ids)))
        neighbors = {0: model.photo, 1: model.neighbor(1), -1: model.neighbor(-1)}
        self.before, self.behind = neighbors[-1] is not None, neighbors[1] is not None
        for waiting in self._waiting.values():
            self.app.pictures.release(waiting)
        self._waiting = {}
        wanted = {photo.key for photo in neighbors.values() if photo}
        for key in [key for key in self._tickets if key not in wanted]:
            self._tickets.pop(key).cancel()
        # The one that is seen is asked for last, because the pool serves the newest first.
        for place in (-1, 1, 0):
            self._put(place, neighbors[place])

    def _put(self, place: int, photo: Photo | None) -> None:
        if photo is None:
            self.view.forget(place)
            return
        size = (photo.width, photo.height)
        kept = self._views.get(photo.key)
        if kept is not None:
            self.view.put(place, kept, size)
            return
        self.view.put(place, None, size)
        waiting = self._waiting[place] = ThumbnailTarget(self, place, photo)
        self.app.pictures.want(waiting, photo.key, photo.path)
        if photo.key not in self._tickets:
            self._tickets[photo.key] = self.app.session.pool.view(
                photo.path, self._longest(), lambda result: self.app.deliver(lambda: self._view_came(photo, result))
            )

    def _longest(self) -> int:
        return int(min(4096, max(1280, 1.5 * max(Window.size))))

    def thumbnail_came(self, waiting: ThumbnailTarget, texture: Any) -> None:
        """Show a small picture where the large one is still to come."""
        if texture is not None and self._waiting.get(waiting.place) is waiting:
            photo = waiting.photo
            self.view.put(waiting.place, texture, (photo.width, photo.height) if photo.width else texture.size)

    def _view_came(self, photo: Photo, result: Picture | PhotoError | None) -> None:
        if self._tickets.pop(photo.key, None) is None or self.shell is None:
            return
        place = next((place for place in (0, -1, 1) if self._photo_at(place) == photo.key), None)
        if isinstance(result, PhotoError):
            if place == 0:
                layers.show_message(self.app.shell, t("photo.unreadable", reason=result.reason))
            return
        if result is None or place is None:
            return
        texture = picture_texture(result)
        self._views.put(photo.key, texture)
        self._waiting.pop(place, None)
        self.view.put(place, texture, (result.width, result.height))

    def _photo_at(self, place: int) -> str:
        photo = self.model.photo if place == 0 else self.model.neighbor(place)
        return photo.key if photo else ""

    # what the person does

    def turn(self, by: int) -> None:
        """Slide to a neighbor."""
        self.view.turn(by)

    def _turned(self, by: int) -> bool:
        return self.model.step(by)

    def _tapped(self) -> None:
        """A tap on the photo clears everything off it, or brings it back."""
        hidden = self.tools.opacity < 0.5
        Animation(opacity=1.0 if hidden else 0.0, duration=0.15).start(self.tools)

    def toggle_panel(self) -> None:
        """Show or hide labels and details."""
        self.panel_open = not self.panel_open
        self._arrange()

    def ask_where(self) -> None:
        """Let the person type what to find, or take the map away."""
        if self.model.where is not None or not self.can_localize:
            self.model.find("")
            return
        if not self.panel_open:
            self.toggle_panel()
        self.panel.focus_where()

    def more_like(self) -> None:
        """Search by this photo."""
        if self.model.photo is not None:
            self.app.more_like(self.model.photo.id)

    def _finding(self) -> None:
        """Uncover the photo on a small screen, so that the map can be seen."""
        if not self.beside and self.panel_open:
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
