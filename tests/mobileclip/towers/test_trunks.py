"""Students with trunks of many timm families: OpenCLIP loads them with the same vectors, or they are refused."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from mobileclip.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_openclip
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, TextConfig, reparameterize
from tests.mobileclip.towers.conftest import randomize, tokens

# OpenCLIP's projection would not fit these trunks, whose pooled features are wider than their last stage.
WIDE_HEADS = (
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "ghostnet_050",
    "lcnet_035",
    "efficientvit_b0",
    "repghostnet_050",
    "hardcorenas_a",
    "hgnetv2_b0",
    "inception_next_atto",
    "test_mambaout",
)
OTHERS = (
    "test_vit",
    "test_byobnet",
    "test_efficientnet",
    "test_convnext",
    "test_nfnet",
    "efficientvit_m0",
    "fastvit_t8",
    "mobilevit_xxs",
    "mobileone_s0",
    "regnetx_002",
    "repvit_m0_9",
    "resnet10t",
    "ese_vovnet19b_slim_dw",
    "pit_ti_224",
    "levit_128s",
)


def small(image: ImageConfig, size: int = 64, **text: Any) -> ModelConfig:
    config = ModelConfig.load("pocket")
    words = TextConfig(**{"vocab_size": 600, "context_length": 12, "width": 64, "heads": 1, "layers": 1, **text})
    pixels = dataclasses.replace(config.pixels, size=size)
    return ModelConfig("small", 24, image, words, pixels)


def build(config: ModelConfig) -> Checkpoint:
    torch.manual_seed(0)
    model = CLIP(config)
    randomize(model)
    return Checkpoint(model, Tokenizer.load(b"a b\n"), b"a b\n", {"licence": "ours"})


def size_of(trunk: str) -> int:
    import timm

    with torch.device("meta"):
        fields: Mapping[str, Any] = timm.create_model(trunk).default_cfg
    return int(fields["input_size"][1]) if fields.get("fixed_input_size") else 64


@pytest.mark.parametrize(
    ("trunk", "bias"),
    [*((trunk, False) for trunk in (*WIDE_HEADS, *OTHERS)), ("lcnet_035", True), ("test_byobnet", True)],
)
def test_open_clip_returns_the_same_vectors(trunk: str, bias: bool, tmp_path: Path) -> None:
    size = size_of(trunk)
    checkpoint = build(small(ImageConfig(trunk, bias=bias), size))
    save_openclip(checkpoint, tmp_path / "made")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'made'}").eval()
    pixels, ids = torch.rand(2, 3, size, size), tokens(2, 12, 600)
    back = load_checkpoint(tmp_path / "made").model
    with torch.inference_mode():
        image, text = checkpoint.model.encode_image(pixels), checkpoint.model.encode_text(ids)
        assert (image - normalize(theirs.encode_image(pixels), dim=-1)).abs().max() < 1e-4
        assert (text - normalize(theirs.encode_text(ids), dim=-1)).abs().max() < 1e-4
        assert (image - back.encode_image(pixels)).abs().max() < 1e-5


@pytest.mark.parametrize("trunk", ["vit_base_patch32_clip_224", "vit_base_patch16_clip_224"])
def test_a_clip_vit_of_another_shape_becomes_open_clips_own(trunk: str, tmp_path: Path) -> None:
    checkpoint = build(small(ImageConfig(trunk, options={"embed_dim": 64, "num_heads": 1, "depth": 2}), 224))
    save_openclip(checkpoint, tmp_path)
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    pixels = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        same = normalize(theirs.encode_image(pixels), dim=-1) - checkpoint.model.encode_image(pixels)
    assert same.abs().max() < 1e-4


def test_options_that_do_not_change_the_vectors_are_dropped(tmp_path: Path) -> None:
    save_openclip(build(small(ImageConfig("test_byobnet", options={"drop_path_rate": 0.1}))), tmp_path)
    assert open_clip.create_model(f"local-dir:{tmp_path}") is not None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (small(ImageConfig("test_byobnet", options={"global_pool": "max"})), "other vectors"),
        (small(ImageConfig("test_vit", options={"img_size": 96}), 96), "another model"),
        (small(ImageConfig("test_vit", options={"depth": 2}), 160), "another model"),
        (small(ImageConfig("test_byobnet", hidden=8)), "`hidden`"),
        (small(ImageConfig("test_byobnet", classes=8)), "`classes`"),
        (small(ImageConfig("test_byobnet"), causal=False, repmixers=True, layers=3), "`repmixers`"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.image.trunk,
)
def test_what_open_clip_cannot_represent_is_refused(config: ModelConfig, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^small: OpenCLIP does not support") as error:
        save_openclip(build(config), tmp_path / "made")
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()


def test_a_reparameterized_model_is_refused(tmp_path: Path) -> None:
    checkpoint = build(small(ImageConfig("test_byobnet")))
    merged = dataclasses.replace(checkpoint, model=reparameterize(checkpoint))
    with pytest.raises(ConfigError, match="save the original"):
        save_openclip(merged, tmp_path)


def test_a_file_without_its_configuration_is_not_guessed(tmp_path: Path) -> None:
    save_openclip(build(small(ImageConfig("lcnet_035"))), tmp_path)
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "open_clip_model.safetensors")
