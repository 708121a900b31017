"""The widgets that all screens are made of; widgets.kv says how they look."""

from pathlib import Path
from typing import Any

from kivy.animation import Animation
from kivy.clock import Clock
from kivy.core.text import Label as CoreLabel
from kivy.lang import Builder
from kivy.metrics import dp
from kivy.properties import (
    BooleanProperty,
    ColorProperty,
    NumericProperty,
    ObjectProperty,
    OptionProperty,
    StringProperty,
)
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.label import Label
from kivy.uix.textinput import TextInput
from kivy.uix.widget import Widget

from app.ui.kit.textures import icon_texture


def load_layout(python_file: str) -> None:
    """Load the `.kv` of the same name as a `.py`, once."""
    path = str(Path(python_file).with_suffix(".kv"))
    if path not in Builder.files:
        Builder.load_file(path, encoding="utf-8")


class TouchThroughBehavior:
    """For widgets that appear and disappear by opacity: an invisible one lets touches through.

    Kivy's own widgets swallow touches when they are disabled, even if they are invisible.
    """

    opacity: float

    def on_touch_down(self, touch: Any) -> bool:
        return self.opacity > 0 and bool(super().on_touch_down(touch))  # type: ignore[misc]


class WrappedLabel(Label):
    """Text that wraps at its width, as tall as it needs to be."""


class Icon(Widget):
    """An icon."""

    icon = StringProperty("")
    color = ColorProperty("#000000")
    texture = ObjectProperty(None, allownone=True)
    side = NumericProperty(0)

    def on_icon(self, *_: Any) -> None:
        self.on_size()

    def on_size(self, *_: Any) -> None:
        self.side = int(min(self.size))
        self.texture = icon_texture(self.icon, self.side)


class IconButton(TouchThroughBehavior, ButtonBehavior, FloatLayout):
    """An icon that can be pressed; `description` says what it does."""

    icon = StringProperty("")
    description = StringProperty("")
    color = ColorProperty("#000000")
    back = ColorProperty((0, 0, 0, 0))


class TextButton(TouchThroughBehavior, ButtonBehavior, Widget):
    """A button with text, and an icon if it has one."""

    text = StringProperty("")
    icon = StringProperty("")
    kind = OptionProperty("tonal", options=("filled", "tonal", "plain", "danger"))
    strength = NumericProperty(1.0)
    ink = ColorProperty("#000000")
    back = ColorProperty("#ffffff")


class Chip(ButtonBehavior, Widget):
    """A small button that stands for a choice; `mark` is the icon at its end, such as a cross to remove it."""

    text = StringProperty("")
    icon = StringProperty("")
    mark = StringProperty("")
    on = BooleanProperty(False)
    ink = ColorProperty("#000000")
    back = ColorProperty("#ffffff")
    longest = NumericProperty(dp(220))
    needed = NumericProperty(0)

    def on_text(self, *_: Any) -> None:
        from app.ui.kit.theme import theme

        self.needed = CoreLabel(font_size=theme.label).get_extents(self.text)[0]


class Field(TextInput):
    """One line of text input. `focused` is the field with the cursor, so that shortcuts don't disturb typing."""

    focused: "Field | None" = None
    left_in_frame = -1
    icon = StringProperty("")
    icon_texture = ObjectProperty(None, allownone=True)
    icon_side = NumericProperty(0)
    room = NumericProperty(0)

    def on_icon(self, *_: Any) -> None:
        self.icon_side = int(dp(22))
        self.icon_texture = icon_texture(self.icon, self.icon_side)

    def on_focus(self, _: Any, focus: bool) -> None:
        if focus:
            Field.focused = self
        elif Field.focused is self:
            Field.focused = None
            Field.left_in_frame = Clock.frames

    @classmethod
    def typing(cls) -> bool:
        """Whether the current key was meant for a field, which Esc and Enter have left by the time we see them."""
        return cls.focused is not None or cls.left_in_frame == Clock.frames


class Toggle(ButtonBehavior, Widget):
    """On or off, with a knob that slides.

    Not Kivy's `Switch`, which takes a touch that moves by 5 pixels for a swipe: on a screen with a density of 3, a tap
    that moved by 2 dp changed nothing. Android lets a tap move by 8 dp.
    """

    active = BooleanProperty(False)
    travel = NumericProperty(0.0)

    def on_active(self, _: Any, active: bool) -> None:
        Animation.cancel_all(self, "travel")
        Animation(travel=float(active), duration=0.12, transition="out_quad").start(self)

    def on_release(self) -> None:
        self.active = not self.active


class Overlay(TouchThroughBehavior, FloatLayout):
    """Something that covers other widgets and can be hidden."""


class Notice(TouchThroughBehavior, BoxLayout):
    """What a screen shows when it has no photos: why, and what to do about it."""

    icon = StringProperty("photos")
    title = StringProperty("")
    text = StringProperty("")
    action = StringProperty("")

    def __init__(self, **kwargs: Any) -> None:
        self.register_event_type("on_accept")
        super().__init__(**kwargs)

    def show(self, icon: str = "photos", title: str = "", text: str = "", action: str = "") -> None:
        """Show a notice; without arguments, hide it."""
        self.icon, self.title, self.text, self.action = icon, title, text, action

    def on_accept(self) -> None:
        """The button was pressed."""


load_layout(__file__)
