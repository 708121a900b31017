"""OpenCLIP's key layout and `open_clip_config.json` (open_clip 2 to 4; OpenAI's files have the same keys).

Text towers are under `text.` or, in models with OpenAI's architecture, at the top level. Image towers are timm's
(`visual.trunk.`) or OpenCLIP's own ViT and ResNet (`visual.`), which timm has as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mobileclip.errors import ConfigError
from mobileclip.preprocess import PixelRecipe
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, TextConfig

_LAYER = {
    "ln_1.weight": "ln_1.weight",
    "ln_1.bias": "ln_1.bias",
    "qkv.weight": "attn.in_proj_weight",
    "qkv.bias": "attn.in_proj_bias",
    "out.weight": "attn.out_proj.weight",
    "out.bias": "attn.out_proj.bias",
    "ln_2.weight": "ln_2.weight",
    "ln_2.bias": "ln_2.bias",
    "fc.weight": "mlp.c_fc.weight",
    "fc.bias": "mlp.c_fc.bias",
    "proj.weight": "mlp.c_proj.weight",
    "proj.bias": "mlp.c_proj.bias",
}
_TIMM_LAYER = {
    "norm1": "ln_1",
    "attn.qkv.": "attn.in_proj_",
    "attn.proj": "attn.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_VIT = {
    "cls_token": "class_embedding",
    "pos_embed": "positional_embedding",
    "patch_embed.proj.weight": "conv1.weight",
    "norm_pre.weight": "ln_pre.weight",
    "norm_pre.bias": "ln_pre.bias",
    "norm.weight": "ln_post.weight",
    "norm.bias": "ln_post.bias",
}
# Entries of OpenAI's archives that aren't weights.
_NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size", "text.attn_mask", "attn_mask"})


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys are OpenCLIP's or OpenAI's."""
    return any(name.startswith("visual.") for name in state)


def from_openai(state: Mapping[str, Tensor]) -> bool:
    """Whether the file comes from OpenAI. Its towers use QuickGELU, which keys and shapes alone don't show."""
    return "input_resolution" in state


def to_ours(state: Mapping[str, Tensor], model: CLIP) -> dict[str, Tensor]:
    """Rename a state dict. Unknown keys keep their names, so that a strict load reports them."""
    theirs = {name: value for name, value in state.items() if name not in _NOT_WEIGHTS}
    ours: dict[str, Tensor] = {}
    for name, other in _names(model, theirs).items():
        if other in theirs:
            ours[name] = _read(other, theirs.pop(other))
    return {**ours, **_resnet(theirs, model)}


def from_ours(model: CLIP) -> dict[str, Tensor]:
    """Return the state dict of an OpenCLIP model built from `describe(model.config)`.

    Raises:
        ConfigError: the image tower's head is more than a projection, which OpenCLIP doesn't support.
    """
    if model.config.image.hidden or model.config.image.classes:
        raise ConfigError(f"{model.config.name}: OpenCLIP does not support image towers with `hidden` or `classes`")
    state = model.state_dict()
    native = _is_native_vit(model.config)
    names = {f"text.{k}": f"text.{v}" for k, v in _text_names(model).items()}
    names |= {"logit_scale": "logit_scale"}
    if native:
        names |= {f"image.{k}": f"visual.{v}" for k, v in _vit_names(model).items()}
    for name in state:
        if name.startswith("image.projection.") and not native:
            names[name] = name.replace("image.projection", "visual.head.proj")
        elif name.startswith("image.trunk."):
            names.setdefault(name, name.replace("image.", "visual.", 1))
    return {names[name]: _write(names[name], value).contiguous() for name, value in state.items()}


def _is_native_vit(config: ModelConfig) -> bool:
    """OpenCLIP passes no options to timm, so a trunk with options is written as OpenCLIP's own ViT."""
    return bool(config.image.options)


