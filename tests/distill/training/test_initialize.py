"""Weights that are inherited from larger models, and interpolated."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.config import Recipe
from distill.training.initialize import Layers, deepen, inherit, interpolate
from mobileclip.checkpoints import load_checkpoint
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP, ModelConfig, create_model
from tests.distill.conftest import run
from tests.mobileclip.towers.conftest import randomize, tokens


def small_model(width: int = 128, layers: int = 4, heads: int = 2, seed: int = 0) -> CLIP:
    """A small ViT and text tower, both of this width and depth."""
    config = ModelConfig.load("tinyclip-vit-8m-16")
    options = {"embed_dim": width, "depth": layers, "num_heads": heads}
    image = dataclasses.replace(config.image, options=options)
    text = dataclasses.replace(config.text, vocab_size=600, width=width, heads=heads, layers=layers)
    torch.manual_seed(seed)
    model = CLIP(dataclasses.replace(config, embed_dim=32, image=image, text=text))
    randomize(model, seed)
    return model


PIXELS, IDS = torch.rand(2, 3, 224, 224), tokens(3, 77, 600)


def vectors(model: CLIP) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model.encode_image(PIXELS), model.encode_text(IDS)])


def with_text_layers(model: CLIP, layers: int) -> CLIP:
    torch.manual_seed(1)
    deeper = CLIP(dataclasses.replace(model.config, text=dataclasses.replace(model.config.text, layers=layers)))
    randomize(deeper, 1)
    return deeper


def test_a_deeper_text_tower_starts_with_the_same_vectors_and_learns_in_its_new_layers() -> None:
    shallow = small_model(layers=2)
    deep = with_text_layers(shallow, 3)
    assert not torch.allclose(vectors(deep), vectors(shallow), atol=1e-2)
    deepen(deep, shallow)
    assert torch.equal(vectors(deep), vectors(shallow))
    deep.encode_text(IDS).sum().backward()
    gradient = deep.text.blocks[2].out.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


def test_only_more_text_layers_can_be_added() -> None:
    with pytest.raises(ConfigError, match="3 text layers cannot start from a model with 4"):
        deepen(with_text_layers(small_model(), 3), small_model())
    with pytest.raises(ConfigError, match="more than depth"):
        deepen(small_model(width=128, layers=4), small_model(width=64, heads=1, layers=4))


def silence(model: CLIP, layers: list[int]) -> None:
    """Make these layers add nothing to what passes through them."""
    with torch.no_grad():
        for number in layers:
            image, text = model.image.trunk.blocks[number], model.text.blocks[number]
            for layer in (image.attn.proj, image.mlp.fc2, text.out, text.proj):
                layer.weight.zero_()
                layer.bias.zero_()


def test_the_same_shape_is_an_exact_copy() -> None:
    larger, student = small_model(), small_model(seed=1)
    assert not torch.allclose(vectors(larger), vectors(student), atol=1e-2)
    inherit(student, larger)
    assert torch.equal(vectors(larger), vectors(student))


@pytest.mark.parametrize(("layers", "dropped"), [("first", [2, 3]), ("every", [1, 3])])
def test_leaving_out_layers_that_add_nothing_is_exact(layers: Layers, dropped: list[int]) -> None:
    larger, student = small_model(), small_model(layers=2, seed=1)
    inherit(student, larger, layers)
    assert not torch.allclose(vectors(larger), vectors(student), atol=1e-4)
    silence(larger, dropped)
    inherit(student, larger, layers)
    assert torch.allclose(vectors(larger), vectors(student), atol=1e-6)


def test_width_is_the_leading_channels_and_heads() -> None:
    larger, student = small_model(width=256, heads=4), small_model(width=128, heads=2, seed=1)
    inherit(student, larger)
    for mine, theirs in (
        (student.text.blocks[1].qkv, larger.text.blocks[1].qkv),
        (student.image.trunk.blocks[1].attn.qkv, larger.image.trunk.blocks[1].attn.qkv),
    ):
        for part in range(3):  # queries, keys, values: each its first two heads of 64
            rows = slice(256 * part, 256 * part + 128)
            assert torch.equal(mine.weight[128 * part : 128 * part + 128], theirs.weight[rows, :128])
            assert torch.equal(mine.bias[128 * part : 128 * part + 128], theirs.bias[rows])
    assert torch.equal(student.text.blocks[0].fc.weight, larger.text.blocks[0].fc.weight[:512, :128])
    assert torch.equal(student.image.trunk.pos_embed, larger.image.trunk.pos_embed[:, :, :128])
    assert torch.equal(student.text.projection.weight, larger.text.projection.weight[:, :128])


def test_a_narrower_attention_is_what_the_kept_heads_do() -> None:
    """With the same input, the kept heads' share of the larger layer's output, on the kept channels."""
    larger, student = small_model(width=256, heads=4), small_model(width=128, heads=2, seed=1)
    inherit(student, larger)
    x = torch.randn(1, 5, 256)
    x[:, :, 128:] = 0
    wide, narrow = larger.text.blocks[0], student.text.blocks[0]
    with torch.no_grad():
        wide.out.weight[:, 128:] = 0
        q, k, v = (p.unflatten(-1, (4, 64)).transpose(1, 2) for p in wide.qkv(x).chunk(3, dim=-1))
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        wanted = wide.out(seen)[:, :, :128]
        q, k, v = (p.unflatten(-1, (2, 64)).transpose(1, 2) for p in narrow.qkv(x[:, :, :128]).chunk(3, dim=-1))
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        assert torch.allclose(narrow.out(seen), wanted, atol=1e-5)


def test_another_activation_is_refused() -> None:
    """OpenAI's weights were trained with another one than OpenCLIP's."""
    larger, student = small_model(), small_model()
    text = dataclasses.replace(larger.config.text, activation="quick_gelu")
    larger.config = dataclasses.replace(larger.config, text=text)
    with pytest.raises(ConfigError, match="trained with quick_gelu; give the student"):
        inherit(student, larger)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="not smaller"):
        inherit(small_model(width=256, heads=4), small_model())
    with pytest.raises(ConfigError, match="heads have 32 and 64"):
        inherit(small_model(width=64, heads=2), small_model(width=128, heads=2))
    pocket = ModelConfig.load("pocket")
    with pytest.raises(ConfigError, match="16384 tokens, the student 600"):
        inherit(small_model(), CLIP(pocket))
    pocket = dataclasses.replace(pocket, text=dataclasses.replace(pocket.text, vocab_size=600))
    with pytest.raises(ConfigError, match="of another kind"):
        inherit(small_model(), CLIP(pocket))


def test_interpolation_is_weight_by_weight() -> None:
    first, second = small_model(), small_model(seed=1)
    assert torch.equal(vectors(interpolate(first, second, 0.0)), vectors(first))
    assert torch.allclose(vectors(interpolate(first, second, 1.0)), vectors(second), atol=1e-6)
    mixed = interpolate(first, second, 0.25).state_dict()
    for name, value in first.state_dict().items():
        assert torch.allclose(mixed[name], 0.75 * value + 0.25 * second.state_dict()[name], atol=1e-6), name
    with pytest.raises(ConfigError, match="different shapes"):
        interpolate(first, small_model(layers=2), 0.5)
    with pytest.raises(ConfigError, match="must be between"):
        interpolate(first, second, 1.5)


def test_a_trunk_may_start_between_two(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """`blend` mixes the trunk alone, statistics of BatchNorm too; all else is the checkpoint's."""
    from distill.training.run import build_student

    start = run(recipe_folder, data, tmp_path / "first", stages=[{"epochs": 1, "px": 48}])
    init = str(tmp_path / "trunk.pth")
    other = create_model(recipe_folder / "tiny.toml")
    torch.save(other.image.trunk.state_dict(), init)
    settings = {"start": str(start), "init": init}

    def student(blend: float) -> dict[str, torch.Tensor]:
        recipe = Recipe.load(recipe_folder / "recipe.toml", {**settings, "blend": blend})
        return build_student(recipe, recipe_folder).state_dict()

    none, quarter, trunk = student(0.0), student(0.25), other.image.trunk.state_dict()
    for name, value in quarter.items():
        own = name.removeprefix("image.trunk.")
        if own != name and value.is_floating_point():
            assert torch.allclose(value, 0.75 * none[name] + 0.25 * trunk[own], atol=1e-6), name
        elif own == name:
            assert torch.equal(value, none[name]), name
    for wrong in ({"blend": 1.5, **settings}, {"blend": 0.5, "init": init}):
        with pytest.raises(ConfigError, match="blend"):
            Recipe.load(recipe_folder / "recipe.toml", wrong)


def test_two_students_are_mixed_from_the_command_line(
    student: Path, recipe_folder: Path, data: Path, tmp_path: Path
) -> None:
    other = run(recipe_folder, data, tmp_path / "other", **{"optim.lr": 3e-3})
    folders = [str(path) for path in (student, other, tmp_path / "mixed")]
    command = [sys.executable, "-m", "distill.training.soup", *folders, "--share=0.25"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "mixed"), done.stderr
    a, b, mixed = (load_checkpoint(path).model.state_dict() for path in (student, other, tmp_path / "mixed"))
    weight = "image.projection.weight"
    assert not torch.equal(a[weight], b[weight])
    torch.testing.assert_close(
        mixed[weight], 0.75 * a[weight] + 0.25 * b[weight], rtol=1e-2, atol=1e-3
    )  # kept in float16
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/model.safetensors").write_bytes(b"no weights")
    command[4] = str(tmp_path / "damaged")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("soup: ") and len(done.stderr.splitlines()) == 1
