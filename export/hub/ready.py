"""A bundle from ready-made ONNX towers, in the layout that model hubs use for transformers.js.

    onnx/vision_model.onnx  onnx/text_model.onnx     also _fp16, _int8, _quantized, _q4, …
    preprocessor_config.json  tokenizer.json  config.json  tokenizer_config.json

Needs only the light install: NumPy and ONNX Runtime.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.hub.processors import ReadyError, context_length, merges_file, pixel_recipe
from mobileclip.bundle import write_bundle
from mobileclip.errors import EngineError, one_line
from mobileclip.files import PathLike
from mobileclip.manifest import EngineTowers, Manifest, TokenizerSpec
from mobileclip.model import KNOWN_ANSWER_COSINE
from mobileclip.preprocess import PixelRecipe
from mobileclip.runtimes.onnx import Tower
from mobileclip.tokenizer import Tokenizer, without_padding
from mobileclip.vectors import Floats, unit_rows

__all__ = ["Ready", "Source", "build_bundle", "choose_towers", "folder_files"]

FULL = "fp32"
_IMAGE, _TEXT = "vision_model", "text_model"
_NEEDED = ("preprocessor_config.json", "tokenizer.json")
_HELPFUL = ("config.json", "tokenizer_config.json")
_ALL = (*_NEEDED, *_HELPFUL)

# The trained value of OpenAI's and Apple's models, which all stop at this bound. `logit_scale_init_value` in
# config.json is only where training began, and the graphs don't include the scale.
_LOGIT_SCALE = 100.0

_SAME = 0.9999
_TEXTS = ("a photo of a dog", "two people on a beach at sunset", "a receipt", "dog")


@dataclass(frozen=True)
class Ready:
    """Which files of a repository or folder make a bundle; all paths are relative to it, with forward slashes.

    Attributes:
        precision: as in the towers' file names; "fp32" if they don't name one.
        image: the image tower.
        text: the text tower.
        configs: file name → path.
    """

    precision: str
    image: str
    text: str
    configs: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are needed."""
        return (self.image, self.text, *self.configs.values())


@dataclass(frozen=True)
class Source:
    """What a bundle says about where it comes from.

    Attributes:
        name: the bundle's name.
        license: of the weights, in one sentence.
        provenance: who made them and where they were found.
        research_only: whether the license allows only research.
        revision: the exact version, if there is one.
    """

    name: str
    license: str
    provenance: str
    research_only: bool = False
    revision: str = ""


