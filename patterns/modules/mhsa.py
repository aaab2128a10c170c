"""MHSA of BoTNet, the one of YOLO ports and that of lucidrains: PyTorch modules.

Paper: "Bottleneck Transformers for Visual Recognition", CVPR 2021, arXiv:2101.11605.
Sources of the formulas: the author's gist as timm has it (``timm/layers/bottleneck_attn.py``), and for ``yolo`` the
module MHSA of the YOLOv5 and YOLOv8 collections, for ``lucidrains`` Attention of
lucidrains/bottleneck-transformer-pytorch. Position i = (y, x) of the H x W map, head of width d:

    botnet   e_ij = q_i k_j / sqrt(d) + q_i (R_h[y_j - y_i] + R_w[x_j - x_i])       o_i = sum_j softmax_j(e_ij) v_j
    yolo     e_ij = q_i k_j + r_i q_j,   r_i = rel_w[y_i] + rel_h[x_i]              o_i = sum_j softmax_j(e_ij) v_j
    lucidrains    e_ij = q_i (k_j + height[y_j] + width[x_j]) / sqrt(d)             o_i = sum_j softmax_j(e_ij) v_j

- botnet: the position term is not scaled, unless ``scale_pos_embed``. Rows 0 ... 2H-2 of ``height_rel`` stand for the
  offsets -(H-1) ... H-1. There is no output projection.
- yolo: nothing is scaled, and the position term is transposed with respect to the paper: the position of the query
  is multiplied with the query of the key's place. What the port calls width runs along H, and height along W. Without
  ``pos_emb`` there is no position term.
- lucidrains: with ``rel_pos_emb`` the positions are the relative ones of botnet, and scaled. Its heads may be of any
  width, and give heads * d channels; as a block they are C / heads wide.
- None has a shortcut, and there is no setting that makes them an identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import require_heads, require_size


class BottleneckAttention(nn.Module):
    """The paper's.

    ``channels``: C of the map; ``size``: its (H, W), the only one it then takes; ``heads``: a divisor of C. ``bias``:
    whether ``qkv`` has one. ``key_dim``: width of a head's queries and keys, C / heads where not given. ValueError for
    settings that do not fit together.

    Keys: ``qkv.weight`` [2 heads d + C, C, 1, 1], ``pos_embed.height_rel`` [2H-1, d] and ``pos_embed.width_rel``
    [2W-1, d]; with a bias ``qkv.bias``.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        heads: int = 4,
        key_dim: int | None = None,
        bias: bool = False,
        scale_pos_embed: bool = False,
    ) -> None:
        super().__init__()
        require_heads("MHSA", channels, heads)
        self.map_size = (size[0], size[1])
        self.heads = heads
        self.key_dim = key_dim or channels // heads
        self.scale_pos_embed = scale_pos_embed
        self.qkv = nn.Conv2d(channels, 2 * heads * self.key_dim + channels, 1, bias=bias)
        self.pos_embed = _Relative(self.map_size, self.key_dim)
        nn.init.trunc_normal_(self.qkv.weight, std=channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "MHSA")
        keys = self.heads * self.key_dim
        q, k, v = (
            part.flatten(2).unflatten(1, (self.heads, -1)) for part in self.qkv(x).split([keys, keys, x.shape[1]], 1)
        )
        q = q.transpose(2, 3)
        content, position, scale = q @ k, self.pos_embed(q), self.key_dim**-0.5
        energy = (content + position) * scale if self.scale_pos_embed else content * scale + position
        y: Tensor = (v @ torch.softmax(energy, dim=3).transpose(2, 3)).reshape(x.shape)
        return y


