"""MLCA, Mixed Local Channel Attention: PyTorch module.

Paper: "Mixed local channel attention for object detection", Engineering Applications of Artificial Intelligence 123,
106442, 2023. Source of the formula: wandahangFY/MLCA, ``MLCA.py``.

    cells = adaptive means of x, s x s            whole = mean of the cells
    y = x * adaptive means of (w * sigmoid(conv_local(cells)) + (1 - w) * sigmoid(conv(whole))), at H x W

- ``conv`` runs along the channels, zeros at both ends. ``conv_local`` runs along one sequence of all cells, the
  channels of one cell after those of the cell before it: at the ends of a cell's channels it sees those of the next.
- k follows from C as in ECA, int(|log2(C) + 1| / 2), the next odd number, but without ECA's minimum of 3.
- The adaptive pooling that spreads the cells over the map is a repetition where s divides H and W, else a row between
  two cells averages both.
- An older copy transposes the gate of the whole map as a matrix: the same for one image, wrong for a batch.
- No identity: the convolutions have no biases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described, tracing


class MixedLocalChannelAttention(Described):
    """A gate per channel and cell.

    ``kernel_size``: k, odd. ``local_size``: s. ``local_weight``: w. Keys: ``conv.weight``,
    ``conv_local.weight`` [1, 1, k]. ValueError for an even kernel.
    """

    described_by = ("local_size", "local_weight")

    def __init__(self, kernel_size: int, local_size: int = 5, local_weight: float = 0.5) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"MixedLocalChannelAttention has odd kernels, not {kernel_size}")
        self.local_size = local_size
        self.local_weight = local_weight
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.conv_local = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        batch, channels, height, width = x.shape
        size = self.local_size
        cells = _adaptive_means(x, size, size)
        whole = cells.mean(dim=(2, 3)).unsqueeze(1)
        whole = torch.sigmoid(self.conv(whole)).reshape(batch, channels, 1, 1)
        sequence = self.conv_local(cells.flatten(2).transpose(1, 2).reshape(batch, 1, -1))
        local = torch.sigmoid(sequence).reshape(batch, size * size, channels).transpose(1, 2)
        gate = whole * (1 - self.local_weight) + local.reshape(cells.shape) * self.local_weight
        return x * _adaptive_means(gate, height, width)


def _adaptive_means(x: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling of [N, C, h, w] to a height and width, which may be larger than h and w."""
    if not tracing() and not torch.compiler.is_compiling():
        return functional.adaptive_avg_pool2d(x, (height, width))
    # exporters know only sizes that divide each other; the pooling is separable
    rows, columns = (_matrix(int(m), int(n)).to(x) for m, n in zip(x.shape[2:], (height, width), strict=True))
    return rows @ x @ columns.T


def _matrix(source: int, target: int) -> Tensor:
    """[target, source]: row i averages the positions floor(i * source / target) to ceil((i + 1) * source / target)."""
    matrix = torch.zeros(target, source)
    for i in range(target):
        first, last = i * source // target, -(-(i + 1) * source // target)
        matrix[i, first:last] = 1 / (last - first)
    return matrix
