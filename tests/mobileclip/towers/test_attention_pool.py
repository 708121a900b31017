"""Attention pooling against PyTorch's own attention, and as a part of the image tower."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip.errors import ConfigError
from mobileclip.tables import build
from mobileclip.towers import ImageConfig, ModelConfig
from mobileclip.towers.attention_pool import AttentionPool, join_maps
from mobileclip.towers.config import AttentionConfig
from mobileclip.towers.image import ImageTower, run_trunk

CONFIG = AttentionConfig(side=3, width=24, heads=4, queries=2, drop_places=0.34, dropout=0.0)


def by_pytorch(pool: AttentionPool, places: Tensor) -> Tensor:
    """The same layer, with nn.MultiheadAttention."""
    width = pool.queries.shape[1]
    layer = nn.MultiheadAttention(width, pool.heads, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([pool.q.weight, pool.kv.weight]))
        layer.in_proj_bias.copy_(torch.cat([pool.q.bias, pool.kv.bias]))
        layer.out_proj.load_state_dict(pool.out.state_dict())
    seen = pool.ln_places(pool.embed(places) + pool.positions)
    queries = pool.queries.expand(len(places), -1, -1)
    x = queries + layer(queries, seen, seen, need_weights=False)[0]
    x = x + pool.proj(F.gelu(pool.fc(pool.ln_mlp(x))))
    return pool.projection(pool.ln_final(x).flatten(1))


def test_pooling_is_the_attention_of_pytorch() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(CONFIG, 10, 16).eval()
    places = torch.randn(5, 9, 10)
    with torch.no_grad():
        torch.testing.assert_close(pool(places), by_pytorch(pool, places), rtol=1e-5, atol=1e-5)


def test_places_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(CONFIG, 10, 16)
    places = torch.randn(4, 9, 10)
    kept, positions = pool.train()._thin(places, pool.positions)
    assert kept.shape == (4, 6, 10) and positions.shape == (4, 6, 24)
    for row in range(4):  # a place keeps its position
        for place, position in zip(kept[row], positions[row], strict=True):
            number = int((places[row] == place).all(dim=1).nonzero())
            assert torch.equal(position, pool.positions[number])
    assert not torch.equal(pool(places), pool(places))
    pool.eval()
    assert torch.equal(pool(places), pool(places))


def test_earlier_maps_are_brought_to_the_size_of_the_last() -> None:
    fine, middle, last = torch.randn(2, 3, 17, 17), torch.randn(2, 4, 9, 9), torch.randn(2, 5, 5, 5)
    places = join_maps([fine, middle, last])
    assert places.shape == (2, 25, 12)
    assert torch.equal(places[:, :, :5], last.flatten(2).transpose(1, 2))
    averaged = F.avg_pool2d(middle, 3, stride=2, padding=1)
    assert torch.equal(places[:, 7, 5:9], averaged[:, :, 1, 2])
    assert torch.equal(join_maps([last]), last.flatten(2).transpose(1, 2))


def test_a_tower_adds_the_unit_vectors_of_both_poolings() -> None:
    torch.manual_seed(0)
    config = ImageConfig("test_efficientnet", attention=AttentionConfig(side=2, width=16, heads=2))
    tower = ImageTower(config, 16).eval()
    assert tower.attention is not None and tower.places is not None
    pixels = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        features = tower.features(pixels)
        assert features.shape == (3, tower.width)
        last, maps = run_trunk(tower.trunk, pixels, 2)
        pooled = tower.trunk.forward_head(last)
        both = F.normalize(tower.projection(pooled), dim=-1) + F.normalize(tower.attention(join_maps(maps)), dim=-1)
        torch.testing.assert_close(tower(pixels), both)
        torch.testing.assert_close(tower(features), both)
        vectors, found = tower.with_map(pixels)
        assert torch.equal(vectors, tower(pixels)) and torch.equal(found, last)
        torch.testing.assert_close(pooled, tower.trunk(pixels))


def test_a_tower_without_attention_is_as_before() -> None:
    torch.manual_seed(0)
    tower = ImageTower(ImageConfig("test_efficientnet"), 16).eval()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), tower.projection(tower.trunk(pixels)))
        torch.testing.assert_close(tower.features(pixels), tower.trunk(pixels))
    assert tower.width == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"side": 0}, "at least 1"),
        ({"side": 9, "width": 20, "heads": 3}, "multiple of heads"),
        ({"side": 9, "drop_places": 1.0}, "drop_places"),
        ({"side": 9, "dropout": -0.1}, "dropout"),
    ],
)
def test_settings_are_checked(fields: dict[str, int | float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(AttentionConfig, fields, "")


def test_a_trunk_without_maps_is_refused() -> None:
    config = ImageConfig("test_efficientnet", attention=AttentionConfig(side=2, maps=40))
    with pytest.raises(ConfigError, match="doesn't have 40 feature maps"):
        ImageTower(config, 16)


def test_a_configuration_with_attention_is_read_and_compared() -> None:
    config = ModelConfig.load("pocket")
    assert config.image.attention == AttentionConfig(side=9)
    assert dataclasses.replace(config, name="other") != config


def test_positions_are_interpolated_for_other_pictures() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(CONFIG, 10, 16).eval()
    with torch.no_grad():
        rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
        pool.positions[:, 0], pool.positions[:, 1] = rows.flatten(), columns.flatten()
    assert pool._positions(3) is pool.positions
    finer = pool._positions(6).unflatten(0, (6, 6))
    assert torch.allclose(finer[:, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.0]))
    assert torch.allclose(finer[0, :, 1], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.0]))
    assert pool(torch.randn(2, 36, 10)).shape == (2, 16)
    tower = ImageTower(
        ImageConfig("test_efficientnet", attention=AttentionConfig(side=2, width=16, heads=2)), 16
    ).eval()
    with torch.no_grad():
        pixels = torch.rand(2, 3, 96, 96)
        torch.testing.assert_close(tower(pixels), tower(tower.features(pixels)))
