"""Weights of other projects: recognized by their keys, and refused with a list if they don't fit."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import mobileclip
from mobileclip.checkpoints import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    recognize,
    save_checkpoint,
    save_openclip,
)
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, model_names
from tests.mobileclip.towers.conftest import randomize, tokens

# The documented key map, as regular expressions from our names (timm's for the trunk) to Apple's.
FASTVIT_NAMES = (
    (r"^stem\.", "patch_embed."),
    (r"conv_kxk", "rbr_conv"),
    (r"conv_scale", "rbr_scale"),
    (r"identity", "rbr_skip"),
    (r"final_conv", "conv_exp"),
    (r"large_conv", "lkb_origin"),
    (r"\.mlp\.", ".convffn."),
    (r"se\.fc1", "se.reduce"),
    (r"se\.fc2", "se.expand"),
    (r"layer_scale(_\d)?\.gamma", r"layer_scale\1"),
)
VIT_NAMES = (
    (r"^patch_embed\.backbone\.(.*)conv\.", r"patch_emb.\1block.conv."),
    (r"^patch_embed\.backbone\.(.*)bn\.", r"patch_emb.\1block.norm."),
    (r"^norm\.", "post_transformer_norm."),
    (r"^blocks\.(\d+)\.norm1", r"transformer.\1.pre_norm_mha.0"),
    (r"^blocks\.(\d+)\.attn\.qkv", r"transformer.\1.pre_norm_mha.1.qkv_proj"),
    (r"^blocks\.(\d+)\.attn\.proj", r"transformer.\1.pre_norm_mha.1.out_proj"),
    (r"^blocks\.(\d+)\.norm2", r"transformer.\1.pre_norm_ffn.0"),
    (r"^blocks\.(\d+)\.mlp\.fc1", r"transformer.\1.pre_norm_ffn.1"),
    (r"^blocks\.(\d+)\.mlp\.fc2", r"transformer.\1.pre_norm_ffn.4"),
    (r"^pos_embed$", "pos_embed.pos_embed.pos_embed"),
)
TEXT_NAMES = (
    (r"^token_embedding", "embedding_layer"),
    (r"^positions$", "positional_embedding.pos_embed.pos_embed"),
    (r"^ln_final", "final_layer_norm"),
    (r"^projection\.weight$", "projection_layer"),
    (r"^blocks\.(0|5)\.mixer\.norm", r"transformer.\1.token_mixer.norm.rbr_skip"),
    (r"^blocks\.(0|5)\.mixer\.skip", r"transformer.\1.token_mixer.mixer.rbr_skip"),
    (r"^blocks\.(0|5)\.mixer\.conv_norm", r"transformer.\1.token_mixer.mixer.rbr_conv.0.bn"),
    (r"^blocks\.(0|5)\.mixer\.conv", r"transformer.\1.token_mixer.mixer.rbr_conv.0.conv"),
    (r"^blocks\.(0|5)\.mixer\.scale", r"transformer.\1.token_mixer.layer_scale"),
    (r"^blocks\.(0|5)\.conv_norm", r"transformer.\1.convffn.conv.bn"),
    (r"^blocks\.(0|5)\.conv", r"transformer.\1.convffn.conv.conv"),
    (r"^blocks\.(0|5)\.scale", r"transformer.\1.layer_scale"),
    (r"^blocks\.(\d+)\.ln_1", r"transformer.\1.pre_norm_mha.0"),
    (r"^blocks\.(\d+)\.qkv", r"transformer.\1.pre_norm_mha.1.qkv_proj"),
    (r"^blocks\.(\d+)\.out", r"transformer.\1.pre_norm_mha.1.out_proj"),
    (r"^blocks\.(\d+)\.ln_2", r"transformer.\1.pre_norm_ffn.0"),
)


def apple_file(model: CLIP) -> dict[str, Tensor]:
    """Write a model's weights as Apple does, by the documented key map."""
    state, result = model.state_dict(), {"logit_scale": model.logit_scale.detach()}
    fastvit = "fastvit" in model.config.image.trunk
    for name, value in state.items():
        side, _, rest = name.partition(".")
        if rest.startswith("trunk."):
            renamed = rest.removeprefix("trunk.")
            if fastvit:
                renamed = flat_network(renamed, state)
            for pattern, theirs in FASTVIT_NAMES if fastvit else VIT_NAMES:
                renamed = re.sub(pattern, theirs, renamed)
            result[f"image_encoder.model.{renamed}"] = value[None] if renamed.endswith("pos_embed.pos_embed") else value
        elif rest == "projection.weight" and side == "image":
            result[f"image_encoder.model.{'head.proj' if fastvit else 'classifier.proj'}"] = value.T
        elif side == "text":
            renamed = rest
            for pattern, theirs in TEXT_NAMES:
                renamed = re.sub(pattern, theirs, renamed)
            result[f"text_encoder.{feed_forward(renamed, model)}"] = apple_shape(rest, value, model)
    return {name: value.contiguous() for name, value in result.items()}


