"""The Kivy application: makes each screen when it is first needed, and does what several screens offer."""

from collections.abc import Callable
from typing import Any

from kivy.app import App
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.metrics import Metrics
from kivy.uix.screenmanager import Screen
from numpy.typing import NDArray

from app.library.gallery import Query, Term
from app.library.store.roots import list_roots
from app.ui.actions import Actions
from app.ui.grid.photo_grid import PhotoGrid
from app.ui.grid.pictures import Pictures
from app.ui.host import Host
from app.ui.keys import Keys
from app.ui.kit import layers
from app.ui.kit.shell import MAIN_SCREENS, Shell
from app.ui.kit.strings import t
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
        self.shell = Shell(self.go)
        self.actions = Actions(self.session, self.shell, self.trouble)
        self.keys = Keys(self.shell, self.open_search)
        self.album_shown = ""
        self._closed = True  # until it is built
        self._ending = False

    def build(self) -> Shell:
        """Make the shell; Kivy calls this."""
        theme.dark = self.session.settings.dark
        Window.clearcolor = theme.ground
        theme.bind(ground=lambda _, color: setattr(Window, "clearcolor", color))
        Window.bind(on_keyboard=self.keys.on_keyboard)
        self._closed = False
        self.session.state_changed += self._enter
        self.session.start()
        self._poll = Clock.schedule_interval(lambda _: self._tick(), POLL_SECONDS)
        self._pump = Clock.schedule_interval(lambda _: self.pictures.pump(), 0)
        return self.shell

    def end_soon(self) -> None:
        """Close the window soon. Safe in a signal handler, which may run in the middle of a frame."""
        self._ending = True

    def _tick(self) -> None:
        if self._ending:
            self.stop()
        else:
            self.session.poll()

    def on_stop(self) -> None:
        """Close everything and save the settings. `run` calls this too, because Kivy doesn't after an interrupt."""
        if self._closed:
            return
        self._closed = self._over = True
        self.close_layers()
        if Field.focused is not None:
            Field.focused.focus = False
        self._poll.cancel()
        self._pump.cancel()
        Window.unbind(on_keyboard=self.keys.on_keyboard)
        settings = self.session.settings
        if not Window.fullscreen:
            settings.width, settings.height = (round(side / Metrics.density) for side in Window.system_size)
        self.session.close()
        forget_textures()

    def on_pause(self) -> bool:
        """The phone shows another app: stop reading photos, and keep the rest."""
        self.session.stop_indexing()
        return True

    def on_resume(self) -> None:
        """The phone shows the app again."""
        if self.session.job is not None:
            self.session.index()

    def deliver(self, call: Callable[[], None]) -> None:
        """Run something in the thread of the screen, with the next frame, unless everything is closed by then."""
        Clock.schedule_once(lambda _: None if self._over else call(), 0)

    # screens

    def _enter(self) -> None:
        """Show the screen that fits the state of the library."""
        state = self.session.state
        if state == "first_run":
            self._show("welcome", navigation=False)
        elif state == "broken":
            self._show("broken", navigation=False)
        elif not self.shell.navigation_shown or not self.shell.screens.current:
            screen = self.session.settings.screen
            self.go(screen if screen in MAIN_SCREENS else "photos")

    def go(self, name: str) -> None:
        """Open one of the main screens."""
        if self.shell.screens.current == name and self.shell.screen is not None:
            self.shell.screen.on_back()
        self.session.settings.screen = name
        self.album_shown = ""
        self._show(name)
        self.shell.nav.mark(name)

    def _show(self, name: str, navigation: bool = True) -> None:
        if not self.shell.screens.has_screen(name):
            self.shell.screens.add_widget(make_screen(self, name))
        self.shell.show_navigation(navigation)
        self.shell.screens.current = name

    def open_album(self, label: str, own: bool) -> None:
        """Show the photos of one label."""
        from app.ui.screens.photos.screen import PhotosScreen

        name = f"album {label}"
        for old in [screen for screen in self.shell.screens.screens if screen.name.startswith("album ")]:
            old.close()
            self.shell.screens.remove_widget(old)
        self.album_shown = label
        self.shell.screens.add_widget(PhotosScreen(self, album=label, own=own, name=name))
        self._show(name)

    def search(self, query: Query) -> None:
        """Show what a query finds."""
        self.close_layers()
        self.go("search")
        screen: Any = self.shell.screens.get_screen("search")
        screen.model.set(query)

    def more_like(self, photo_id: int) -> None:
        """Search by a photo."""
        self.search(Query((Term(photo_id=photo_id),)))

    def open_photo(self, ids: NDArray[Any], index: int, grid: PhotoGrid | None = None) -> None:
        """Show one photo over everything; left and right go through `ids`."""
        from app.ui.screens.photo.layer import PhotoLayer

        PhotoLayer(self, ids, index, grid).open(self.shell)

    def close_layers(self) -> None:
        """Close all layers."""
        for layer in list(self.shell.layers):
            layer.close()

    def edit_label(self, label: str = "") -> None:
        """Open the dialog for a new custom label, or for an existing one."""
        from app.ui.screens.custom_label.dialog import CustomLabelDialog

        CustomLabelDialog(self, label).open(self.shell)

    def add_folder(self) -> None:
        """Let the user choose a folder, and index it."""
        from app.ui.screens.picker.dialog import FolderPicker

        def add(path: str) -> None:
            roots = [root.path for root in list_roots(self.session.quick.store)] if self.session.quick else []
            self.session.index([*roots, path] if path not in roots else roots)
            self._enter()

        FolderPicker(add).open(self.shell)

    def trouble(self, error: PocketclipError) -> None:
        """Show an error as a message."""
        layers.show_message(self.shell, str(error))

    def open_search(self) -> None:
        """Show the search screen with the cursor in its field."""
        self.close_layers()
        self.go("search")
        getattr(self.shell.screen, "focus_field", lambda: None)()


def make_screen(host: Host, name: str) -> Screen:
    """Make a screen. Its module is imported here, so that the first frame doesn't wait for it."""
    if name == "photos":
        from app.ui.screens.photos.screen import PhotosScreen

        return PhotosScreen(host, name=name)
    if name == "search":
        from app.ui.screens.search.screen import SearchScreen

        return SearchScreen(host, name=name)
    if name == "albums":
        from app.ui.screens.albums.screen import AlbumsScreen

        return AlbumsScreen(host, name=name)
    if name == "review":
        from app.ui.screens.review.screen import ReviewScreen

        return ReviewScreen(host, name=name)
    if name == "settings":
        from app.ui.screens.settings.screen import SettingsScreen

        return SettingsScreen(host, name=name)
    from app.ui.screens.welcome.screen import BrokenScreen, WelcomeScreen

    return WelcomeScreen(host, name=name) if name == "welcome" else BrokenScreen(host, name=name)
