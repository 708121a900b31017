"""What appears on top of a screen: dialogs, lists to pick from, and messages."""

from collections.abc import Callable, Sequence
from typing import Any

from kivy.animation import Animation
from kivy.clock import Clock
from kivy.metrics import dp
from kivy.properties import ColorProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.recycleview.views import RecycleDataViewBehavior
from kivy.uix.widget import Widget

from app.ui.kit.shell import Shell, fade_in
from app.ui.kit.strings import t
from app.ui.kit.theme import DARK, LIGHT, theme
from app.ui.kit.widgets import Field, TextButton, WrappedLabel, load_layout

TOAST_SECONDS = 4.0


class Layer(FloatLayout):
    """Something on top of the screens, which keeps touches from what is below."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shell: Shell | None = None

    def open(self, shell: Shell) -> None:
        """Show the layer."""
        self.shell = shell
        shell.add_layer(self)
        fade_in(self)

    def close(self) -> None:
        """Remove the layer, and release the keyboard."""
        inside: Any = Field.focused
        while inside is not None and inside is not self and inside.parent is not inside:  # a window is its own parent
            inside = inside.parent
        if inside is self and Field.focused is not None:
            Field.focused.focus = False
        if self.shell is not None:
            self.shell.remove_layer(self)

    def focus_soon(self, field: Field) -> None:
        """Put the cursor into a field, shortly after the touch that opened the layer has ended."""
        Clock.schedule_once(lambda _: setattr(field, "focus", self.parent is not None), 0.1)

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        """Take every key; Esc closes the layer."""
        if key == "escape":
            self.close()
        return True

    def on_touch_down(self, touch: Any) -> bool:
        super().on_touch_down(touch)
        return True

    def on_touch_move(self, touch: Any) -> bool:
        super().on_touch_move(touch)
        return True

    def on_touch_up(self, touch: Any) -> bool:
        super().on_touch_up(touch)
        return True


class Dialog(Layer):
    """A card with a title, a body and buttons; a touch outside closes it."""

    title = StringProperty("")
    widest = NumericProperty(420)
    card = ObjectProperty(None)
    body = ObjectProperty(None)
    actions = ObjectProperty(None)

    def move_to_body(self, *names: str) -> None:
        """Move widgets into the body by their ids; a subclass's layout can only put them into the dialog itself."""
        for name in names:
            widget = self.ids[name].__self__
            self.remove_widget(widget)
            self.body.add_widget(widget)

    def add_action(
        self, text: str, call: Callable[[], None], kind: str = "plain", *, closes: bool = True
    ) -> TextButton:
        """Add a button to the right of the others."""
        button = TextButton(text=text, kind=kind)

        def pressed(_: Any) -> None:
            if closes:
                self.close()
            call()

        button.bind(on_release=pressed)
        self.actions.add_widget(button)
        return button

    def on_touch_down(self, touch: Any) -> bool:
        if not self.card.collide_point(*touch.pos) and not touch.is_mouse_scrolling:
            self.close()
            return True
        return super().on_touch_down(touch)


def confirm(shell: Shell, title: str, text: str, *actions: tuple[str, str, Callable[[], None]]) -> Dialog:
    """Ask before something that can't be undone; each action is a text, a kind of button, and what it does."""
    dialog = Dialog(title=title)
    dialog.body.add_widget(WrappedLabel(text=text, color=theme.soft))
    buttons = [(t("action.cancel"), "plain", lambda: None), *actions]
    # Three buttons side by side don't fit on a phone. In a column, the safe one comes last.
    stacked = len(actions) > 1 and shell.width < dp(480)
    if stacked:
        dialog.actions.clear_widgets()
        dialog.actions.orientation = "vertical"
    for label, kind, call in reversed(buttons) if stacked else buttons:
        button = dialog.add_action(label, call, kind)
        if stacked:
            button.size_hint_x = 1
    dialog.open(shell)
    return dialog


class PickRow(ButtonBehavior, RecycleDataViewBehavior, Widget):
    """A row of a list to pick from."""

    text = StringProperty("")
    note = StringProperty("")
    icon = StringProperty("")
    value = StringProperty("")
    pick = ObjectProperty(None, allownone=True)

    def on_release(self) -> None:
        if self.pick is not None:
            self.pick(self.value)