def flat_network(name: str, state: dict[str, Tensor]) -> str:
    """Convert timm's stages to indices in Apple's flat list of downsampling, position encoding and blocks."""
    indices, number = {}, 0
    for stage in range(6):
        for part in ("downsample", "pos_emb", "blocks"):
            if any(key.startswith(f"image.trunk.stages.{stage}.{part}.") for key in state):
                indices[stage, part] = number
                number += 1
    if not (found := re.match(r"stages\.(\d)\.(downsample|pos_emb|blocks)\.(.*)", name)):
        return name
    stage, part, rest = int(found[1]), found[2], found[3]
    if part == "pos_emb":
        rest = rest.replace("pos_enc", "pe")
    return f"network.{indices[stage, part]}.{rest}"


def feed_forward(name: str, model: CLIP) -> str:
    ends = ("0", "5") if model.config.text.repmixers else ()
    if found := re.match(r"blocks\.(\d+)\.(fc|proj)\.(.*)", name):
        number, part, rest = found.groups()
        table = {"fc": "convffn.fc1", "proj": "convffn.fc2"} if number in ends else {"fc": "pre_norm_ffn.1"}
        return f"transformer.{number}.{table.get(part, 'pre_norm_ffn.4')}.{rest}"
    return name


def apple_shape(ours: str, value: Tensor, model: CLIP) -> Tensor:
    if ours == "positions":
        return value[None, None]
    if ours == "projection.weight":
        return value.T
    if model.config.text.repmixers and re.match(r"blocks\.(0|5)\.", ours):
        if ours.endswith(("mixer.conv.weight", ".conv.weight")):
            return value[:, :, None]
        if ours.endswith("mixer.scale"):
            return value[:, :, None]
        if ours.endswith(".scale"):
            return value[:, None, None]
        if re.search(r"blocks\.\d\.(fc|proj)\.weight", ours) and value.ndim == 2:
            return value[:, :, None, None]
    return value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobileclip-s0", "mobileclip-s1", "mobileclip-b"])
def test_apples_weights_return_the_same_vectors(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig.load(name))
    randomize(model)
    with torch.no_grad():
        model.image.projection.bias.zero_()
    torch.save(apple_file(model), tmp_path / "apple.pt")
    loaded = load_checkpoint(tmp_path / "apple.pt")
    config = loaded.model.config
    assert dataclasses.replace(config, name="") == dataclasses.replace(ModelConfig.load(name), name="")
    assert loaded.tokenizer.vocab_size == 49408
    pixels, ids = torch.rand(2, 3, config.pixels.size, config.pixels.size), tokens()
    with torch.inference_mode():
        assert torch.allclose(loaded.model.encode_image(pixels), model.encode_image(pixels), atol=1e-5)
        assert torch.allclose(loaded.model.encode_text(ids), model.encode_text(ids), atol=1e-5)


@pytest.fixture(scope="module")
def tiny() -> CLIP:
    """A small TinyCLIP with one layer per tower."""
    config = ModelConfig.load("tinyclip-vit-8m-16")
    image = dataclasses.replace(config.image, options={"embed_dim": 64, "depth": 1, "num_heads": 1})
    text = dataclasses.replace(config.text, width=64, heads=1, layers=1)
    torch.manual_seed(0)
    model = CLIP(dataclasses.replace(config, name="tiny", embed_dim=32, image=image, text=text))
    randomize(model)
    return model


def as_openclip(model: CLIP, folder: Path) -> Path:
    save_openclip(Checkpoint(model, Tokenizer.load(b"a b\n"), b"a b\n", {"licence": "ours"}), folder)
    return folder


def test_an_openclip_folder_needs_no_configuration(tiny: CLIP, tmp_path: Path) -> None:
    loaded = mobileclip.load_checkpoint(as_openclip(tiny, tmp_path / "some-model"))
    assert loaded.model.config.name == "some-model" and loaded.about["licence"] == "ours"
    ids = tokens()
    with torch.inference_mode():
        assert torch.allclose(loaded.model.encode_text(ids), tiny.encode_text(ids), atol=1e-6)


def test_missing_and_unexpected_weights_are_listed(tiny: CLIP, tmp_path: Path) -> None:
    folder = as_openclip(tiny, tmp_path / "made")
    from mobileclip.layouts import openclip

    _, state = openclip.from_ours(tiny)
    state["visual.extra"] = torch.ones(1)
    del state["text.ln_final.bias"]
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: text\.ln_final\.bias; unexpected: visual\.extra"):
        load_checkpoint(folder)
    loaded = load_checkpoint(folder, strict=False)
    assert loaded.missing == ("text.ln_final.bias",) and loaded.unexpected == ("visual.extra",)
    assert torch.equal(loaded.model.text.ln_final.weight, tiny.text.ln_final.weight)
    state["text.ln_final.bias"] = torch.ones(3)
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"ln_final\.bias"):
        load_checkpoint(folder, strict=False)


