"""Drives the gallery in a real window: frames, touches, keys and screenshots. Import it before Kivy."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# Mesa's renderer exports its LLVM to the whole process. Triton, which torch loads at some point, brings another one and
# crashes if it is loaded second. Tests of both run in one process.
with suppress(ImportError):
    import triton  # noqa: F401

os.environ.setdefault("SDL_VIDEODRIVER", "offscreen")
for _name in ("KIVY_NO_ARGS", "KIVY_NO_FILELOG", "KIVY_NO_CONFIG"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("KIVY_LOG_MODE", "PYTHON")
os.environ.setdefault("KIVY_HOME", tempfile.mkdtemp(prefix="pocketclip-kivy-"))

from app.ui.launch import configure, make_app  # noqa: E402

# Without a screen, a window can't become larger than it was at first.
configure(2400, 1600)

from kivy.app import App  # noqa: E402
from kivy.base import EventLoop  # noqa: E402
from kivy.core.window import Window  # noqa: E402
from kivy.graphics.opengl import GL_RGB, GL_UNSIGNED_BYTE, glFinish, glReadPixels  # noqa: E402
from kivy.tests.common import UnitTestTouch  # noqa: E402
from kivy.uix.widget import Widget  # noqa: E402
from PIL import Image  # noqa: E402

from mobileclip.home import Folders  # noqa: E402

# Both must be exceeded before a wait fails: a busy machine draws few frames per second, and other threads are slow too.
PATIENCE, LEAST_FRAMES = 60.0, 1500


class Driver:
    """One open gallery.

    Attributes:
        each_drawn: wait for each frame, as a display does. Without it Mesa defers dozens of frames and keeps all that
            they use, which is faster but distorts a test of memory.
    """

    each_drawn = False

    def __init__(self, home: Path, load_model: Callable[[], Any], size: tuple[int, int] = (480, 800), **options: Any):
        self.folders = Folders(home, home / "cache", home / "config")
        EventLoop.ensure_window()
        self.app = make_app(self.folders, load_model, **options)
        App._running_app = self.app
        self.resize(*size)
        self.shell = self.app.root = self.app.build()
        Window.add_widget(self.shell)
        self._closed = False
        EventLoop.status = "started"
        self.frames(3)

    def close(self) -> None:
        """Close the gallery, as closing its window does."""
        if not self._closed:
            self._closed = True
            self.app.on_stop()
            Window.remove_widget(self.shell)
            App._running_app = None
            self.frames(1)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size, as turning a phone does."""
        Window.size = width, height
        for _ in range(3):
            self._frame()

    def _frame(self) -> None:
        EventLoop.idle()
        if self.each_drawn:
            glFinish()

    def frames(self, count: int = 2) -> None:
        """Let some frames pass."""
        for _ in range(count):
            self._frame()

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Let frames pass until something holds."""
        end, frames = time.monotonic() + PATIENCE, 0
        while not (held := condition()):
            assert time.monotonic() < end or frames < LEAST_FRAMES, f"timed out waiting for {what or condition}"
            self._frame()
            frames += 1
        return held

    def rest(self, seconds: float = 0.4) -> None:
        """Let time pass for animations, and a few frames even on a busy machine."""
        end, frames = time.monotonic() + seconds, 2 + int(8 * seconds)
        while time.monotonic() < end or frames > 0:
            self._frame()
            frames -= 1

    # what a user does

    def tap(self, target: Widget | tuple[float, float]) -> None:
        """Tap something."""
        self.press(target, 0.0)

    def press(self, target: Widget | tuple[float, float], seconds: float) -> None:
        """Touch something for some seconds."""
        x, y = target if isinstance(target, tuple) else target.to_window(*target.center)
        touch = UnitTestTouch(x, y)
        touch.touch_down()
        # A scroll view passes a touch on only after it has waited for a scroll.
        self.rest(max(seconds, 0.1))
        touch.touch_up()
        self.rest(0.15)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        """Drag a finger across the window."""
        touch = UnitTestTouch(*start)
        touch.touch_down()
        for step in range(1, steps + 1):
            at = step / steps
            touch.touch_move(start[0] + (end[0] - start[0]) * at, start[1] + (end[1] - start[1]) * at)
            self.frames(1)
        touch.touch_up()
        self.rest(0.3)

    def key(self, name: str, *modifiers: str, text: str = "") -> None:
        """Press a key."""
        self.app.keys.press(name, set(modifiers), text)
        self.frames(3)

    def find(self, kind: type, where: Widget | None = None, **properties: Any) -> Any:
        """The first visible widget of a kind with these properties; None where there is none."""
        for widget in (where or self.shell).walk():
            if isinstance(widget, kind) and all(getattr(widget, k, None) == v for k, v in properties.items()):
                return widget
        return None

    # what a user sees

    def picture(self) -> Image.Image:
        """A screenshot of the window."""
        self.frames(2)
        Window.dispatch("on_draw")
        width, height = Window.system_size
        pixels = glReadPixels(0, 0, width, height, GL_RGB, GL_UNSIGNED_BYTE)
        return Image.frombytes("RGB", (width, height), pixels).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
