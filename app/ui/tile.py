"""One photo in a grid. Tiles are recycled: whatever one shows follows from `set`, nothing stays from before."""

from collections.abc import Callable
from typing import Any

from kivy.clock import Clock
from kivy.graphics import Color, Line, Rectangle, SmoothRoundedRectangle
from kivy.metrics import dp
from kivy.uix.widget import Widget
from kivy.vector import Vector

from app.library.gallery import Photo
from app.ui.pictures import Pictures
from app.ui.textures import filling
from app.ui.theme import theme
from app.ui.widgets import icon_texture

LONG_PRESS = 0.45
"""Seconds after which a touch means to select."""


class Tile(Widget):
    """A square photo that can be tapped, pressed long, chosen and stood on with the keyboard."""

    def __init__(
        self, pictures: Pictures[Any], tapped: Callable[["Tile"], None], held: Callable[["Tile"], None]
    ) -> None:
        super().__init__(size_hint=(None, None))
        self.index = -1
        self.photo: Photo | None = None
        self.key = ""
        self.reason = ""
        self.chosen = self.choosing = self.stood_on = False
        self._pictures, self._tapped, self._held = pictures, tapped, held
        self._texture: Any = None
        self._hold: Any = None
        self._build()
        self.bind(pos=self._draw, size=self._draw)
        theme.bind(dark=self._draw)

    @property
    def texture(self) -> Any:
        """The picture that is shown; None while it is still to come."""
        return self._texture

    def set(self, index: int, photo: Photo | None, chosen: bool, choosing: bool, stood_on: bool) -> None:
        """Show another photo, or the same in another state."""
        self.index, self.photo = index, photo
        self.chosen, self.choosing, self.stood_on = chosen, choosing, stood_on
        key = photo.key if photo else ""
        if key != self.key:
            self.key, self.reason, self._texture = key, "", None
            if photo:
                self._pictures.want(self, key, photo.path)
            else:
                self._pictures.release(self)
        self._draw()

    def clear(self) -> None:
        """Show nothing and want nothing."""
        self.set(-1, None, False, False, False)

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """Take a picture that was wanted, unless the tile shows another photo by now."""
        if key == self.key:
            self._texture, self.reason = texture, reason
            self._draw()

    def _build(self) -> None:
        with self.canvas:
            self._ground_colour = Color()
            self._ground = Rectangle()
            self._picture_colour = Color(1, 1, 1, 0)
            self._picture = Rectangle()
            self._broken_colour = Color(0, 0, 0, 0)
            self._broken = Rectangle()
            self._mark_colour = Color(0, 0, 0, 0)
            # A round one: Kivy 2.3.1 leaks whenever a SmoothEllipse moves.
            self._mark = SmoothRoundedRectangle()
            self._check_colour = Color(0, 0, 0, 0)
            self._check = Rectangle()
            self._ring_colour = Color(0, 0, 0, 0)
            self._ring = Line(width=dp(1.5), joint="miter")

    def _draw(self, *_: Any) -> None:
        inset = dp(9) if self.chosen else 0
        x, y, width, height = self.x + inset, self.y + inset, self.width - 2 * inset, self.height - 2 * inset
        self._ground_colour.rgba = theme.wash if self.chosen else theme.tile
        self._ground.pos, self._ground.size = self.pos, self.size
        self._picture_colour.a = 1 if self._texture else 0
        if self._texture:
            self._picture.texture = self._texture
            self._picture.tex_coords = filling(self._texture.width, self._texture.height, width / max(height, 1))
        self._picture.pos, self._picture.size = (x, y), (width, height)
        self._draw_broken()
        self._draw_mark()
        self._ring_colour.rgba = theme.accent if self.stood_on else (0, 0, 0, 0)
        edge = dp(1.5)
        self._ring.rectangle = (self.x + edge, self.y + edge, self.width - 2 * edge, self.height - 2 * edge)

    def _draw_broken(self) -> None:
        side = int(dp(24))
        self._broken_colour.rgba = theme.soft if self.reason else (0, 0, 0, 0)
        if self.reason:
            self._broken.texture = icon_texture("warning", side)
        self._broken.pos = round(self.center_x - side / 2), round(self.center_y - side / 2)
        self._broken.size = side, side

    def _draw_mark(self) -> None:
        side = int(dp(22))
        left, top = self.x + dp(5), self.top - dp(5) - side
        if self.chosen:
            self._mark_colour.rgba = theme.accent
            self._check_colour.rgba = theme.accent_ink
            self._check.texture = icon_texture("check", int(dp(16)))
            self._check.size = (int(dp(16)),) * 2
            self._check.pos = left + (side - int(dp(16))) / 2, top + (side - int(dp(16))) / 2
        elif self.choosing:
            self._mark_colour.rgba = (0, 0, 0, 0.22)
            self._check_colour.rgba = (1, 1, 1, 0.9)
            self._check.texture = icon_texture("circle", int(dp(28)))
            self._check.size = (int(dp(28)),) * 2
            self._check.pos = left - dp(3), top - dp(3)
        else:
            self._mark_colour.rgba = self._check_colour.rgba = (0, 0, 0, 0)
        self._mark.pos, self._mark.size, self._mark.radius = (left, top), (side, side), [side / 2]

    def on_touch_down(self, touch: Any) -> bool:
        if touch.is_mouse_scrolling or not self.photo or not self.collide_point(*touch.pos):
            return False
        touch.grab(self)
        touch.ud["tile"] = touch.pos
        self._hold = Clock.schedule_once(lambda _: self._long(touch), LONG_PRESS)
        return True

    def on_touch_move(self, touch: Any) -> bool:
        if touch.grab_current is self and Vector(touch.pos).distance(touch.ud["tile"]) > dp(12):
            self._let_go(touch)
        return touch.grab_current is self

    def on_touch_up(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return False
        held = touch.ud.get("held", False)
        self._let_go(touch)
        if not held and self.collide_point(*touch.pos):
            self._tapped(self)
        return True

    def _let_go(self, touch: Any) -> None:
        touch.ungrab(self)
        if self._hold:
            self._hold.cancel()

    def _long(self, touch: Any) -> None:
        touch.ud["held"] = True
        self._held(self)
