"""What the classes in public code compute whose weights have the keys of another function: each from its formula.

A function takes the weights under the port's own keys and a map [N, C, H, W], both float64. Nothing of the catalogue is
used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F

Weights = Mapping[str, torch.Tensor]
Scalar = Callable[[torch.Tensor], torch.Tensor]
Function = Callable[[Weights, torch.Tensor], torch.Tensor]

EPS = 1e-5


def hard_swish(x: torch.Tensor) -> torch.Tensor:
    return x * F.relu6(x + 3) / 6


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return F.relu6(x + 3) / 6


def dense(w: Weights, layer: str, x: torch.Tensor) -> torch.Tensor:
    """A linear layer, or a 1x1 convolution, of the channels of [N, C, H, W]."""
    y = torch.einsum("oc,nchw->nohw", w[f"{layer}.weight"].flatten(1), x)
    return y + w[f"{layer}.bias"].view(-1, 1, 1) if f"{layer}.bias" in w else y


def norm(w: Weights, layer: str, x: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    """A BatchNorm over maps, evaluated."""
    parts = (w[f"{layer}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, eps=eps)


def conv(w: Weights, layer: str, x: torch.Tensor, **more: int) -> torch.Tensor:
    padding = more.pop("padding", w[f"{layer}.weight"].shape[-1] // 2)
    return F.conv2d(x, w[f"{layer}.weight"], w.get(f"{layer}.bias"), padding=padding, **more)


def layers(w: Weights) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] for key in w))


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True)


def largest(x: torch.Tensor) -> torch.Tensor:
    return x.amax((2, 3), keepdim=True)


def pooled(x: torch.Tensor, *, maximum: bool) -> torch.Tensor:
    """The mean, or half of it and half of the maximum: timm's add_maxpool."""
    return 0.5 * mean(x) + 0.5 * largest(x) if maximum else mean(x)


def se(w: Weights, x: torch.Tensor, act: Scalar, gate: Scalar, *, maximum: bool = False) -> torch.Tensor:
    first, second = layers(w)
    return x * gate(dense(w, second, act(dense(w, first, pooled(x, maximum=maximum)))))


def ese(w: Weights, x: torch.Tensor, gate: Scalar, *, maximum: bool = False) -> torch.Tensor:
    (layer,) = layers(w)
    return x * gate(dense(w, layer, pooled(x, maximum=maximum)))


def cbam(w: Weights, x: torch.Tensor, *, max_first: bool, adds: bool = False) -> torch.Tensor:
    first, second, spatial = layers(w)
    y = x * sum(dense(w, second, F.relu(dense(w, first, pool(x)))) for pool in (mean, largest)).sigmoid()
    planes = [y.amax(1, keepdim=True), y.mean(1, keepdim=True)]
    y = y * conv(w, spatial, torch.cat(planes if max_first else planes[::-1], 1)).sigmoid()
    return x + y if adds else y


