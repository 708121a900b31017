"""Shown while there is no library: the first start, or why the index can't be opened."""

from typing import Any

from kivy.properties import ObjectProperty

from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.shell import AppScreen
from app.ui.kit.strings import t
from app.ui.kit.widgets import load_layout
from mobileclip.errors import PocketclipError


class WelcomeScreen(AppScreen):
    """The first start."""

    app = ObjectProperty(None)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        super().__init__(app=app, **kwargs)


class BrokenScreen(AppScreen):
    """The index can't be opened."""

    notice = ObjectProperty(None)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self.app = app
        super().__init__(**kwargs)

    def on_pre_enter(self, *_: Any) -> None:
        """Show why."""
        self.notice.show("warning", t("broken.title"), self.app.session.trouble, t("broken.again"))

    def retry(self) -> None:
        """Try to open the index again."""
        self.app.session.trouble = ""
        self.app.session.start()
        self.on_pre_enter()

    def start_over(self) -> None:
        """Rename the index and begin with a new one; photos are not touched."""
        try:
            name = self.app.session.start_again()
        except PocketclipError as error:
            self.app.trouble(error)
            return
        layers.show_message(self.app.shell, t("broken.aside.done", name=name))


load_layout(__file__)
