"""AIFI, the encoder layer of RT-DETR: PyTorch module.

Paper: "DETRs Beat YOLOs on Real-time Object Detection", CVPR 2024, arXiv:2304.08069.
Sources of the formula: lyuwenyu/RT-DETR, ``hybrid_encoder.py`` (rtdetr), and ultralytics/ultralytics,
``nn/modules/transformer.py`` (ultralytics). With the positions of the map as tokens t, row by row, and pos as below:

    after    t = LN1(t + attention(q = k = t + pos, v = t))        y = LN2(t + fc2(gelu(fc1(t))))
    before   n = LN1(t)    t = t + attention(q = k = n + pos, v = n)        y = t + fc2(gelu(fc1(LN2(t))))

- after is what both ship; before is their ``normalize_before``.
- pos is computed, not stored: sine and cosine of the row and of the column times 10000^(-i / (C/4)), i < C/4; 10000 is
  the ``temperature``.
- gelu is what HybridEncoder and Ultralytics ask for; the class TransformerEncoderLayer of RT-DETR has relu by default.
- rtdetr, like Ultralytics before 8.4, lays pos out column by column while the tokens run row by row, and puts the
  columns' part first; ultralytics (8.4 and later) lays it out row by row, rows' part first. The two agree on square
  maps and only there.
- Collections for RT-DETR put SwiftFormer's attention (efficient-additive) or LITv2's (hilo) in the place of the
  attention, without pos; their LayerNorms have an epsilon of 1e-6, and only after exists. See ``mixers.py``.
- Identity: none for after (the last step is a LayerNorm); for before ``out_proj`` and ``fc2`` 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..forms import AIFI_LAYERS, AIFI_MIXED, HiLoHeads
from .layers import require_size, require_variant
from .mixers import EfficientAdditive, HiLo

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}


def position_embedding(channels: int, height: int, width: int, variant: str, temperature: float = 10000.0) -> Tensor:
    """pos, [H * W, C] in float64. ``channels``: a multiple of 4."""
    rates = temperature ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    axes = (columns, rows) if variant == "rtdetr" else (rows, columns)
    angles = [grid.reshape(-1, 1) * rates for grid in torch.meshgrid(*axes, indexing="ij")]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)


class AIFI(nn.Module):
    """``channels``: C of the map, a multiple of 4 and of ``heads``. ``size``: its (H, W), the only one it then takes.
    ``hidden``: width of the feed-forward part. ``before``: normalisation first. ``activation``: gelu or relu.
    ``temperature``: base of the rates of pos. ValueError for what does not fit.

    Keys of ultralytics: ``ma.in_proj_weight`` [3C, C] (q, k, v), ``ma.in_proj_bias`` [3C], ``ma.out_proj.weight``
    [C, C], ``fc1.weight`` [F, C], ``fc2.weight`` [C, F], ``norm1.weight``, ``norm2.weight`` [C], and the ``.bias`` of
    each. rtdetr has ``self_attn``, ``linear1`` and ``linear2`` for ``ma``, ``fc1`` and ``fc2``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    position: Tensor

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        hidden: int = 1024,
        heads: int = 8,
        before: bool = False,
        variant: str = "rtdetr",
        ln_eps: float = 1e-5,
        activation: str = "gelu",
        temperature: float = 10000.0,
    ) -> None:
        super().__init__()
        require_variant("AIFI", variant, AIFI_LAYERS)
        if channels < 4 or heads < 1 or channels % 4 or channels % heads:
            raise ValueError(
                f"AIFI needs a multiple of 4 and of its heads as channels, got {channels} and {heads} heads"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"AIFI has the activations {', '.join(ACTIVATIONS)}, not {activation!r}")
        if hidden < 1:
            raise ValueError(f"AIFI needs a hidden width of at least 1, got {hidden}")
        self.map_size = (size[0], size[1])
        self.before = before
        self.activation = activation
        self._names = AIFI_LAYERS[variant]
        attention, first, second = self._names
        self.add_module(attention, nn.MultiheadAttention(channels, heads, batch_first=True))
        self.add_module(first, nn.Linear(channels, hidden))
        self.add_module(second, nn.Linear(hidden, channels))
        self.norm1 = nn.LayerNorm(channels, eps=ln_eps)
        self.norm2 = nn.LayerNorm(channels, eps=ln_eps)
        position = position_embedding(channels, *size, variant, temperature)
        self.register_buffer("position", position, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "AIFI")
        tokens = x.flatten(2).transpose(1, 2)
        if self.before:
            tokens = tokens + self._attention(self.norm1(tokens))
            tokens = tokens + self._feed_forward(self.norm2(tokens))
        else:
            tokens = self.norm1(tokens + self._attention(tokens))
            tokens = self.norm2(tokens + self._feed_forward(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)

    def _attention(self, tokens: Tensor) -> Tensor:
        placed = tokens + self.position.to(tokens.dtype)
        result: Tensor = self.get_submodule(self._names[0])(placed, placed, tokens, need_weights=False)[0]
        return result

    def _feed_forward(self, tokens: Tensor) -> Tensor:
        _, first, second = self._names
        hidden = ACTIVATIONS[self.activation](self.get_submodule(first)(tokens))
        result: Tensor = self.get_submodule(second)(hidden)
        return result


class _MixedAIFI(nn.Module):
    """What the variants with another attention have in common: the layer around it, on maps."""

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int, variant: str, attention: nn.Module, hidden: int, norm_eps: float) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"AIFI needs a hidden width of at least 1, got {hidden}")
        self._name = AIFI_MIXED[variant][0]
        self.add_module(self._name, attention)
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=norm_eps), nn.LayerNorm(channels, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = _over_channels(self.norm1, x + self.get_submodule(self._name)(x))
        return _over_channels(self.norm2, x + self.fc2(functional.gelu(self.fc1(x))))


class AdditiveAIFI(_MixedAIFI):
    """``channels``: C of the map. ``hidden``: width of the feed-forward part. ValueError for widths below 1.

    Keys: those of ``mixers.EfficientAdditive`` under ``effaddattention``, ``fc1`` [F, C, 1, 1], ``fc2`` [C, F, 1, 1],
    ``norm1``, ``norm2`` [C], each with ``.{weight,bias}``.
    """

    def __init__(self, channels: int, hidden: int = 1024, norm_eps: float = 1e-6) -> None:
        if channels < 1:
            raise ValueError(f"AIFI needs at least one channel, got {channels}")
        super().__init__(channels, "efficient-additive", EfficientAdditive(channels), hidden, norm_eps)


class HiLoAIFI(_MixedAIFI):
    """``channels``, ``hidden``: as above. ``heads``: a divisor of C; a part ``alpha`` of them, rounded down, is for low
    frequencies. ``window``: side of a window. ``qkv_bias``: whether q, k and v have biases. ValueError likewise.

    Keys: those of ``mixers.HiLo`` under ``HiLo``, and the same around it.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 1024,
        heads: int = 8,
        window: int = 2,
        alpha: float = 0.5,
        qkv_bias: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        attention = HiLo(channels, HiLoHeads(heads, alpha, window), qkv_bias)
        super().__init__(channels, "hilo", attention, hidden, norm_eps)


def _over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    y: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return y
