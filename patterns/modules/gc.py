"""GC, global context: PyTorch module.

Paper: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019, arXiv:1904.11492.
Sources of the formula: xvjiarui/GCNet, ``context_block.py``, which mmcv has as ContextBlock (official, official-mul);
timm, ``layers/global_context.py`` (timm, timm-add, timm-both).

    a = softmax over (H, W) of mask(x)      s = sum over (H, W) of a * x      t = fc2(relu(LayerNorm(fc1(s))))

    official, timm-add          y = x + t
    official-mul, timm          y = x * sigmoid(t)
    official-both, timm-both    y = x * sigmoid(t1) + t2, both of the same s, with layers of their own

- Without attention (pooling_type='avg', timm's use_attn=False) s is the mean over (H, W), and there is no mask.
- All three convolutions are 1x1 with biases. The LayerNorm is over the hidden channels, with eps 1e-5 (timm: 1e-6).
- timm multiplies by default; the published networks add.
- The bias of the mask cancels in the softmax.
- As published, mask starts Kaiming-normal and fc2 at 0, so that the adding form starts as an identity. timm zeroes only
  the weight of fc2, and that in the adding form only.
- Identity: fc2 0 where the context is added; ``fc2.weight`` 0 and ``fc2.bias`` 20 where it is a gate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..forms import GC_FORMS, GcBranch
from .layers import Described, place, require_variant, require_widths, reset_layers

VARIANTS = tuple(GC_FORMS)
POOLINGS = ("attention", "average")


class GlobalContext(Described):
    """Add to every position, or gate every channel by, what the whole map says.

    ``channels``: C of the map. ``hidden``: R, the width between fc1 and fc2. ``variant``: see above. ``pooling``:
    "attention" or "average". ValueError for settings that do not fit together.

    Keys (official): ``conv_mask.{weight [1, C, 1, 1],bias}``, ``channel_add_conv.0.{weight [R, C, 1, 1],bias}``,
    ``channel_add_conv.1.{weight,bias}`` [R, 1, 1], ``channel_add_conv.3.{weight [C, R, 1, 1],bias}``; official-mul has
    ``channel_mul_conv``, official-both has both. timm: ``conv_attn``, ``mlp_scale.{fc1,norm,fc2}`` with norm [R];
    timm-add ``mlp_add``, timm-both has both. Without attention there is no ``conv_mask`` and no ``conv_attn``.
    """

    described_by = ("variant", "pooling")

    def __init__(self, channels: int, hidden: int, variant: str = "official", pooling: str = "attention") -> None:
        super().__init__()
        require_variant("GlobalContext", variant, VARIANTS)
        require_widths("GlobalContext", channels, hidden)
        if pooling not in POOLINGS:
            raise ValueError(f"GlobalContext has the poolings {', '.join(POOLINGS)}, not {pooling!r}")
        self.variant = variant
        self.pooling = pooling
        self._form = form = GC_FORMS[variant]
        if pooling == "attention":
            place(self, form.mask, nn.Conv2d(channels, 1, 1))
        for branch in form.branches:
            norm = _LayerNorm2d(hidden, eps=form.eps) if form.timm else nn.LayerNorm([hidden, 1, 1], eps=form.eps)
            place(self, branch.fc1, nn.Conv2d(channels, hidden, 1))
            place(self, branch.norm, norm)
            place(self, branch.fc2, nn.Conv2d(hidden, channels, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as the source of the variant does."""
        reset_layers(self)
        form, zero = self._form, list[str]()
        if self.pooling == "attention":
            nn.init.kaiming_normal_(self.get_parameter(f"{form.mask}.weight"), mode="fan_in", nonlinearity="relu")
            zero += [] if form.timm else [f"{form.mask}.bias"]
        for branch in form.branches:
            zero += [] if form.timm else [f"{branch.fc2}.bias"]
            zero += [f"{branch.fc2}.weight"] if branch.add or not form.timm else []
        for key in zero:
            nn.init.zeros_(self.get_parameter(key))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        context = self._attended(x) if self.pooling == "attention" else x.mean(dim=(2, 3), keepdim=True)
        for branch in self._form.branches:
            term = self._transformed(context, branch)
            x = x + term if branch.add else x * torch.sigmoid(term)
        return x

    def _attended(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 1, 1]."""
        weights = torch.softmax(self.get_submodule(self._form.mask)(x).flatten(2), dim=2)
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)

    def _transformed(self, context: Tensor, branch: GcBranch) -> Tensor:
        """[N, C, 1, 1] -> [N, C, 1, 1]."""
        fc1, norm, fc2 = (self.get_submodule(name) for name in (branch.fc1, branch.norm, branch.fc2))
        term: Tensor = fc2(torch.relu(norm(fc1(context))))
        return term


class _LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [N, C, H, W], with weight and bias [C]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
