"""GC, global context: PyTorch twin.

Paper: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019, arXiv:1904.11492.
Sources of the formula: xvjiarui/GCNet, ``context_block.py``, which mmcv has as ContextBlock (official, official-mul);
timm, ``layers/global_context.py`` (timm, timm-add).

    a = softmax over (H, W) of mask(x)      s = sum over (H, W) of a * x      t = fc2(relu(LayerNorm(fc1(s))))

    official, timm-add    y = x + t
    official-mul, timm    y = x * sigmoid(t)

- All three convolutions are 1x1 with biases. The LayerNorm is over the hidden channels, with eps 1e-5 (timm: 1e-6).
- timm multiplies by default; the published networks add.
- The bias of the mask cancels in the softmax.
- As published, mask starts Kaiming-normal and fc2 at 0, so that the adding form starts as an identity. timm zeroes only
  the weight of fc2, and that in the adding form only.
- Identity: fc2 0 where the context is added; ``fc2.weight`` 0 and ``fc2.bias`` 20 where it is a gate.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

VARIANTS = ("official", "official-mul", "timm", "timm-add")


class GlobalContext(nn.Module):
    """Add to every position, or gate every channel by, what the whole map says.

    ``channels``: C of the map. ``hidden``: R, the width between fc1 and fc2. ``variant``: see above. ValueError for
    settings that do not fit together.

    Keys (official): ``conv_mask.{weight [1, C, 1, 1],bias}``, ``channel_add_conv.0.{weight [R, C, 1, 1],bias}``,
    ``channel_add_conv.1.{weight,bias}`` [R, 1, 1], ``channel_add_conv.3.{weight [C, R, 1, 1],bias}``; official-mul has
    ``channel_mul_conv``. timm: ``conv_attn``, ``mlp_scale.{fc1,norm,fc2}`` with norm [R]; timm-add ``mlp_add``.
    """

    def __init__(self, channels: int, hidden: int, variant: str = "official") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"GlobalContext has the variants {', '.join(VARIANTS)}, not {variant!r}")
        if channels < 1 or hidden < 1:
            raise ValueError(f"GlobalContext needs channels and hidden of at least 1, got {channels} and {hidden}")
        self.variant = variant
        self.adds = variant in ("official", "timm-add")
        self._names = ("conv_attn", "mlp_add" if self.adds else "mlp_scale")
        if not variant.startswith("timm"):
            self._names = ("conv_mask", "channel_add_conv" if self.adds else "channel_mul_conv")
        fc1, fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        layers: dict[str, nn.Module] = {"0": fc1, "1": nn.LayerNorm([hidden, 1, 1]), "2": nn.ReLU(), "3": fc2}
        if variant.startswith("timm"):
            layers = {"fc1": fc1, "norm": _LayerNorm2d(hidden, eps=1e-6), "act": nn.ReLU(), "fc2": fc2}
        self.add_module(self._names[0], nn.Conv2d(channels, 1, 1))
        self.add_module(self._names[1], nn.Sequential(OrderedDict(layers)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as the source of the variant does."""
        mask, transform = (self.get_submodule(name) for name in self._names)
        assert isinstance(mask, nn.Conv2d)
        for layer in (mask, *transform.children()):
            if isinstance(layer, (nn.Conv2d, nn.LayerNorm)):
                layer.reset_parameters()
        nn.init.kaiming_normal_(mask.weight, mode="fan_in", nonlinearity="relu")
        last = list(transform.children())[-1]
        assert isinstance(last, nn.Conv2d)
        published = not self.variant.startswith("timm")
        if published or self.adds:
            nn.init.zeros_(last.weight)
        if published:
            assert mask.bias is not None
            assert last.bias is not None
            nn.init.zeros_(mask.bias)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        mask, transform = (self.get_submodule(name) for name in self._names)
        weights = torch.softmax(mask(x).flatten(2), dim=2)
        context = (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)
        term: Tensor = transform(context)
        return x + term if self.adds else x * torch.sigmoid(term)

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"variant={self.variant!r}"


class _LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [N, C, H, W], with weight and bias [C]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
