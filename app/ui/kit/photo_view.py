"""A photo to swipe, zoom and pan, with a heat map of where something is."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from kivy.animation import Animation
from kivy.graphics import Color, Line, Rectangle
from kivy.graphics.texture import Texture
from kivy.metrics import dp
from kivy.properties import NumericProperty
from kivy.uix.widget import Widget
from numpy.typing import NDArray

from app.library.gallery import Where
from app.ui.kit.textures import WHOLE

MOST_ZOOM = 8.0
TURN_AT = 0.18
"""Share of the width that a swipe must cover to turn to the next photo."""


class Fingers:
    """The fingers on a widget, by touch."""

    def __init__(self) -> None:
        self.points: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self.points)

    @property
    def center(self) -> tuple[float, float]:
        """Mean position of the fingers."""
        points = self.points.values()
        return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)

    @property
    def spread(self) -> float:
        """Sum of the fingers' distances from their center in pixels, at least 1."""
        x, y = self.center
        return max(1.0, sum(math.hypot(point[0] - x, point[1] - y) for point in self.points.values()))


class PhotoView(Widget):
    """Three photos side by side, of which the middle one is visible.

    The slots are −1, 0 and 1: the previous photo, the current one, and the next.

    Args:
        turned: called with −1 or 1 after a swipe to the previous or next photo; returns whether there is one.
        tapped: called for a single tap.
        pulled: called when the photo is pulled down.
    """

    shift = NumericProperty(0.0)
    zoom = NumericProperty(1.0)
    pan_x = NumericProperty(0.0)
    pan_y = NumericProperty(0.0)
    arrival = NumericProperty(1.0)
    glow = NumericProperty(0.0)

    def __init__(
        self, turned: Callable[[int], bool], tapped: Callable[[], None], pulled: Callable[[], None], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._turned, self._tapped, self._pulled = turned, tapped, pulled
        self._sizes: dict[int, tuple[float, float]] = {}
        self._from: tuple[float, float, float, float] | None = None
        self._where: Where | None = None
        self._fingers = Fingers()
        self._start: dict[str, Any] = {}
        self._turning = 0
        self._rectangles = {}
        with self.canvas:
            for slot in (-1, 1, 0):
                color = Color(1, 1, 1, 0)
                self._rectangles[slot] = color, Rectangle()
            self._heat_color = Color(1, 1, 1, 0)
            self._heat = Rectangle()
            self._boxes: list[tuple[Color, Line]] = []
        redraw = self._draw
        self.bind(size=redraw, pos=redraw, shift=redraw, zoom=redraw, pan_x=redraw, pan_y=redraw)
        self.bind(arrival=redraw, glow=redraw)

    def put(self, slot: int, texture: Any, size: tuple[float, float]) -> None:
        """Show a picture in a slot; without a texture the slot stays empty.

        Args:
            slot: −1, 0 or 1.
            texture: the picture, row 0 at the top.
            size: width and height of the photo in pixels, for its shape.
        """
        color, rectangle = self._rectangles[slot]
        color.a = 1 if texture else 0
        if texture:
            rectangle.texture = texture
            rectangle.tex_coords = WHOLE
        self._sizes[slot] = size if size[0] and size[1] else (texture.size if texture else (1, 1))
        self._draw()

    def arrive_from(self, rectangle: tuple[float, float, float, float] | None) -> None:
        """Let the photo grow out of a rectangle of the window, such as the tile that was tapped."""
        self._from, self.arrival = rectangle, 0.0 if rectangle else 1.0
        if rectangle:
            Animation(arrival=1.0, duration=0.2, transition="out_cubic").start(self)

    def rest(self) -> None:
        """Show the whole photo again, at once."""
        Animation.cancel_all(self, "shift", "zoom", "pan_x", "pan_y")
        self.shift, self.zoom, self.pan_x, self.pan_y = 0.0, 1.0, 0.0, 0.0

    def show_where(self, where: Where | None) -> None:
        """Show a heat map over the photo, or remove it."""
        self._where = where
        for color, line in self._boxes:
            self.canvas.remove(color)
            self.canvas.remove(line)
        self._boxes = []
        Animation.cancel_all(self, "glow")
        self.glow = 0.0
        if where is not None:
            rgba = heat_rgba(where.heat)
            texture = Texture.create(size=(rgba.shape[1], rgba.shape[0]), colorfmt="rgba")
            texture.mag_filter = texture.min_filter = "linear"
            texture.wrap = "clamp_to_edge"
            texture.blit_buffer(rgba.tobytes(), colorfmt="rgba", bufferfmt="ubyte")
            self._heat.texture, self._heat.tex_coords = texture, WHOLE
            with self.canvas:
                self._boxes = [(Color(1, 1, 1, 0), Line(width=dp(1.4))) for _ in where.boxes]
            Animation(glow=1.0, duration=0.25).start(self)
        self._draw()

    # geometry

    def fit(self, slot: int = 0) -> tuple[float, float, float, float]:
        """Where the whole photo of a slot fits in the middle of the view: x, y, width, height."""
        width, height = self._sizes.get(slot, (1, 1))
        scale = min(self.width / width, self.height / height)
        width, height = width * scale, height * scale
        return self.center_x - width / 2, self.center_y - height / 2, width, height

    def frame(self) -> tuple[float, float, float, float]:
        """Where the current photo is now: x, y, width, height."""
        x, y, width, height = self.fit()
        if self.arrival < 1 and self._from:
            target, at = (x, y, width, height), self.arrival
            x, y, width, height = (a + (b - a) * at for a, b in zip(self._from, target, strict=True))
        center_x, center_y = x + width / 2 + self.pan_x, y + height / 2 + self.pan_y
        width, height = width * self.zoom, height * self.zoom
        return center_x - width / 2, center_y - height / 2, width, height

    def _draw(self, *_: Any) -> None:
        gap = dp(24)
        for slot in (-1, 1):
            x, y, width, height = self.fit(slot)
            rectangle = self._rectangles[slot][1]
            rectangle.pos, rectangle.size = (x + self.shift + slot * (self.width + gap), y), (width, height)
        x, y, width, height = self.frame()
        x += self.shift
        rectangle = self._rectangles[0][1]
        rectangle.pos, rectangle.size = (x, y), (width, height)
        self._heat_color.a = self.glow if self._where else 0
        self._heat.pos, self._heat.size = (x, y), (width, height)
        for (color, line), box in zip(self._boxes, self._where.boxes if self._where else (), strict=False):
            color.a = self.glow
            line.rounded_rectangle = (
                x + box.left * width,
                y + (1 - box.bottom) * height,
                max(1.0, (box.right - box.left) * width),
                max(1.0, (box.bottom - box.top) * height),
                dp(6),
            )

    def _keep_inside(self) -> None:
        _, _, width, height = self.fit()
        across = max(0.0, (width * self.zoom - self.width) / 2)
        down = max(0.0, (height * self.zoom - self.height) / 2)
        self.pan_x = min(across, max(-across, self.pan_x))
        self.pan_y = min(down, max(-down, self.pan_y))

    def zoom_about(self, point: tuple[float, float], zoom: float) -> None:
        """Zoom so that the same part of the photo stays under a point."""
        zoom = min(MOST_ZOOM, max(1.0, zoom))
        by = zoom / self.zoom
        dx, dy = point[0] - self.center_x, point[1] - self.center_y
        self.pan_x = dx - (dx - self.pan_x) * by
        self.pan_y = dy - (dy - self.pan_y) * by
        self.zoom = zoom
        self._keep_inside()

    # touch

    def on_touch_down(self, touch: Any) -> bool:
        if not self.collide_point(*touch.pos):
            return False
        if touch.is_mouse_scrolling:
            self._wheel(touch)
            return True
        touch.grab(self)
        self._fingers.points[touch.uid] = touch.pos
        Animation.cancel_all(self, "shift")
        if self._turning:
            self._arrived(self._turning)
        if touch.is_double_tap:
            self._double(touch.pos)
        self._begin()
        return True

    def _wheel(self, touch: Any) -> None:
        by = 1.2 if touch.button == "scrolldown" else 1 / 1.2
        if touch.button in ("scrolldown", "scrollup"):
            self.zoom_about(touch.pos, self.zoom * by)
        else:
            self._turned(1 if touch.button == "scrollleft" else -1)

    def _double(self, point: tuple[float, float]) -> None:
        if self.zoom > 1:
            Animation(zoom=1.0, pan_x=0.0, pan_y=0.0, duration=0.18, transition="out_cubic").start(self)
            return
        before = self.zoom, self.pan_x, self.pan_y
        self.zoom_about(point, 2.5)
        zoom, pan_x, pan_y = self.zoom, self.pan_x, self.pan_y
        self.zoom, self.pan_x, self.pan_y = before
        Animation(zoom=zoom, pan_x=pan_x, pan_y=pan_y, duration=0.18, transition="out_cubic").start(self)

    def _begin(self) -> None:
        """Note where the fingers are; again whenever a finger is added or lifted."""
        self._start = {
            "center": self._fingers.center,
            "spread": self._fingers.spread,
            "zoom": self.zoom,
            "pan": (self.pan_x, self.pan_y),
            "moved": self._start.get("moved", False) if len(self._fingers) > 1 else False,
            "pull": 0.0,
        }

    def on_touch_move(self, touch: Any) -> bool:
        if touch.grab_current is not self or touch.uid not in self._fingers.points:
            return False
        self._fingers.points[touch.uid] = touch.pos
        center = self._fingers.center
        dx, dy = center[0] - self._start["center"][0], center[1] - self._start["center"][1]
        if abs(dx) + abs(dy) > dp(8) or len(self._fingers) > 1:
            self._start["moved"] = True
        if len(self._fingers) > 1:
            self.zoom_about(center, self._start["zoom"] * self._fingers.spread / self._start["spread"])
        elif self.zoom > 1.01:
            self.pan_x, self.pan_y = self._start["pan"][0] + dx, self._start["pan"][1] + dy
            self._keep_inside()
        elif abs(dx) >= abs(dy):
            self.shift = dx
        else:
            self._start["pull"] = dy
        return True

    def on_touch_up(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return False
        touch.ungrab(self)
        self._fingers.points.pop(touch.uid, None)
        if len(self._fingers):
            self._begin()
            return True
        if abs(self.shift) > self.width * TURN_AT:
            self.turn(-1 if self.shift > 0 else 1)
        elif self.shift:
            Animation(shift=0.0, duration=0.15, transition="out_quad").start(self)
        elif self._start.get("pull", 0.0) < -dp(90):
            self._pulled()
        elif not self._start.get("moved") and not touch.is_double_tap:
            self._tapped()
        return True

    def turn(self, by: int) -> None:
        """Slide to the previous (−1) or next (1) photo, or back if there is none."""
        if by not in self._sizes:
            Animation(shift=0.0, duration=0.15, transition="out_quad").start(self)
            return
        self._turning = by
        slide = Animation(shift=-by * (self.width + dp(24)), duration=0.16, transition="out_cubic")
        slide.bind(on_complete=lambda *_: self._arrived(by))
        slide.start(self)

    def _arrived(self, by: int) -> None:
        self._turning = 0
        self.rest()
        if not self._turned(by):
            self._draw()

    def forget(self, slot: int) -> None:
        """Empty a slot."""
        self._sizes.pop(slot, None)
        self._rectangles[slot][0].a = 0


def heat_rgba(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colors to draw over a photo: it is dimmed where the text doesn't match, and glows where it does.

    Args:
        heat: (h, w), 0 … 1, row 0 at the top.

    Returns:
        uint8 (h, w, 4), not premultiplied.
    """
    strength = np.clip(heat, 0, 1)[..., None]
    ease = strength * strength * (3 - 2 * strength)
    cold, warm = np.array([8.0, 14.0, 22.0, 168.0]), np.array([255.0, 178.0, 46.0, 96.0])
    rgba: NDArray[np.uint8] = np.round(cold + (warm - cold) * ease).astype(np.uint8)
    return rgba
