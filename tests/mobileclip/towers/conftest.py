"""Models with weights that hide nothing."""

import torch
from torch import nn


def stir(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a fresh model the weights of one that has lived: no branch scaled to nothing, no BatchNorm still neutral."""
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
    """Return token rows of different lengths, int64: start, words, end, zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, context_length, dtype=torch.long)
    for row, length in zip(rows, torch.linspace(3, context_length, count).long().tolist(), strict=True):
        row[:length] = torch.randint(1, vocab_size - 2, (length,), generator=generator)
        row[0], row[length - 1] = vocab_size - 2, vocab_size - 1
    return rows
