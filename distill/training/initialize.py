"""Students that start from the weights of another."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.feeds.cached import Feed
from distill.teachers.bank import TeacherBank
from mobileclip.errors import ConfigError, PhotoError
from mobileclip.photos import open_photo
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP
from mobileclip.towers.text import Block

PHOTOS, TEXTS, BATCH = 1024, 4096, 64

Layers = Literal["first", "every"]
Model = TypeVar("Model", bound=nn.Module)


@torch.inference_mode()
def turn_to_teacher(model: CLIP, tokenizer: Tokenizer, corpus: Corpus, bank: TeacherBank, seed: int) -> float:
    """Rotate a student's space to lie on its teacher's, as nearly as it can.

    Which direction means what is an accident of training: a student of one teacher knows nothing of the next one's
    axes, although both may agree on who is near whom. The rotation that brings their vectors together (orthogonal
    Procrustes, Schönemann 1966) goes into the last layers of both and changes none of the student's own similarities.

    Args:
        model: the student, with vectors as long as the teacher's; changed in place.
        tokenizer: the student's.
        corpus: photos and texts, of which some are drawn.
        bank: the teacher's vectors of all of them.
        seed: of the draw.

    Returns:
        The mean cosine of the student's and the teacher's vectors afterwards.
    """
    random = np.random.default_rng(seed)
    model.eval()
    texts = random.choice(len(corpus.texts), min(TEXTS, len(corpus.texts)), replace=False)
    tokens = torch.from_numpy(tokenizer([corpus.texts[i] for i in texts]))
    said = torch.cat([model.encode_text(part) for part in tokens.split(BATCH)])
    photos, seen = _photo_vectors(model, corpus, random)
    return _turn(model, (said, bank.texts[texts]), (seen, bank.photos[photos]))


@torch.inference_mode()
def turn_by_batches(model: CLIP, recipe: Recipe, feed: Feed) -> float:
    """As `turn_to_teacher`, for a feed that holds no corpus: by the first photos and texts of the first epoch.

    Args:
        model: the student, with vectors as long as the first teacher's; changed in place.
        recipe: its first stage with photos says how large they are.
        feed: of the run.

    Returns:
        The mean cosine of the student's and the teacher's vectors afterwards.

    Raises:
        ConfigError: no stage has photos.
    """
    stage = next((stage for stage in recipe.stages if not stage.texts_only), None)
    if stage is None:
        raise ConfigError("start: laying the student on its teacher's axes needs a stage with photos")
    model.eval()
    texts, photos, counts = [], [], [0, 0]
    for batch in feed.batches(0, stage, 0):
        texts.append((model.encode_text(batch.tokens), batch.teachers[0].text))
        if len(batch.pixels):
            photos.append((model.encode_image(batch.pixels), batch.teachers[0].image))
        counts = [counts[0] + len(batch.tokens), counts[1] + len(batch.pixels)]
        if counts[0] >= TEXTS and counts[1] >= PHOTOS:
            break
    if not photos:
        raise ConfigError("start: laying the student on its teacher's axes needs photos, and none could be read")
    said, seen = (tuple(torch.cat(side) for side in zip(*pairs, strict=True)) for pairs in (texts, photos))
    return _turn(model, (said[0], said[1]), (seen[0], seen[1]))


def _turn(model: CLIP, texts: tuple[Tensor, Tensor], photos: tuple[Tensor, Tensor]) -> float:
    """Turn a student by its own vectors and the teacher's, of texts and of photos; returns their cosine then."""
    student, theirs = (torch.cat(side) for side in zip(texts, photos, strict=True))
    # Few photos count as much as many texts.
    weight = torch.cat([torch.full((len(mine), 1), 1 / len(mine)) for mine, _ in (texts, photos)])
    left, _, right = torch.linalg.svd((student * weight).T @ theirs)
    turn = left @ right
    for layer in (*model.image.last_layers(), model.text.projection):
        layer.weight.copy_(turn.T @ layer.weight)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias @ turn)
    if model.image.places is not None:
        model.image.places.copy_(turn.T @ model.image.places)
    return float((student @ turn * theirs).sum(dim=1).mean())


def _photo_vectors(model: CLIP, corpus: Corpus, random: np.random.Generator) -> tuple[list[int], Tensor]:
    """Encode some photos; those that cannot be read are left out."""
    recipe, read, rows, pixels = model.config.pixels, [], [], []
    drawn = random.choice(len(corpus.samples), min(PHOTOS, len(corpus.samples)), replace=False)
    for number in drawn.tolist():
        try:
            pixels.append(torch.from_numpy(recipe(open_photo(corpus.samples[number].path, min_side=2 * recipe.size))))
        except PhotoError:
            continue
        read.append(number)
        if len(pixels) == BATCH:
            rows.append(model.encode_image(torch.stack(pixels)))
            pixels = []
    if pixels:
        rows.append(model.encode_image(torch.stack(pixels)))
    return read, torch.cat(rows)


