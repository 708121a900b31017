"""What a bundle's `manifest.json` must say, checked before anything else is read."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mobileclip.errors import BundleError, EngineError
from mobileclip.preprocess import PixelRecipe

__all__ = ["MANIFEST", "MAX_BYTES", "SCHEMA", "FileEntry", "check", "is_safe", "parse", "variant"]

SCHEMA: Final = 1
"""The manifest version that this code writes, and the newest that it reads."""

MANIFEST: Final = "manifest.json"
MAX_BYTES: Final = 4 * 2**20

# Plain names joined by "/": no way up, no drive, no hidden file, nothing that Windows reads otherwise.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXT_FIELDS = ("name", "version", "licence", "provenance", "labels", "label_vectors", "known_answers")


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of one file: SHA-256 in hex and size in bytes."""

    sha256: str
    bytes: int


def is_safe(name: str) -> bool:
    """Whether a file of a bundle may have this name."""
    return _SAFE_NAME.fullmatch(name) is not None


def variant(towers: Mapping[str, Any], engine: str, precision: str | None = None) -> dict[str, Any]:
    """The towers of one engine and precision, by default the engine's own choice.

    Args:
        towers: a manifest's `towers`: for each engine a table with `precision`, `image` and `text` (files, or folders
            of files), perhaps `labels` and `known_answers` of its own and `local`; and `variants`: precision → a table
            of the same kind.
        engine: one of its keys.
        precision: which variant; None for the table itself.

    Raises:
        EngineError: there is no such engine or precision.
    """
    if engine not in towers:
        raise EngineError(f"no towers for the engine {engine!r}, only for {', '.join(towers)}")
    own, others = towers[engine], towers[engine].get("variants", {})
    if precision is None or precision == own.get("precision"):
        return {name: value for name, value in own.items() if name != "variants"}
    if precision not in others:
        there = ", ".join([str(own.get("precision")), *others])
        raise EngineError(f"no {precision} towers for the engine {engine!r}, only {there}")
    return {"precision": precision, **others[precision]}


def parse(data: bytes, path: Path) -> dict[str, Any]:
    """The manifest's JSON object, of a schema that this version knows."""
    if len(data) > MAX_BYTES:
        raise BundleError(f"{path}: {MANIFEST} is too large")
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not JSON ({error})") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BundleError(f"{path}: {MANIFEST} has no schema number: this is no model bundle")
    if schema > SCHEMA:
        raise BundleError(f"{path}: made by a newer pocketclip (schema {schema}, not {SCHEMA}): update pocketclip")
    found: dict[str, Any] = manifest
    return found


def check(manifest: Mapping[str, Any], path: Path) -> tuple[dict[str, FileEntry], PixelRecipe]:
    """File entries and pixel recipe of a manifest in which every required field is sound."""

    def need(sound: object, message: str) -> None:
        if not sound:
            raise BundleError(f"{path}: {MANIFEST}: {message}")

    for field in _TEXT_FIELDS:
        need(isinstance(manifest.get(field), str) and manifest[field], f"{field} must be a text")
    need(_is_number(manifest.get("embed_dim"), whole=True), "embed_dim must be a whole number above 0")
    need(_is_number(manifest.get("logit_scale")), "logit_scale must be a number above 0")
    tokenizer, towers = manifest.get("tokenizer"), manifest.get("towers")
    need(isinstance(tokenizer, dict), "tokenizer must be a table")
    need(isinstance(towers, dict) and towers, "towers must name at least one engine")
    assert isinstance(tokenizer, dict) and isinstance(towers, dict)
    for field, least in (("context_length", 2), ("vocab_size", 514)):
        need(
            _is_number(tokenizer.get(field), whole=True) and tokenizer[field] >= least,
            f"tokenizer.{field} must be a whole number from {least} on",
        )
    need(isinstance(tokenizer.get("causal", False), bool), "tokenizer.causal must be true or false")
    try:
        pixels = PixelRecipe.from_dict(manifest.get("pixels", {}))
    except ValueError as error:
        raise BundleError(f"{path}: {MANIFEST}: {error}") from None
    files = _check_files(manifest.get("files"), need)
    used = [
        tokenizer.get("file"),
        *(manifest[field] for field in ("labels", "label_vectors", "known_answers")),
    ]
    for where, tower in _tables(towers, need):
        used += [tower.get(key) for key in ("labels", "known_answers") if key in tower]
        for side in ("image", "text"):
            name = tower.get(side)
            folder = isinstance(name, str) and any(file.startswith(f"{name}/") for file in files)
            used += [] if folder else [name]
        if "local" in tower:
            local = tower["local"]
            need(
                isinstance(local, dict) and isinstance(local.get("output"), str) and local["output"],
                f"{where}.local must name the output that is the feature map",
            )
            used.append(local.get("head"))
    for name in used:
        need(isinstance(name, str) and name in files, f"the file {name!r} is used but not listed in files")
    return files, pixels


def _tables(towers: Mapping[str, Any], need: Callable[[object, str], None]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every table of towers with where it stands: each engine's own, and its variants."""
    for engine, own in towers.items():
        need(isinstance(own, dict), f"towers.{engine} must be a table")
        yield f"towers.{engine}", own
        variants = own.get("variants", {})
        need(isinstance(variants, dict), f"towers.{engine}.variants must be a table")
        for precision, other in variants.items():
            where = f"towers.{engine}.variants.{precision}"
            need(isinstance(other, dict), f"{where} must be a table")
            yield where, other


def _check_files(entries: object, need: Callable[[object, str], None]) -> dict[str, FileEntry]:
    need(isinstance(entries, dict), "files must be a table")
    assert isinstance(entries, dict)
    files = {}
    for name, entry in entries.items():
        need(is_safe(name) and name != MANIFEST, f"{name!r} is not an acceptable file name")
        need(
            isinstance(entry, dict)
            and isinstance(entry.get("sha256"), str)
            and _SHA256.fullmatch(entry["sha256"])
            and (entry.get("bytes") == 0 or _is_number(entry.get("bytes"), whole=True)),
            f"{name} needs its sha256 (64 hex digits) and bytes",
        )
        files[name] = FileEntry(entry["sha256"], entry["bytes"])
    return files


def _is_number(value: object, whole: bool = False) -> bool:
    """Whether a JSON value is a finite number above 0."""
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0 and math.isfinite(value)