def folder_files(folder: PathLike) -> dict[str, int]:
    """Path → bytes of every file below `folder`, without hidden files."""
    folder, found = Path(folder), {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            found[relative.as_posix()] = path.stat().st_size
    return found


def choose_towers(files: Mapping[str, int], precision: str = "", inside: str = "") -> Ready | None:
    """Choose the two towers of one precision, and the files that come with them.

    Args:
        files: path → bytes of all files.
        precision: "fp32", "fp16", "int8", …; empty for fp32, or the largest if there is no fp32.
        inside: the folder of the towers, if there are several.

    Returns:
        None if there are no towers at all.

    Raises:
        ReadyError: no towers of this precision, several models, or a missing configuration file.
    """
    pairs = _pairs(files)
    folders = sorted({folder for folder, _ in pairs if not inside or folder == inside.strip("/")})
    if not folders:
        return None
    if len(folders) > 1:
        raise ReadyError(f"there are several models; add the folder of one: {', '.join(folders)}")
    folder = folders[0]
    sizes = {found: files[image] + files[text] for (at, found), (image, text) in pairs.items() if at == folder}
    wanted = precision or (FULL if FULL in sizes else max(sizes, key=lambda found: sizes[found]))
    if wanted not in sizes:
        there = ", ".join(f"{found} ({size / 1e6:.1f} MB)" for found, size in sorted(sizes.items()))
        raise ReadyError(f"there are no {wanted} towers, only {there}")
    image, text = pairs[folder, wanted]
    for tower in (image, text):
        if any(name.startswith(f"{tower}_data") or name == f"{tower}.data" for name in files):
            raise ReadyError(f"{tower} keeps its weights in a second file, which a bundle can't hold")
    configs = {name: at for name in _ALL if (at := _beside(files, folder, name))}
    if missing := [name for name in _NEEDED if name not in configs]:
        raise ReadyError(f"{' and '.join(missing)} missing: needed to prepare the towers' inputs")
    return Ready(wanted, image, text, configs)


def _pairs(files: Mapping[str, int]) -> dict[tuple[str, str], tuple[str, str]]:
    """(Folder, precision) → the two towers."""
    found = {}
    for name in files:
        path = PurePosixPath(name)
        if path.suffix == ".onnx" and path.stem.startswith(_IMAGE):
            text = path.with_name(_TEXT + path.name.removeprefix(_IMAGE)).as_posix()
            if text in files:
                precision = path.stem.removeprefix(_IMAGE).removeprefix("_") or FULL
                found[path.parent.as_posix(), precision] = (name, text)
    return found


def _beside(files: Mapping[str, int], folder: str, name: str) -> str:
    """The path of a file: next to the towers, or in the nearest folder above them; empty if there is none."""
    for parent in (PurePosixPath(folder), *PurePosixPath(folder).parents):
        if (parent / name).as_posix() in files:
            return (parent / name).as_posix()
    return ""


def build_bundle(folder: PathLike, ready: Ready, source: Source, out: PathLike, report: Callable[[str], None]) -> Path:
    """Write a bundle of ready-made towers, all of it or nothing. It has no labels.

    Args:
        folder: holds the files that `ready` names.
        ready: see `choose_towers`.
        source: what the bundle says about itself.
        out: the bundle to make; an older one there is replaced.
        report: shows messages about what is being done.

    Returns:
        `out`.

    Raises:
        ReadyError: the files need something that we can't do exactly.
        EngineError: ONNX Runtime can't run a tower, or its optimized graph returns other vectors.
    """
    folder = Path(folder)
    configs = {name: _read_json(folder, ready.configs[name]) if name in ready.configs else {} for name in _ALL}
    try:
        recipe = pixel_recipe(configs["preprocessor_config.json"])
        merges, tokenizer = merges_file(configs["tokenizer.json"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # a value of an unexpected type
        raise ReadyError(f"preprocessor_config.json or tokenizer.json can't be understood ({error!r})") from None
    report("checking the text tower")
    text = (folder / ready.text).read_bytes()
    tokens, text_vectors, causal = _check_text_tower(text, ready.text, tokenizer, configs)
    report("checking the image tower")
    image = (folder / ready.image).read_bytes()
    pixels = _pictures(recipe.size)
    image_vectors = _check_image_tower(image, ready.image, recipe, pixels)
    if image_vectors.shape[1] != text_vectors.shape[1]:
        dims = f"{image_vectors.shape[1]} and {text_vectors.shape[1]} dimensions"
        raise ReadyError(f"the towers don't share an embedding space: {dims}")
    report("writing the bundle")
    manifest = _manifest(source, ready.precision, recipe, tokenizer, text_vectors.shape[1], causal)
    answers: dict[str, NDArray[Any]] = {
        "pixels": pixels,
        "tokens": tokens,
        "image_vectors": image_vectors,
        "text_vectors": text_vectors,
    }
    files = {
        "image.onnx": image,
        "text.onnx": text,
        "merges.txt.gz": merges,
        # Thresholds are fitted on labeled photos, which nobody has done for these towers.
        "labels.toml": b"",
        "label_vectors.npy": _saved(np.save, np.empty((0, text_vectors.shape[1]), np.float32)),
        "known_answers.npz": _saved(np.savez_compressed, **answers),
    }
    return write_bundle(out, manifest, files)


def _manifest(
    source: Source, precision: str, recipe: PixelRecipe, tokenizer: Tokenizer, dim: int, causal: bool
) -> Manifest:
    return Manifest(
        name=source.name,
        version="1",
        license=source.license,
        provenance=source.provenance,
        research_only=source.research_only,
        revision=source.revision,
        embed_dim=dim,
        logit_scale=_LOGIT_SCALE,
        pixels=recipe,
        tokenizer=TokenizerSpec("merges.txt.gz", tokenizer.context_length, tokenizer.vocab_size, causal),
        towers={"onnx": EngineTowers(precision=precision, image="image.onnx", text="text.onnx")},
        labels="labels.toml",
        label_vectors="label_vectors.npy",
        known_answers="known_answers.npz",
    )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReadyError(f"{name} can't be read ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise ReadyError(f"{name} doesn't hold a JSON object")
    return content


def _last_side(tower: Tower) -> object:
    return tower.shape[-1] if tower.shape else None


def _vectors(tower: Tower, inputs: NDArray[Any], name: str) -> Floats:
    """Unit rows; towers on hubs don't always end in a normalization."""
    try:
        return unit_rows(tower(inputs))
    except EngineError as error:
        raise EngineError(f"{name}: {error}") from None
    except ValueError:
        raise ReadyError(f"{name} returns vectors that are zero, NaN or infinite; try another --precision") from None


def _check_text_tower(
    data: bytes, name: str, tokenizer: Tokenizer, configs: Mapping[str, Mapping[str, Any]]
) -> tuple[NDArray[np.int32], Floats, bool]:
    """Set the tokenizer's context length and run the tower.

    Returns:
        int32 tokens (n, L) of some texts, their vectors (n, d), and whether the tower is causal.
    """
    tower = Tower(data, optimize=False)
    tokenizer.context_length = context_length(
        configs["config.json"], configs["tokenizer_config.json"], _last_side(tower)
    )
    tokens = tokenizer(_TEXTS)
    vectors = _vectors(tower, tokens, name)
    _check_optimized(data, tokens, vectors, name)
    return tokens, vectors, _is_causal(tower, tokenizer, vectors)


def _check_image_tower(data: bytes, name: str, recipe: PixelRecipe, pixels: NDArray[np.uint8]) -> Floats:
    """Run the tower: vectors (n, d) of crops, uint8 (n, s, s, 3)."""
    tower = Tower(data, optimize=False)
    side = _last_side(tower)
    if isinstance(side, int) and side != recipe.size:
        raise ReadyError(f"{name} takes {side} pixels, but preprocessor_config.json makes {recipe.size}")
    inputs = recipe.normalize_uint8(pixels)
    vectors = _vectors(tower, inputs, name)
    del tower  # the next one needs as much memory
    _check_optimized(data, inputs, vectors, name)
    return vectors


def _check_optimized(data: bytes, inputs: NDArray[Any], expected: Floats, name: str) -> None:
    """Compare the graph as the engine will run it with the graph as it is written."""
    worst = float((_vectors(Tower(data), inputs, name) * expected).sum(axis=1).min())
    if not worst >= KNOWN_ANSWER_COSINE:
        raise EngineError(f"{name}: ONNX Runtime's optimized graph returns other vectors (cosine {worst:.4f})")


def _is_causal(tower: Tower, tokenizer: Tokenizer, expected: Floats) -> bool:
    """Whether trailing padding changes nothing and may be dropped.

    Padding is 0 here, while CLIP's tokenizer on hubs pads with the end mark. A causal tower reads its answer at the
    first end mark, so for it both are the same; bidirectional towers were trained with 0.
    """
    for row, text in zip(expected, _TEXTS, strict=True):
        try:
            short = _vectors(tower, without_padding(tokenizer([text])), "text tower")
        except EngineError:  # a graph of fixed length
            return False
        if not float((short[0] * row).sum()) > _SAME:
            return False
    return True


def _pictures(size: int) -> NDArray[np.uint8]:
    """Two drawn pictures, uint8 (2, size, size, 3): smooth colors, and shapes with hard edges."""
    y, x = np.mgrid[0:size, 0:size] / size
    smooth = np.stack([x, y, (2 - x - y) / 2], axis=-1)
    hard = np.stack([np.abs(x - 0.5) + np.abs(y - 0.5) < 0.4, x > 0.7, (8 * y).astype(int) % 2 == 0], axis=-1)
    pixels: NDArray[np.uint8] = (np.stack([smooth, hard.astype(float)]) * 255).astype(np.uint8)
    return pixels


def _saved(save: Callable[..., None], *arrays: NDArray[Any], **named: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()
