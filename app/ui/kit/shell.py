"""The frame around the screens: navigation at the edge, layers above it for one photo, dialogs and messages."""

from collections.abc import Callable
from typing import Any

from kivy.animation import Animation
from kivy.clock import Clock
from kivy.core.window import Window
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
"""Width of the window, in dp, from which the navigation stands at the left instead of the bottom."""


PLACES = ("photos", "search", "albums", "review", "settings")
"""Where the navigation leads."""


class NavItem(ButtonBehavior, Widget):
    """One place to go."""

    icon = StringProperty("photos")
    text = StringProperty("")
    on = BooleanProperty(False)
    pill_y = NumericProperty(0)

    def on_size(self, *_: Any) -> None:
        self.pill_y = self.center_y - dp(5)

    on_pos = on_size


class Nav(BoxLayout):
    """All places to go."""

    wide = BooleanProperty(False)

    def __init__(self, go: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.items = {}
        for name in PLACES:
            item = NavItem(icon=name, text=t(f"nav.{name}"))
            item.bind(on_release=lambda _, name=name: go(name))
            self.items[name] = item
            self.add_widget(item)
        self.room = Widget()
        self.bind(wide=self._turn)
        self._turn()

    def _turn(self, *_: Any) -> None:
        self.orientation = "vertical" if self.wide else "horizontal"
        self.size_hint = (None, 1) if self.wide else (1, None)
        self.width, self.height = dp(88), dp(68)
        self.padding = (0, dp(12)) if self.wide else (0, 0)
        for item in self.items.values():
            item.size_hint = (1, None) if self.wide else (1, 1)
            item.height = dp(72)
        self.remove_widget(self.room)
        if self.wide:
            self.add_widget(self.room)

    def mark(self, name: str) -> None:
        """Show which place is open."""
        for key, item in self.items.items():
            item.on = key == name


class Place(Screen):
    """A screen that the navigation leads to."""

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        """A key was pressed; whether it meant something here."""
        return False

    def on_back(self) -> bool:
        """Back was pressed; whether there was something to go back from."""
        return False


class Stage(FloatLayout):
    """Everything in the window: the screens with their navigation, and layers above."""

    def __init__(self, go: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.screens = ScreenManager(transition=FadeTransition(duration=0.12, clearcolor=(0, 0, 0, 0)))
        self.nav = Nav(go)
        self.frame = BoxLayout()
        self.layers: list[Widget] = []
        self.bare = False
        self.add_widget(self.frame)
        self.bind(size=lambda *_: self._arrange())
        self._arrange()

    @property
    def wide(self) -> bool:
        """Whether there is room for things beside each other."""
        return bool(self.width >= dp(WIDE_FROM))

    def _arrange(self) -> None:
        wide = self.wide
        self.nav.wide = wide
        self.frame.orientation = "horizontal" if wide else "vertical"
        wanted: list[Widget] = (
            [self.screens] if self.bare else [self.nav, self.screens] if wide else [self.screens, self.nav]
        )
        if list(reversed(self.frame.children)) != wanted:
            self.frame.clear_widgets()
            for widget in wanted:
                self.frame.add_widget(widget)

    def undress(self, bare: bool) -> None:
        """Show the screens without navigation, or with it again."""
        self.bare = bare
        self._arrange()

    @property
    def place(self) -> Place | None:
        """The screen that is open."""
        screen: Place | None = self.screens.current_screen
        return screen

    def lay(self, layer: Widget) -> None:
        """Put a layer above everything."""
        self.layers.append(layer)
        self.add_widget(layer)

    def lift(self, layer: Widget) -> None:
        """Take a layer away again."""
        if layer in self.layers:
            self.layers.remove(layer)
            self.remove_widget(layer)

    @property
    def uppermost(self) -> Widget | None:
        """The highest layer, if any."""
        return self.layers[-1] if self.layers else None


class Changed:
    """What is shown in places, to leave alone what has not changed: a widget made anew would lose a finger on it."""

    def __init__(self) -> None:
        self._shown: dict[str, object] = {}

    def __call__(self, place: str, value: object) -> bool:
        """Whether something else is to be shown in a place than before; it counts as shown from now on."""
        if place in self._shown and self._shown[place] == value:
            return False
        self._shown[place] = value
        return True


def later(call: Callable[[], None], seconds: float) -> Callable[[], None]:
    """Run something after some seconds in this thread; what it gives back cancels it."""
    event = Clock.schedule_once(lambda _: call(), seconds)
    return lambda: event.cancel()


def fade_in(widget: Widget, seconds: float = 0.14) -> None:
    """Let a widget appear."""
    widget.opacity = 0
    Animation(opacity=1, duration=seconds, transition="out_quad").start(widget)


def is_touch_inside(widget: Widget, touch: Any) -> bool:
    """Whether a touch in the window's coordinates lies on a widget."""
    return bool(widget.collide_point(*widget.to_widget(*touch.pos)))


def window_size() -> tuple[float, float]:
    """Size of the window in pixels."""
    return float(Window.width), float(Window.height)


load_layout(__file__)
