"""Both towers return the same vectors as independent implementations with the same random weights."""

import dataclasses
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mobileclip.checkpoints import load_checkpoint
from mobileclip.errors import PocketclipError
from mobileclip.preprocess import PixelRecipe
from mobileclip.towers import CLIP, ModelConfig
from tests.mobileclip.towers.conftest import randomize, tokens

FAMILY = {
    "MobileCLIP-S1": "mobileclip-s1",
    "MobileCLIP-S2": "mobileclip-s2",
    "MobileCLIP-B": "mobileclip-b",
    "MobileCLIP2-S0": "mobileclip2-s0",
    "MobileCLIP2-S2": "mobileclip2-s2",
    "MobileCLIP2-B": "mobileclip2-b",
    "MobileCLIP2-S3": "mobileclip2-s3",
    "MobileCLIP2-S4": "mobileclip2-s4",
    "MobileCLIP2-L-14": "mobileclip2-l-14",
    "ViT-B-32": "openclip-vit-b-32",
    "ViT-B-32-quickgelu": "clip-vit-b-32",
    "ViT-B-16-quickgelu": "clip-vit-b-16",
    "ViT-L-14-quickgelu": "clip-vit-l-14",
    "RN50-quickgelu": "clip-rn50",
}


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    theirs = torch.nn.functional.normalize(theirs.float(), dim=-1)
    assert ours.shape == theirs.shape
    assert (ours * theirs).sum(dim=-1).min() > 0.99999
    assert (ours - theirs).abs().max() < 1e-4


def test_every_mobileclip_in_open_clip_is_compared() -> None:
    assert {name for name in open_clip.list_models() if name.startswith("MobileCLIP")} <= set(FAMILY)


@pytest.mark.parametrize("theirs", FAMILY)
def test_the_vectors_equal_those_of_open_clip(theirs: str, tmp_path: Path) -> None:
    """Its weights are recognized without a configuration, and return the same vectors."""
    reference = randomize(open_clip.create_model(theirs))
    config = ModelConfig.load(FAMILY[theirs])
    file = tmp_path / "weights.safetensors"
    save_file(reference.state_dict(), file)
    # Keys and shapes don't show which GELU a ViT with OpenAI's architecture was trained with.
    loaded = load_checkpoint(file, config if "clip-vit" in config.name else None)
    assert loaded.model.config.pixels == config.pixels and loaded.model.config.text == config.text
    pixels, ids = torch.rand(2, 3, config.pixels.size, config.pixels.size), tokens()
    with torch.inference_mode():
        assert_same(loaded.model.encode_image(pixels), reference.encode_image(pixels))
        assert_same(loaded.model.encode_text(ids), reference.encode_text(ids))
    assert float(loaded.model.logit_scale) == pytest.approx(float(reference.logit_scale))


def test_the_pixel_recipes_are_those_of_open_clips_weights() -> None:
    """open_clip stores them with the weights; its architectures alone have other defaults."""
    for theirs, ours in FAMILY.items():
        name = theirs.removesuffix("-quickgelu")
        tag = "openai" if name != theirs else open_clip.list_pretrained_tags_by_model(name)[-1]
        known = open_clip.get_pretrained_cfg(name, tag)
        pixels = ModelConfig.load(ours).pixels
        assert pixels.mean == pytest.approx(known["mean"]), ours
        assert pixels.std == pytest.approx(known["std"]), ours
        assert (pixels.interpolation, pixels.resize) == (known["interpolation"], known["resize_mode"]), ours


def test_the_vectors_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    reference = CLIPModel(CLIPConfig()).eval()
    model = CLIP(ModelConfig.load("clip-vit-b-32")).eval()
    model.load_state_dict(_from_transformers(reference.state_dict()))
    pixels, ids = torch.rand(2, 3, 224, 224), tokens()
    with torch.inference_mode():
        vision = reference.vision_model(pixel_values=pixels).pooler_output
        # Its default configuration has another end token than OpenAI's weights.
        hidden = reference.text_model(input_ids=ids).last_hidden_state
        ends = hidden[torch.arange(len(ids)), ids.argmax(dim=1)]
        assert_same(model.encode_image(pixels), reference.visual_projection(vision))
        assert_same(model.encode_text(ids), reference.text_projection(ends))


def _from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of transformers' CLIP, which stores queries, keys and values separately."""
    vision, text = "vision_model.", "text_model."
    layer = {"layer_norm1": ("norm1", "ln_1"), "self_attn.out_proj": ("attn.proj", "out")}
    layer |= {"layer_norm2": ("norm2", "ln_2"), "mlp.fc1": ("mlp.fc1", "fc"), "mlp.fc2": ("mlp.fc2", "proj")}
    result = {
        "logit_scale": state["logit_scale"],
        "image.trunk.cls_token": state[vision + "embeddings.class_embedding"][None, None],
        "image.trunk.pos_embed": state[vision + "embeddings.position_embedding.weight"][None],
        "image.trunk.patch_embed.proj.weight": state[vision + "embeddings.patch_embedding.weight"],
        "image.projection.weight": state["visual_projection.weight"],
        "text.token_embedding.weight": state[text + "embeddings.token_embedding.weight"],
        "text.positions": state[text + "embeddings.position_embedding.weight"],
        "text.projection.weight": state["text_projection.weight"],
    }
    for part in ("weight", "bias"):
        result[f"image.trunk.norm_pre.{part}"] = state[f"{vision}pre_layrnorm.{part}"]
        result[f"image.trunk.norm.{part}"] = state[f"{vision}post_layernorm.{part}"]
        result[f"text.ln_final.{part}"] = state[f"{text}final_layer_norm.{part}"]
        for number in range(12):
            for side, (prefix, ours) in enumerate(((vision, "image.trunk.blocks"), (text, "text.blocks"))):
                at = f"{prefix}encoder.layers.{number}"
                joined = [state[f"{at}.self_attn.{which}_proj.{part}"] for which in "qkv"]
                result[f"{ours}.{number}.{('attn.qkv', 'qkv')[side]}.{part}"] = torch.cat(joined)
                for theirs, names in layer.items():
                    result[f"{ours}.{number}.{names[side]}.{part}"] = state[f"{at}.{theirs}.{part}"]
    return result


