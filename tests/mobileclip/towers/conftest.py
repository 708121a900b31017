"""Random weights and tokens that make every part of a model count."""

import torch
from torch import nn


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a new model weights like those of a trained one: no branch scaled to zero, no neutral BatchNorm."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_mean"):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif "gamma" in name or "layer_scale" in name or name.endswith(".scale"):
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
            elif name.endswith("bias"):
                value.copy_(0.05 * torch.randn(value.shape, generator=generator))
            elif value.ndim == 1 and value.is_floating_point():
                value.copy_(1 + 0.1 * torch.randn(value.shape, generator=generator))
    return model.eval()


def tokens(count: int = 3, context_length: int = 77, vocab_size: int = 49408, seed: int = 0) -> torch.Tensor:
    """Return rows of different lengths, int64: start token, words, end token, zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, context_length, dtype=torch.long)
    for row, length in zip(rows, torch.linspace(3, context_length, count).long().tolist(), strict=True):
        row[:length] = torch.randint(1, vocab_size - 2, (length,), generator=generator)
        row[0], row[length - 1] = vocab_size - 2, vocab_size - 1
    return rows
