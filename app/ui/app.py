"""The Kivy application: makes the screens when they are first needed, and does what more than one screen offers."""

from collections.abc import Callable, Sequence
from typing import Any

from kivy.app import App
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.metrics import Metrics
from kivy.uix.screenmanager import Screen
from numpy.typing import NDArray

from app.library.gallery import Photo, Query
from app.ui.grid.photo_grid import PhotoGrid
from app.ui.grid.pictures import Pictures
from app.ui.kit import layers
from app.ui.kit.shell import PLACES, Place, Stage
from app.ui.kit.strings import n, t
from app.ui.kit.textures import forget_textures, picture_texture
from app.ui.kit.theme import theme
from app.ui.kit.widgets import Field
from app.ui.session import Session
from mobileclip.errors import PocketclipError

POLL_SECONDS = 0.2


class GalleryApp(App):
    """The gallery in a window.

    Args:
        make_session: opens the library, given what runs a callable in the thread of the screen.
    """

    def __init__(self, make_session: Callable[[Callable[[Callable[[], None]], None]], Session], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.title = t("app.name")
        self._over = False
        self.session = make_session(self.deliver)
        self.pictures: Pictures[Any] = Pictures(self.session.pool, picture_texture)
        self.stage = Stage(self.go)
        self.album_shown = ""
        self._closed = True  # until it is built
        self._ending = False

    def build(self) -> Stage:
        """Make the frame; Kivy calls this."""
        theme.dark = self.session.settings.dark
        Window.clearcolor = theme.ground
        theme.bind(ground=lambda _, colour: setattr(Window, "clearcolor", colour))
        Window.bind(on_keyboard=self._on_keyboard, on_request_close=self._on_request_close)
        self._closed = False
        self.session.state_changed += self._enter
        self.session.start()
        self._poll = Clock.schedule_interval(lambda _: self._look(), POLL_SECONDS)
        self._pump = Clock.schedule_interval(lambda _: self.pictures.pump(), 0)
        return self.stage

    def end_soon(self) -> None:
        """Close the window with one of the next frames; safe in a signal's handler, which may come in amid a frame."""
        self._ending = True

    def _look(self) -> None:
        if self._ending:
            self.stop()
        else:
            self.session.poll()

    def on_stop(self) -> None:
        """Close everything; the state is kept. Once: Kivy does not call this after an interrupt, and `run` does."""
        if self._closed:
            return
        self._closed = self._over = True
        self.close_layers()
        if Field.focused is not None:
            Field.focused.focus = False
        self._poll.cancel()
        self._pump.cancel()
        Window.unbind(on_keyboard=self._on_keyboard, on_request_close=self._on_request_close)
        settings = self.session.settings
        if not Window.fullscreen:
            settings.width, settings.height = (round(side / Metrics.density) for side in Window.system_size)
        self.session.close()
        forget_textures()

    def on_pause(self) -> bool:
        """A phone puts the app aside: stay as we are, but stop reading photos."""
        self.session.stop_indexing()
        return True

    def on_resume(self) -> None:
        """The phone takes the app up again."""
        if self.session.job is not None:
            self.session.index()

    def _on_request_close(self, *_: Any, **__: Any) -> bool:
        return False

    def deliver(self, call: Callable[[], None]) -> None:
        """Run something in the thread of the screen, with the next frame; nothing once everything is closed."""
        Clock.schedule_once(lambda _: None if self._over else call(), 0)

    # places

    def _enter(self) -> None:
        """Go where the state of the library wants us."""
        state = self.session.state
        if state == "first_run":
            self._show("welcome", bare=True)
        elif state == "broken":
            self._show("broken", bare=True)
        elif self.stage.bare or not self.stage.screens.current:
            screen = self.session.settings.screen
            self.go(screen if screen in PLACES else "photos")

    def go(self, name: str) -> None:
        """Open one of the places of the navigation."""
        if self.stage.screens.current == name and self.stage.place is not None:
            self.stage.place.on_back()
        self.session.settings.screen = name
        self.album_shown = ""
        self._show(name)
        self.stage.nav.mark(name)

    def _show(self, name: str, bare: bool = False) -> None:
        if not self.stage.screens.has_screen(name):
            self.stage.screens.add_widget(self._make(name))
        self.stage.undress(bare)
        self.stage.screens.current = name

    def _make(self, name: str) -> Screen:
        """Screens are imported and made when first shown, so that the first frame comes soon."""
        if name == "photos":
            from app.ui.screens.photos.screen import PhotosScreen

            return PhotosScreen(self, name=name)
        if name == "search":
            from app.ui.screens.search.screen import SearchScreen

            return SearchScreen(self, name=name)
        if name == "albums":
            from app.ui.screens.albums.screen import AlbumsScreen

            return AlbumsScreen(self, name=name)
        if name == "review":
            from app.ui.screens.review.screen import ReviewScreen

            return ReviewScreen(self, name=name)
        if name == "settings":
            from app.ui.screens.settings.screen import SettingsScreen

            return SettingsScreen(self, name=name)
        from app.ui.screens.welcome.screen import BrokenScreen, WelcomeScreen

        return WelcomeScreen(self, name=name) if name == "welcome" else BrokenScreen(self, name=name)

    def open_album(self, label: str, own: bool) -> None:
        """Show the photos of one label."""
        from app.ui.screens.photos.screen import PhotosScreen

        name = f"album {label}"
        for old in [screen for screen in self.stage.screens.screens if screen.name.startswith("album ")]:
            old.close()
            self.stage.screens.remove_widget(old)
        self.album_shown = label
        self.stage.screens.add_widget(PhotosScreen(self, album=label, own=own, name=name))
        self._show(name)

    def search(self, query: Query) -> None:
        """Show what a query finds."""
        self.close_layers()
        self.go("search")
        place: Any = self.stage.screens.get_screen("search")
        place.model.set(query)

    def more_like(self, photo_id: int) -> None:
        """Search by a photo."""
        self.search(Query(like=photo_id))

    def open_photo(self, ids: NDArray[Any], index: int, grid: PhotoGrid | None = None) -> None:
        """Show one photo over everything; left and right go through `ids`."""
        from app.ui.screens.photo.layer import PhotoLayer

        PhotoLayer(self, ids, index, grid).open(self.stage)

    def close_layers(self) -> None:
        """Take all layers away."""
        for layer in list(self.stage.layers):
            layer.close()

    # what more than one screen offers

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Photos by their ids, in this thread."""
        if self.session.quick is None:
            return []
        try:
            return self.session.quick.photos(ids)
        except PocketclipError as error:
            self.trouble(error)
            return []

    def copy_paths(self, ids: Sequence[int]) -> None:
        """Put the paths of photos on the clipboard, one a line."""
        paths = [photo.path for photo in self.photos_of(ids)]
        if paths:
            # Looks for the system's clipboard programs when it is imported: nothing for the first frame.
            from kivy.core.clipboard import Clipboard

            Clipboard.copy("\n".join(paths))
            layers.say(self.stage, n("said.copied", len(paths)))

    def label_photos(self, ids: Sequence[int], then: Callable[[], None] = lambda: None) -> None:
        """Let the person choose a label, and give it to photos."""

        def picked(label: str) -> None:
            def give(gallery: Any) -> None:
                for photo_id in ids:
                    gallery.correct(photo_id, label, True)

            def take_back(gallery: Any) -> None:
                for photo_id in ids:
                    gallery.correct(photo_id, label, None)

            def given(_: None) -> None:
                then()
                self.session.tags_changed()
                layers.say(
                    self.stage,
                    n("said.labelled", len(ids), label=label),
                    t("action.undo"),
                    lambda: self.session.ask(take_back, lambda _: self.session.tags_changed(), self.trouble),
                )

            self.session.ask(give, given, self.trouble)

        self.pick_label(t("photo.add"), picked, free=True)

    def pick_label(self, title: str, picked: Callable[[str], None], *, free: bool) -> None:
        """Let the person choose one of the labels there are; with `free` also a new one."""
        choices = [(label, label, "") for label in self.session.labels]
        layers.Pick(picked, choices, "tag", free, title=title, hint=t("pick.filter")).open(self.stage)

    def edit_label(self, label: str = "") -> None:
        """Make an own label, or change one."""
        from app.ui.screens.own_label.dialog import OwnLabelDialog

        OwnLabelDialog(self, label).open(self.stage)

    def add_folder(self) -> None:
        """Let the person choose a folder, and index it."""
        from app.ui.screens.picker.dialog import FolderPicker

        FolderPicker(self._add_folder).open(self.stage)

    def _add_folder(self, path: str) -> None:
        roots = [root.path for root in self.session.quick.roots()] if self.session.quick else []
        self.session.index([*roots, path] if path not in roots else roots)
        self._enter()

    def trouble(self, error: PocketclipError) -> None:
        """Say in a message what went wrong."""
        layers.say(self.stage, str(error))

    # keys

    def _on_keyboard(self, _: Any, code: int, scancode: int, text: str | None, modifiers: list[str]) -> bool:
        key = Window._system_keyboard.keycode_to_string(code)
        return self.key(key, set(modifiers), text or "")

    def key(self, key: str, modifiers: set[str], text: str = "") -> bool:
        """A key was pressed anywhere in the window; whether it meant something.

        Args:
            key: Kivy's name of the key.
            modifiers: of "ctrl", "shift", "alt", "meta".
            text: the character it would type.
        """
        command = bool({"ctrl", "meta"} & modifiers)
        layer, place = self.stage.uppermost, self.stage.place
        typing = Field.typing()
        if typing and key == "escape":
            if Field.focused is not None:
                Field.focused.focus = False
            return True
        if typing and key not in ("down", "up") and not (command and key == "f"):
            return False
        if isinstance(layer, layers.Dialog):
            return bool(layer.on_key(key, modifiers)) or key == "escape"
        if not self.stage.bare and self._key_anywhere(key, command, typing, text):
            return True
        if isinstance(layer, layers.Layer):
            return bool(layer.on_key(key, modifiers)) or key == "escape"
        if key == "escape":
            # Never closes the window: Kivy would, where nobody takes the key.
            return self._back(place) or True
        return bool(place.on_key(key, modifiers)) if place is not None else False

    def _key_anywhere(self, key: str, command: bool, typing: bool, text: str) -> bool:
        if not typing and (text == "?" or key == "f1"):
            layers.show_help(self.stage)
        elif (command and key == "f") or (not typing and text == "/"):
            self.close_layers()
            self.go("search")
            getattr(self.stage.place, "focus_field", lambda: None)()
        elif not typing and key == "f" and not command:
            self.toggle_full_screen()
        else:
            return False
        return True

    def toggle_full_screen(self) -> None:
        """The whole screen, or a window again."""
        Window.fullscreen = False if Window.fullscreen else "auto"

    def _back(self, place: Place | None) -> bool:
        return place.on_back() if place is not None else False
