"""The interface of all models, whether a bundle's engine or PyTorch runs the towers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike as OsPathLike
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from mobileclip.errors import PhotoError, PocketclipError
from mobileclip.preprocess import PixelRecipe
from mobileclip.vectors import Floats
from mobileclip.zeroshot import LabelSet

if TYPE_CHECKING:
    from PIL import Image

    Photo = str | OsPathLike[str] | Image.Image | npt.NDArray[np.uint8]
    """A path, a PIL image, or an array (height, width, 3) uint8."""

__all__ = ["DECODE_MARGIN", "Encoder", "InputError", "Tag"]

# JPEGs are decoded at reduced resolution, at least this many times the recipe's size; at 2 the crop hardly differs.
DECODE_MARGIN = 2


class InputError(PocketclipError, TypeError):
    """Something that is neither a photo nor a text was passed to a model."""


class Tag(NamedTuple):
    """A label of a photo, with the probability that it is right (0 to 1)."""

    label: str
    probability: float


class Encoder(ABC):
    """An image tower and a text tower with a shared embedding space.

    Attributes:
        name: name of the bundle or checkpoint.
        dim: length of every embedding.
        recipe: how pictures become pixels.
        logit_scale: the factor on cosines that the towers were trained with.
    """

    name: str
    dim: int
    recipe: PixelRecipe
    logit_scale: float

    @property
    @abstractmethod
    def labels(self) -> LabelSet:
        """Labels with fitted thresholds; empty if the model has none."""

    @property
    @abstractmethod
    def label_vectors(self) -> Floats:
        """The embedding of each label, float32 (labels, dim), unit rows."""

    @abstractmethod
    def encode_pixels(self, pixels: npt.NDArray[Any]) -> Floats:
        """Embed pictures that the pixel recipe has prepared.

        Args:
            pixels: float32 (n, 3, size, size), normalized; or uint8 (n, size, size, 3), cropped but not normalized.

        Returns:
            float32 (n, dim), unit rows.

        Raises:
            ValueError: another shape or dtype.
        """

    @abstractmethod
    def _encode_texts(self, texts: Sequence[str]) -> Floats:
        """Embed a list of texts, float32 (n, dim), unit rows."""

    @overload
    def encode_images(self, photos: "str | OsPathLike[str] | Image.Image", batch_size: int = 16) -> Floats: ...
    @overload
    def encode_images(self, photos: "npt.NDArray[np.uint8] | Iterable[Photo]", batch_size: int = 16) -> Floats: ...
    def encode_images(self, photos: "Photo | Iterable[Photo]", batch_size: int = 16) -> Floats:
        """Embed one photo or many.

        Args:
            photos: a path, a PIL image, an array (height, width, 3) uint8 in RGB, or an iterable of these, which is
                read one batch at a time.
            batch_size: photos per run of the tower.

        Returns:
            float32 (dim,) for one photo, (n, dim) for an iterable, in its order; unit length.

        Raises:
            PhotoError: a photo can't be read; the message names it.
            InputError: an item isn't a photo.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if _is_one_photo(photos):
            (vector,) = next(self._image_batches(iter((photos,)), 1))
            return np.asarray(vector)
        if not isinstance(photos, Iterable):
            raise InputError(f"a path, a PIL image or an array is needed, not {type(photos).__name__}")
        batches = list(self._image_batches(iter(photos), batch_size))
        return np.concatenate(batches) if batches else np.empty((0, self.dim), np.float32)

    def _image_batches(self, photos: "Iterator[Any]", batch_size: int) -> Iterator[Floats]:
        while batch := list(islice(photos, batch_size)):
            yield self.encode_pixels(np.stack([self._crop(photo) for photo in batch]))

    def _crop(self, photo: Any) -> npt.NDArray[np.uint8]:
        """Crop one photo as the recipe says, uint8 (size, size, 3)."""
        from mobileclip.photos import open_photo

        if isinstance(photo, np.ndarray):
            photo = _picture(photo)
        elif isinstance(photo, bytes) or not _is_one_photo(photo):
            raise InputError(f"a path, a PIL image or an array is needed, not {type(photo).__name__}")
        return np.asarray(self.recipe.crop(open_photo(photo, min_side=DECODE_MARGIN * self.recipe.size)))

    def encode_texts(self, texts: str | Iterable[str]) -> Floats:
        """Embed one text or many.

        Args:
            texts: a text, or an iterable of texts. Tokens beyond the context length are dropped with a
                `TextCutWarning`.

        Returns:
            float32 (dim,) for one text, (n, dim) for an iterable, in its order; unit length.

        Raises:
            InputError: an item isn't a text.
        """
        if isinstance(texts, str):
            return np.asarray(self._encode_texts([texts])[0])
        if not isinstance(texts, Iterable) or hasattr(texts, "decode"):  # bytes are iterable too
            raise InputError(f"a text or a list of texts is needed, not {type(texts).__name__}")
        listed = list(texts)
        for place, text in enumerate(listed):
            if not isinstance(text, str):
                raise InputError(f"texts must be strings; item {place} is {type(text).__name__}")
        return self._encode_texts(listed) if listed else np.empty((0, self.dim), np.float32)

    @overload
    def tag(self, photos: "str | OsPathLike[str] | Image.Image") -> list[Tag]: ...
    @overload
    def tag(self, photos: "npt.NDArray[np.uint8] | Iterable[Photo]") -> list[Any]: ...
    def tag(self, photos: "Photo | Iterable[Photo]") -> list[Any]:
        """Decide which of the model's labels apply to a photo.

        Each label is compared with its own fitted threshold, so a photo may get any number of tags, or none.

        Args:
            photos: one photo or many, as for `encode_images`.

        Returns:
            The photo's tags, the most probable first; for an iterable, a list of tags per photo.

        Raises:
            PhotoError: a photo can't be read.
            PocketclipError: the model has no labels with fitted thresholds.
        """
        if not len(self.labels):
            raise PocketclipError(f"{self.name} has no labels with fitted thresholds; use rank(photos, texts)")
        vectors = self.encode_images(photos)
        tagged = [
            [Tag(label.name, score) for label, score in self.labels.decide(cosines)]
            for cosines in np.atleast_2d(vectors) @ self.label_vectors.T
        ]
        return tagged[0] if vectors.ndim == 1 else tagged

    def rank(self, photos: "Photo | Iterable[Photo]", texts: str | Iterable[str]) -> Floats:
        """Compare photos with texts.

        Args:
            photos: one photo or many, as for `encode_images`.
            texts: one text or many, as for `encode_texts`.

        Returns:
            Cosine similarities, float32 (photos, texts), without the axis of a single photo or a single text. Only
            their order is meaningful: a good match may score 0.3.

        Raises:
            PhotoError: a photo can't be read.
        """
        vectors = self.encode_images(photos)
        return np.asarray(vectors @ self.encode_texts(texts).T, np.float32)


def _is_one_photo(photos: Any) -> bool:
    # Not isinstance: it would import Pillow, even for a model that only reads texts.
    is_image = hasattr(photos, "getbands") and hasattr(photos, "convert")
    return isinstance(photos, str | OsPathLike) or is_image or (isinstance(photos, np.ndarray) and photos.ndim == 3)


def _picture(array: npt.NDArray[Any]) -> "Image.Image":
    from PIL import Image

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise PhotoError("array", "not an image", f"(h, w, 3) uint8 is needed, not {array.shape} {array.dtype}")
    return Image.fromarray(array)
