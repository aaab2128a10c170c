"""Focused linear attention of FLatten: PyTorch modules.

Paper: "FLatten Transformer: Vision Transformer using Focused Linear Attention", ICCV 2023, arXiv:2308.00442.
Source of the formulas: LeapLabTHU/FLatten-Transformer, ``models/flatten_swin.py`` and ``models/flatten_cswin.py``,
``FocusedLinearAttention``.

    f(z) = |z| z^p / |z^p|, z = (relu(.) + 1e-6) / softplus(scale), over all channels of a position
    [q, k, v] = qkv(x),   q <- f(q),   k <- f(k + positional_encoding)
    flatten    y = proj(a + dwc(v)),       a_i = sum_j (q_i . k_j) v_j / M / (q_i . mean k + 1e-6) for each head
    cswin      y = a + dwc(v) + get_v(v),  with sums in place of the means

- M is the number of positions. ``dwc`` is one depthwise convolution for the channels of all heads.
- The encoding is one for every position: a module is made for maps of one size. With windows it is one for every
  position of a window.
- ``cswin`` is the form on maps: one window over the whole map, and q, k and v out of a convolution inside.
- Of PVT's form, a ``sr_ratio`` above 1 is left out.
- There is no shortcut, and no identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described, depthwise, require_heads, require_size, reset_layers

_SMALL = 1e-6


class _Focused(Described):
    """What both have in common: what a position attends to, and how."""

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "heads", "factor")

    def __init__(self, channels: int, size: tuple[int, int], places: int, heads: int, factor: int, kernel: int) -> None:
        super().__init__()
        require_heads(type(self).__name__, channels, heads)
        if factor < 1 or kernel % 2 == 0:
            raise ValueError(
                f"{type(self).__name__} needs a factor of at least 1 and an odd kernel, got {factor} and {kernel}"
            )
        self.channels, self.map_size, self.heads, self.factor = channels, (size[0], size[1]), heads, factor
        self.dwc = depthwise(channels // heads, (kernel, kernel))
        self.scale = nn.Parameter(torch.zeros(1, 1, channels))
        self.positional_encoding = nn.Parameter(torch.zeros(1, places, channels))

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as the constructor draws them."""
        reset_layers(self)
        nn.init.zeros_(self.scale)
        nn.init.zeros_(self.positional_encoding)

    def focused(self, z: Tensor) -> Tensor:
        """[N, positions, C] -> the same: the length stays, the direction comes nearer to an axis."""
        z = (functional.relu(z) + _SMALL) / functional.softplus(self.scale)
        powers = z**self.factor
        found: Tensor = powers * (z.norm(dim=2, keepdim=True) / powers.norm(dim=2, keepdim=True))
        return found

    def attended(self, q: Tensor, k: Tensor, v: Tensor, *, means: bool) -> Tensor:
        """[N, C, h, w] each -> the same; ``means``: whether means over the positions are taken, and no sums.

        Not means in place of sums, with a smaller number beside them: torch's dynamo exporter takes what is below 1e-8
        for 0, and leaves its addition out.
        """
        q, k, v = (z.flatten(2).transpose(1, 2) for z in (q, k, v))
        q, k = self.focused(q), self.focused(k + self.positional_encoding)
        q, k, v = (z.reshape(*z.shape[:2], self.heads, -1).transpose(1, 2) for z in (q, k, v))
        keys = k.mean(dim=2, keepdim=True) if means else k.sum(dim=2, keepdim=True)
        context = k.transpose(2, 3) @ v
        y = q @ (context / k.shape[2] if means else context) / (q @ keys.transpose(2, 3) + _SMALL)
        return y.transpose(2, 3).flatten(1, 2)

    def near(self, v: Tensor) -> Tensor:
        """``dwc`` of every head: [N, C, h, w] -> the same."""
        found: Tensor = self.dwc(v.reshape(-1, self.channels // self.heads, *v.shape[2:]))
        return found.reshape(v.shape)


class FocusedLinearAttention(_Focused):
    """Linear attention over the whole map or within windows.

    ``channels``: C of the map. ``size``: its (H, W), the only one it then takes. ``heads``: a divisor of C. ``window``:
    side of a window, a divisor of H and of W; 0 or None: the whole map. ``factor``: p. ``kernel``: side of ``dwc``,
    odd. ``qkv_bias``: whether q, k and v have biases. ValueError for settings that do not fit together.

    Keys: ``qkv.weight`` [3C, C], ``proj.weight`` [C, C], ``dwc.weight`` [C/heads, 1, k, k], the ``.bias`` of each,
    ``scale`` [1, 1, C] and ``positional_encoding`` [1, positions, C].
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        heads: int = 8,
        window: int | None = None,
        factor: int = 3,
        kernel: int = 5,
        qkv_bias: bool = True,
    ) -> None:
        (height, width), (tall, wide) = size, (window, window) if window else size
        if height % tall or width % wide:
            raise ValueError(f"FocusedLinearAttention needs a window that divides {height} and {width}, got {window}")
        super().__init__(channels, size, tall * wide, heads, factor, kernel)
        self.window = (tall, wide)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "FocusedLinearAttention")
        (height, width), (tall, wide) = self.map_size, self.window
        z = x.reshape(x.shape[0], self.channels, height // tall, tall, width // wide, wide)
        z = z.permute(0, 2, 4, 3, 5, 1).reshape(-1, tall, wide, self.channels)
        q, k, v = self.qkv(z).permute(0, 3, 1, 2).chunk(3, dim=1)
        y = self.attended(q, k, v, means=True).reshape(v.shape) + self.near(v)
        z = self.proj(y.permute(0, 2, 3, 1))
        z = z.reshape(-1, height // tall, width // wide, tall, wide, self.channels)
        back: Tensor = z.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
        return back


class FocusedCSwinAttention(_Focused):
    """The same over the whole map as collections of YOLO modules have it, after FLatten-CSwin.

    ``channels``: C of the map. ``size``: its (H, W), the only one it then takes. ``heads``: a divisor of C. ``factor``:
    p. ``kernel``: side of ``dwc``, odd. ValueError for settings that do not fit together.

    Keys: ``conv_qkv.weight`` [3C, C, 1, 1]; ``get_v.weight`` [C, 1, 3, 3], ``dwc.weight`` [C/heads, 1, k, k] and their
    biases; ``scale`` [1, 1, C] and ``positional_encoding`` [1, positions, C].
    """

    def __init__(self, channels: int, size: tuple[int, int], heads: int = 8, factor: int = 3, kernel: int = 5) -> None:
        super().__init__(channels, size, size[0] * size[1], heads, factor, kernel)
        self.conv_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.get_v = depthwise(channels, (3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "FocusedCSwinAttention")
        q, k, v = self.conv_qkv(x).chunk(3, dim=1)
        a = self.attended(q, k, v, means=False)
        y: Tensor = a.reshape(x.shape) + self.near(v) + self.get_v(v)
        return y
