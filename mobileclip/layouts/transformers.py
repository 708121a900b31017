"""The key layout and `config.json` of transformers' `CLIPModel`, which has OpenAI's architecture and no other."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP

_VISION = {
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "pre_layrnorm.weight": "norm_pre.weight",
    "pre_layrnorm.bias": "norm_pre.bias",
    "post_layernorm.weight": "norm.weight",
    "post_layernorm.bias": "norm.bias",
}
_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positions",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_VISION_LAYER = {
    "layer_norm1": "norm1",
    "self_attn.out_proj": "attn.proj",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_TEXT_LAYER = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "out",
    "layer_norm2": "ln_2",
    "mlp.fc1": "fc",
    "mlp.fc2": "proj",
}


def from_ours(model: CLIP) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content of `config.json` and the state dict of a `CLIPModel`.

    Raises:
        ConfigError: `CLIPModel` doesn't have a part of the model.
    """
    config = model.config
    image, text = config.image, config.text
    for unsupported, what in (
        ("_clip_" not in image.trunk, f"the trunk {image.trunk}"),
        (image.bias or image.head_has_branches, "image towers whose head is more than a matrix"),
        (not text.causal or text.repmixers, "text towers that aren't causal"),
        (model.reparameterized, "reparameterized models"),
    ):
        if unsupported:
            raise ConfigError(f"transformers' CLIPModel does not support {what}")
    ours = dict(model.state_dict())
    side = {f"text_model.{theirs}": ours.pop(f"text.{name}") for theirs, name in _TEXT.items()}
    side |= {f"vision_model.{theirs}": ours.pop(f"image.trunk.{name}") for theirs, name in _VISION.items()}
    side["vision_model.embeddings.class_embedding"] = ours.pop("image.trunk.cls_token")[0, 0]
    side["vision_model.embeddings.position_embedding.weight"] = ours.pop("image.trunk.pos_embed")[0]
    side["visual_projection.weight"] = ours.pop("image.projection.weight")
    side["text_projection.weight"] = ours.pop("text.projection.weight")
    side["logit_scale"] = ours.pop("logit_scale")
    depth = len(model.image.trunk.blocks)
    for prefix, at, layers, table, qkv in (
        ("vision_model", "image.trunk.blocks", depth, _VISION_LAYER, "attn.qkv"),
        ("text_model", "text.blocks", text.layers, _TEXT_LAYER, "qkv"),
    ):
        for layer in range(layers):
            block = f"{prefix}.encoder.layers.{layer}"
            for part in ("weight", "bias"):
                split = ours.pop(f"{at}.{layer}.{qkv}.{part}").chunk(3)
                side |= {f"{block}.self_attn.{n}_proj.{part}": value for n, value in zip("qkv", split, strict=True)}
                for theirs, name in table.items():
                    side[f"{block}.{theirs}.{part}"] = ours.pop(f"{at}.{layer}.{name}.{part}")
    if ours:
        raise ConfigError(f"transformers' CLIPModel does not have {next(iter(ours))}")
    return _describe(model, depth), {name: value.contiguous() for name, value in side.items()}


def _describe(model: CLIP, depth: int) -> dict[str, Any]:
    config, trunk = model.config, model.image.trunk
    text = config.text
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": float(model.logit_scale.detach()),
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "hidden_act": text.activation,
            "projection_dim": config.embed_dim,
            "layer_norm_eps": model.text.ln_final.eps,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
            "pad_token_id": text.vocab_size - 1,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": config.pixels.size,
            "patch_size": trunk.patch_embed.patch_size[0],
            "hidden_size": trunk.embed_dim,
            "intermediate_size": trunk.blocks[0].mlp.fc1.out_features,
            "num_hidden_layers": depth,
            "num_attention_heads": trunk.blocks[0].attn.num_heads,
            "hidden_act": "quick_gelu" if "quickgelu" in config.image.trunk else "gelu",
            "projection_dim": config.embed_dim,
            "layer_norm_eps": trunk.norm.eps,
        },
    }
