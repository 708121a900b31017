"""A model without weights and a folder of real photographs."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from app.library.index.run import Options, Report, index_folders
from app.library.labels.tagging import refresh
from app.library.search.query import Query, Term
from app.library.search.rank import Results, search
from app.library.store.connection import Store
from app.library.store.matrix import load_matrix
from app.library.store.photos import list_photos
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe
from mobileclip.zeroshot import Label, LabelSet


class FakeModel:
    """Vectors from mean colors of 2 × 2 fields; each photo by itself, independent of its batch."""

    dim = 13
    logit_scale = 10.0

    def __init__(self, name: str = "fake", labels: Sequence[str] = ("bright", "dark")) -> None:
        self.name = name
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.recipe = PixelRecipe(32, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.labels = LabelSet(Label(label, "light", (f"a {label} photo",), 0.3, 20.0, 0) for label in labels)
        self.label_vectors = self.encode_texts([label.name for label in self.labels])
        self.seen = 0

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.seen += len(pixels)
        fields = pixels.reshape(len(pixels), 3, 2, 16, 2, 16).mean(axis=(3, 5)).reshape(len(pixels), 12)
        rows = np.concatenate([fields, np.full((len(pixels), 1), 0.2, np.float32)], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_images(self, photos: Iterable[str | Path], batch_size: int = 16) -> np.ndarray:
        pixels = [self.recipe(open_photo(photo, min_side=2 * self.recipe.size)) for photo in photos]
        seen = self.seen
        vectors = self.encode_pixels(np.stack(pixels))
        self.seen = seen
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            if text in ("bright", "dark"):
                row = np.full(self.dim, 1.0 if text == "bright" else -1.0)
            else:
                row = np.random.default_rng(list(text.encode())).normal(size=self.dim)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, np.float32)


def real_photos() -> list[Path]:
    """Photographs from two freely licensed packages, sorted by name."""
    names = {
        "skimage": ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "moon.png"],
        "sklearn": ["china.jpg", "flower.jpg"],
    }
    folders = {"skimage": "data", "sklearn": "datasets/images"}
    found = []
    for package, files in names.items():
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        found += [Path(spec.submodule_search_locations[0], folders[package], name) for name in files]
    return sorted(found, key=lambda path: path.name)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def other_model() -> FakeModel:
    return FakeModel("another", labels=("bright",))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A fresh folder of eight real photographs, in two folders."""
    folder = tmp_path / "photos"
    for number, photo in enumerate(real_photos()):
        target = folder / ("first" if number % 2 else "second") / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, target)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "home" / "index.db", create=True) as opened:
        yield opened


Run = Callable[..., Report]


@pytest.fixture
def run(store: Store, model: FakeModel) -> Run:
    """Index folders into the store with small batches; keywords become Options."""

    def index(
        *folders: Path, model: FakeModel = model, stop: Callable[[], bool] = lambda: False, **options: object
    ) -> Report:
        chosen = Options(**{"batch_size": 3, "decoders": 2, **options})
        return index_folders(store, model, [str(folder) for folder in folders], chosen, stop=stop)

    return index


@pytest.fixture
def photos_with_dates(tmp_path: Path) -> Path:
    """Two photographs with a date, one of them rotated by EXIF, and one without a date."""
    from PIL import Image

    folder = tmp_path / "dated"
    folder.mkdir()
    dates = {"astronaut": "2019:07:14 23:59:58", "coffee": "2003:01:02 08:00:00", "rocket": ""}
    for photo in real_photos():
        if photo.stem in dates:
            exif = Image.Exif()
            exif[0x8769] = {0x9003: dates[photo.stem]} if dates[photo.stem] else {}
            exif[0x0112] = 6 if photo.stem == "coffee" else 1
            Image.open(photo).convert("RGB").save(folder / f"{photo.stem}.jpg", exif=exif)
    return folder


def find(store: Store, model: FakeModel, query: Query, top: int = 300) -> Results:
    """Search as a screen or the command line does."""
    return search(store, query, lambda: (model, load_matrix(store, model.fingerprint)), top)


def ask(store: Store, model: FakeModel, *texts: str, top: int = 300, like: int | None = None, **fields) -> Results:
    """Search for texts or a photo of the index; further fields are those of `Query`."""
    like_photo = () if like is None else (Term(photo_id=like),)
    return find(store, model, Query((*map(Term, texts), *like_photo), **fields), top)


def names(store: Store, ids) -> list[str]:
    """The file names of photos by their ids."""
    return [Path(photo.path).name for photo in list_photos(store, ids)]


@pytest.fixture
def library(request: pytest.FixtureRequest, run, store: Store, model: FakeModel) -> Store:
    run(request.getfixturevalue("photos"))
    refresh(store, model)
    return store
