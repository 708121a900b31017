"""A bundle from ready ONNX towers, laid out as model hubs lay them out for transformers.js.

    onnx/vision_model.onnx  onnx/text_model.onnx     also _fp16, _int8, _quantized, _q4, …
    preprocessor_config.json  tokenizer.json  config.json  tokenizer_config.json

Needs what the light install has: NumPy and ONNX Runtime.
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
from mobileclip.errors import EngineError
from mobileclip.manifest import EngineTowers, Manifest, TokenizerSpec
from mobileclip.model import KNOWN_ANSWER_COSINE
from mobileclip.preprocess import PixelRecipe
from mobileclip.runtimes.onnx import Tower
from mobileclip.tokenizer import Tokenizer

__all__ = ["Ready", "Source", "build_bundle", "choose_towers", "folder_files"]

Floats = NDArray[np.float32]

FULL = "fp32"
_IMAGE, _TEXT = "vision_model", "text_model"
_NEEDED = ("preprocessor_config.json", "tokenizer.json")
_HELPFUL = ("config.json", "tokenizer_config.json")
_ALL = (*_NEEDED, *_HELPFUL)

# The trained value of OpenAI's and Apple's models, which all stop at this bound. `logit_scale_init_value` in
# config.json is only where training began, and the graphs do not carry the scale.
_LOGIT_SCALE = 100.0

_SAME = 0.9999
_TEXTS = ("a photo of a dog", "two people on a beach at sunset", "a receipt", "dog")


@dataclass(frozen=True)
class Ready:
    """Which files of a repository or folder make a bundle; all paths are relative to it, with forward slashes.

    Attributes:
        precision: what the towers' file names say; "fp32" for those that say nothing.
        image: the image tower.
        text: the text tower.
        configs: file name → where it lies.
    """

    precision: str
    image: str
    text: str
    configs: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is needed."""
        return (self.image, self.text, *self.configs.values())


@dataclass(frozen=True)
class Source:
    """What a bundle says of where it comes from.

    Attributes:
        name: the bundle's name.
        licence: of the weights, in one sentence.
        provenance: who made them and where they were found.
        research_only: whether the licence allows nothing but research.
        revision: the exact version, where there is one.
    """

    name: str
    licence: str
    provenance: str
    research_only: bool = False
    revision: str = ""


def folder_files(folder: Path) -> dict[str, int]:
    """Path → bytes of every file below `folder`, hidden ones left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            found[relative.as_posix()] = path.stat().st_size
    return found


def choose_towers(files: Mapping[str, int], precision: str = "", inside: str = "") -> Ready | None:
    """Pick the two towers of one precision, and the files beside them.

    Args:
        files: path → bytes of everything there is.
        precision: "fp32", "fp16", "int8", …; empty for fp32, or else the largest there is.
        inside: the folder of the towers, where there are several.

    Returns:
        None where there are no towers at all.

    Raises:
        ReadyError: no towers of this precision, several models, or a file missing beside them.
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
            raise ReadyError(f"{tower} keeps its weights in a second file, which a bundle cannot hold")
    configs = {name: at for name in _ALL if (at := _beside(files, folder, name))}
    if missing := [name for name in _NEEDED if name not in configs]:
        raise ReadyError(f"{' and '.join(missing)} missing: without it nobody knows what to feed the towers")
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
    """Where a file lies: with the towers, or in the nearest folder above them."""
    for parent in (PurePosixPath(folder), *PurePosixPath(folder).parents):
        if (parent / name).as_posix() in files:
            return (parent / name).as_posix()
    return ""


