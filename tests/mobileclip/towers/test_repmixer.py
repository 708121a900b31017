"""MobileCLIP-S0's hybrid text tower against plain NumPy, written only from the paper and Apple's key names."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from mobileclip.layouts import apple
from mobileclip.towers import CLIP, ModelConfig, reparameterize
from tests.mobileclip.towers.conftest import randomize, tokens

Array = NDArray[np.float64]


def oracle(weights: dict[str, Array], ids: NDArray[np.int64]) -> Array:
    """Return the text vectors in float64, without unit length, computed one text at a time."""
    return np.stack([_one_text(weights, row) for row in ids])


def _one_text(weights: dict[str, Array], row: NDArray[np.int64]) -> Array:
    positions = weights["positional_embedding.pos_embed.pos_embed"][0, 0]
    x = weights["embedding_layer.weight"][row] + positions
    x = _repmixer_block(weights, "transformer.0.", x)
    for layer in range(1, 5):
        x = _transformer(weights, f"transformer.{layer}.", x)
    x = _repmixer_block(weights, "transformer.5.", x)
    x = _layer_norm(weights, "final_layer_norm.", x)
    return x[int(np.argmax(row))] @ weights["projection_layer"]


def _repmixer_block(weights: dict[str, Array], at: str, x: Array) -> Array:
    mixer = at + "token_mixer."
    branch = _batch_norm(weights, mixer + "mixer.rbr_skip.", x)
    branch = branch + _batch_norm(
        weights, mixer + "mixer.rbr_conv.0.bn.", _slide(weights[mixer + "mixer.rbr_conv.0.conv.weight"], x)
    )
    x = x + weights[mixer + "layer_scale"][:, 0, 0] * (branch - _batch_norm(weights, mixer + "norm.rbr_skip.", x))
    hidden = _batch_norm(weights, at + "convffn.conv.bn.", _slide(weights[at + "convffn.conv.conv.weight"], x))
    hidden = hidden @ weights[at + "convffn.fc1.weight"][:, :, 0, 0].T + weights[at + "convffn.fc1.bias"]
    hidden = _gelu(hidden) @ weights[at + "convffn.fc2.weight"][:, :, 0, 0].T + weights[at + "convffn.fc2.bias"]
    return x + weights[at + "layer_scale"][:, 0, 0] * hidden


def _slide(kernel: Array, x: Array) -> Array:
    """Depthwise convolution over the tokens, zeros outside."""
    taps = kernel[:, 0, 0, :]
    reach = taps.shape[1] // 2
    out = np.zeros_like(x)
    for place in range(len(x)):
        for tap in range(taps.shape[1]):
            source = place + tap - reach
            if 0 <= source < len(x):
                out[place] += taps[:, tap] * x[source]
    return out


def _transformer(weights: dict[str, Array], at: str, x: Array, heads: int = 8) -> Array:
    normed = _layer_norm(weights, at + "pre_norm_mha.0.", x)
    q, k, v = np.split(_linear(weights, at + "pre_norm_mha.1.qkv_proj.", normed), 3, axis=1)
    width = q.shape[1] // heads
    parts = []
    for head in range(heads):
        of = slice(head * width, (head + 1) * width)
        scores = q[:, of] @ k[:, of].T / math.sqrt(width)
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        parts.append(share / share.sum(axis=1, keepdims=True) @ v[:, of])
    x = x + _linear(weights, at + "pre_norm_mha.1.out_proj.", np.concatenate(parts, axis=1))
    hidden = _linear(weights, at + "pre_norm_ffn.1.", _layer_norm(weights, at + "pre_norm_ffn.0.", x))
    return x + _linear(weights, at + "pre_norm_ffn.4.", _gelu(hidden))


def _linear(weights: dict[str, Array], at: str, x: Array) -> Array:
    return x @ weights[at + "weight"].T + weights[at + "bias"]


def _layer_norm(weights: dict[str, Array], at: str, x: Array) -> Array:
    centered = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt((centered**2).mean(axis=1, keepdims=True) + 1e-5)
    return centered / spread * weights[at + "weight"] + weights[at + "bias"]


def _batch_norm(weights: dict[str, Array], at: str, x: Array) -> Array:
    spread = np.sqrt(weights[at + "running_var"] + 1e-5)
    return (x - weights[at + "running_mean"]) / spread * weights[at + "weight"] + weights[at + "bias"]


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def apple_weights(width: int = 512, embed_dim: int = 512) -> dict[str, torch.Tensor]:
    """Return random weights of the text tower with Apple's names and shapes."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int, std: float = 0.02, mean: float = 0.0) -> torch.Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    def norm(at: str, batch: bool) -> dict[str, torch.Tensor]:
        result = {f"{at}.weight": draw(width, std=0.1, mean=1.0), f"{at}.bias": draw(width, std=0.1)}
        if batch:
            result |= {f"{at}.running_mean": draw(width, std=0.1), f"{at}.running_var": draw(width).abs() + 0.5}
            result |= {f"{at}.num_batches_tracked": torch.tensor(7)}
        return result

    def linear(at: str, out: int, inside: int, *ones: int) -> dict[str, torch.Tensor]:
        return {f"{at}.weight": draw(out, inside, *ones, std=inside**-0.5), f"{at}.bias": draw(out)}

    text: dict[str, torch.Tensor] = {
        "embedding_layer.weight": draw(49408, width, std=0.5),
        "positional_embedding.pos_embed.pos_embed": draw(1, 1, 77, width, std=0.2),
        "projection_layer": draw(width, embed_dim, std=width**-0.5),
        **norm("final_layer_norm", batch=False),
    }
    for number in (0, 5):
        at = f"transformer.{number}"
        for branch in ("token_mixer.norm.rbr_skip", "token_mixer.mixer.rbr_skip", "token_mixer.mixer.rbr_conv.0.bn"):
            text |= norm(f"{at}.{branch}", batch=True)
        text |= norm(f"{at}.convffn.conv.bn", batch=True)
        text[f"{at}.token_mixer.mixer.rbr_conv.0.conv.weight"] = draw(width, 1, 1, 11, std=0.3)
        text[f"{at}.convffn.conv.conv.weight"] = draw(width, 1, 1, 11, std=0.3)
        text |= linear(f"{at}.convffn.fc1", 4 * width, width, 1, 1)
        text |= linear(f"{at}.convffn.fc2", width, 4 * width, 1, 1)
        text[f"{at}.token_mixer.layer_scale"] = draw(width, 1, 1, std=0.5)
        text[f"{at}.layer_scale"] = draw(width, 1, 1, std=0.5)
    for number in range(1, 5):
        at = f"transformer.{number}"
        text |= norm(f"{at}.pre_norm_mha.0", batch=False) | norm(f"{at}.pre_norm_ffn.0", batch=False)
        text |= linear(f"{at}.pre_norm_mha.1.qkv_proj", 3 * width, width)
        text |= linear(f"{at}.pre_norm_mha.1.out_proj", width, width)
        text |= linear(f"{at}.pre_norm_ffn.1", 4 * width, width) | linear(f"{at}.pre_norm_ffn.4", width, 4 * width)
    return text


def test_the_text_tower_of_s0_agrees_with_the_paper() -> None:
    weights = apple_weights()
    model = CLIP(ModelConfig.load("mobileclip-s0")).eval()
    renamed = apple.to_ours({f"text_encoder.{name}": value for name, value in weights.items()}, model)
    fit = model.text.load_state_dict({name.removeprefix("text."): value for name, value in renamed.items()})
    assert not fit.missing_keys and not fit.unexpected_keys
    ids = tokens(3)
    expected = oracle({name: value.double().numpy() for name, value in weights.items()}, ids.numpy())
    for tower in (model.text, reparameterize(model).text):
        with torch.inference_mode():
            vectors = tower(ids).double().numpy()
        cosine = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() > 0.99999
        assert np.abs(vectors - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_fused_block_is_two_convolutions_and_an_mlp() -> None:
    model = CLIP(ModelConfig.load("mobileclip-s0"))
    randomize(model)
    block = reparameterize(model).text.blocks[0]
    kinds = [type(module).__name__ for module in block.children()]
    assert kinds == ["Conv1d", "Conv1d", "Identity", "Linear", "Linear"]
