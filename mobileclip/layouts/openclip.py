"""OpenCLIP's key layout and `open_clip_config.json` (open_clip 2 to 4; OpenAI's files have the same keys).

Text towers are under `text.` or, in models with OpenAI's architecture, at the top level. Image towers are timm's
(`visual.trunk.`) or OpenCLIP's own ViT and ResNet (`visual.`), which timm has as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from mobileclip.errors import ConfigError
from mobileclip.preprocess import PixelRecipe
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, TextConfig

LEAST_COSINE = 0.9999
"""Between our vectors and OpenCLIP's for the same input."""

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
# Settings that concern the tokenizer alone; ours reads the merges next to the file.
_OF_TOKENIZERS = ("hf_tokenizer_name", "tokenizer_kwargs")
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


def from_ours(model: CLIP) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content of `open_clip_config.json`, and the state dict of the model that OpenCLIP builds from it.

    OpenCLIP itself is asked: it builds the model and must return the same vectors. OpenCLIP's projection takes the
    width of a trunk's last stage. Trunks with a wider layer between the two, such as MobileNetV3's, are written with
    timm's classifier as the projection.

    Raises:
        ConfigError: OpenCLIP doesn't support a part of the model; nothing else would return the same vectors.
    """
    config = model.config
    for unsupported, what in (
        (model.reparameterized, "reparameterized models, so save the original"),
        (config.image.head_has_branches, "image towers with `hidden`, `attention` or `classes`"),
        (config.text.repmixers, "text towers with `repmixers`"),
    ):
        if unsupported:
            raise ConfigError(f"{config.name}: OpenCLIP does not support {what}")
    reason = ""
    for classifier in (False,) if _is_native_vit(config) else (False, True):
        fields = describe(config, classifier=classifier)
        try:
            state = _to_theirs(model, classifier)
            _verify(model, fields["model_cfg"], state)
        except ValueError as error:
            reason = reason or str(error)
        else:
            return fields, state
    raise ConfigError(
        f"{config.name}: OpenCLIP does not support this model with the trunk {config.image.trunk}: {reason}"
    )


def _to_theirs(model: CLIP, classifier: bool) -> dict[str, Tensor]:
    """Rename the weights.

    Raises:
        ValueError: timm's model has no classifier that could be the projection.
    """
    state = model.state_dict()
    names = {f"text.{k}": f"text.{v}" for k, v in _text_names(model).items()} | {"logit_scale": "logit_scale"}
    names |= {name: name.replace("image.", "visual.", 1) for name in state if name.startswith("image.trunk.")}
    if _is_native_vit(model.config):
        names |= {f"image.{k}": f"visual.{v}" for k, v in _vit_names(model).items()}
    else:
        head = f"visual.trunk.{_classifier_name(model)}" if classifier else "visual.head.proj"
        names |= {f"image.projection.{part}": f"{head}.{part}" for part in ("weight", "bias")}
        if classifier and not model.config.image.bias:
            state["image.projection.bias"] = torch.zeros(model.config.embed_dim)  # timm's classifiers have a bias
    return {names[name]: _write(names[name], value).contiguous() for name, value in state.items()}


def _classifier_name(model: CLIP) -> str:
    """Return the name of the layer that timm's model has in place of our projection.

    Raises:
        ValueError: there is none.
    """
    config = model.config
    with torch.device("meta"):
        full = timm.create_model(config.image.trunk, num_classes=config.embed_dim).state_dict()
    ours = model.image.trunk.state_dict()
    added = {name: value for name, value in full.items() if name not in ours}
    name = next((name.removesuffix(".weight") for name in added if name.endswith(".weight")), "")
    shape = model.image.projection.weight.shape
    if added.keys() != {f"{name}.weight", f"{name}.bias"} or added[f"{name}.weight"].shape != shape:
        raise ValueError("its classifier is not one linear layer")
    return name


@torch.no_grad()
def _verify(model: CLIP, fields: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Compare the vectors of a random photo and text with those of the model that OpenCLIP builds.

    Raises:
        ValueError: OpenCLIP can't build the model, its weights have other shapes, or the vectors differ.
    """
    import open_clip

    try:
        theirs = open_clip.CustomTextCLIP(**{key: value for key, value in fields.items() if key != "custom_text"})
        theirs.load_state_dict(state)
    except (RuntimeError, TypeError, AssertionError, AttributeError) as error:
        raise ValueError(f"OpenCLIP builds another model ({' '.join(str(error).split())[:200]})") from error
    config, generator = model.config, torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, config.pixels.size, config.pixels.size, generator=generator)
    tokens = torch.randint(1, config.text.vocab_size, (1, config.text.context_length), generator=generator)
    tokens[:, -1] = config.text.vocab_size - 1  # the end of the text, where both pool
    theirs.eval()
    learning = [module for module in model.modules() if module.training]
    model.eval()
    device = model.logit_scale.device
    image, text = model.encode_image(pixels.to(device)).cpu(), model.encode_text(tokens.to(device)).cpu()
    for module in learning:
        module.training = True
    for ours, others in ((image, theirs.encode_image(pixels)), (text, theirs.encode_text(tokens))):
        if not (ours * F.normalize(others.float(), dim=-1)).sum() > LEAST_COSINE:
            raise ValueError("OpenCLIP returns other vectors")


