"""DAttention, deformable attention of DAT: PyTorch module.

Paper: "Vision Transformer with Deformable Attention", CVPR 2022, arXiv:2201.00520.
Source of the formula: LeapLabTHU/DAT, ``models/dat_blocks.py``, ``DAttentionBaseline``; on its own with other defaults
in z1069614715/objectdetection_script, ``cv-attention/DAttention.py``, ``DAttention``.

    o     = conv_offset(q) for each group of channels: a depthwise convolution, LayerNorm, GELU, 1x1 to two channels
    p     = r + f tanh(o) / (side - 1) for an offset_range f of at least 0; else clip(r + o, -1, 1)
    z     = x at the points p of its group, bilinear, 0 outside of the map
    y     = proj_out(a), a = v softmax(q^T k / sqrt(d) + bias)^T for each head, q = proj_q(x), [k, v] of z
    dwc     bias 0, and dw3x3(q) is added to a
    table   bias: a table of a head's, at half of the distance between the query and p, bilinear

- Coordinates run from -1 to 1 between the centres of the outermost positions. The points r are those of the authors'
  code: (i + 1/2) / (side - 1), scaled to that, for point i along a side, so that the last lies beyond the map.
- No dropout. offset_range: 4 in the module on its own, -1 in DAT.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Described, depthwise, require_heads, require_size, require_variant


class _ChannelsNorm(nn.Module):
    """LayerNorm over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class DAttention(Described):
    """Attention from every position to points that it moves itself.

    ``channels``: C of the map. ``variant``: ``dwc`` or ``table``. ``size``: height and width of the map, for the table.
    ``heads``: divides C. ``groups``: of channels with points of their own, divides the heads. ``stride``: positions
    between points. ``kernel``: side of the convolution of the offsets. ``offset_range``: see above. ValueError for
    settings that do not fit together.

    Keys: ``conv_offset.0`` [C/g, 1, k, k], ``conv_offset.1.norm`` [C/g], ``proj_q``, ``proj_k``, ``proj_v``,
    ``proj_out`` [C, C, 1, 1], each with ``.{weight,bias}``, ``conv_offset.3.weight`` [2, C/g, 1, 1]; dwc:
    ``rpe_table.{weight,bias}`` [C, 1, 3, 3]; table: ``rpe_table`` [heads, 2 H - 1, 2 W - 1].
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "variant", "heads", "groups", "stride", "kernel", "offset_range")

    def __init__(
        self,
        channels: int,
        variant: str = "dwc",
        size: tuple[int, int] | None = None,
        heads: int = 8,
        groups: int = 4,
        stride: int = 1,
        kernel: int = 3,
        offset_range: float = 4.0,
    ) -> None:
        super().__init__()
        require_variant("DAttention", variant, ("dwc", "table"))
        require_heads("DAttention", channels, heads)
        if groups < 1 or heads % groups or stride < 1 or kernel < 1:
            raise ValueError(
                "DAttention needs groups that divide its heads, and a stride and a kernel of at least 1, "
                f"got {groups} for {heads}, {stride} and {kernel}"
            )
        if variant == "table" and size is None:
            raise ValueError("the table of DAttention needs the size of the map")
        self.channels, self.variant, self.size, self.heads, self.groups = channels, variant, size, heads, groups
        self.stride, self.kernel, self.offset_range = stride, kernel, offset_range
        width = channels // groups
        border = kernel // 2 if kernel != stride else 0
        self.conv_offset = nn.Sequential(
            nn.Conv2d(width, width, kernel, stride, border, groups=width),
            _ChannelsNorm(width),
            nn.GELU(),
            nn.Conv2d(width, 2, 1, bias=False),
        )
        for name in ("proj_q", "proj_k", "proj_v", "proj_out"):
            self.add_module(name, nn.Conv2d(channels, channels, 1))
        if variant == "dwc":
            self.rpe_table: nn.Module | nn.Parameter = depthwise(channels, (3, 3))
        elif size is not None:
            self.rpe_table = nn.Parameter(torch.zeros(heads, 2 * size[0] - 1, 2 * size[1] - 1))
            nn.init.trunc_normal_(self.rpe_table, std=0.01)

    def _points(self, q: Tensor) -> Tensor:
        """[N g, H', W', 2], first the coordinate along the height."""
        count, _, height, width = q.shape
        offset: Tensor = self.conv_offset(q.reshape(count * self.groups, -1, height, width)).permute(0, 2, 3, 1)
        rows, columns = offset.shape[1:3]
        if min(rows, columns) < 2:
            raise ValueError(f"DAttention needs two points along each side of the map, got {rows}x{columns}")
        sides = torch.tensor([rows - 1.0, columns - 1.0], dtype=q.dtype, device=q.device)
        places = [torch.arange(side, dtype=q.dtype, device=q.device) + 0.5 for side in (rows, columns)]
        own = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1) / sides * 2 - 1
        if self.offset_range >= 0:
            return own + torch.tanh(offset) * self.offset_range / sides
        return (own + offset).clamp(-1.0, 1.0)

    def _bias(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """What the table adds to the logits, [N, heads, H W, points]."""
        height, width = size
        places = [torch.linspace(-1, 1, side, dtype=points.dtype, device=points.device) for side in size]
        own = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).reshape(1, -1, 1, 2)
        away = (own - points.reshape(len(points), 1, -1, 2)) / 2
        assert isinstance(self.rpe_table, Tensor)
        table = self.rpe_table.reshape(self.groups, -1, 2 * height - 1, 2 * width - 1)
        table = table.repeat(len(points) // self.groups, 1, 1, 1)
        bias = F.grid_sample(table, away.flip(-1), mode="bilinear", align_corners=True)
        return bias.reshape(-1, self.heads, height * width, away.shape[2])

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        count, channels, height, width = x.shape
        if self.variant == "table" and self.size is not None:
            require_size(x, self.size, "DAttention")
        q: Tensor = self.get_submodule("proj_q")(x)
        points = self._points(q)
        grouped = x.reshape(count * self.groups, -1, height, width)
        z = F.grid_sample(grouped, points.flip(-1), mode="bilinear", align_corners=True)
        z = z.reshape(count, channels, 1, -1)
        k, v = (self.get_submodule(name)(z) for name in ("proj_k", "proj_v"))
        heads = [each.reshape(count, self.heads, channels // self.heads, -1) for each in (q, k, v)]
        logits = heads[0].transpose(2, 3) @ heads[1] * (channels // self.heads) ** -0.5
        if self.variant == "table":
            logits = logits + self._bias(points, (height, width))
        a = (heads[2] @ torch.softmax(logits, dim=3).transpose(2, 3)).reshape(x.shape)
        if isinstance(self.rpe_table, nn.Module):
            a = a + self.rpe_table(q)
        y: Tensor = self.get_submodule("proj_out")(a)
        return y