def _names(model: CLIP, theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our names → theirs, in the variant of the layout that `theirs` uses."""
    prefix = "text." if "text.token_embedding.weight" in theirs else ""
    names = {f"text.{ours}": prefix + other for ours, other in _text_names(model).items()}
    names["logit_scale"] = "logit_scale"
    if "visual.conv1.weight" in theirs and "visual.class_embedding" in theirs:
        return names | {f"image.{ours}": f"visual.{other}" for ours, other in _vit_names(model).items()}
    for name in model.state_dict():
        if name.startswith("image.trunk."):
            names[name] = name.replace("image.", "visual.", 1)
    for part in ("weight", "bias"):
        # OpenCLIP's own projection, or timm's classifier as the projection.
        known = [f"visual.{head}.{part}" for head in ("head.proj", "trunk.head.fc", "trunk.head")]
        names[f"image.projection.{part}"] = next((name for name in known if name in theirs), known[0])
    return names


def _text_names(model: CLIP) -> dict[str, str]:
    names = {
        "token_embedding.weight": "token_embedding.weight",
        "positions": "positional_embedding",
        "ln_final.weight": "ln_final.weight",
        "ln_final.bias": "ln_final.bias",
        "projection.weight": "text_projection",
    }
    for layer in range(model.config.text.layers):
        names |= {f"blocks.{layer}.{o}": f"transformer.resblocks.{layer}.{t}" for o, t in _LAYER.items()}
    return names


def _vit_names(model: CLIP) -> dict[str, str]:
    names = {f"trunk.{ours}": other for ours, other in _VIT.items()} | {"projection.weight": "proj"}
    for ours in model.image.trunk.state_dict():
        if ours.startswith("blocks."):
            other = ours.replace("blocks.", "transformer.resblocks.", 1)
            for timm_part, part in _TIMM_LAYER.items():
                other = other.replace(timm_part, part)
            names[f"trunk.{ours}"] = other
    return names


def _read(theirs: str, value: Tensor) -> Tensor:
    """Convert one of their tensors to our shape: OpenCLIP's projections are (in, out), its ViTs have no batch axes."""
    match theirs.removeprefix("text.").removeprefix("visual."):
        case "text_projection" | "proj":
            return value.T
        case "class_embedding":
            return value[None, None]
        case "positional_embedding" if theirs.startswith("visual."):
            return value[None]
        case "logit_scale":
            return value.reshape(())
    return value


def _write(theirs: str, value: Tensor) -> Tensor:
    """Convert one of our tensors to their shape, the inverse of `_read`."""
    match theirs.removeprefix("text.").removeprefix("visual."):
        case "text_projection" | "proj":
            return value.T
        case "class_embedding":
            return value[0, 0]
        case "positional_embedding" if theirs.startswith("visual."):
            return value[0]
    return value


def _resnet(theirs: dict[str, Tensor], model: CLIP) -> dict[str, Tensor]:
    """Rename OpenCLIP's own ResNet with timm's table; anything else is returned unchanged."""
    if "visual.attnpool.c_proj.weight" not in theirs:
        return theirs
    from timm.models.byobnet import checkpoint_filter_fn

    ours = {}
    for name, value in checkpoint_filter_fn(theirs, model.image.trunk).items():
        projection = name.startswith("head.proj.")
        ours[name.replace("head.proj", "image.projection") if projection else f"image.trunk.{name}"] = value
    return ours | {name: value for name, value in theirs.items() if not name.startswith("visual.")}


def describe(config: ModelConfig) -> dict[str, Any]:
    """Return the content of `open_clip_config.json`."""
    vision: dict[str, Any] = {"image_size": config.pixels.size}
    if _is_native_vit(config):
        options = config.image.options
        patch = int(config.image.trunk.split("patch")[1].split("_")[0])
        vision |= {"layers": options["depth"], "width": options["embed_dim"], "patch_size": patch}
        vision |= {"head_width": options["embed_dim"] // options["num_heads"]}
    else:
        vision |= {"timm_model_name": config.image.trunk, "timm_model_pretrained": False, "timm_pool": ""}
        vision |= {"timm_proj": "linear", "timm_proj_bias": config.image.bias, "timm_drop": config.image.dropout}
    text = config.text
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": text.activation == "quick_gelu",
            "custom_text": True,
            "vision_cfg": vision,
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                "no_causal_mask": not text.causal,
            },
        },
        "preprocess_cfg": {
            "size": config.pixels.size,
            "mean": list(config.pixels.mean),
            "std": list(config.pixels.std),
            "interpolation": config.pixels.interpolation,
            "resize_mode": config.pixels.resize,
        },
    }


