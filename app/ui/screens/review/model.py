"""Questions about the labels that the model is least sure of."""

from collections.abc import Callable
from dataclasses import dataclass

from app.library.gallery import Doubt
from app.ui.session import Session
from mobileclip.errors import PocketclipError

AT_ONCE = 40


@dataclass(frozen=True)
class Answer:
    """A question and its answer: accepted (True), rejected (False) or skipped (None)."""

    doubt: Doubt
    verdict: bool | None


class ReviewModel:
    """A queue of questions.

    Attributes:
        doubts: questions still to ask; the first is shown.
        answers: given so far, the latest last; they can be undone one by one.
        loading: whether the queue is being read.
        trouble: why there is no queue, in one line.
    """

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session, self._changed = session, changed
        self.doubts: list[Doubt] = []
        self.answers: list[Answer] = []
        self.loading = False
        self.trouble = ""
        self._skipped: set[tuple[int, str]] = set()

    @property
    def doubt(self) -> Doubt | None:
        """The current question."""
        return self.doubts[0] if self.doubts else None

    def load(self) -> None:
        """Read the queue, unless there are questions left."""
        if self.doubts or self.loading:
            return
        self.loading = True
        self._session.ask(lambda gallery: gallery.review(AT_ONCE), self._loaded, self._failed, "review")
        self._changed()

    def answer(self, verdict: bool | None) -> None:
        """Accept (True), reject (False) or skip (None) the current label; the next question follows at once."""
        doubt = self.doubt
        if doubt is None:
            return
        self.doubts.pop(0)
        self.answers.append(Answer(doubt, verdict))
        if verdict is None:
            self._skipped.add((doubt.photo.id, doubt.label))
        else:
            self._decide(doubt, verdict)
        if not self.doubts:
            self.load()
        self._changed()

    def undo(self) -> None:
        """Undo the last answer, and ask the question again."""
        if not self.answers:
            return
        last = self.answers.pop()
        self.doubts.insert(0, last.doubt)
        self._skipped.discard((last.doubt.photo.id, last.doubt.label))
        if last.verdict is not None:
            self._decide(last.doubt, None)
        self._changed()

    def _decide(self, doubt: Doubt, verdict: bool | None) -> None:
        self._session.ask(
            lambda gallery: gallery.correct(doubt.photo.id, doubt.label, verdict),
            lambda _: self._session.tags_changed(),
            self._failed,
        )

    def _loaded(self, doubts: list[Doubt]) -> None:
        self.loading, self.trouble = False, ""
        self.doubts = [doubt for doubt in doubts if (doubt.photo.id, doubt.label) not in self._skipped]
        self._changed()

    def _failed(self, error: PocketclipError) -> None:
        self.loading, self.trouble = False, str(error)
        self._changed()
