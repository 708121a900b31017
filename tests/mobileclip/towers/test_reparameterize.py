"""Merged towers return the same vectors and have nothing left to merge, and the original isn't changed."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from mobileclip.checkpoints import CheckpointError, save_checkpoint
from mobileclip.errors import PocketclipError
from mobileclip.towers import CLIP, ModelConfig, reparameterize
from tests.mobileclip.towers.conftest import randomize, tokens


def random_model(name: str) -> CLIP:
    torch.manual_seed(0)
    model = CLIP(ModelConfig.load(name))
    randomize(model)
    return model


@pytest.mark.parametrize("name", ["pocket", "mobileclip-s0", "mobileclip2-s2", "mobileclip2-b", "clip-rn50"])
def test_a_merged_model_returns_the_same_vectors(name: str) -> None:
    model = random_model(name)
    before = copy.deepcopy(model.state_dict())
    fused = reparameterize(model)
    config = model.config
    pixels = torch.rand(2, 3, config.pixels.size, config.pixels.size)
    ids = tokens(3, config.text.context_length, config.text.vocab_size)
    with torch.inference_mode():
        for ours, merged in ((model.image, fused.image), (model.text, fused.text)):
            inputs = pixels if ours is model.image else ids
            expected = ours(inputs)
            torch.testing.assert_close(merged(inputs), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not model.reparameterized and not any(p.requires_grad for p in fused.parameters())
    again = reparameterize(fused)
    assert again is not fused
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in fused.state_dict().items())


@pytest.mark.parametrize(("name", "left"), [("pocket", 0), ("mobileclip-s0", 2), ("clip-rn50", 0)])
def test_every_norm_that_follows_a_convolution_is_folded(name: str, left: int) -> None:
    """In MCi0, only the norms before the two attention blocks don't follow a convolution."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    model = random_model(name)
    fused = reparameterize(model)
    count = sum(isinstance(module, norms) for module in fused.modules())
    assert count == left < sum(isinstance(module, norms) for module in model.modules())
    assert len(list(fused.modules())) <= len(list(model.modules()))


def test_a_model_in_training_mode_is_refused() -> None:
    model = random_model("pocket").train()
    with pytest.raises(PocketclipError, match="eval"):
        reparameterize(model)
    model.eval().image.trunk.bn1.train()
    with pytest.raises(PocketclipError, match="eval"):
        reparameterize(model)


def test_a_merged_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="original"):
        save_checkpoint(reparameterize(random_model("pocket")), b"", tmp_path, {})
