"""A plain vision transformer, as in DINOv2: tokens of patches after a class token and registers.

mmdet's package has none. It is built for the table of coverage, not to be trained.
"""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import interpolate

GRID = 16  # rows and columns of the position embedding, which is interpolated to the grid of an input


@MODELS.register_module()
class PlainViT(BaseModule):
    """Vision transformer with one output (N, C, rows, columns); what a block returns are tokens (N, 1 + R + L, C).

    Args:
        channels: C.
        blocks: Number of blocks.
        patch: Side of a patch, in pixels. What remains at the right and bottom border is left out.
        registers: R, the number of tokens beside the class token that belong to no patch (Darcet et al., ICLR 2024).
    """

    def __init__(self, channels: int, blocks: int, patch: int, registers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, channels, GRID, GRID) * 0.02)
        self.class_and_registers = nn.Parameter(torch.randn(1, 1 + registers, channels) * 0.02)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        grid = self.patches(images)
        grid = grid + interpolate(self.positions, grid.shape[2:], mode='bicubic', align_corners=False)
        leading = self.class_and_registers.expand(len(images), -1, -1)
        tokens = torch.cat([leading, grid.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens[:, leading.shape[1] :])
        return (tokens.transpose(1, 2).reshape(grid.shape),)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.perceptron(self.norm2(tokens))
