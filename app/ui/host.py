"""What screens may ask of the application. They depend on this protocol, never on `app.ui.app`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from app.library.gallery import Photo
from app.ui.grid.photo_grid import PhotoGrid
from app.ui.grid.pictures import Pictures
from app.ui.kit.shell import Shell
from app.ui.session import Session
from mobileclip.errors import PocketclipError


class PhotoActions(Protocol):
    """What can be done with photos on any screen."""

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Read photos by their ids, in this thread; none if the library can't be read."""

    def copy_paths(self, ids: Sequence[int]) -> None:
        """Put the paths of photos on the clipboard, one per line."""

    def label_photos(self, ids: Sequence[int], then: Callable[[], None] = ...) -> None:
        """Let the user choose a label, and give it to photos."""

    def pick_label(self, title: str, picked: Callable[[str], None], *, free: bool) -> None:
        """Let the user choose an existing label, or with `free` type a new one."""


class Host(Protocol):
    """The application as a screen sees it.

    Attributes:
        session: the open library and the user's settings.
        shell: the frame with all screens, and the layers above them.
        pictures: decoded pictures for tiles.
        actions: what can be done with photos.
        album_shown: label of the album that is open, or "".
    """

    session: Session
    shell: Shell
    pictures: Pictures[Any]
    album_shown: str

    @property
    def actions(self) -> PhotoActions:
        """What can be done with photos."""

    def deliver(self, call: Callable[[], None]) -> None:
        """Run a call in the screen's thread with the next frame."""

    def go(self, name: str) -> None:
        """Open one of the main screens."""

    def open_album(self, label: str, own: bool) -> None:
        """Show the photos that have one label."""

    def open_photo(self, ids: NDArray[Any], index: int, grid: PhotoGrid | None = None) -> None:
        """Show one photo over everything; left and right go through `ids`."""

    def more_like(self, photo_id: int) -> None:
        """Search for photos similar to one."""

    def edit_label(self, label: str = "") -> None:
        """Open the dialog for a new custom label, or for an existing one."""

    def add_folder(self) -> None:
        """Let the user choose a folder, and index it."""

    def trouble(self, error: PocketclipError) -> None:
        """Show an error as a message."""
