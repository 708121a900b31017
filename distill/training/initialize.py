"""Initialize a student from another model's weights, and align it to its teacher."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from distill.config import Recipe
from distill.feeds.feed import Feed
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP
from mobileclip.towers.text import Block

PHOTOS, TEXTS, BATCH = 1024, 4096, 64
"""Photos and texts that a student is aligned by, and how many of them go through a tower at a time."""

UNDETERMINED = 1e-6
"""How much, next to embeddings of unit length, a rotation tends to leave directions as they are."""

Layers = Literal["first", "every"]
Model = TypeVar("Model", bound=nn.Module)


@torch.inference_mode()
def align_to_teacher(model: CLIP, recipe: Recipe, feed: Feed) -> float:
    """Rotate a student's embedding space to match its teacher's (orthogonal Procrustes, Schönemann 1966).

    The axes of an embedding space are arbitrary: two models can agree about which photos and texts are similar although
    their embeddings differ. The best rotation is multiplied into the last layers of both towers. It doesn't change the
    similarities between the student's own embeddings.

    Args:
        model: the student, whose embeddings have the first teacher's dimension; changed in place.
        recipe: the recipe of the run.
        feed: provides the first batches of the first stage with photos, if any; about `PHOTOS` photos and `TEXTS`
            texts of them are used.

    Returns:
        The mean cosine between the student's and the teacher's embeddings after the rotation.

    """
    with_photos = [stage for stage in recipe.stages if not stage.texts_only]
    stage = (with_photos or recipe.stages)[0]
    model.eval()
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {"text": [], "image": []}
    wanted = {"text": TEXTS, "image": PHOTOS if with_photos else 0}
    for batch in feed.batches(0, stage, 0):
        teacher = batch.teachers[0]
        for part, target in zip(batch.tokens.split(BATCH), teacher.text.split(BATCH), strict=True):
            pairs["text"].append((model.encode_text(part), target))
        for part, target in zip(batch.pixels.split(BATCH), teacher.image.split(BATCH), strict=True):
            if len(part):
                pairs["image"].append((model.encode_image(part), target))
        if all(sum(len(own) for own, _ in pairs[side]) >= count for side, count in wanted.items()):
            break
    return _rotate(model, [(torch.cat(own), torch.cat(target)) for own, target in map(_columns, pairs.values()) if own])


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [own for own, _ in pairs], [target for _, target in pairs]


def _rotate(model: CLIP, sides: list[tuple[Tensor, Tensor]]) -> float:
    """Rotate a student to fit pairs of its own and the teacher's embeddings; returns their mean cosine afterwards."""
    student, teacher = (torch.cat(side) for side in zip(*sides, strict=True))
    # A few photos weigh as much as many texts.
    weight = torch.cat([torch.full((len(own), 1), 1 / len(own), device=own.device) for own, _ in sides])
    # Directions that no photo or text determines stay as they are, so a model isn't rotated to match itself.
    stay = UNDETERMINED * torch.eye(student.shape[1], dtype=torch.float64)
    # In float64, because rounding would rotate the directions that hardly any photo or text determines.
    left, _, right = torch.linalg.svd((student * weight).cpu().double().T @ teacher.cpu().double() + stay)
    rotation = (left @ right).to(student)
    for layer in (*model.image.last_layers(), model.text.projection):
        layer.weight.copy_(rotation.T @ layer.weight)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias @ rotation)
    if model.image.places is not None:
        model.image.places.copy_(rotation.T @ model.image.places)
    return float((student @ rotation * teacher).sum(dim=1).mean())


def inherit(student: CLIP, larger: CLIP, layers: Layers = "every") -> None:
    """Cut a student's weights out of a larger model (TinyCLIP, Wu et al. 2023, section 3.2, manual inheritance).

    The student keeps the leading channels and attention heads. If nothing but the number of layers differs, and the
    dropped layers added nothing, the student is exact. A narrower student starts far off, because its LayerNorms see
    other statistics than they were trained with.

    Args:
        student: changed in place: both towers and the logit scale.
        larger: a model with the same kinds of towers and the same tokenizer, at least as wide and as deep.
        layers: which layers to keep: the `first` ones, or `every` k-th, where k is the depth of the larger model
            divided by the student's, rounded down (from 12 to 9 layers, both keep the first 9).

    Raises:
        ConfigError: the student is larger somewhere, its attention heads have another width, its trunk or its
            activation is of another kind, or its vocabulary has another size.
    """
    tokens, larger_tokens = student.config.text.vocab_size, larger.config.text.vocab_size
    if tokens != larger_tokens:  # the rows of the embedding table would mean other tokens
        raise ConfigError(f"inherit: {larger.config.name} has {larger_tokens} tokens, the student {tokens}")
    ours, theirs = student.config.text.activation, larger.config.text.activation
    if ours != theirs:
        raise ConfigError(
            f"inherit: {larger.config.name} was trained with {theirs}; give the student text.activation = {theirs!r}, "
            "and a trunk with the same activation"
        )
    weights = larger.state_dict()
    depths = {side: (_depth(student, side), _depth(larger, side)) for side in ("image", "text")}
    heads = {side: (_attention_heads(student, side), _attention_heads(larger, side)) for side in ("image", "text")}
    inherited = {}
    for name, value in student.state_dict().items():
        side = name.partition(".")[0]
        source = _source_name(name, depths[side], layers) if side in depths else name
        if source not in weights:
            raise ConfigError(f"inherit: {larger.config.name} has no {source}; its towers are of another kind")
        inherited[name] = _leading_part(name, weights[source], value, heads.get(side, (0, 0)))
    student.load_state_dict(inherited)


