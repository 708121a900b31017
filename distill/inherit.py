"""Students that start from the weights of another."""

from __future__ import annotations

import copy
import re
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distill.data.corpus import Corpus
from distill.task import TeacherBank
from mobileclip.errors import ConfigError, PhotoError
from mobileclip.photos import open_photo
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP

PHOTOS, TEXTS, BATCH = 1024, 4096, 64

Layers = Literal["first", "every"]


@torch.inference_mode()
def turn_to_teacher(model: CLIP, tokenizer: Tokenizer, corpus: Corpus, bank: TeacherBank, seed: int) -> float:
    """Rotate a student's space to lie on its teacher's, as nearly as it can.

    Which direction means what is an accident of training: a student of one teacher knows nothing of the next one's
    axes, although both may agree on who is near whom. The rotation that brings their vectors together (orthogonal
    Procrustes, Schönemann 1966) goes into both projections and changes none of the student's own similarities.

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
    mine = [torch.cat([model.encode_text(part) for part in tokens.split(BATCH)])]
    photos, vectors = _photo_vectors(model, corpus, random)
    mine.append(vectors)
    theirs = torch.cat([bank.texts[texts], bank.photos[photos]])
    student = torch.cat(mine)
    # Few photos count as much as many texts.
    weight = torch.cat([torch.full((len(texts), 1), 1 / len(texts)), torch.full((len(photos), 1), 1 / len(photos))])
    left, _, right = torch.linalg.svd((student * weight).T @ theirs)
    turn = left @ right
    for projection in (model.image.projection, model.text.projection):
        projection.weight.copy_(turn.T @ projection.weight)
        if projection.bias is not None:
            projection.bias.copy_(projection.bias @ turn)
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


def interpolate(first: CLIP, second: CLIP, share: float) -> CLIP:
    """Mix two checkpoints of one shape, weight by weight (WiSE-FT, Wortsman et al. 2022, section 3).

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
        raise ConfigError(f"interpolate: {first.config.name} and {second.config.name} are of different shapes")
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(value.lerp(other[name], share) if value.is_floating_point() else other[name])
    return mixed
