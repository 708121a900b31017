"""Make a label from a phrase, with a live preview of the photos that would get it."""

from collections.abc import Callable
from typing import Any

from kivy.metrics import dp
from kivy.properties import NumericProperty, ObjectProperty

from app.library.gallery import Preview
from app.library.store.custom_labels import list_custom_labels
from app.ui.grid.tile import Tile
from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.shell import Shell, later
from app.ui.kit.strings import n, t
from app.ui.kit.widgets import load_layout
from mobileclip.errors import PocketclipError

PAUSE = 0.2


def phrases_of(text: str, name: str) -> list[str]:
    """The descriptions in a text, separated by semicolons; the name if there are none."""
    phrases = [phrase.strip() for phrase in text.split(";") if phrase.strip()]
    return phrases or ([name.strip()] if name.strip() else [])


class CustomLabelDialog(layers.Dialog):
    """The dialog for a new custom label, or for an existing one."""

    name_field = ObjectProperty(None)
    phrase_field = ObjectProperty(None)
    slider = ObjectProperty(None)
    found = ObjectProperty(None)
    strip = ObjectProperty(None)
    tile = NumericProperty(dp(64))
    per_row = NumericProperty(6)
    rows_shown = NumericProperty(2)

    def __init__(self, app: Host, label: str = "", **kwargs: Any) -> None:
        self.app, self._label = app, label
        self._tiles: list[Tile] = []
        self._cancel: Callable[[], None] = lambda: None
        self.shown: Preview | None = None
        self._ready = False
        super().__init__(title=t("label.title.edit" if label else "label.title.new"), widest=520, **kwargs)
        self.move_to_body(
            "name_line", "name_field", "phrase_line", "phrase_field", "note", "slider_row", "found", "strip"
        )
        if label:
            self.add_action(t("label.delete"), self._ask_delete, "danger")
        self.add_action(t("action.cancel"), lambda: None)
        self.save_button = self.add_action(t("action.save"), self.save, "filled", closes=False)
        self._ready = True

    def open(self, shell: Shell) -> None:
        room = min(dp(self.widest), shell.width - dp(24)) - dp(48)
        self.per_row = 6 if room > dp(380) else 5
        self.tile = (room - dp(3) * (self.per_row - 1)) / self.per_row
        # The keyboard of a phone leaves less room, and so do small windows.
        self.rows_shown = 2 if shell.height > dp(620) else 1
        known = (
            {own.name: own for own in list_custom_labels(self.app.session.quick.store)}
            if self.app.session.quick
            else {}
        )
        if self._label in known:
            own = known[self._label]
            self.name_field.text, self.slider.value = own.name, own.sensitivity
            self.phrase_field.text = "; ".join(own.phrases)
            self.name_field.disabled = True
        super().open(shell)
        if not self._label:
            self.focus_soon(self.name_field)
        self.preview()

    def close(self) -> None:
        self._cancel()
        self.app.session.drop("preview")
        for tile in self._tiles:
            tile.clear()
        super().close()

    def typed(self) -> None:
        """Something has changed: update the preview, after a short pause."""
        if self._ready:
            self._cancel()
            self._cancel = later(self.preview, PAUSE)

    def preview(self) -> None:
        """Ask which photos would get the label."""
        phrases, sensitivity = phrases_of(self.phrase_field.text, self.name_field.text), self.slider.value
        self.save_button.disabled = not (self.name_field.text.strip() and phrases)
        if not phrases:
            self.app.session.drop("preview")
            self._show(None)
            return
        self.app.session.ask(lambda gallery: gallery.preview(phrases, sensitivity), self._show, self._failed, "preview")

    def _show(self, preview: Preview | None) -> None:
        self.shown = preview
        count = preview.count if preview is not None else 0
        self.found.text = t("label.preview", photos=n("photos", count)) if count else t("label.preview.none")
        room = int(self.per_row * self.rows_shown)
        photos = self.app.actions.photos_of(preview.ids[:room].tolist()) if preview is not None else []
        while len(self._tiles) < room:
            tile = Tile(self.app.pictures, lambda _: None, lambda _: None)
            tile.size_hint = 1, 1
            self._tiles.append(tile)
            self.strip.add_widget(tile)
        for index, tile in enumerate(self._tiles):
            tile.opacity = 1 if index < len(photos) else 0
            if index < len(photos):
                tile.set(index, photos[index])
            else:
                tile.clear()

    def _failed(self, error: PocketclipError) -> None:
        self.found.text = str(error)

    def save(self) -> None:
        """Save the label."""
        name = " ".join(self.name_field.text.split())
        phrases, sensitivity = phrases_of(self.phrase_field.text, name), self.slider.value
        if not name or not phrases:
            return

        def saved(count: int) -> None:
            self.close()
            if name not in self.app.session.labels:
                self.app.session.labels = sorted([*self.app.session.labels, name])
            self.app.session.tags_changed()
            layers.show_message(self.app.shell, t("label.saved", label=name, photos=n("photos", count)))

        self.app.session.ask(lambda gallery: gallery.save_label(name, phrases, sensitivity), saved, self._failed)

    def _ask_delete(self) -> None:
        layers.confirm(
            self.app.shell, t("label.delete"), t("label.delete.text"), (t("label.delete"), "danger", self._delete)
        )

    def _delete(self) -> None:
        label = self._label

        def gone(_: None) -> None:
            self.app.session.labels = [name for name in self.app.session.labels if name != label]
            self.app.go("albums")
            self.app.session.tags_changed()

        self.app.session.ask(lambda gallery: gallery.delete_label(label), gone, self.app.trouble)


load_layout(__file__)