class PickDialog(Dialog):
    """A list that is filtered by typing; with `free`, a new text can be picked too.

    Args:
        picked: called with the value of the picked choice.
        choices: value, text and note of each.
        icon: of every row.
        free: offer what was typed as well.
    """

    hint = StringProperty("")
    parent_height = NumericProperty(dp(640))
    field = ObjectProperty(None)
    found = ObjectProperty(None)
    none = ObjectProperty(None)

    def __init__(
        self,
        picked: Callable[[str], None],
        choices: Sequence[tuple[str, str, str]],
        icon: str,
        free: bool = False,
        **kwargs: Any,
    ) -> None:
        self._picked, self._choices, self._icon, self._free = picked, choices, icon, free
        self._rows: list[dict[str, Any]] = []
        super().__init__(**kwargs)
        self.move_to_body("field", "found", "none")
        self.add_action(t("action.cancel"), lambda: None)
        self.filter("")

    def open(self, shell: Shell) -> None:
        self.parent_height = shell.height
        super().open(shell)
        self.focus_soon(self.field)

    def filter(self, text: str) -> None:
        """Show the choices that contain the text, those that begin with it first."""
        wanted = text.strip().casefold()
        shown = [choice for choice in self._choices if wanted in choice[1].casefold()]
        if wanted:
            shown.sort(key=lambda choice: not choice[1].casefold().startswith(wanted))
        rows = [self._row(value, label, note, self._icon) for value, label, note in shown]
        if self._free and wanted and all(choice[1].casefold() != wanted for choice in shown):
            rows.insert(0, self._row(text.strip(), text.strip(), "", "plus"))
        self._rows = rows
        self.found.data = rows
        self.found.scroll_y = 1
        self.none.text = "" if rows or (self._free and not wanted) else t("pick.nothing")
        self.none.opacity = 1 if self.none.text else 0

    def first(self) -> None:
        """Pick the first choice, as Enter does."""
        if self._rows and (self.field.text.strip() or not self._free):
            self._take(self._rows[0]["value"])

    def _row(self, value: str, text: str, note: str, icon: str) -> dict[str, Any]:
        return {"value": value, "text": text, "note": note, "icon": icon, "pick": self._take}

    def _take(self, value: str) -> None:
        self.close()
        self._picked(value)


class ToastAction(ButtonBehavior, Widget):
    """The button in a message."""

    text = StringProperty("")


class Toast(FloatLayout):
    """A message that disappears by itself, with a button if it has an action."""

    text = StringProperty("")
    action = StringProperty("")
    accent = ColorProperty(DARK.accent)

    def __init__(self, call: Callable[[], None] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._call = call
        self.accent = LIGHT.accent if theme.dark else DARK.accent

    def act(self) -> None:
        """The button was pressed."""
        self.dismiss()
        if self._call is not None:
            self._call()

    def dismiss(self) -> None:
        """Remove the message."""
        Animation.cancel_all(self)
        if self.parent is not None:
            self.parent.remove_widget(self)


def show_message(shell: Shell, text: str, action: str = "", call: Callable[[], None] | None = None) -> Toast:
    """Show a message at the bottom, in place of an older one."""
    for old in [child for child in shell.children if isinstance(child, Toast)]:
        old.dismiss()
    toast = Toast(call, text=text, action=action)
    toast.pos_hint = {"center_x": 0.5}
    toast.y = dp(84) if not shell.wide else dp(28)
    shell.add_widget(toast)
    fade_in(toast)
    Clock.schedule_once(lambda _: toast.dismiss(), TOAST_SECONDS)
    return toast


SHORTCUTS = (
    ("/", "help.search"),
    (t("key.arrows"), "help.move"),
    (t("key.enter"), "help.open"),
    (t("key.escape"), "help.back"),
    (t("key.space"), "help.choose"),
    (t("key.ctrl", letter="A"), "help.all"),
    (t("key.ctrl", letter="C"), "help.copy"),
    ("+ −", "help.columns"),
    ("F", "help.full"),
    ("Y  N  S", "help.review"),
    ("?", "help.help"),
)


class HelpRow(BoxLayout):
    """A shortcut and what it does."""

    keys = StringProperty("")
    text = StringProperty("")


def show_help(shell: Shell) -> Dialog:
    """Show the keyboard shortcuts."""
    dialog = Dialog(title=t("help.title"))
    for keys, text in SHORTCUTS:
        dialog.body.add_widget(HelpRow(keys=keys, text=t(text)))
    dialog.add_action(t("action.close"), lambda: None)
    dialog.open(shell)
    return dialog


load_layout(__file__)