def read_config(fields: Mapping[str, Any], name: str) -> ModelConfig:
    """Build a configuration from the content of `open_clip_config.json`.

    Raises:
        ConfigError: the file is malformed, or the model has parts that the towers here don't support.
    """
    try:
        model, pixels = fields["model_cfg"], fields["preprocess_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        _check_known(model, ("embed_dim", "quick_gelu", "custom_text", "vision_cfg", "text_cfg"), "model_cfg")
        heads = ("context_length", "vocab_size", "width", "heads", "layers", "no_causal_mask")
        _check_known(text, heads, "text_cfg")
        quick = bool(model.get("quick_gelu", False))
        size = int(vision.get("image_size", 224))
        return ModelConfig(
            name=name,
            embed_dim=int(model["embed_dim"]),
            tokenizer="openai" if text.get("vocab_size", 49408) == 49408 else "own",
            image=_image_config(vision, quick, size),
            text=TextConfig(
                vocab_size=text.get("vocab_size", 49408),
                context_length=text.get("context_length", 77),
                width=text["width"],
                heads=text["heads"],
                layers=text["layers"],
                causal=not text.get("no_causal_mask", False),
                activation="quick_gelu" if quick else "gelu",
            ),
            pixels=PixelRecipe(
                size=size,
                resize=pixels.get("resize_mode", "shortest"),
                interpolation=pixels.get("interpolation", "bicubic"),
                mean=tuple(pixels["mean"]),
                std=tuple(pixels["std"]),
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"open_clip_config.json: a setting is missing or invalid ({error!r})") from error


def _image_config(vision: Mapping[str, Any], quick: bool, size: int) -> ImageConfig:
    if trunk := vision.get("timm_model_name"):
        known = ("timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop")
        _check_known(vision, (*known, "timm_drop_path", "image_size"), "vision_cfg")
        projection = vision.get("timm_proj", "linear")
        if projection not in ("linear", None, "") or vision.get("timm_pool", "avg") not in ("", "avg", "token"):
            raise ConfigError("open_clip_config.json: only a linear projection after timm's own pooling is supported")
        # Without OpenCLIP's own projection, timm's classifier is the projection, and it has a bias.
        bias = bool(vision.get("timm_proj_bias", False)) if projection == "linear" else True
        return ImageConfig(trunk, bias=bias, dropout=vision.get("timm_drop", 0.0))
    if isinstance(vision.get("layers"), list):
        _check_known(vision, ("layers", "width", "image_size", "head_width"), "vision_cfg")
        if vision["layers"] != [3, 4, 6, 3] or vision.get("width", 64) != 64:
            raise ConfigError("open_clip_config.json: of OpenCLIP's own ResNets only RN50 is supported")
        return ImageConfig("resnet50_clip", bias=True)
    _check_known(vision, ("layers", "width", "patch_size", "image_size", "head_width"), "vision_cfg")
    width, patch = vision["width"], vision["patch_size"]
    options = {"embed_dim": width, "depth": vision["layers"], "num_heads": width // vision.get("head_width", 64)}
    if size != 224:
        options["img_size"] = size
    base = {16: "vit_base_patch16_clip", 32: "vit_base_patch32_clip", 14: "vit_large_patch14_clip"}.get(patch)
    if base is None:
        raise ConfigError(f"open_clip_config.json: a patch size of {patch} is not supported")
    return ImageConfig(f"{base}_quickgelu_224" if quick else f"{base}_224", options=options)


def _check_known(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse unknown settings, because they would change the vectors."""
    unknown = [key for key, value in table.items() if key not in known and value not in (None, False, 0, 0.0, "", {})]
    if unknown:
        raise ConfigError(f"open_clip_config.json: {where}.{unknown[0]} is not supported")
