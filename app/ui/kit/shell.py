"""The frame around the screens: navigation at the edge, and layers on top for a photo, dialogs and messages."""

from collections.abc import Callable
from typing import Any

from kivy.animation import Animation
from kivy.clock import Clock
from kivy.metrics import dp
from kivy.properties import BooleanProperty, NumericProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.screenmanager import FadeTransition, Screen, ScreenManager
from kivy.uix.widget import Widget

from app.ui.kit.strings import t
from app.ui.kit.widgets import load_layout

WIDE_FROM = 720.0
"""Width of the window, in dp, from which the navigation is at the left instead of the bottom."""

MAIN_SCREENS = ("photos", "search", "albums", "review", "settings")
"""The screens that the navigation leads to."""


class NavItem(ButtonBehavior, Widget):
    """A button of the navigation."""

    icon = StringProperty("photos")
    text = StringProperty("")
    on = BooleanProperty(False)
    pill_y = NumericProperty(0)

    def on_size(self, *_: Any) -> None:
        self.pill_y = self.center_y - dp(5)

    on_pos = on_size


class Nav(BoxLayout):
    """The navigation: one button per main screen."""

    wide = BooleanProperty(False)

    def __init__(self, go: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.items = {}
        for name in MAIN_SCREENS:
            item = NavItem(icon=name, text=t(f"nav.{name}"))
            item.bind(on_release=lambda _, name=name: go(name))
            self.items[name] = item
            self.add_widget(item)
        self.spacer = Widget()
        self.bind(wide=self._arrange)
        self._arrange()

    def _arrange(self, *_: Any) -> None:
        self.orientation = "vertical" if self.wide else "horizontal"
        self.size_hint = (None, 1) if self.wide else (1, None)
        self.width, self.height = dp(88), dp(68)
        self.padding = (0, dp(12)) if self.wide else (0, 0)
        for item in self.items.values():
            item.size_hint = (1, None) if self.wide else (1, 1)
            item.height = dp(72)
        self.remove_widget(self.spacer)
        if self.wide:
            self.add_widget(self.spacer)

    def mark(self, name: str) -> None:
        """Show which screen is open."""
        for key, item in self.items.items():
            item.on = key == name


class AppScreen(Screen):
    """A screen of the gallery, which may take keys and the Back button."""

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        """A key was pressed; returns whether the screen used it."""
        return False

    def on_back(self) -> bool:
        """Back was pressed; returns whether there was something to go back from."""
        return False


class Shell(FloatLayout):
    """Everything in the window: the screens with their navigation, and the layers on top."""

    def __init__(self, go: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.screens = ScreenManager(transition=FadeTransition(duration=0.12, clearcolor=(0, 0, 0, 0)))
        self.nav = Nav(go)
        self.frame = BoxLayout()
        self.layers: list[Widget] = []
        self.navigation_shown = True
        self.add_widget(self.frame)
        self.bind(size=lambda *_: self._arrange())
        self._arrange()

    @property
    def wide(self) -> bool:
        """Whether there is room for things side by side."""
        return bool(self.width >= dp(WIDE_FROM))

    def _arrange(self) -> None:
        wide = self.wide
        self.nav.wide = wide
        self.frame.orientation = "horizontal" if wide else "vertical"
        wanted: list[Widget] = (
            [self.screens]
            if not self.navigation_shown
            else [self.nav, self.screens]
            if wide
            else [self.screens, self.nav]
        )
        if list(reversed(self.frame.children)) != wanted:
            self.frame.clear_widgets()
            for widget in wanted:
                self.frame.add_widget(widget)

    def show_navigation(self, shown: bool) -> None:
        """Show the screens with or without the navigation bar."""
        self.navigation_shown = shown
        self._arrange()

    @property
    def screen(self) -> AppScreen | None:
        """The screen that is open."""
        screen: AppScreen | None = self.screens.current_screen
        return screen

    def add_layer(self, layer: Widget) -> None:
        """Put a layer on top of everything."""
        self.layers.append(layer)
        self.add_widget(layer)

    def remove_layer(self, layer: Widget) -> None:
        """Remove a layer."""
        if layer in self.layers:
            self.layers.remove(layer)
            self.remove_widget(layer)

    @property
    def top_layer(self) -> Widget | None:
        """The topmost layer, or None."""
        return self.layers[-1] if self.layers else None


class ChangeTracker:
    """Remembers what each part of a screen shows, so that a part that hasn't changed keeps its widgets.

    A widget that is replaced while a finger is on it would lose the touch.
    """

    def __init__(self) -> None:
        self._shown: dict[str, object] = {}

    def __call__(self, part: str, value: object) -> bool:
        """Whether `value` differs from what the part shows; from now on it counts as shown."""
        if part in self._shown and self._shown[part] == value:
            return False
        self._shown[part] = value
        return True


def later(call: Callable[[], None], seconds: float) -> Callable[[], None]:
    """Run `call` in this thread after some seconds; calling what is returned cancels it."""
    event = Clock.schedule_once(lambda _: call(), seconds)
    return lambda: event.cancel()


def fade_in(widget: Widget, seconds: float = 0.14) -> None:
    """Fade a widget in."""
    widget.opacity = 0
    Animation(opacity=1, duration=seconds, transition="out_quad").start(widget)


load_layout(__file__)
