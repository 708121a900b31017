"""Keyboard shortcuts: which key goes to a text field, a layer, the window or a screen."""

from collections.abc import Callable
from typing import Any

from kivy.core.window import Window

from app.ui.kit import layers
from app.ui.kit.shell import Shell
from app.ui.kit.widgets import Field


class Keys:
    """Sends each key to what it is meant for.

    Args:
        shell: the frame with all screens, and the layers above them.
        open_search: shows the search screen with the cursor in its field.
    """

    def __init__(self, shell: Shell, open_search: Callable[[], None]) -> None:
        self._shell, self._open_search = shell, open_search

    def on_keyboard(self, _: Any, code: int, scancode: int, text: str | None, modifiers: list[str]) -> bool:
        """Kivy's event."""
        return self.press(Window._system_keyboard.keycode_to_string(code), set(modifiers), text or "")

    def press(self, key: str, modifiers: set[str], text: str = "") -> bool:
        """Handle a key; whether it meant something.

        Args:
            key: Kivy's name of the key.
            modifiers: of "ctrl", "shift", "alt", "meta".
            text: the character it would type.
        """
        command = bool({"ctrl", "meta"} & modifiers)
        layer, screen = self._shell.top_layer, self._shell.screen
        typing = Field.typing()
        if typing and key == "escape":
            if Field.focused is not None:
                Field.focused.focus = False
            return True
        if typing and key not in ("down", "up") and not (command and key == "f"):
            return False
        if isinstance(layer, layers.Dialog):
            return bool(layer.on_key(key, modifiers)) or key == "escape"
        if self._shell.navigation_shown and self._press_anywhere(key, command, typing, text):
            return True
        if isinstance(layer, layers.Layer):
            return bool(layer.on_key(key, modifiers)) or key == "escape"
        if key == "escape":
            # Never closes the window: Kivy would, where nobody takes the key.
            return screen is None or screen.on_back() or True
        return bool(screen.on_key(key, modifiers)) if screen is not None else False

    def _press_anywhere(self, key: str, command: bool, typing: bool, text: str) -> bool:
        if not typing and (text == "?" or key == "f1"):
            layers.show_help(self._shell)
        elif (command and key == "f") or (not typing and text == "/"):
            self._open_search()
        elif not typing and key == "f" and not command:
            Window.fullscreen = False if Window.fullscreen else "auto"
        else:
            return False
        return True