def deepen(student: CLIP, shallower: CLIP) -> None:
    """Initialize a student from a model with the same shape but fewer text layers, or other dropout.

    The additional layers come last and add nothing at first, so the student's embeddings don't change. They learn like
    the branches of a residual network that start at zero (Goyal et al. 2017, section 5.1).

    Args:
        student: changed in place: both towers and the logit scale.
        shallower: a model with the same shape, and at most as many text layers.

    Raises:
        ConfigError: the models differ in more than the number of text layers, or the student has fewer.
    """
    ours = student.config.text
    text = dataclasses.replace(shallower.config.text, layers=ours.layers, dropout=ours.dropout)
    grown = dataclasses.replace(student.config, name=shallower.config.name, parameters=shallower.config.parameters)
    if dataclasses.replace(shallower.config, text=text) != grown:
        raise ConfigError(
            f"start: {shallower.config.name} and {student.config.name} differ in more than depth; to start from a "
            "larger model, use inherit"
        )
    depths = len(shallower.text.blocks), len(student.text.blocks)
    if depths[0] > depths[1]:
        raise ConfigError(
            f"start: a student with {depths[1]} text layers cannot start from a model with {depths[0]}; use inherit"
        )
    student.load_state_dict({**student.state_dict(), **shallower.state_dict()})
    with torch.no_grad():
        for block in student.text.blocks[depths[0] :]:
            for layer in (block.out, block.proj) if isinstance(block, Block) else ():
                layer.weight.zero_()
                layer.bias.zero_()


def _depth(model: CLIP, side: str) -> int:
    """The number of blocks of a tower."""
    blocks = model.text.blocks if side == "text" else getattr(model.image.trunk, "blocks", ())
    return len(blocks)


def _attention_heads(model: CLIP, side: str) -> int:
    """The number of attention heads of a tower; 0 if it isn't a transformer."""
    if side == "text":
        return model.config.text.heads
    first = next(iter(getattr(model.image.trunk, "blocks", ())), None)
    return int(getattr(getattr(first, "attn", None), "num_heads", 0))


def _source_name(name: str, depths: tuple[int, int], layers: Layers) -> str:
    """Return the name, in the larger model, of the weight that a student's weight comes from.

    Args:
        name: of the student's weight.
        depths: number of blocks of the student's tower and of the larger one.
        layers: see `inherit`.
    """
    block = re.search(r"blocks\.(\d+)\.", name)
    if not block:
        return name
    step = depths[1] // depths[0] if layers == "every" and depths[0] <= depths[1] else 1
    return f"{name[: block.start(1)]}{int(block[1]) * step}{name[block.end(1) :]}"


def _leading_part(name: str, source: Tensor, target: Tensor, heads: tuple[int, int]) -> Tensor:
    """Return the leading channels and heads of a larger model's weight.

    Args:
        name: of the student's weight.
        source: the larger model's weight.
        target: the student's weight, for its shape.
        heads: attention heads of the student's tower and of the larger one.
    """
    if source.ndim != target.ndim or any(s < t for s, t in zip(source.shape, target.shape, strict=True)):
        raise ConfigError(
            f"inherit: {name} has shape {tuple(target.shape)}, which is not smaller than {tuple(source.shape)}"
        )
    if re.search(r"qkv\.(weight|bias)$", name) and source.shape != target.shape:
        widths = [tensor.shape[0] // 3 // count for tensor, count in zip((target, source), heads, strict=True)]
        if widths[0] != widths[1]:
            raise ConfigError(
                f"inherit: {name}: attention heads have {widths[0]} and {widths[1]} channels; they must have the same"
            )
        # The rows are queries, keys and values, each ordered by heads.
        parts = source.unflatten(0, (3, heads[1], widths[1]))[:, : heads[0]].flatten(0, 2)
        return parts[:, : target.shape[1]] if target.ndim == 2 else parts
    return source[tuple(slice(0, size) for size in target.shape)].clone()


def interpolate(first: Model, second: Model, share: float) -> Model:
    """Interpolate between the weights of two models of the same shape (WiSE-FT, Wortsman et al. 2022, section 3).

    Args:
        first: the model at share 0, often the one before fine-tuning.
        second: the model at share 1.
        share: weight of the second model, 0 to 1.

    Raises:
        ConfigError: the models have different shapes, or the share isn't between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"interpolate: the share must be between 0 and 1, not {share}")
    mixed, other = copy.deepcopy(first), second.state_dict()
    state = mixed.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in other.items()}:
        raise ConfigError("interpolate: the two models have different shapes")
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(value.lerp(other[name], share) if value.is_floating_point() else other[name])
    return mixed
