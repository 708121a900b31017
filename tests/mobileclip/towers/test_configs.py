"""Every shipped configuration can be built, and has the number of parameters that it states."""

import dataclasses
from typing import Any

import pytest
import torch

from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP, ModelConfig, TextConfig, create_model, model_names

# Millions of parameters, image and text, as in Apple's README (except for MobileCLIP2-S0, where it repeats the text
# tower of version 1), and as in the names of TinyCLIP's models, which leave out the token embedding.
PUBLISHED = {
    "mobileclip-s0": (11.4, 42.4),
    "mobileclip-s1": (21.5, 63.4),
    "mobileclip-s2": (35.7, 63.4),
    "mobileclip-b": (86.3, 63.4),
    "mobileclip-s3": (125.1, 123.6),
    "mobileclip-s4": (321.6, 123.6),
    "mobileclip-l-14": (304.3, 123.6),
    "mobileclip2-s0": (11.4, 63.4),
    "mobileclip2-s2": (35.7, 63.4),
    "mobileclip2-b": (86.3, 63.4),
    "mobileclip2-s3": (125.1, 123.6),
    "mobileclip2-s4": (321.6, 123.6),
    "mobileclip2-l-14": (304.3, 123.6),
    "clip-vit-b-32": (87.8, 63.4),
    "clip-vit-b-16": (86.2, 63.4),
    "clip-vit-l-14": (304.0, 123.7),
    "openclip-vit-b-32": (87.8, 63.4),
    "openclip-vit-b-16": (86.2, 63.4),
    "openclip-vit-l-14": (304.0, 123.7),
    "clip-rn50": (38.3, 63.7),
    "tinyclip-vit-8m-16": (8.3, 15.2),
    "tinyclip-vit-39m-16": (38.6, 44.5),
    "tinyclip-vit-40m-32": (39.7, 44.5),
    "tinyclip-vit-61m-32": (61.4, 54.0),
    "clip-kd-vit-t-16": (5.6, 40.5),
    "pocket": (10.2, 9.1),
}


@pytest.mark.parametrize("name", model_names())
def test_a_model_has_the_number_of_parameters_in_its_configuration(name: str) -> None:
    config = ModelConfig.load(name)
    with torch.device("meta"):
        model = create_model(name)
    counts = {
        "image": sum(p.numel() for p in model.image.parameters()),
        "text": sum(p.numel() for p in model.text.parameters()),
    }
    assert counts == config.parameters
    image, text = PUBLISHED[name]
    assert counts["image"] / 1e6 == pytest.approx(image, abs=0.4)
    assert counts["text"] / 1e6 == pytest.approx(text, abs=0.1)
    assert config.name == name


def test_every_published_model_has_a_configuration() -> None:
    assert set(PUBLISHED) == set(model_names())


def test_padding_matters_only_in_a_bidirectional_tower() -> None:
    """Trailing padding may be dropped for a causal tower, but not for a bidirectional one."""
    base = TextConfig(vocab_size=600, context_length=12, width=64, heads=2, layers=2)
    config = dataclasses.replace(ModelConfig.load("pocket"), text=base)
    tokens = torch.tensor([[598, 5, 6, 599] + [0] * 8])
    for causal in (True, False):
        model = CLIP(dataclasses.replace(config, text=dataclasses.replace(base, causal=causal))).eval()
        with torch.inference_mode():
            same = torch.allclose(model.encode_text(tokens), model.encode_text(tokens[:, :4]), atol=1e-6)
        assert same is causal


@pytest.mark.parametrize("changes", [{"activation": "relu"}, {"repmixers": True}, {"heads": 3}, {"layers": 0}])
def test_an_impossible_text_tower_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="text"):
        dataclasses.replace(TextConfig(vocab_size=600, width=64, heads=2), **changes)


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="mobileclip2-s0"):
        create_model("mobileclip2-s1")
