"""CGA, cascaded group attention of EfficientViT, within windows, alone and in its block: PyTorch module.

Paper: "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention", CVPR 2023, arXiv:2305.07027.
Source of the formula: microsoft/Cream, ``EfficientViT/classification/model/efficientvit.py``, ``LocalWindowAttention``
and ``EfficientViTBlock``.

    z_h = x_h + y_{h-1} (z_0 = x_0), x_h the h-th of equal parts of the channels      [q, k, v] = BN(qkv_h(z_h))
    y_h = v softmax(BN(dw_h(q))^T k / sqrt(d) + bias_h)^T within windows
    unit     y = BN(proj(relu([y_0, y_1, ...])))
    block    z = x + BN(dw0), + FFN, + unit, + BN(dw1), + FFN; FFN = BN(pw2(relu(BN(pw1))))

- The bias of a pair of positions of a window depends on how far apart they are in rows and in columns, not on the
  direction: ``attention_biases`` [heads, w^2], by rows.
- A window is at most as large as the shorter side of the map. A map that it does not divide is padded with zeros below
  and to the right; the padding takes part in the attention, and the result is cut off again.
- No convolution has a bias. The last BatchNorm of each part starts with weight 0, so that the block starts as an
  identity; the unit starts at 0.
- ``attention_bias_idxs`` of the published state_dicts follows from the window and is not kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described, conv_with_bn, named, require_heads, require_size, under_m


def bias_rows(window: int) -> Tensor:
    """Column of ``attention_biases`` for each pair of positions of a window: [window^2, window^2]."""
    row, column = (grid.flatten() for grid in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    down, right = (row[:, None] - row[None]).abs(), (column[:, None] - column[None]).abs()
    return down * window + right


class _Cascade(nn.Module):
    """[windows, C, w, w] -> the same."""

    index: Tensor

    def __init__(self, channels: int, window: int, heads: int, key_dim: int, kernel: int, eps: float) -> None:
        super().__init__()
        self.key_dim, self.value_dim = key_dim, channels // heads
        rows = 2 * key_dim + self.value_dim
        self.qkvs = nn.ModuleList(conv_with_bn(self.value_dim, rows, eps) for _ in range(heads))
        self.dws = nn.ModuleList(conv_with_bn(key_dim, key_dim, eps, kernel, groups=key_dim) for _ in range(heads))
        self.proj = nn.Sequential(nn.ReLU(), conv_with_bn(channels, channels, eps, scale=0.0))
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        self.register_buffer("index", bias_rows(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        for head, part in enumerate(x.chunk(len(self.qkvs), dim=1)):
            z = part + found[-1] if found else part
            q, k, v = torch.split(self.qkvs[head](z), [self.key_dim, self.key_dim, self.value_dim], dim=1)
            q, k, v = (each.flatten(2) for each in (self.dws[head](q), k, v))
            logits = q.transpose(1, 2) @ k * self.key_dim**-0.5 + self.attention_biases[head][self.index]
            found.append((v @ torch.softmax(logits, dim=2).transpose(1, 2)).reshape(part.shape))
        y: Tensor = self.proj(torch.cat(found, dim=1))
        return y


class LocalWindowAttention(Described):
    """Attention whose heads see what the head before them gave, within windows.

    ``channels``: C of the map. ``size``: its (H, W), the only one it then takes. ``heads``: a divisor of C.
    ``key_dim``: channels of a query. ``window``: side of a window. ``kernel``: side of the convolutions of q, odd.
    ``bn_eps``: eps of the BatchNorms. ValueError for settings that do not fit together.

    Keys, for each head h: ``attn.qkvs.h.c.weight`` [2 d + C/heads, C/heads, 1, 1], ``attn.dws.h.c.weight``
    [d, 1, k, k]; ``attn.proj.1.c.weight`` [C, C, 1, 1], the ``.bn.{weight,bias,running_mean,running_var}`` of each, and
    ``attn.attention_biases`` [heads, w^2].
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "window")

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        heads: int = 4,
        key_dim: int = 16,
        window: int = 7,
        kernel: int = 5,
        bn_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        require_heads("LocalWindowAttention", channels, heads)
        if key_dim < 1 or window < 1 or kernel % 2 == 0:
            raise ValueError(
                "LocalWindowAttention needs key_dim and window of at least 1 and an odd kernel, "
                f"got {key_dim}, {window} and {kernel}"
            )
        self.channels, self.map_size, self.window = channels, (size[0], size[1]), min(window, *size)
        self.attn = _Cascade(channels, self.window, heads, key_dim, kernel, bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "LocalWindowAttention")
        (height, width), side = self.map_size, self.window
        down, right = -height % side, -width % side
        rows, columns = (height + down) // side, (width + right) // side
        n = x.shape[0]
        z = functional.pad(x, (0, right, 0, down)).reshape(n, self.channels, rows, side, columns, side)
        z = self.attn(z.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.channels, side, side))
        z = z.reshape(n, rows, columns, self.channels, side, side).permute(0, 3, 1, 4, 2, 5)
        y: Tensor = z.reshape(n, self.channels, height + down, width + right)[:, :, :height, :width]
        return y


class EfficientViTBlock(nn.Module):
    """The attention between depthwise convolutions and feed-forward parts, each with a shortcut.

    As of LocalWindowAttention; ``hidden``: width of the feed-forward parts, 2 C as published.

    Keys: ``dw0.m.c.weight``, ``dw1.m.c.weight`` [C, 1, 3, 3], ``ffn0.m.pw1.c.weight``, ``ffn1.m.pw1.c.weight``
    [F, C, 1, 1], ``ffn0.m.pw2.c.weight``, ``ffn1.m.pw2.c.weight`` [C, F, 1, 1], the ``bn`` of each, and those of
    LocalWindowAttention behind ``mixer.m.``.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        heads: int = 4,
        key_dim: int = 16,
        window: int = 7,
        kernel: int = 5,
        hidden: int | None = None,
        bn_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        hidden = hidden or 2 * channels

        def feed_forward() -> nn.Module:
            wide, narrow = conv_with_bn(channels, hidden, bn_eps), conv_with_bn(hidden, channels, bn_eps, scale=0.0)
            return under_m(named(pw1=wide, act=nn.ReLU(), pw2=narrow))

        def near() -> nn.Module:
            return under_m(conv_with_bn(channels, channels, bn_eps, 3, groups=channels, scale=0.0))

        self.dw0, self.ffn0 = near(), feed_forward()
        self.mixer = under_m(LocalWindowAttention(channels, size, heads, key_dim, window, kernel, bn_eps))
        self.dw1, self.ffn1 = near(), feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))
        return y
