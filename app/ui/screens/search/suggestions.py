"""Completions of what is typed into the search field."""

from collections.abc import Callable

from app.library.gallery import Suggestion
from app.ui.session import Session


class Suggestions:
    """Asks the library for completions.

    Args:
        session: the open library.
        changed: called when there are other suggestions.

    Attributes:
        found: suggestions for the newest text that was answered.
    """

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session, self._changed = session, changed
        self._text = ""
        self.found: list[Suggestion] = []

    def type(self, text: str) -> None:
        """Another text is in the field."""
        self._text = text.strip()
        if not self._text:
            self.clear()
            return
        self._session.ask(lambda gallery: gallery.suggest(text.strip()), self._answered, lambda _: None, "suggest")

    def clear(self) -> None:
        """Suggest nothing until another text is typed."""
        self.found = []
        self._session.drop("suggest")

    def _answered(self, suggestions: list[Suggestion]) -> None:
        # A past search that is in the field already would complete nothing.
        typed = self._text.casefold()
        self.found = [s for s in suggestions if s.kind == "label" or s.text.casefold() != typed]
        self._changed()