def build_bundle(folder: Path, ready: Ready, source: Source, out: Path, report: Callable[[str], None]) -> Path:
    """Write a bundle of ready towers, all of it or nothing; it has no labels.

    Args:
        folder: holds the files that `ready` names.
        ready: see `choose_towers`.
        source: what the bundle says of itself.
        out: the bundle to make; an older one there is replaced.
        report: told what is being done.

    Returns:
        `out`.

    Raises:
        ReadyError: the files ask for something that we cannot do exactly.
        EngineError: ONNX Runtime cannot run a tower, or its optimised graph gives other vectors.
    """
    configs = {name: _json(folder, ready.configs[name]) if name in ready.configs else {} for name in _ALL}
    try:
        recipe = pixel_recipe(configs["preprocessor_config.json"])
        merges, tokenizer = merges_file(configs["tokenizer.json"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # a value of a type that nobody writes
        raise ReadyError(f"preprocessor_config.json or tokenizer.json is not understood ({error!r})") from None
    report("checking the text tower")
    text = (folder / ready.text).read_bytes()
    tower = Tower(text, optimize=False)
    tokenizer.context_length = context_length(
        configs["config.json"], configs["tokenizer_config.json"], _last_side(tower)
    )
    tokens = tokenizer(_TEXTS)
    words = _vectors(tower, tokens, ready.text)
    _check_optimized(text, tokens, words, ready.text)
    causal = _is_causal(tower, tokenizer, words)
    del tower
    report("checking the image tower")
    image = (folder / ready.image).read_bytes()
    pixels = _pictures(recipe.size)
    photos = _image_vectors(image, recipe, pixels, ready.image)
    if photos.shape[1] != words.shape[1]:
        raise ReadyError(f"the towers do not share a space: {photos.shape[1]} and {words.shape[1]} dimensions")
    report("writing the bundle")
    manifest = Manifest(
        name=source.name,
        version="1",
        license=source.licence,
        provenance=source.provenance,
        research_only=source.research_only,
        revision=source.revision,
        embed_dim=words.shape[1],
        logit_scale=_LOGIT_SCALE,
        pixels=recipe,
        tokenizer=TokenizerSpec("merges.txt.gz", tokenizer.context_length, tokenizer.vocab_size, causal),
        towers={"onnx": EngineTowers(precision=ready.precision, image="image.onnx", text="text.onnx")},
        labels="labels.toml",
        label_vectors="label_vectors.npy",
        known_answers="known_answers.npz",
    )
    answers: dict[str, NDArray[Any]] = {
        "pixels": pixels,
        "tokens": tokens,
        "image_vectors": photos,
        "text_vectors": words,
    }
    files = {
        "image.onnx": image,
        "text.onnx": text,
        "merges.txt.gz": merges,
        # Thresholds are fitted on labelled photos, and nobody has done that for these towers.
        "labels.toml": b"",
        "label_vectors.npy": _saved(np.save, np.empty((0, words.shape[1]), np.float32)),
        "known_answers.npz": _saved(np.savez_compressed, **answers),
    }
    return write_bundle(out, manifest, files)


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReadyError(f"{name} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise ReadyError(f"{name} holds no JSON object")
    return found


def _last_side(tower: Tower) -> object:
    return tower.shape[-1] if tower.shape else None


def _vectors(tower: Tower, inputs: NDArray[Any], name: str) -> Floats:
    """Unit rows; towers on hubs do not always end in a normalisation."""
    try:
        rows = tower(inputs)
    except EngineError as error:
        raise EngineError(f"{name}: {error}") from None
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 1e-6):
        raise ReadyError(f"{name} gives vectors that are zero or not numbers; try another --precision")
    units: Floats = rows / lengths
    return units


def _image_vectors(data: bytes, recipe: PixelRecipe, pixels: NDArray[np.uint8], name: str) -> Floats:
    tower = Tower(data, optimize=False)
    side = _last_side(tower)
    if isinstance(side, int) and side != recipe.size:
        raise ReadyError(f"{name} wants {side} pixels, but preprocessor_config.json makes {recipe.size}")
    inputs = recipe.normalize_uint8(pixels)
    photos = _vectors(tower, inputs, name)
    del tower
    _check_optimized(data, inputs, photos, name)
    return photos


def _check_optimized(data: bytes, inputs: NDArray[Any], expected: Floats, name: str) -> None:
    """Compare the graph as the engine will run it with the graph as it is written."""
    worst = float((_vectors(Tower(data), inputs, name) * expected).sum(axis=1).min())
    if not worst >= KNOWN_ANSWER_COSINE:
        raise EngineError(f"{name}: ONNX Runtime's optimised graph gives other vectors (cosine {worst:.4f})")


def _is_causal(tower: Tower, tokenizer: Tokenizer, words: Floats) -> bool:
    """Whether trailing padding changes nothing, so that it may be left away.

    Padding is 0 here, while CLIP's tokenizer on hubs pads with the end mark. For a causal tower, which reads its
    answer at the first end mark, both are the same; bidirectional ones were trained with 0.
    """
    for row, text in zip(words, _TEXTS, strict=True):
        tokens = tokenizer([text])
        try:
            short = _vectors(tower, tokens[:, : int(tokens.argmax()) + 1], "text tower")
        except EngineError:  # a graph of fixed length
            return False
        if not float((short[0] * row).sum()) > _SAME:
            return False
    return True


def _pictures(size: int) -> NDArray[np.uint8]:
    """Two drawn pictures, uint8 (2, size, size, 3): smooth colours, and shapes with hard edges."""
    y, x = np.mgrid[0:size, 0:size] / size
    smooth = np.stack([x, y, (2 - x - y) / 2], axis=-1)
    hard = np.stack([np.abs(x - 0.5) + np.abs(y - 0.5) < 0.4, x > 0.7, (8 * y).astype(int) % 2 == 0], axis=-1)
    pixels: NDArray[np.uint8] = (np.stack([smooth, hard.astype(float)]) * 255).astype(np.uint8)
    return pixels


def _saved(save: Callable[..., None], *arrays: NDArray[Any], **named: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()
