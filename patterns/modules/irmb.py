"""iRMB, inverted residual mobile block of EMO: PyTorch module.

Paper: "Rethinking Mobile Block for Efficient Attention-based Models", ICCV 2023, arXiv:2301.01146.
Source of the formula: zhangzjn/EMO, ``model/emo.py``, ``iRMB``, with attention (``attn_s``) and the shortcut.

    a = v(z) softmax(q k^T / sqrt(d)) within windows, [q, k] = qk(z), z = BN(x)
    y = x + proj(a + silu(BN(dw(a))))

- ``v`` is act(conv) and widens the map: all heads have C/heads channels of q and k, and F/heads of v. ``act`` is ReLU,
  in some YOLO collections SiLU.
- A window is not a neighbourhood. The map is cut into w x w strips, and a window has one position of each: those that
  leave the same remainder when row and column are divided by the number of windows along that side.
- A map that the window does not divide is padded with zeros below and to the right, after the BatchNorm; the padding
  takes part in the attention, and the result is cut off again.
- q and k are stacked; ``dw`` has no bias, and ``proj`` has one in those collections only.
- Identity: ``proj`` 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described, named, require_heads

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


class IRMB(Described):
    """Attention within windows on a widened map, a depthwise convolution of its result, and the shortcut.

    ``channels``: C of the map. ``heads``: a divisor of C and of ``hidden``. ``hidden``: F, the width of v. ``window``:
    positions along each side of a window. ``dw_kernel``: side of the depthwise convolution, odd. ``qkv_bias``: whether
    ``qk`` and ``v`` have one. ``bn_eps``: eps of both BatchNorms. ``activation``: of v, relu or silu. ``proj_bias``:
    whether ``proj`` has one. ValueError for settings that do not fit together.

    Keys: ``norm.*`` (BatchNorm), ``qk.conv.weight`` [2C, C, 1, 1], ``v.conv.weight`` [F, C, 1, 1], with ``.bias``,
    ``conv_local.conv.weight`` [F, 1, k, k], ``conv_local.norm.*`` (BatchNorm), ``proj.conv.weight`` [C, F, 1, 1],
    perhaps with ``.bias``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "hidden", "heads", "window", "activation")

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        window: int = 7,
        dw_kernel: int = 3,
        qkv_bias: bool = True,
        bn_eps: float = 1e-6,
        activation: str = "relu",
        proj_bias: bool = False,
    ) -> None:
        super().__init__()
        require_heads("IRMB", channels, heads)
        if hidden < 1 or hidden % heads or window < 1 or dw_kernel % 2 == 0:
            raise ValueError(
                "IRMB needs heads that divide hidden, a window of at least 1 and an odd dw_kernel, "
                f"got {heads} for {hidden}, {window} and {dw_kernel}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"IRMB has the activations {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.channels, self.hidden, self.heads, self.window = channels, hidden, heads, window
        self.activation = activation
        self.norm = nn.BatchNorm2d(channels, eps=bn_eps)
        self.qk = named(conv=nn.Conv2d(channels, 2 * channels, 1, bias=qkv_bias))
        self.v = named(conv=nn.Conv2d(channels, hidden, 1, bias=qkv_bias), act=ACTIVATIONS[activation]())
        local = nn.Conv2d(hidden, hidden, dw_kernel, padding=dw_kernel // 2, groups=hidden, bias=False)
        self.conv_local = named(conv=local, norm=nn.BatchNorm2d(hidden, eps=bn_eps), act=nn.SiLU())
        self.proj = named(conv=nn.Conv2d(hidden, channels, 1, bias=proj_bias))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        n, _, height, width = x.shape
        side = self.window
        down, right = -height % side, -width % side
        z = functional.pad(self.norm(x), (0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        z = z.reshape(n, -1, side, rows, side, columns).permute(0, 3, 5, 1, 2, 4)  # [N, windows, C, w, w]
        a = self._attended(z.reshape(n * rows * columns, -1, side, side))
        a = a.reshape(n, rows, columns, -1, side, side).permute(0, 3, 4, 1, 5, 2)
        a = a.reshape(n, -1, height + down, width + right)[:, :, :height, :width]
        y: Tensor = x + self.proj(a + self.conv_local(a))
        return y

    def _attended(self, z: Tensor) -> Tensor:
        """[windows, C, w, w] -> [windows, F, w, w]."""
        q, k = self.qk(z).flatten(2).unflatten(1, (2, self.heads, -1)).unbind(1)
        v = self.v(z).flatten(2).unflatten(1, (self.heads, -1))
        weights = torch.softmax(q.transpose(2, 3) @ k * (self.channels // self.heads) ** -0.5, dim=3)
        found: Tensor = v @ weights.transpose(2, 3)
        return found.reshape(z.shape[0], self.hidden, *z.shape[2:])