def test_wrappers_that_trainers_add_are_removed(tiny: CLIP, tmp_path: Path) -> None:
    from mobileclip.layouts import openclip

    state = {f"module.{name}": value for name, value in openclip.from_ours(tiny)[1].items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    loaded = load_checkpoint(tmp_path / "epoch_3.pt", tiny.config)
    assert torch.equal(loaded.model.text.positions, tiny.text.positions)


def test_weights_that_fit_several_models_are_refused() -> None:
    """Plain GELU (LAION) and QuickGELU (OpenAI) can't be distinguished by keys and shapes."""
    with torch.device("meta"):
        state = {f"visual.{k}": v for k, v in CLIP(ModelConfig.load("clip-vit-b-32")).image.state_dict().items()}
        text = CLIP(ModelConfig.load("clip-vit-b-32")).text.state_dict()
    with pytest.raises(CheckpointError, match=r"choose one of .*clip-vit-b-32"):
        recognize(state | text, Path("file.pt"))
    assert recognize(state | text | {"input_resolution": torch.tensor(224)}, Path("f.pt")).name == "clip-vit-b-32"


@pytest.mark.slow
def test_every_other_shipped_model_is_recognized() -> None:
    ambiguous = []
    for name in model_names():
        config = ModelConfig.load(name)
        with torch.device("meta"):
            state = CLIP(config).state_dict()
        try:
            found = recognize(state, Path("file.pt"))
        except CheckpointError:
            ambiguous.append(name)
        else:
            same = dataclasses.replace(found, name=""), dataclasses.replace(config, name="")
            assert same[0] == same[1], name
    assert all(name.startswith(("clip-vit", "openclip-vit")) for name in ambiguous)


def test_nothing_is_executed_and_each_error_is_explained(tiny: CLIP, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "nothing.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_checkpoint(tmp_path / "empty")
    torch.save({"a": Path("/")}, tmp_path / "pickled.pt")
    with pytest.raises(CheckpointError, match="not a weights file"):
        load_checkpoint(tmp_path / "pickled.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_checkpoint(tmp_path / "script.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "cut.safetensors")
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no known model has these weights"):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="no model named"):
        load_checkpoint(tmp_path / "other.pt", "mobileclip-s9")
    folder = as_openclip(tiny, tmp_path / "made")
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(folder)
    save_checkpoint(tiny, b"a b\n", tmp_path / "ours", {})
    (tmp_path / "ours/merges.txt.gz").unlink()
    assert load_checkpoint(tmp_path / "ours").tokenizer.vocab_size == 49408  # OpenAI's merges need no file


@pytest.mark.parametrize("trunk", ["levit_128s", "efficientvit_m0", "eva02_tiny_patch14_224"])
def test_tables_that_a_trunk_computes_are_there_after_loading(trunk: str, tmp_path: Path) -> None:
    """Buffers that no file keeps, such as indices of relative positions."""
    config = ModelConfig.load("pocket")
    torch.manual_seed(0)
    text = dataclasses.replace(config.text, layers=1)
    model = CLIP(dataclasses.replace(config, image=ImageConfig(trunk), text=text))
    randomize(model)
    save_checkpoint(model, b"a b\n", tmp_path, {}, torch.float32)
    pixels = torch.rand(1, 3, *model.image.trunk.default_cfg["input_size"][1:])
    with torch.inference_mode():
        again = load_checkpoint(tmp_path).model.encode_image(pixels)
        assert torch.allclose(again, model.encode_image(pixels), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_batch_norm_are_not_rounded(dtype: torch.dtype, tmp_path: Path) -> None:
    """A variance of 10⁵ is infinite in float16, and one of 10⁻⁸ is zero."""
    config = ModelConfig.load("pocket")
    text = dataclasses.replace(config.text, layers=1)
    model = CLIP(dataclasses.replace(config, image=ImageConfig("test_efficientnet"), text=text)).eval()
    statistics = {name: value for name, value in model.state_dict().items() if "running" in name}
    for value in statistics.values():
        value.copy_(torch.logspace(-8, 5, len(value)))
    save_checkpoint(model, b"a b\n", tmp_path, {}, dtype)
    again = load_checkpoint(tmp_path).model.state_dict()
    assert statistics and all(torch.equal(again[name], value) for name, value in statistics.items())
    weight = "text.projection.weight"
    assert torch.equal(again[weight], model.state_dict()[weight].to(dtype).float())
