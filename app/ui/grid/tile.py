"""One photo in a grid. Tiles are recycled: whatever one shows follows from `set`, nothing stays from before."""

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
        # What changes in one frame is drawn once.
        self._draw_soon = Clock.create_trigger(self._draw, -1)
        self._build()
        self.bind(pos=self._changed, size=self._changed)
        theme.bind(dark=self._changed)

    @property
    def texture(self) -> Any:
        """The picture that is shown; None while it is still to come."""
        return self._texture

    def set(self, index: int, photo: Photo | None, chosen: bool, choosing: bool, stood_on: bool) -> None:
        """Show another photo, or the same in another state."""
        self.index, self.photo = index, photo
        if (chosen, choosing, stood_on) != (self.chosen, self.choosing, self.stood_on):
            self.chosen, self.choosing, self.stood_on = chosen, choosing, stood_on
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
        self.set(-1, None, False, False, False)

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """Take a picture that was wanted, unless the tile shows another photo by now."""
        if key == self.key:
            self._texture, self.reason = texture, reason
            self._draw_soon()

    def _build(self) -> None:
        with self.canvas:
            self._ground_colour = Color()
            self._ground = Rectangle()
            self._picture_colour = Color(1, 1, 1, 0)
            self._picture = Rectangle()
        # Empty on nearly all tiles: shapes with an alpha of 0 would cost as much as those that are seen.
        self._over = InstructionGroup()
        self.canvas.add(self._over)

    def _changed(self, *_: Any) -> None:
        self._draw_soon()

    def _draw(self, *_: Any) -> None:
        inset = dp(9) if self.chosen else 0
        x, y, width, height = self.x + inset, self.y + inset, self.width - 2 * inset, self.height - 2 * inset
        covered = self._texture is not None and not inset
        self._ground_colour.rgba = theme.wash if self.chosen else theme.tile
        self._ground.pos, self._ground.size = self.pos, (0, 0) if covered else self.size
        self._picture_colour.a = 1 if self._texture else 0
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
        if self.stood_on:
            edge = dp(1.5)
            ring = (self.x + edge, self.y + edge, self.width - 2 * edge, self.height - 2 * edge)
            self._over.add(Color(*theme.accent))
            self._over.add(Line(rectangle=ring, width=edge, joint="miter"))

    def _draw_over(self, colour: Any, texture: Any, pos: tuple[float, float], side: int) -> None:
        self._over.add(Color(*colour))
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
