"""Image towers whose head is more than a projection: every engine returns PyTorch's vectors and the feature map."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from export.formats import load_format
from export.onnx.convert import export_head
from mobileclip.towers import CLIP, ModelConfig, create_model
from mobileclip.towers.config import AttentionConfig
from tests.export import towers


@pytest.fixture(scope="module")
def model() -> CLIP:
    """With a hidden layer, attention pooling and a classifier with confident answers."""
    torch.manual_seed(4)
    plain = ModelConfig.load(towers.TINY)
    attention = AttentionConfig(side=2, width=16, heads=2, queries=2)
    image = dataclasses.replace(plain.image, hidden=24, attention=attention, classes=50, dropout=0.1)
    made = create_model(dataclasses.replace(plain, image=image)).eval()
    assert made.image.classes is not None
    pixels = torch.from_numpy(towers.inputs(made)["image"])
    with torch.no_grad():
        made.image.classes.classifier.weight.mul_(20)
        made.image.classes.set_vectors(torch.nn.functional.normalize(torch.randn(50, 32), dim=-1))
        made.image.fit_local_projection(made.image.trunk(pixels), made.image(pixels))
    return made


@pytest.mark.parametrize(("engine", "off"), [("onnx", 1e-5), ("litert", 1e-5), ("coreml", 1e-4)])
def test_a_tower_equals_torch_and_keeps_its_map(model: CLIP, engine: str, off: float) -> None:
    made_by = load_format(engine)
    batch = towers.inputs(model)["image"]
    expected = towers.vectors(model, "image", batch)
    with torch.no_grad():
        alone = torch.nn.functional.normalize(
            model.image.projection(model.image.trunk(torch.from_numpy(batch))), dim=-1
        )
    assert np.abs(alone.numpy() - expected).max() > 0.1, "the rest of the head matters"
    tower = made_by.open(made_by.convert(towers.fused(model), "image"), 1)
    vectors, features = tower.with_features(batch, "features")
    assert np.abs(vectors - expected).max() < off
    with torch.no_grad():
        pooled = model.image.trunk(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(features.mean(axis=(2, 3)), pooled, atol=1e-3)


def test_its_head_is_the_fitted_projection(model: CLIP) -> None:
    with np.load(io.BytesIO(export_head(model))) as head:
        weight, least = head["weight"].astype(np.float32), float(head["cosine"])
        assert "bias" not in head
    batch = towers.inputs(model)["image"]
    with torch.no_grad():
        pooled = model.image.trunk(torch.from_numpy(batch)).numpy()
    assert towers.cosine(pooled @ weight.T, towers.vectors(model, "image", batch)) > least
