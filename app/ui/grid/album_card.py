"""The cover of an album, with its label and count."""

from collections.abc import Callable
from typing import Any

from kivy.graphics import Color, Rectangle
from kivy.metrics import dp
from kivy.properties import StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.widget import Widget

from app.library.gallery import Album
from app.ui.grid.pictures import Pictures
from app.ui.kit.strings import n
from app.ui.kit.textures import corner_texture, filling
from app.ui.kit.theme import theme
from app.ui.kit.widgets import load_layout

CAPTION = 44.0
"""Height of the label and count below a cover, in dp."""


class AlbumCard(ButtonBehavior, Widget):
    """A cover with its label and count; `chosen` is called when it is pressed."""

    title = StringProperty("")
    note = StringProperty("")

    def __init__(self, pictures: Pictures[Any], chosen: Callable[[Album], None], **kwargs: Any) -> None:
        self._pictures, self._chosen = pictures, chosen
        self.album: Album | None = None
        self.key = ""
        self._texture: Any = None
        super().__init__(**kwargs)
        with self.canvas:
            self._ground_color = Color()
            self._ground = Rectangle()
            self._picture_color = Color(1, 1, 1, 0)
            self._picture = Rectangle()
            self._shade = Color(0, 0, 0, 0)
            self._shaded = Rectangle()
            self._corner_color = Color()
            self._corners = [Rectangle() for _ in range(4)]
        self.bind(pos=self._draw, size=self._draw, state=self._draw)
        theme.bind(dark=self._draw)

    def set(self, album: Album) -> None:
        """Show an album."""
        self.album = album
        self.title, self.note = album.label, n("photos", album.count)
        if album.cover.key != self.key:
            self.key, self._texture = album.cover.key, None
            self._pictures.want(self, self.key, album.cover.path)
        self._draw()

    def clear(self) -> None:
        """Show nothing, and cancel the wanted cover."""
        self.key, self._texture, self.album = "", None, None
        self._pictures.release(self)

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """Take the cover, unless the card shows another album by now."""
        if key == self.key:
            self._texture = texture
            self._draw()

    def _draw(self, *_: Any) -> None:
        side, bottom = self.width, self.top - self.width
        for rectangle in (self._ground, self._picture, self._shaded):
            rectangle.pos, rectangle.size = (self.x, bottom), (side, side)
        self._ground_color.rgba = theme.tile
        self._picture_color.a = 1 if self._texture else 0
        if self._texture:
            self._picture.texture = self._texture
            self._picture.tex_coords = filling(self._texture.width, self._texture.height, 1.0)
        self._shade.a = 0.18 if self.state == "down" else 0
        # Corners are painted over the photo in the color of the ground: smoother than clipping, and cheaper.
        self._corner_color.rgba = theme.ground
        radius = int(dp(12))
        for corner, rectangle in enumerate(self._corners):
            right, lower = corner % 2, corner // 2
            rectangle.texture = corner_texture(radius)
            u0, u1 = (1, 0) if right else (0, 1)
            v0, v1 = (1, 0) if lower else (0, 1)
            rectangle.tex_coords = (u0, v0, u1, v0, u1, v1, u0, v1)
            rectangle.size = radius, radius
            rectangle.pos = (self.right - radius if right else self.x, bottom if lower else self.top - radius)

    def on_release(self) -> None:
        if self.album is not None:
            self._chosen(self.album)


load_layout(__file__)
