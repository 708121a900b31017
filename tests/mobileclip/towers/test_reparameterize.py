"""Merged towers: the same vectors, nothing left to merge, the original untouched."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from mobileclip.checkpoints import CheckpointError, save_checkpoint
from mobileclip.errors import PocketclipError
from mobileclip.towers import CLIP, ModelConfig, reparameterize
from tests.mobileclip.towers.conftest import stir, tokens


def lived(name: str) -> CLIP:
    torch.manual_seed(0)
    model = CLIP(ModelConfig.load(name))
    stir(model)
    return model


@pytest.mark.parametrize("name", ["pocket", "mobileclip-s0", "mobileclip2-s2", "mobileclip2-b", "clip-rn50"])
def test_merged_is_the_same(name: str) -> None:
    model = lived(name)
    before = copy.deepcopy(model.state_dict())
    fused = reparameterize(model)
    config = model.config
    pixels = torch.rand(2, 3, config.pixels.size, config.pixels.size)
    ids = tokens(3, config.text.context_length, config.text.vocab_size)
    with torch.inference_mode():
        for ours, merged in ((model.image, fused.image), (model.text, fused.text)):
            given = pixels if ours is model.image else ids
            wanted = ours(given)
            torch.testing.assert_close(merged(given), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not model.reparameterized and not any(p.requires_grad for p in fused.parameters())
    again = reparameterize(fused)
    assert again is not fused
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in fused.state_dict().items())


@pytest.mark.parametrize(("name", "left"), [("pocket", 0), ("mobileclip-s0", 2), ("clip-rn50", 0)])
def test_what_can_be_folded_is_folded(name: str, left: int) -> None:
    """In MCi0 only the norm before each of the two attention blocks has no convolution to go into."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    model = lived(name)
    fused = reparameterize(model)
    count = sum(isinstance(module, norms) for module in fused.modules())
    assert count == left < sum(isinstance(module, norms) for module in model.modules())
    assert len(list(fused.modules())) <= len(list(model.modules()))


def test_a_model_in_training_is_refused() -> None:
    model = lived("pocket").train()
    with pytest.raises(PocketclipError, match="eval"):
        reparameterize(model)
    model.eval().image.trunk.bn1.train()
    with pytest.raises(PocketclipError, match="eval"):
        reparameterize(model)


def test_a_merged_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="original"):
        save_checkpoint(reparameterize(lived("pocket")), b"", tmp_path, {})