def inherit(student: CLIP, larger: CLIP, layers: Layers = "every") -> None:
    """Cut a student's weights out of a larger model of the same kind (TinyCLIP, Wu et al. 2023, section 3.2, manual).

    Widths are leading slices, attention keeps its leading heads. Where both have the same shape the copy is exact, and
    so is leaving out layers that add nothing; a narrower LayerNorm sees other statistics than it was trained with, so
    that a student cut in width starts far off and has to be trained.

    Args:
        student: changed in place; both towers, and the logit scale.
        larger: at least as wide and as deep.
        layers: which to keep: the `first` ones, or `every` k-th, k = depth of the larger // depth of the student
            (12 to 9 layers are the first 9 either way).

    Raises:
        ConfigError: the student is larger somewhere, or its heads are of another width, or its trunk of another kind.
    """
    source = larger.state_dict()
    depths = {side: (_depth(student, side), _depth(larger, side)) for side in ("image", "text")}
    heads = {side: (_heads(student, side), _heads(larger, side)) for side in ("image", "text")}
    cut = {}
    for name, value in student.state_dict().items():
        side = name.partition(".")[0]
        origin = _layer_of_origin(name, depths[side], layers) if side in depths else name
        if origin not in source:
            raise ConfigError(f"inherit: {larger.config.name} has no {origin}; its towers are of another kind")
        cut[name] = _slice(name, source[origin], value, heads.get(side, (0, 0)))
    student.load_state_dict(cut)


def deepen(student: CLIP, shallower: CLIP) -> None:
    """Start a student from a model that differs in having fewer text layers, or other dropout.

    The further layers stand last and add nothing at first, so that the student begins with the very same vectors; what
    they add is learned, as in a residual network whose branches start at zero (Goyal et al. 2017, section 5.1).

    Args:
        student: changed in place; both towers, and the logit scale.
        shallower: of the same shapes otherwise, with at most as many text layers.

    Raises:
        ConfigError: they differ in more than the number of text layers, or the student has fewer.
    """
    ours = student.config.text
    text = dataclasses.replace(shallower.config.text, layers=ours.layers, dropout=ours.dropout)
    grown = dataclasses.replace(student.config, name=shallower.config.name, parameters=shallower.config.parameters)
    if dataclasses.replace(shallower.config, text=text) != grown:
        raise ConfigError(f"a {shallower.config.name} differs in more than depth from {student.config.name}")
    depths = len(shallower.text.blocks), len(student.text.blocks)
    if depths[0] > depths[1]:
        raise ConfigError(f"a student of {depths[1]} text layers cannot start from one of {depths[0]}")
    student.load_state_dict({**student.state_dict(), **shallower.state_dict()})
    with torch.no_grad():
        for block in student.text.blocks[depths[0] :]:
            for layer in (block.out, block.proj) if isinstance(block, Block) else ():
                layer.weight.zero_()
                layer.bias.zero_()


def _depth(model: CLIP, side: str) -> int:
    blocks = model.text.blocks if side == "text" else getattr(model.image.trunk, "blocks", ())
    return len(blocks)


def _heads(model: CLIP, side: str) -> int:
    """Attention heads of a transformer tower, 0 where the tower is none."""
    if side == "text":
        return model.config.text.heads
    first = next(iter(getattr(model.image.trunk, "blocks", ())), None)
    return int(getattr(getattr(first, "attn", None), "num_heads", 0))


def _layer_of_origin(name: str, depths: tuple[int, int], layers: Layers) -> str:
    """Name the weight of the larger model that a student's weight comes from."""
    found = re.search(r"blocks\.(\d+)\.", name)
    if not found:
        return name
    step = depths[1] // depths[0] if layers == "every" and depths[0] <= depths[1] else 1
    return f"{name[: found.start(1)]}{int(found[1]) * step}{name[found.end(1) :]}"


def _slice(name: str, source: Tensor, wanted: Tensor, heads: tuple[int, int]) -> Tensor:
    if source.ndim != wanted.ndim or any(s < w for s, w in zip(source.shape, wanted.shape, strict=True)):
        raise ConfigError(f"inherit: {name} is {tuple(wanted.shape)}, cut from {tuple(source.shape)}: not smaller")
    if re.search(r"qkv\.(weight|bias)$", name) and source.shape != wanted.shape:
        width = [tensor.shape[0] // 3 // count for tensor, count in zip((wanted, source), heads, strict=True)]
        if width[0] != width[1]:
            raise ConfigError(f"inherit: {name}: heads of {width[0]} and {width[1]} channels; they must be alike")
        # Queries, keys and values stand one behind the other, each by heads.
        parts = source.unflatten(0, (3, heads[1], width[1]))[:, : heads[0]].flatten(0, 2)
        return parts[:, : wanted.shape[1]] if wanted.ndim == 2 else parts
    return source[tuple(slice(0, size) for size in wanted.shape)].clone()


def interpolate(first: Model, second: Model, share: float) -> Model:
    """Mix two models of one shape, or two parts of such, weight by weight (WiSE-FT, Wortsman et al. 2022, section 3).

    Args:
        first: the weights at share 0, often the ones before fine-tuning.
        second: the weights at share 1.
        share: of the second, 0 to 1.

    Raises:
        ConfigError: they are of different shapes, or the share lies outside.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"interpolate: the share must lie in 0 … 1, not {share}")
    mixed, other = copy.deepcopy(first), second.state_dict()
    state = mixed.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in other.items()}:
        raise ConfigError("interpolate: the two models are of different shapes")
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(value.lerp(other[name], share) if value.is_floating_point() else other[name])
    return mixed
