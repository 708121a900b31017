"""The key layout of Apple's ml-mobileclip (`mobileclip_s0.pt` and similar).

timm has the table of the image towers; the table of the text towers is here.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mobileclip.towers import CLIP

_IMAGE = "image_encoder.model."
# The projection is a plain matrix (in, out) at the end of either kind of image tower.
_PROJECTIONS = ("head.proj", "classifier.proj")

_LAYER = {
    "ln_1": "pre_norm_mha.0",
    "qkv": "pre_norm_mha.1.qkv_proj",
    "out": "pre_norm_mha.1.out_proj",
    "ln_2": "pre_norm_ffn.0",
    "fc": "pre_norm_ffn.1",
    "proj": "pre_norm_ffn.4",
}
_REPMIXER = {
    "mixer.norm": "token_mixer.norm.rbr_skip",
    "mixer.skip": "token_mixer.mixer.rbr_skip",
    "mixer.conv": "token_mixer.mixer.rbr_conv.0.conv",
    "mixer.conv_norm": "token_mixer.mixer.rbr_conv.0.bn",
    "mixer.scale": "token_mixer.layer_scale",
    "conv": "convffn.conv.conv",
    "conv_norm": "convffn.conv.bn",
    "fc": "convffn.fc1",
    "proj": "convffn.fc2",
    "scale": "layer_scale",
}
_OUTSIDE = {
    "token_embedding": "embedding_layer",
    "positions": "positional_embedding.pos_embed.pos_embed",
    "ln_final": "final_layer_norm",
    "projection.weight": "projection_layer",
}


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys are Apple's."""
    return any(name.startswith("image_encoder.") for name in state)


def to_ours(state: Mapping[str, Tensor], model: CLIP) -> dict[str, Tensor]:
    """Rename a state dict. Unknown keys keep their names, so that a strict load reports them."""
    ours = _image(state, model)
    names = _text_names(model)
    for name, value in state.items():
        if name.startswith("text_encoder."):
            stem = name.removeprefix("text_encoder.")
            known = names.get(stem)
            ours[f"text.{known}" if known else name] = _shaped(known, value, model) if known else value
        elif not name.startswith(_IMAGE):
            ours[name] = value.reshape(()) if name == "logit_scale" else value
    return ours


def _image(state: Mapping[str, Tensor], model: CLIP) -> dict[str, Tensor]:
    from timm.models import fastvit, vision_transformer_hybrid

    image = {name: value for name, value in state.items() if name.startswith(_IMAGE)}
    ours = {}
    for projection in _PROJECTIONS:
        if (matrix := image.pop(_IMAGE + projection, None)) is not None:
            ours["image.projection.weight"] = matrix.T
            if model.image.projection.bias is not None:
                ours["image.projection.bias"] = matrix.new_zeros(matrix.shape[1])
    family = fastvit if any(".patch_embed." in name for name in image) else vision_transformer_hybrid
    renamed = family.checkpoint_filter_fn(image, model.image.trunk)
    return ours | {f"image.trunk.{name}": value for name, value in renamed.items()}


def _text_names(model: CLIP) -> dict[str, str]:
    """Return Apple's names below `text_encoder.` → ours below `text.`."""
    names = {}
    for ours in model.text.state_dict():
        parts = ours.split(".")
        if parts[0] == "blocks":
            table = _REPMIXER if "mixer.scale" in _parameters(model, parts[1]) else _LAYER
            stem, theirs = _longest(".".join(parts[2:]), table), f"transformer.{parts[1]}."
            names[theirs + ".".join(parts[2:]).replace(stem, table[stem], 1)] = ours
        else:
            stem = _longest(ours, _OUTSIDE)
            names[ours.replace(stem, _OUTSIDE[stem], 1)] = ours
    return names


def _parameters(model: CLIP, block: str) -> set[str]:
    return set(model.text.blocks[int(block)].state_dict())


def _longest(name: str, table: Mapping[str, str]) -> str:
    """Return the longest key that is `name` or a prefix of it, up to a dot."""
    return max((stem for stem in table if name == stem or name.startswith(f"{stem}.")), key=len)


def _shaped(ours: str, value: Tensor, model: CLIP) -> Tensor:
    """Drop axes of size one, which two-dimensional layers have, and transpose the projection."""
    if ours == "projection.weight":
        return value.T
    wanted = model.text.state_dict()[ours].shape
    same = [side for side in value.shape if side > 1] == [side for side in wanted if side > 1]
    return value.reshape(wanted) if same else value
