"""One question at a time about the labels that the model is least sure of."""

from typing import Any

from kivy.animation import Animation
from kivy.metrics import dp
from kivy.properties import BooleanProperty, ColorProperty, ObjectProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.widget import Widget

from app.library.gallery import Doubt
from app.library.pictures.thumbnails import Picture
from app.ui.host import Host
from app.ui.kit.photo_view import PhotoView
from app.ui.kit.shell import AppScreen
from app.ui.kit.strings import n, t
from app.ui.kit.textures import picture_texture
from app.ui.kit.widgets import load_layout
from app.ui.screens.review.model import ReviewModel
from mobileclip.errors import PhotoError


class VerdictButton(ButtonBehavior, Widget):
    """A button with an answer."""

    icon = StringProperty("")
    text = StringProperty("")
    ink = ColorProperty("#000000")
    back = ColorProperty("#ffffff")


class ReviewScreen(AppScreen):
    """Asks the questions one after the other."""

    app = ObjectProperty(None)
    holder = ObjectProperty(None)
    notice = ObjectProperty(None)
    left = StringProperty("")
    question = StringProperty("")
    why = StringProperty("")
    asking = BooleanProperty(False)
    can_undo = BooleanProperty(False)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self._shown: Doubt | None = None
        self._ticket: Any = None
        self.model = ReviewModel(app.session, self._changed)
        super().__init__(app=app, **kwargs)
        self.view = PhotoView(lambda by: False, self._open, lambda: None)
        self.holder.add_widget(self.view)
        self.holder.bind(pos=self._fit, size=self._fit)

    def _fit(self, *_: Any) -> None:
        self.view.pos, self.view.size = self.holder.pos, self.holder.size

    def on_pre_enter(self, *_: Any) -> None:
        """Read the questions."""
        self.model.load()
        self._changed()

    def answer(self, verdict: bool | None) -> None:
        """Answer the question; the photo moves toward the button."""
        if self.model.doubt is None:
            return
        aside = {True: dp(60), False: -dp(60), None: 0}[verdict]
        Animation.cancel_all(self.view)
        self.model.answer(verdict)
        self.view.x = self.holder.x - aside
        self.view.opacity = 0.2
        Animation(x=self.holder.x, opacity=1, duration=0.16, transition="out_cubic").start(self.view)

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        answers: dict[str, bool | None] = {"y": True, "right": True, "n": False, "left": False, "s": None, "down": None}
        if (modifiers & {"ctrl", "meta"} and key == "z") or key == "backspace":
            self.model.undo()
        elif key in answers and self.model.doubt is not None:
            self.answer(answers[key])
        else:
            return False
        return True

    def _open(self) -> None:
        if self.model.doubt is not None:
            import numpy as np

            self.app.open_photo(np.array([self.model.doubt.photo.id], np.int64), 0)

    def _changed(self) -> None:
        model = self.model
        doubt = model.doubt
        self.asking = doubt is not None
        self.can_undo = bool(model.answers)
        self.left = n("review.left", len(model.doubts)) if doubt else ""
        if model.trouble:
            self.notice.show("warning", t("review.cannot"), model.trouble, t("broken.again"))
        elif doubt is None and not model.loading:
            self.notice.show("check", t("review.done.title"), t("review.done.text"), t("review.more"))
        else:
            self.notice.show()
        if doubt is not None and doubt is not self._shown:
            self.question = t("review.question", label=doubt.label)
            self.why = t("review.given" if doubt.given else "review.nearly")
            self._show_photo(doubt)
        self._shown = doubt

    def _show_photo(self, doubt: Doubt) -> None:
        photo = doubt.photo
        if self._ticket is not None:
            self._ticket.cancel()
        same = self._shown is not None and self._shown.photo.key == photo.key
        if not same:
            self.view.rest()
            self.view.put(0, None, (photo.width, photo.height))
        self._ticket = self.app.session.pool.view(
            photo.path, 1600, lambda result: self.app.deliver(lambda: self._photo_loaded(doubt, result))
        )

    @property
    def waiting(self) -> bool:
        """Whether the photo is still loading."""
        return self._ticket is not None

    def _photo_loaded(self, doubt: Doubt, result: Picture | PhotoError | None) -> None:
        if self.model.doubt is not doubt:
            return
        self._ticket = None
        if isinstance(result, Picture):
            self.view.put(0, picture_texture(result), (result.width, result.height))


load_layout(__file__)