def gather_excite(w: Weights, x: torch.Tensor, *, timm: bool, maximum: bool = False) -> torch.Tensor:
    stages = sum(key.startswith("gather.conv") for key in w)
    y = x
    for stage in range(1, stages + 1):
        kernel = w[f"gather.conv{stage}.weight"]
        whole = tuple(kernel.shape[2:]) == tuple(x.shape[2:])
        step = 1 if whole else 2
        padding = tuple((size - 1) // 2 for size in kernel.shape[2:]) if timm or not whole else (0, 0)
        y = norm(w, f"gather.norm{stage}", F.conv2d(y, kernel, stride=step, padding=padding, groups=x.shape[1]))
        y = F.relu(y) if stage < stages else y
    if not stages:
        y = pooled(x, maximum=maximum)
    if "mlp.fc1.weight" in w:
        y = y if timm else F.relu(y)
        y = dense(w, "mlp.fc2", F.relu(dense(w, "mlp.fc1", y)))
    return x * F.interpolate(y, size=x.shape[2:]).sigmoid()


def double_attention(w: Weights, x: torch.Tensor, *, maps: int, vectors: int) -> torch.Tensor:
    """``maps``, ``vectors``: the axis of each softmax, of [N, C, H * W]."""
    a, b, v = (dense(w, f"conv{name}", x).flatten(2) for name in "ABV")
    z = a @ b.softmax(maps).transpose(1, 2) @ v.softmax(vectors)
    z = z.unflatten(2, x.shape[2:])
    return dense(w, "conv_reconstruct", z) if "conv_reconstruct.weight" in w else z


def scsa(w: Weights, x: torch.Tensor, *, maximum: bool, softmax: bool) -> torch.Tensor:
    n, channels = x.shape[:2]
    heads, window = 8, 7
    strips = ("local_dwc", "global_dwc_s", "global_dwc_m", "global_dwc_l")

    def along(axis: int, name: str) -> torch.Tensor:
        quarters = zip(strips, x.mean(axis).chunk(4, 1), strict=True)
        found = [
            F.conv1d(part, w[f"{strip}.weight"], w[f"{strip}.bias"], padding="same", groups=channels // 4)
            for strip, part in quarters
        ]
        z = F.group_norm(torch.cat(found, 1), 4, w[f"{name}.weight"], w[f"{name}.bias"], EPS)
        return (z.softmax(2) if softmax else z.sigmoid()).unsqueeze(axis)

    x = x * along(3, "norm_h") * along(2, "norm_w")
    y = (F.max_pool2d if maximum else F.avg_pool2d)(x, window, window)
    y = F.group_norm(y, 1, w["norm.weight"], w["norm.bias"], EPS)
    q, k, v = (
        F.conv2d(y, w[f"{name}.weight"], w.get(f"{name}.bias"), groups=channels).reshape(
            n, heads, channels // heads, -1
        )
        for name in "qkv"
    )
    attended = (q @ k.transpose(2, 3) * (channels // heads) ** -0.5).softmax(-1) @ v
    gate = attended.mean(3).reshape(n, channels, 1, 1)
    return x * (gate.softmax(1) if softmax else gate.sigmoid())


def gam(w: Weights, x: torch.Tensor, *, sigmoid: bool, shuffle: bool = False) -> torch.Tensor:
    gate = dense(w, "channel_attention.2", F.relu(dense(w, "channel_attention.0", x)))
    x = x * (gate.sigmoid() if sigmoid else gate)
    y = F.relu(norm(w, "spatial_attention.1", conv(w, "spatial_attention.0", x)))
    gate = norm(w, "spatial_attention.4", conv(w, "spatial_attention.3", y)).sigmoid()
    return x * (F.channel_shuffle(gate, 4) if shuffle else gate)


def encoder(w: Weights, x: torch.Tensor, act: Scalar, *, positions: bool) -> torch.Tensor:
    attention, first, second = ("ma", "fc1", "fc2") if "ma.in_proj_weight" in w else ("self_attn", "linear1", "linear2")
    channels, height, width = x.shape[1:]
    tokens = x.flatten(2).transpose(1, 2)
    queries = tokens + _positions(channels, height, width) if positions else tokens
    weights, biases = (w[f"{attention}.in_proj_{part}"].chunk(3) for part in ("weight", "bias"))
    parts = zip((queries, queries, tokens), weights, biases, strict=True)
    q, k, v = (F.linear(z, weight, bias).unflatten(2, (8, -1)).transpose(1, 2) for z, weight, bias in parts)
    z = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(-1) @ v
    z = F.linear(z.transpose(1, 2).flatten(2), w[f"{attention}.out_proj.weight"], w[f"{attention}.out_proj.bias"])
    tokens = _layer_norm(w, "norm1", tokens + z)
    z = F.linear(
        act(F.linear(tokens, w[f"{first}.weight"], w[f"{first}.bias"])), w[f"{second}.weight"], w[f"{second}.bias"]
    )
    return _layer_norm(w, "norm2", tokens + z).transpose(1, 2).reshape(x.shape)


def _positions(channels: int, height: int, width: int) -> torch.Tensor:
    """Of a square map, where the order of both codes is one: [1, H * W, C]."""
    quarter = channels // 4
    rates = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in (rows, columns)]
    return torch.cat([code for angle in angles for code in (angle.sin(), angle.cos())], 1)[None]


def _layer_norm(w: Weights, layer: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{layer}.weight"], w[f"{layer}.bias"], EPS)


def heads_of_yolo(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """MHSA of YOLO forks: logits that are not scaled, positions times the queries of the keys' places."""
    q, k, v = (dense(w, layer, x).flatten(2).unflatten(1, (4, -1)) for layer in ("query", "key", "value"))
    logits = q.transpose(2, 3) @ k
    tables = [values for key, values in w.items() if key.startswith("rel_")]
    if tables:
        logits = logits + (tables[0] + tables[1]).flatten(3).transpose(2, 3) @ q
    return (v @ logits.softmax(-1).transpose(2, 3)).reshape(x.shape)


def eca(w: Weights, x: torch.Tensor, *, ring: bool) -> torch.Tensor:
    (layer,) = layers(w)
    sequence, border = mean(x).flatten(1).unsqueeze(1), w[f"{layer}.weight"].shape[2] // 2
    padded = F.pad(sequence, (border, border), mode="circular" if ring else "constant")
    return x * F.conv1d(padded, w[f"{layer}.weight"], w.get(f"{layer}.bias")).sigmoid().transpose(1, 2).unsqueeze(3)


def polarized(w: Weights, x: torch.Tensor, *, parallel: bool) -> torch.Tensor:
    """As in External-Attention-pytorch."""
    v, q = dense(w, "ch_wv", x).flatten(2), dense(w, "ch_wq", x).flatten(1).softmax(1)
    z = dense(w, "ch_wz", torch.einsum("ncl,nl->nc", v, q)[..., None, None])
    by_channel = x * _layer_norm(w, "ln", z.flatten(1)).sigmoid()[..., None, None]
    y = x if parallel else by_channel
    v, q = dense(w, "sp_wv", y), mean(dense(w, "sp_wq", y)).softmax(1)
    by_position = y * (v * q).sum(1, keepdim=True).sigmoid()
    return by_channel + by_position if parallel else by_position


def bam(w: Weights, x: torch.Tensor, *, square: bool) -> torch.Tensor:
    """``square``: the channels see the left square of the map."""
    pooled = mean(x[..., : x.shape[2]] if square else x)
    c, s = "channel_att.gate_c.gate_c", "spatial_att.gate_s.gate_s"
    by_channel = dense(w, f"{c}_fc_final", F.relu(norm(w, f"{c}_bn_1", dense(w, f"{c}_fc_0", pooled))))
    y = F.relu(norm(w, f"{s}_bn_reduce0", conv(w, f"{s}_conv_reduce0", x)))
    for i in range(2):
        y = F.relu(norm(w, f"{s}_bn_di_{i}", conv(w, f"{s}_conv_di_{i}", y, padding=4, dilation=4)))
    return x * (1 + (by_channel * conv(w, f"{s}_conv_final", y)).sigmoid())


def caa(w: Weights, x: torch.Tensor, *, multiplies: bool) -> torch.Tensor:
    channels = x.shape[1]
    y = conv(w, "conv1.conv", F.avg_pool2d(x, 7, 1, 3))
    for strip, padding in (("h_conv", (0, 5)), ("v_conv", (5, 0))):
        layer = f"{strip}.conv"
        y = F.conv2d(y, w[f"{layer}.weight"], w[f"{layer}.bias"], padding=padding, groups=channels)
    factor = conv(w, "conv2.conv", y).sigmoid()
    return x * factor if multiplies else factor


def coordinates(w: Weights, x: torch.Tensor, act: Scalar) -> torch.Tensor:
    names = layers(w)
    first, bn = next(n for n in names if "bn" not in n), next(n for n in names if "bn" in n)
    rows, columns = [n for n in names if n not in (first, bn)]
    gates = [
        dense(w, last, act(norm(w, bn, dense(w, first, x.mean(axis, keepdim=True))))).sigmoid()
        for last, axis in ((rows, 3), (columns, 2))
    ]
    return x * gates[0] * gates[1]


def localized(w: Weights, x: torch.Tensor, *, groups: int) -> torch.Tensor:
    """ELA."""
    border = w["conv.weight"].shape[2] // 2
    gates = []
    for axis in (3, 2):
        z = F.conv1d(x.mean(axis), w["conv.weight"], padding=border, groups=x.shape[1])
        gates.append(F.group_norm(z, groups, w["gn.weight"], w["gn.bias"], EPS).sigmoid().unsqueeze(axis))
    return x * gates[0] * gates[1]


def swin(w: Weights, x: torch.Tensor, *, shift: int, detection: bool) -> torch.Tensor:
    """``detection``: the windows are shifted on a map of one window, too."""
    channels, height, width = x.shape[1:]
    table = w["attn.relative_position_bias_table"]
    size, heads = (int(len(table) ** 0.5) + 1) // 2, table.shape[1]
    shift = 0 if min(height, width) <= size and not detection else shift
    tokens = x.permute(0, 2, 3, 1)
    z = F.pad(_layer_norm(w, "norm1", tokens), (0, 0, 0, -width % size, 0, -height % size))
    region = _regions(z.shape[1], z.shape[2], size, shift)
    z = torch.roll(z, (-shift, -shift), (1, 2))
    windows = (
        z.unflatten(1, (-1, size)).unflatten(3, (-1, size)).transpose(2, 3).flatten(3, 4)
    )  # n, rows, columns, s*s, C
    same = region.unflatten(0, (-1, size)).unflatten(2, (-1, size)).transpose(1, 2).flatten(2)
    qkv = F.linear(windows, w["attn.qkv.weight"], w.get("attn.qkv.bias")).unflatten(4, (3, heads, -1))
    q, k, v = (each.transpose(3, 4) for each in qkv.unbind(4))
    logits = q @ k.transpose(4, 5) * (channels // heads) ** -0.5
    places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    apart = places[:, :, None] - places[:, None, :] + size - 1
    logits = logits + table[apart[0] * (2 * size - 1) + apart[1]].permute(2, 0, 1)
    outside = same[..., :, None] != same[..., None, :]
    logits = logits - 100.0 * outside[None, :, :, None].double()
    z = F.linear((logits.softmax(-1) @ v).transpose(3, 4).flatten(4), w["attn.proj.weight"], w["attn.proj.bias"])
    z = z.unflatten(3, (size, size)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    tokens = tokens + torch.roll(z, (shift, shift), (1, 2))[:, :height, :width]
    z = F.gelu(F.linear(_layer_norm(w, "norm2", tokens), w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
    return (tokens + F.linear(z, w["mlp.fc2.weight"], w["mlp.fc2.bias"])).permute(0, 3, 1, 2)


def _regions(height: int, width: int, size: int, shift: int) -> torch.Tensor:
    """A number for each of the parts that a rolled map consists of: [H, W]."""
    sides = []
    for side in (height, width):
        part = torch.zeros(side)
        if shift:
            part[side - size : side - shift], part[side - shift :] = 1, 2
        sides.append(part)
    return sides[0][:, None] * 3 + sides[1][None, :]


def multi_seam(w: Weights, x: torch.Tensor, act: Scalar) -> torch.Tensor:
    """MultiSEAM with one mixer for each size of patches."""
    channels, means = x.shape[1], [x.mean((2, 3))]
    for branch in ("DCovN0", "DCovN1", "DCovN2"):
        z = conv(w, f"{branch}.0", x, padding=0, stride=w[f"{branch}.0.weight"].shape[2])
        z = norm(w, f"{branch}.2", act(z))
        near = norm(w, f"{branch}.3.0.fn.2", act(conv(w, f"{branch}.3.0.fn.0", z, groups=channels)))
        means.append(norm(w, f"{branch}.3.3", act(dense(w, f"{branch}.3.1", near + z))).mean((2, 3)))
    gate = F.linear(F.relu(F.linear(sum(means) / 4, w["fc.0.weight"])), w["fc.2.weight"])  # type: ignore[arg-type]
    return x * gate.sigmoid().exp()[:, :, None, None]


def single_head(w: Weights, x: torch.Tensor, act: Scalar, prefix: str = "") -> torch.Tensor:
    """SHSA, alone."""
    part = w[f"{prefix}pre_norm.weight"].shape[0]
    a, b = x[:, :part], x[:, part:]
    normal = F.group_norm(a, 1, w[f"{prefix}pre_norm.weight"], w[f"{prefix}pre_norm.bias"], EPS)
    qkv = norm(w, f"{prefix}qkv.bn", dense(w, f"{prefix}qkv.c", normal)).flatten(2)
    width = (qkv.shape[1] - part) // 2
    q, k, v = qkv.split([width, width, part], 1)
    a = (v @ (q.transpose(1, 2) @ k * width**-0.5).softmax(2).transpose(1, 2)).reshape(a.shape)
    return norm(w, f"{prefix}proj.1.bn", dense(w, f"{prefix}proj.1.c", act(torch.cat([a, b], 1))))


def single_head_block(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """SHSABlock of collections."""
    x = x + norm(w, "conv.fn.bn", conv(w, "conv.fn.c", x, groups=x.shape[1]))
    x = x + single_head(w, x, F.silu, "mixer.fn.")
    hidden = F.silu(norm(w, "ffn.fn.pw1.bn", dense(w, "ffn.fn.pw1.c", x)))
    return x + norm(w, "ffn.fn.pw2.bn", dense(w, "ffn.fn.pw2.c", hidden))


def mobile_block(
    w: Weights, x: torch.Tensor, width: int, act: Scalar, layers: tuple[str, str, str, str], eps: float
) -> torch.Tensor:
    """iRMB with windows of 7 and heads of ``width`` channels; ``layers``: of q and k, of v, the norm, the last one."""
    qk, value, local, last = layers
    z = norm(w, "norm", x, eps)
    heads, (height, right) = max(x.shape[1] // width, 1), x.shape[2:]
    rows, columns = -(-height // 7), -(-right // 7)
    z = F.pad(z, (0, 7 * columns - right, 0, 7 * rows - height))

    def windows(y: torch.Tensor) -> torch.Tensor:
        """[N, C, 7 * rows, 7 * columns] -> [N, rows, columns, heads, d, 49]"""
        y = y.unflatten(3, (7, columns)).unflatten(2, (7, rows)).permute(0, 3, 5, 1, 2, 4)
        return y.flatten(4).unflatten(3, (heads, -1))

    q, k = dense(w, qk, z).chunk(2, 1)
    q, k, v = windows(q), windows(k), windows(act(dense(w, value, z)))
    a = v @ (q.transpose(4, 5) @ k * q.shape[4] ** -0.5).softmax(5).transpose(4, 5)
    a = a.flatten(3, 4).unflatten(4, (7, 7)).permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3)[:, :, :height, :right]
    near = F.silu(norm(w, local, conv(w, "conv_local.conv", a, groups=a.shape[1]), eps))
    return x + dense(w, last, a + near)


def area_block(w: Weights, x: torch.Tensor, heads: int) -> torch.Tensor:
    """ABlock of YOLOv12's first release over one area: all of q, then all of k, and v of its own."""

    def layer(name: str, z: torch.Tensor, **more: int) -> torch.Tensor:
        return norm(w, f"{name}.bn", conv(w, f"{name}.conv", z, **more), 1e-3)

    v = layer("attn.v", x)
    q, k = (each.flatten(2).unflatten(1, (heads, -1)) for each in layer("attn.qk", x).chunk(2, 1))
    shares = (q.transpose(2, 3) @ k * q.shape[2] ** -0.5).softmax(3)
    o = (v.flatten(2).unflatten(1, (heads, -1)) @ shares.transpose(2, 3)).reshape(x.shape)
    x = x + layer("attn.proj", o + layer("attn.pe", v, groups=x.shape[1]))
    return x + layer("mlp.1", F.silu(layer("mlp.0", x)))


_MOBILE = ("qk.conv", "v.conv", "conv_local.norm", "proj.conv")
_GATES = {"a sigmoid": torch.sigmoid, "a hard sigmoid": hard_sigmoid, "h-swish": hard_swish}
_MAXIMUM = "pools half mean, half maximum"
_ACTS = {"ReLU": F.relu, "SiLU": F.silu}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "a2": {
        "has one softmax over positions and one over channels": partial(double_attention, maps=2, vectors=1),
        "has its softmaxes over the batch, so that what it gives for an image depends on the others": partial(
            double_attention, maps=0, vectors=0
        ),
        "has both softmaxes over positions": partial(double_attention, maps=2, vectors=2),
    },
    "aifi": {
        "has GELU": partial(encoder, act=F.gelu, positions=True),
        "has ReLU": partial(encoder, act=F.relu, positions=True),
        "adds no positions": lambda w, x: encoder(
            w, x, F.gelu if "ma.in_proj_weight" in w else F.relu, positions=False
        ),
    },
    "bam": {
        "multiplies its two gates": partial(bam, square=False),
        "pools the left square of a map that is none": partial(bam, square=True),
    },
    "caa": {
        "returns x times the factor": partial(caa, multiplies=True),
        "returns the factor alone": partial(caa, multiplies=False),
    },
    "cbam": {
        "does not add x": partial(cbam, max_first=True),
        "adds x": partial(cbam, max_first=True, adds=True),
        "the listing of YOLO forks": partial(cbam, max_first=False),
        "ChannelAttention and SpatialAttention": partial(cbam, max_first=False),
    },
    "coordatt": {
        "has h-swish between its convolutions": partial(coordinates, act=hard_swish),
        "has ReLU between its convolutions": partial(coordinates, act=F.relu),
        "has SiLU between its convolutions": partial(coordinates, act=F.silu),
    },
    "eca": {
        "pads the sequence of channels with zeros": partial(eca, ring=False),
        "has the sequence of channels as a ring": partial(eca, ring=True),
        "cv-attention's EfficientChannelAttention": partial(eca, ring=False),
        "External-Attention's ECAAttention": partial(eca, ring=False),
    },
    "ela": {
        "normalises 16 groups": partial(localized, groups=16),
        "normalises 32 groups": partial(localized, groups=32),
    },
    "ese": {
        **{f"has {name}": partial(ese, gate=gate) for name, gate in _GATES.items()},
        _MAXIMUM: partial(ese, gate=hard_sigmoid, maximum=True),
    },
    "gam": {
        "has no sigmoid after its channel part": partial(gam, sigmoid=False),
        "has a sigmoid after its channel part": partial(gam, sigmoid=True),
        "shuffles the channels of its spatial gate": partial(gam, sigmoid=False, shuffle=True),
    },
    "ge": {
        "has a ReLU between the gather and the MLP": partial(gather_excite, timm=False),
        "has no ReLU between the gather and the MLP, and pads a convolution over the whole map": partial(
            gather_excite, timm=True
        ),
        "has a convolution over the whole map without padding": partial(gather_excite, timm=False),
        "pads a convolution over the whole map": partial(gather_excite, timm=True),
        "has an MLP on pooled maps": partial(gather_excite, timm=True),
        _MAXIMUM: partial(gather_excite, timm=True, maximum=True),
    },
    "irmb": {
        "has heads of 64 channels": partial(mobile_block, width=64, act=F.relu, layers=_MOBILE, eps=1e-6),
        "has heads of 8 channels": partial(mobile_block, width=8, act=F.relu, layers=_MOBILE, eps=1e-6),
        "has SiLU on its values and heads of 16 channels": partial(
            mobile_block, width=16, act=F.silu, layers=("qk", "v.0", "conv_local.bn", "proj"), eps=1e-3
        ),
    },
    "mhsa": {"MHSA of YOLO forks": heads_of_yolo, "MHSA of leaderj1001": heads_of_yolo},
    "polarized": {
        "adds both gated maps": partial(polarized, parallel=True),
        "gates one after the other": partial(polarized, parallel=False),
    },
    "psablock": {"ABlock of YOLOv12's first release": partial(area_block, heads=1)},
    "scsa": {
        "averages and has sigmoids": partial(scsa, maximum=False, softmax=False),
        "pools maxima": partial(scsa, maximum=True, softmax=False),
        "has softmaxes in place of sigmoids": partial(scsa, maximum=False, softmax=True),
        "has both": partial(scsa, maximum=True, softmax=True),
    },
    "se": {
        **{f"has {act} and {gate}": partial(se, act=_ACTS[act], gate=_GATES[gate]) for act in _ACTS for gate in _GATES},
        _MAXIMUM: partial(se, act=F.relu, gate=torch.sigmoid, maximum=True),
    },
    "seam": {"has GELU": partial(multi_seam, act=F.gelu), "has SiLU": partial(multi_seam, act=F.silu)},
    "shsa": {
        "SHSABlock of YOLO and RT-DETR collections": single_head_block,
        "has ReLU": partial(single_head, act=F.relu),
        "SHSA of YOLO and RT-DETR collections": partial(single_head, act=F.silu),
    },
    "swin": {
        "does not shift its windows": partial(swin, shift=0, detection=False),
        "shifts its windows": partial(swin, shift=3, detection=False),
        "shifts its windows on a map of one window, too": partial(swin, shift=3, detection=True),
    },
}
"""block -> what the table says of a port's function, or the name of a port that has no other beside it -> that
function. Ports that are not among these are the only known ones of their keys, and agree with the block that reads
them."""
