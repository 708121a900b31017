"""The convolutional block at both ends of MobileCLIP-S0's text tower (Vasu et al. 2024, MobileCLIP, section 3.2).

A RepMixer (Vasu et al. 2023, FastViT, section 3.2) along the sequence, then another depthwise convolution followed by
an MLP. The paper's two-dimensional layers with 1 × k kernels are one-dimensional here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

KERNEL = 11
"""Kernel size of the depthwise convolutions, in tokens."""


class RepMixer(nn.Module):
    """x + scale · (BatchNorm₁(x) + BatchNorm₂(depthwise(x)) − BatchNorm₃(x)).

    All of it is linear in evaluation mode, so `fused` returns it as one depthwise convolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.skip = nn.BatchNorm1d(width)
        self.conv = _depthwise(width)
        self.conv_norm = nn.BatchNorm1d(width)
        self.scale = nn.Parameter(torch.full((width, 1), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, length) to the same shape."""
        return x + self.scale * (self.skip(x) + self.conv_norm(self.conv(x)) - self.norm(x))

    def fused(self) -> nn.Conv1d:
        """Return one convolution that computes the same in evaluation mode."""
        width = len(self.scale)
        identity = _depthwise(width).to(self.scale)
        with torch.no_grad():
            identity.weight.zero_()
            identity.weight[:, :, KERNEL // 2] = 1
        mixed, skip, norm = (
            fuse_conv_bn_eval(conv.eval(), bn.eval())
            for conv, bn in ((self.conv, self.conv_norm), (identity, self.skip), (identity, self.norm))
        )
        result = _depthwise(width, bias=True).to(self.scale)
        assert mixed.bias is not None and skip.bias is not None and norm.bias is not None and result.bias is not None
        with torch.no_grad():
            branches = mixed.weight + skip.weight - norm.weight
            result.weight.copy_(identity.weight + self.scale[:, :, None] * branches)
            result.bias.copy_(self.scale[:, 0] * (mixed.bias + skip.bias - norm.bias))
        return result


class RepMixerBlock(nn.Module):
    """A RepMixer over the tokens, then a depthwise convolution with BatchNorm and a four times wider MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixer: nn.Module = RepMixer(width)
        self.conv: nn.Module = _depthwise(width)
        self.conv_norm: nn.Module = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-5))
        for layer in (self.fc, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, length, width) to the same shape."""
        mixed = self.mixer(x.transpose(1, 2))
        hidden = self.conv_norm(self.conv(mixed)).transpose(1, 2)
        return mixed.transpose(1, 2) + self.scale * self.proj(F.gelu(self.fc(hidden)))

    def fuse(self) -> None:
        """Replace the mixer by one convolution and fold the other BatchNorm; a second call changes nothing."""
        if isinstance(self.mixer, RepMixer) and isinstance(self.conv, nn.Conv1d):
            assert isinstance(self.conv_norm, nn.BatchNorm1d)
            self.mixer = self.mixer.fused()
            self.conv = fuse_conv_bn_eval(self.conv, self.conv_norm)
            self.conv_norm = nn.Identity()


def _depthwise(width: int, bias: bool = False) -> nn.Conv1d:
    return nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width, bias=bias)