@pytest.mark.parametrize("name", ["pocket", "mobileclip2-s0", "clip-vit-b-32", "clip-rn50", "tinyclip-vit-8m-16"])
def test_open_clip_loads_what_save_openclip_writes(name: str, tmp_path: Path) -> None:
    """With the same vectors and the same pixel recipe; the folder can be read back too."""
    from mobileclip.checkpoints import Checkpoint, save_openclip
    from mobileclip.tokenizer import Tokenizer

    torch.manual_seed(0)
    config = ModelConfig.load(name)
    # OpenCLIP's image towers end in one projection.
    config = dataclasses.replace(config, image=dataclasses.replace(config.image, hidden=0, classes=0, attention=None))
    model = CLIP(config)
    randomize(model)
    merges = b"a b\n"
    save_openclip(Checkpoint(model, Tokenizer.load(merges), merges, {}), tmp_path / "made")
    reference, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'made'}")
    reference.eval()
    size, text = config.pixels.size, config.text
    pixels, ids = torch.rand(2, 3, size, size), tokens(3, text.context_length, text.vocab_size)
    with torch.inference_mode():
        assert_same(model.encode_image(pixels), reference.encode_image(pixels))
        assert_same(model.encode_text(ids), reference.encode_text(ids))
    mean = next(step.mean for step in transform.transforms if hasattr(step, "mean"))
    assert tuple(mean) == pytest.approx(config.pixels.mean)
    described = json.loads((tmp_path / "made/open_clip_config.json").read_text())
    from mobileclip.layouts import openclip

    again = openclip.read_config(described, name)
    assert (again.pixels, again.text.causal, again.text.activation) == (config.pixels, text.causal, text.activation)
    if config.tokenizer == "openai":
        back = load_checkpoint(tmp_path / "made")
        with torch.inference_mode():
            assert_same(back.model.encode_image(pixels), model.encode_image(pixels))


@pytest.mark.parametrize("name", ["fastvit_mci0", "vit_base_patch16_clip_224"])
def test_the_trunk_is_timms(name: str) -> None:
    """Apart from the projection, the tower is the timm model of that name."""
    import timm

    from mobileclip.towers import ImageConfig
    from mobileclip.towers.image import ImageTower

    torch.manual_seed(0)
    tower = ImageTower(ImageConfig(name, bias=True), 24)
    randomize(tower)
    reference = timm.create_model(name, num_classes=24).eval()
    state = {k.removeprefix("trunk."): v for k, v in tower.state_dict().items() if k.startswith("trunk.")}
    for part in ("weight", "bias"):
        state[f"{'head.fc' if 'fastvit' in name else 'head'}.{part}"] = tower.state_dict()[f"projection.{part}"]
    reference.load_state_dict(state)
    pixels = torch.rand(2, 3, 256 if "fastvit" in name else 224, 256 if "fastvit" in name else 224)
    with torch.inference_mode():
        assert torch.allclose(tower(pixels), reference(pixels), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_cfg": {"hf_model_name": "roberta-base", "width": 8, "heads": 1, "layers": 1}}, "hf_model_name"),
        ({"text_cfg": {"pool_type": "last", "width": 64, "heads": 1, "layers": 1}}, "pool_type"),
        ({"vision_cfg": {"timm_model_name": "convnext_base", "timm_proj": "mlp"}}, "linear projection"),
        ({"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg"}}, "timm's own pooling"),
        ({"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224"}}, "timm's own pooling"),  # OpenCLIP's default: avg
        ({"vision_cfg": {"timm_model_name": "convnext_tiny", "timm_pool": "token"}}, "timm's own pooling"),
        ({"vision_cfg": {"layers": [3, 4, 23, 3], "width": 64}}, "RN50"),
        ({"vision_cfg": {"layers": 2, "width": 64, "patch_size": 17}}, "patch size"),
        ({"multimodal_cfg": {"width": 3}}, "multimodal_cfg"),
        ({"embed_dim": None}, "not"),
    ],
)
def test_unsupported_models_of_open_clip_are_refused(change: dict[str, object], message: str) -> None:
    from mobileclip.layouts import openclip

    model = {
        "embed_dim": 64,
        "vision_cfg": {"layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    }
    pixels = PixelRecipe(224, "shortest", "bicubic", (0, 0, 0), (1, 1, 1)).to_dict()
    with pytest.raises(PocketclipError, match=message):
        openclip.read_config({"model_cfg": {**model, **change}, "preprocess_cfg": pixels}, "odd")


@pytest.mark.parametrize(
    ("trunk", "pool"), [("vit_tiny_patch16_224", "token"), ("vit_tiny_patch16_224", ""), ("convnext_tiny", "avg")]
)
def test_the_pooling_of_the_trunk_itself_is_accepted(trunk: str, pool: str) -> None:
    from mobileclip.layouts import openclip

    model = {
        "embed_dim": 64,
        "vision_cfg": {"timm_model_name": trunk, "timm_pool": pool},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    }
    pixels = PixelRecipe(224, "shortest", "bicubic", (0, 0, 0), (1, 1, 1)).to_dict()
    assert openclip.read_config({"model_cfg": model, "preprocess_cfg": pixels}, "even").image.trunk == trunk
