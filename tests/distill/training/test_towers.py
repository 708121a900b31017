"""The towers against what is known of them, and checkpoints there and back."""

from pathlib import Path

import pytest
import torch

from distill.teachers.encoders import load_trunk_weights
from mobileclip.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from mobileclip.errors import PocketclipError
from mobileclip.towers import ModelConfig, create_model
from mobileclip.towers.config import CONFIGS, TextConfig
from mobileclip.towers.text import TextTower


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_parameter_counts_are_those_of_the_configuration(path: Path) -> None:
    config = ModelConfig.load(path)
    with torch.device("meta"):
        model = create_model(config)
    counts = {side: sum(p.numel() for p in getattr(model, side).parameters()) for side in ("image", "text")}
    assert counts == dict(config.parameters)


def test_the_text_tower_is_open_clips() -> None:
    """The same weights give the same vectors in open_clip's text transformer."""
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    config = TextConfig(vocab_size=600, context_length=20, width=64, heads=4, layers=3)
    mine = TextTower(config, 32).eval()
    theirs = TextTransformer(
        context_length=20, vocab_size=600, width=64, heads=4, layers=3, output_dim=32, pool_type="argmax"
    ).eval()
    state = {
        "token_embedding.weight": mine.token_embedding.weight,
        "positional_embedding": mine.positions,
        "ln_final.weight": mine.ln_final.weight,
        "ln_final.bias": mine.ln_final.bias,
        "text_projection": mine.projection.weight.T,
    }
    names = {"ln_1": "ln_1", "ln_2": "ln_2", "out": "attn.out_proj", "fc": "mlp.c_fc", "proj": "mlp.c_proj"}
    for number, block in enumerate(mine.blocks):
        prefix = f"transformer.resblocks.{number}."
        for here, there in names.items():
            for kind in ("weight", "bias"):
                state[f"{prefix}{there}.{kind}"] = block.get_parameter(f"{here}.{kind}")
        state[f"{prefix}attn.in_proj_weight"] = block.qkv.weight
        state[f"{prefix}attn.in_proj_bias"] = block.qkv.bias
    theirs.load_state_dict(state)
    tokens = torch.zeros(4, 20, dtype=torch.long)
    for row, length in enumerate((3, 7, 12, 20)):
        tokens[row, 0], tokens[row, length - 1] = 598, 599
        tokens[row, 1 : length - 1] = torch.randint(1, 598, (length - 2,))
    with torch.inference_mode():
        assert torch.allclose(mine(tokens), theirs(tokens), atol=1e-5)
        assert torch.allclose(mine(tokens[:1, :3]), mine(tokens[:1]), atol=1e-6), "a causal tower ignores padding"


def test_a_checkpoint_comes_back_within_half_precision(recipe_folder: Path, tmp_path: Path) -> None:
    model = create_model(recipe_folder / "tiny.toml").eval()
    about = {"name": "tiny", "licence": "L", "provenance": "P"}
    save_checkpoint(model, (recipe_folder / "merges.txt.gz").read_bytes(), tmp_path, about)
    again = load_checkpoint(tmp_path)
    assert again.model.config == model.config and dict(again.about) == about
    pixels = torch.rand(2, 3, 64, 64)
    cosine = (again.model.encode_image(pixels) * model.encode_image(pixels)).sum(dim=1)
    assert float(cosine.min()) > 0.9999
    assert not list(tmp_path.glob(".*")), "no partial file is left"


def test_a_bad_checkpoint_says_what_is_wrong(recipe_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no known model has these weights"):
        load_checkpoint(tmp_path)
    save_checkpoint(create_model(recipe_folder / "tiny.toml"), b"", tmp_path, {})
    (tmp_path / "merges.txt.gz").unlink()
    with pytest.raises(CheckpointError, match="belongs next to"):
        load_checkpoint(tmp_path)


def test_trunk_weights_map_by_name_or_by_order(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(3)
    source = timm.create_model("test_efficientnet")
    torch.save(source.state_dict(), tmp_path / "named.pth")
    renamed = {f"layer{i}": v for i, v in enumerate(source.state_dict().values()) if v.ndim}
    torch.save(renamed, tmp_path / "ordered.pth")
    for file in ("named.pth", "ordered.pth"):
        trunk = timm.create_model("test_efficientnet", num_classes=0)
        load_trunk_weights(trunk, tmp_path / file)
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in trunk.state_dict().items())
    with pytest.raises(PocketclipError, match="don't fit a VisionTransformer"):
        load_trunk_weights(timm.create_model("test_vit"), tmp_path / "ordered.pth")
    (tmp_path / "bad.pth").write_bytes(b"no")
    with pytest.raises(PocketclipError, match="not a weights file"):
        load_trunk_weights(trunk, tmp_path / "bad.pth")
