"""Reads the configuration files of ready-made ONNX towers: pixel recipe, merges, context length.

The files are those of the transformers library: `preprocessor_config.json`, `tokenizer.json`, `config.json`,
`tokenizer_config.json`. What can't be done exactly as they say is refused, with the reason.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any, Literal

from mobileclip.errors import BundleError, PocketclipError
from mobileclip.preprocess import PixelRecipe
from mobileclip.tokenizer import Tokenizer

__all__ = ["ReadyError", "context_length", "merges_file", "pixel_recipe"]

Config = Mapping[str, Any]

_INTERPOLATION: dict[Any, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_MOST_TOKENS = 4096


class ReadyError(PocketclipError):
    """Ready-made towers, or the files that come with them, that can't become a bundle."""


def pixel_recipe(config: Config) -> PixelRecipe:
    """Recipe of a `preprocessor_config.json`.

    If a remainder is odd, transformers crops the center half a pixel to the upper left, and torchvision to the nearest
    even pixel. These models were trained with torchvision, so our recipe, which crops as torchvision does, is kept.

    Raises:
        ReadyError: a setting can't be expressed exactly as a `PixelRecipe`.
    """

    def need(condition: object, reason: str) -> None:
        if not condition:
            raise ReadyError(f"preprocessor_config.json: {reason}")

    need(config.get("do_resize", True) is True, "photos that are not resized are not supported")
    need(config.get("do_rescale", True) is True, "pixels that are not scaled to 0 … 1 are not supported")
    factor = config.get("rescale_factor", 1 / 255)
    need(isinstance(factor, float) and abs(factor - 1 / 255) < 1e-6, f"rescale_factor must be 1/255, not {factor}")
    need(not config.get("do_pad"), "padding is not supported")
    need("crop_pct" not in config, "crop_pct is not supported")
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIP")
    crops = config.get("do_center_crop", kind.startswith("CLIP")) is True
    need(kind.startswith("CLIP") or not isinstance(config.get("size"), int), f"a bare size for {kind} is not supported")
    resize, size = _resize(config.get("size"), crops)
    need(size, f"a size of {config.get('size')!r} is not supported: it must be a square")
    if crops:
        crop = config.get("crop_size", size)
        sides = {crop.get("height"), crop.get("width")} if isinstance(crop, Mapping) else {crop}
        need(sides == {size}, f"resizing to {size} and then cropping {crop} is not supported: the two must be equal")
    resample = config.get("resample", 3)
    need(resample in _INTERPOLATION, f"resample {resample!r} is neither 2 (bilinear) nor 3 (bicubic)")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        need("image_mean" in config and "image_std" in config, "image_mean and image_std are missing")
        mean, std = config["image_mean"], config["image_std"]
    try:
        return PixelRecipe(size, resize, _INTERPOLATION[resample], mean, std)
    except ValueError as error:
        raise ReadyError(f"preprocessor_config.json: {error}") from None


def _resize(size: object, crops: bool) -> tuple[Literal["shortest", "squash"], int]:
    """How to resize and to which side length; 0 if the result isn't a square."""
    if isinstance(size, int):
        size = {"shortest_edge": size}  # as CLIP's processor reads a bare number
    if isinstance(size, Mapping):
        if set(size) == {"shortest_edge"} and crops:
            return "shortest", int(size["shortest_edge"])
        if set(size) == {"height", "width"} and size["height"] == size["width"]:
            return "squash", int(size["height"])
    return "shortest", 0


def merges_file(config: Config) -> tuple[bytes, Tokenizer]:
    """Convert a `tokenizer.json` to our gzipped merges file, and to its tokenizer (context length 77).

    Raises:
        ReadyError: not CLIP's kind of tokenizer, or it numbers its symbols differently.
    """
    model = config.get("model")
    if not isinstance(model, Mapping):
        raise ReadyError("tokenizer.json: it has no model")
    kind, suffix = model.get("type", "BPE"), model.get("end_of_word_suffix")
    if kind != "BPE" or suffix != "</w>" or model.get("byte_fallback"):
        found = f"BPE with the word ending {suffix!r}" if kind == "BPE" else str(kind)
        if kind == "Unigram":
            found = "SentencePiece (Unigram)"
        raise ReadyError(f"tokenizer.json: only CLIP's byte-level BPE with </w> is supported, not {found}")
    if "Lowercase" not in str(config.get("normalizer")):
        raise ReadyError("tokenizer.json: only tokenizers that lowercase text are supported")
    pairs: list[tuple[str, str]] = []
    for merge in model.get("merges", ()):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise ReadyError(f"tokenizer.json: {merge!r} isn't a pair of symbols")
        pairs.append((parts[0], parts[1]))
    try:
        tokenizer = Tokenizer(pairs)
    except BundleError as error:
        raise ReadyError(f"tokenizer.json: {error}") from None
    _check_ids(config, model.get("vocab", {}), tokenizer)
    text = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in pairs)
    return gzip.compress(text.encode("utf-8"), mtime=0), tokenizer


def _check_ids(config: Config, vocabulary: Mapping[str, int], tokenizer: Tokenizer) -> None:
    """Check that every symbol has the id that we give it, because the tower's embeddings have that order."""
    theirs = dict(vocabulary)
    for token in config.get("added_tokens") or ():
        theirs[token["content"]] = token["id"]
    ours = {
        **tokenizer.vocabulary,
        "<|startoftext|>": tokenizer.sot,
        "<|endoftext|>": tokenizer.eot,
    }
    wrong = next((symbol for symbol, number in ours.items() if theirs.get(symbol) != number), None)
    if wrong is not None:
        raise ReadyError(
            f"tokenizer.json: {wrong!r} has the id {theirs.get(wrong)}, not {ours[wrong]} as in CLIP's vocabulary"
        )


def context_length(config: Config, tokenizer_config: Config, fixed: object) -> int:
    """Number of columns of a token matrix.

    Args:
        config: `config.json`.
        tokenizer_config: `tokenizer_config.json`.
        fixed: what the text tower's graph itself declares; ignored unless it is a number.

    Raises:
        ReadyError: none of the three states it.
    """
    text = config.get("text_config")
    for length in (
        fixed,
        text.get("max_position_embeddings") if isinstance(text, Mapping) else None,
        config.get("max_position_embeddings"),
        tokenizer_config.get("model_max_length"),  # an absurdly large number if nobody has set it
    ):
        if isinstance(length, int) and 2 <= length <= _MOST_TOKENS:
            return length
    raise ReadyError("neither config.json nor tokenizer_config.json nor the text tower states the context length")