def _is_native_vit(config: ModelConfig) -> bool:
    """OpenCLIP passes no options to timm, so a CLIP ViT with another shape is written as OpenCLIP's own ViT."""
    return "_clip_" in config.image.trunk and bool(config.image.options.keys() & {"embed_dim", "depth", "num_heads"})


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
    # OpenCLIP's own projection, or timm's classifier as the projection.
    head = "head.proj"
    if "visual.head.proj.weight" not in theirs:
        known = set(names.values())
        matrices = [n for n, v in theirs.items() if n.startswith("visual.trunk.") and n not in known and v.ndim == 2]
        if len(matrices) == 1:
            head = matrices[0].removeprefix("visual.").removesuffix(".weight")
    return names | {f"image.projection.{part}": f"visual.{head}.{part}" for part in ("weight", "bias")}


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


def describe(config: ModelConfig, *, classifier: bool = False) -> dict[str, Any]:
    """Return the content of `open_clip_config.json`.

    Args:
        config: the model.
        classifier: whether timm's classifier is the projection, rather than a layer of OpenCLIP's.
    """
    vision: dict[str, Any] = {"image_size": config.pixels.size}
    if _is_native_vit(config):
        options = {"embed_dim": 768, "depth": 12, "num_heads": 12}  # of timm's "base"
        if "_large_" in config.image.trunk:
            options = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
        options |= config.image.options
        patch = int(config.image.trunk.split("patch")[1].split("_")[0])
        vision |= {"layers": options["depth"], "width": options["embed_dim"], "patch_size": patch}
        vision |= {"head_width": options["embed_dim"] // options["num_heads"]}
    else:
        vision |= {"timm_model_name": config.image.trunk, "timm_model_pretrained": False}
        if classifier:
            # OpenCLIP always passes its pooling to timm here; other poolings are noticed by their vectors.
            vision |= {"timm_pool": "avg", "timm_proj": ""}
        else:
            vision |= {"timm_pool": "", "timm_proj": "linear"}
            vision |= {"timm_proj_bias": config.image.bias, "timm_drop": config.image.dropout}
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
        heads = ("context_length", "vocab_size", "width", "heads", "layers", "no_causal_mask", *_OF_TOKENIZERS)
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
        pooling = vision.get("timm_pool", "avg")
        if projection not in ("linear", None, "") or pooling not in ("", _pooling(trunk)):
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


def _pooling(trunk: str) -> str:
    """How a timm model pools by default: "avg", "token" or another of timm's words."""
    with torch.device("meta"):
        model = timm.create_model(trunk, pretrained=False, num_classes=0)
    head = getattr(model, "head", None)
    pool = getattr(model, "global_pool", None) or getattr(head, "global_pool", None) or head  # MambaOut: head.pool_type
    return pool if isinstance(pool, str) else str(getattr(pool, "pool_type", ""))


def _check_known(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse unknown settings, because they would change the vectors."""
    unknown = [key for key, value in table.items() if key not in known and value not in (None, False, 0, 0.0, "", {})]
    if unknown:
        raise ConfigError(f"open_clip_config.json: {where}.{unknown[0]} is not supported")
