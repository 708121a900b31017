"""One photo in a grid. Tiles are reused: `set` decides all that a tile shows, and nothing stays from before."""

from collections.abc import Callable
from typing import Any

from kivy.clock import Clock
from kivy.graphics import Color, InstructionGroup, Line, Rectangle
from kivy.metrics import dp
from kivy.uix.widget import Widget
from kivy.vector import Vector

from app.library.gallery import Photo
from app.ui.grid.pictures import Pictures
from app.ui.kit.textures import disc_texture, filling, icon_texture
from app.ui.kit.theme import theme

LONG_PRESS = 0.45
"""Seconds after which a touch means to select."""


class Tile(Widget):
    """A square photo that can be tapped, pressed long and chosen.

    Args:
        pictures: where its picture comes from.
        tapped: called after a tap.
        pressed_long: called during a long press.

    Attributes:
        index: place in the list; -1 while it shows nothing.
        photo: the photo; None while it shows nothing.
        key: of the photo's picture, or "".
        reason: why there is no picture, or "".
        chosen: whether the photo is chosen.
        choosing: whether any photo is.
        at_cursor: whether the keyboard's cursor is drawn around it.
    """

    def __init__(
        self, pictures: Pictures[Any], tapped: Callable[["Tile"], None], pressed_long: Callable[["Tile"], None]
    ) -> None:
        super().__init__(size_hint=(None, None))
        self.index = -1
        self.photo: Photo | None = None
        self.key = ""
        self.reason = ""
        self.chosen = self.choosing = self.at_cursor = False
        self._pictures, self._tapped, self._pressed_long = pictures, tapped, pressed_long
        self._texture: Any = None
        self._hold: Any = None
        # What changes in one frame is drawn once.
        self._draw_soon = Clock.create_trigger(self._draw, -1)
        self._build()
        self.bind(pos=self._changed, size=self._changed)
        theme.bind(dark=self._changed)

    @property
    def texture(self) -> Any:
        """The picture; None until it arrives."""
        return self._texture

    def set(
        self,
        index: int,
        photo: Photo | None,
        *,
        chosen: bool = False,
        choosing: bool = False,
        at_cursor: bool = False,
    ) -> None:
        """Show another photo, or the same in another state."""
        self.index, self.photo = index, photo
        if (chosen, choosing, at_cursor) != (self.chosen, self.choosing, self.at_cursor):
            self.chosen, self.choosing, self.at_cursor = chosen, choosing, at_cursor
            self._draw_soon()
        key = photo.key if photo else ""
        if key != self.key:
            self.key, self.reason, self._texture = key, "", None
            self._draw_soon()
            if photo:
                self._pictures.want(self, key, photo.path)
            else:
                self._pictures.release(self)

    def clear(self) -> None:
        """Show nothing and want nothing."""
        self.set(-1, None)

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """Take a picture that was wanted, unless the tile shows another photo by now."""
        if key == self.key:
            self._texture, self.reason = texture, reason
            self._draw_soon()

    def _build(self) -> None:
        with self.canvas:
            self._ground_color = Color()
            self._ground = Rectangle()
            self._picture_color = Color(1, 1, 1, 0)
            self._picture = Rectangle()
        # Empty on nearly all tiles: shapes with an alpha of 0 would cost as much as visible ones.
        self._over = InstructionGroup()
        self.canvas.add(self._over)

    def _changed(self, *_: Any) -> None:
        self._draw_soon()

    def _draw(self, *_: Any) -> None:
        inset = dp(9) if self.chosen else 0
        x, y, width, height = self.x + inset, self.y + inset, self.width - 2 * inset, self.height - 2 * inset
        covered = self._texture is not None and not inset
        self._ground_color.rgba = theme.wash if self.chosen else theme.tile
        self._ground.pos, self._ground.size = self.pos, (0, 0) if covered else self.size
        self._picture_color.a = 1 if self._texture else 0
        self._picture.pos, self._picture.size = (x, y), (width, height) if self._texture else (0, 0)
        if self._texture:
            self._picture.texture = self._texture
            self._picture.tex_coords = filling(self._texture.width, self._texture.height, width / max(height, 1))
        self._over.clear()
        if self.reason:
            side = int(dp(24))
            middle = round(self.center_x - side / 2), round(self.center_y - side / 2)
            self._draw_over(theme.soft, icon_texture("warning", side), middle, side)
        if self.chosen or self.choosing:
            self._draw_mark()
        if self.at_cursor:
            edge = dp(1.5)
            ring = (self.x + edge, self.y + edge, self.width - 2 * edge, self.height - 2 * edge)
            self._over.add(Color(*theme.accent))
            self._over.add(Line(rectangle=ring, width=edge, joint="miter"))

    def _draw_over(self, color: Any, texture: Any, pos: tuple[float, float], side: int) -> None:
        self._over.add(Color(*color))
        self._over.add(Rectangle(texture=texture, pos=pos, size=(side, side)))

    def _draw_mark(self) -> None:
        side, check, circle = int(dp(22)), int(dp(16)), int(dp(28))
        left, lower = self.x + dp(5), self.top - dp(5) - side
        if self.chosen:
            self._draw_over(theme.accent, disc_texture(side), (left, lower), side)
            inside = (side - check) / 2
            self._draw_over(theme.accent_ink, icon_texture("check", check), (left + inside, lower + inside), check)
        else:
            self._draw_over((0, 0, 0, 0.22), disc_texture(side), (left, lower), side)
            self._draw_over((1, 1, 1, 0.9), icon_texture("circle", circle), (left - dp(3), lower - dp(3)), circle)

    def on_touch_down(self, touch: Any) -> bool:
        if touch.is_mouse_scrolling or not self.photo or not self.collide_point(*touch.pos):
            return False
        touch.grab(self)
        touch.ud["tile"] = touch.pos
        self._hold = Clock.schedule_once(lambda _: self._held(touch), LONG_PRESS)
        return True

    def on_touch_move(self, touch: Any) -> bool:
        if touch.grab_current is self and Vector(touch.pos).distance(touch.ud["tile"]) > dp(12):
            self._release(touch)
        return touch.grab_current is self

    def on_touch_up(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return False
        long = touch.ud.get("long", False)
        self._release(touch)
        if not long and self.collide_point(*touch.pos):
            self._tapped(self)
        return True

    def _release(self, touch: Any) -> None:
        touch.ungrab(self)
        if self._hold:
            self._hold.cancel()

    def _held(self, touch: Any) -> None:
        touch.ud["long"] = True
        self._pressed_long(self)
