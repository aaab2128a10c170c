"""SEAM, separated and enhancement attention of YOLO-FaceV2: PyTorch module.

Paper: "YOLO-FaceV2: A Scale and Occlusion Aware Face Detector", arXiv:2208.02019.
Source of the formula: Krasjet-Yu/YOLO-FaceV2, ``models/common.py``, ``SEAM`` and ``MultiSEAM``.

    mixer(z) = BN(act(conv_1x1(z + BN(act(conv_dw3x3(z))))))
    single     y = x * exp(sigmoid(fc_2(relu(fc_0(m)))))    m = mean over H, W of mixer(... mixer(x))
    multi      the same gate, m = (mean of x + sum over patches p of the mean of mixer(... patch_p(x))) / 4

- ``act`` is GELU; MultiSEAM has SiLU in many collections of YOLO modules.
- ``patch_p`` is BN(act(conv)), the convolution being p x p with stride p: what is left over at the right and below is
  not seen.
- The convolutions have biases, the linear layers none. BatchNorms come after the activation.
- The gate lies between 1 and e: the block enhances, and never suppresses.
- Identity of single: the last BatchNorm with weight 0 and bias 1, ``fc_0`` 1/C and ``fc_2`` far below 0. Of multi there
  is none, since the mean of x is part of what the gate is made of and no layer has a bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..forms import SEAM_PATCHES
from .layers import Redrawable, require_widths, tracing

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "silu": nn.SiLU}


class _Residual(nn.Module):
    """A module under the name ``fn``, plus its input."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.fn(x)
        return inner + x


def _activated(conv: nn.Conv2d, activation: str, bn_eps: float) -> list[nn.Module]:
    return [conv, ACTIVATIONS[activation](), nn.BatchNorm2d(conv.out_channels, eps=bn_eps)]


def _mixer(channels: int, activation: str, bn_eps: float) -> nn.Sequential:
    near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
    return nn.Sequential(
        _Residual(nn.Sequential(*_activated(near, activation, bn_eps))),
        *_activated(nn.Conv2d(channels, channels, 1), activation, bn_eps),
    )


class _Gate(Redrawable):
    """x times a gate for every channel, from numbers [N, C]."""

    described_by = ("channels", "hidden", "activation")

    def __init__(self, channels: int, depth: int, hidden: int, activation: str) -> None:
        super().__init__()
        require_widths(type(self).__name__, channels, hidden)
        if depth < 1:
            raise ValueError(f"{type(self).__name__} needs a depth of at least 1, got {depth}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"{type(self).__name__} has the activations {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.channels, self.hidden, self.activation = channels, hidden, activation
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def _gated(self, x: Tensor, means: Tensor) -> Tensor:
        gate: Tensor = self.fc(means)
        return x * torch.exp(gate)[:, :, None, None]


class SEAM(_Gate):
    """Gate of every channel by what depthwise separable convolutions make of the map.

    ``channels``: C of the map. ``hidden``: width of the gate, C/16 as published. ``depth``: mixers one behind the
    other. ``bn_eps``: eps of the BatchNorms. ``activation``: gelu or silu. ValueError for widths and depths below 1,
    and for another activation.

    Keys: for each i below ``depth`` ``DCovN.i.0.fn.0.{weight [C, 1, 3, 3],bias}``, ``DCovN.i.0.fn.2.*`` (BatchNorm),
    ``DCovN.i.1.{weight [C, C, 1, 1],bias}``, ``DCovN.i.3.*`` (BatchNorm); ``fc.0.weight`` [F, C], ``fc.2.weight``
    [C, F].
    """

    def __init__(
        self, channels: int, hidden: int, depth: int = 1, bn_eps: float = 1e-5, activation: str = "gelu"
    ) -> None:
        super().__init__(channels, depth, hidden, activation)
        self.DCovN = nn.Sequential(*(_mixer(channels, activation, bn_eps) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        mixed: Tensor = self.DCovN(x)
        return self._gated(x, mixed.mean(dim=(2, 3)))


class MultiSEAM(_Gate):
    """The same from patches of three sizes and from the map itself.

    As of SEAM; ``patches``: sides of the patches, three. ValueError also for a map smaller than a patch.

    Keys: for each n of 0, 1, 2 and side p of its patches ``DCovNn.0.{weight [C, C, p, p],bias}``, ``DCovNn.2.*``
    (BatchNorm), and the mixers' behind ``DCovNn.i.`` with i from 3 on; ``fc.0.weight`` [F, C], ``fc.2.weight`` [C, F].
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        depth: int = 1,
        patches: Sequence[int] = SEAM_PATCHES,
        bn_eps: float = 1e-5,
        activation: str = "gelu",
    ) -> None:
        super().__init__(channels, depth, hidden, activation)
        if len(patches) != 3 or min(patches) < 1:
            raise ValueError(f"MultiSEAM has patches of three sizes of at least 1, not {tuple(patches)}")
        self.patches = tuple(patches)
        for number, side in enumerate(self.patches):
            embedding = _activated(nn.Conv2d(channels, channels, side, stride=side), activation, bn_eps)
            mixers = (_mixer(channels, activation, bn_eps) for _ in range(depth))
            self.add_module(f"DCovN{number}", nn.Sequential(*embedding, *mixers))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map smaller than a patch."""
        if not tracing() and min(x.shape[2:]) < max(self.patches):
            raise ValueError(f"MultiSEAM has patches of {max(self.patches)}, and the map is {x.shape[2]}x{x.shape[3]}")
        branches = [self.get_submodule(f"DCovN{number}")(x) for number in range(3)]
        means = [branch.mean(dim=(2, 3)) for branch in (*branches, x)]
        return self._gated(x, torch.stack(means).sum(0) / 4)