class _Relative(nn.Module):
    """q [N, heads, HW, d] -> position term [N, heads, HW, HW]."""

    index_y: Tensor
    index_x: Tensor

    def __init__(self, size: tuple[int, int], width: int, names: tuple[str, str] = ("height_rel", "width_rel")) -> None:
        super().__init__()
        self.names = names
        for name, side in zip(names, size, strict=True):
            self.register_parameter(name, nn.Parameter(torch.empty(2 * side - 1, width)))
        y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
        y, x = y.flatten(), x.flatten()
        self.register_buffer("index_y", y[None] - y[:, None] + size[0] - 1, persistent=False)
        self.register_buffer("index_x", x[None] - x[:, None] + size[1] - 1, persistent=False)
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=width**-0.5)

    def forward(self, q: Tensor) -> Tensor:
        terms = []
        for name, index in zip(self.names, (self.index_y, self.index_x), strict=True):
            every = q @ self.get_parameter(name).transpose(0, 1)  # one column for each offset
            terms.append(torch.gather(every, 3, index.expand(*q.shape[:2], -1, -1)))
        return terms[0] + terms[1]


class _Absolute(nn.Module):
    """q [N, heads, HW, d] -> position term [N, heads, HW, HW]."""

    def __init__(self, size: tuple[int, int], width: int) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.randn(size[0], width) * width**-0.5)
        self.width = nn.Parameter(torch.randn(size[1], width) * width**-0.5)

    def forward(self, q: Tensor) -> Tensor:
        places = self.height[:, None] + self.width[None]
        return q @ places.flatten(0, 1).transpose(0, 1)


class LucidrainsAttention(nn.Module):
    """lucidrains'.

    ``channels``: C of the map; ``size``: its (H, W), the only one it then takes; ``heads``: a divisor of C.
    ``positions``: "absolute" or "relative". ValueError for settings that do not fit together.

    Keys: ``to_qkv.weight`` [3C, C, 1, 1]; ``pos_emb.height`` [H, d] and ``pos_emb.width`` [W, d], or
    ``pos_emb.rel_height`` [2H-1, d] and ``pos_emb.rel_width`` [2W-1, d].
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int, size: tuple[int, int], heads: int = 4, positions: str = "absolute") -> None:
        super().__init__()
        require_heads("MHSA", channels, heads)
        if positions not in ("absolute", "relative"):
            raise ValueError(f"MHSA has absolute and relative positions, not {positions!r}")
        self.map_size, self.heads, width = (size[0], size[1]), heads, channels // heads
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.pos_emb: nn.Module = (
            _Absolute(self.map_size, width)
            if positions == "absolute"
            else _Relative(self.map_size, width, ("rel_height", "rel_width"))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "MHSA")
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)) for part in self.to_qkv(x).chunk(3, 1))
        q = q.transpose(2, 3) * q.shape[2] ** -0.5
        weights = torch.softmax(q @ k + self.pos_emb(q), dim=3)
        y: Tensor = (v @ weights.transpose(2, 3)).reshape(x.shape)
        return y


class YoloMHSA(nn.Module):
    """The port's. ``channels``: C of the map; ``heads``: a divisor of C; ``size``: (H, W) of the map, for the position
    term, which takes maps of this size alone; None: no position term. ValueError for heads that do not divide C.

    Keys: ``query``, ``key``, ``value``, each ``.weight`` [C, C, 1, 1] and ``.bias`` [C]; with a size ``rel_h_weight``
    [1, heads, d, 1, W] and ``rel_w_weight`` [1, heads, d, H, 1].
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int, heads: int = 4, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        require_heads("MHSA", channels, heads)
        self.heads = heads
        self.map_size = (size[0], size[1]) if size is not None else None
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        if size is not None:
            self.rel_h_weight = nn.Parameter(torch.randn(1, heads, channels // heads, 1, size[1]))
            self.rel_w_weight = nn.Parameter(torch.randn(1, heads, channels // heads, size[0], 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size than the position term was made for."""
        q, k, v = (layer(x).flatten(2).unflatten(1, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        energy = q.transpose(2, 3) @ k
        if self.map_size is not None:
            require_size(x, self.map_size, "MHSA")
            position = (self.rel_h_weight + self.rel_w_weight).flatten(3)
            energy = energy + position.transpose(2, 3) @ q
        y: Tensor = (v @ torch.softmax(energy, dim=3).transpose(2, 3)).reshape(x.shape)
        return y
