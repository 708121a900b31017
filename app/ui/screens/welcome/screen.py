"""What is shown while there is no library: what this is, or why the library cannot be opened."""

from typing import Any

from kivy.properties import ObjectProperty

from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.shell import AppScreen
from app.ui.kit.strings import t
from app.ui.kit.widgets import load_layout
from mobileclip.errors import PocketclipError


class WelcomeScreen(AppScreen):
    """The first run."""

    app = ObjectProperty(None)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        super().__init__(app=app, **kwargs)


class BrokenScreen(AppScreen):
    """The index cannot be opened."""

    notice = ObjectProperty(None)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self.app = app
        super().__init__(**kwargs)

    def on_pre_enter(self, *_: Any) -> None:
        """Say why."""
        self.notice.show("warning", t("broken.title"), self.app.session.trouble, t("broken.again"))

    def again(self) -> None:
        """Try to open it once more."""
        self.app.session.trouble = ""
        self.app.session.start()
        self.on_pre_enter()

    def aside(self) -> None:
        """Move the index away and begin anew; the photos are not touched."""
        try:
            name = self.app.session.start_again()
        except PocketclipError as error:
            self.app.trouble(error)
            return
        layers.show_message(self.app.shell, t("broken.aside.done", name=name))


load_layout(__file__)
