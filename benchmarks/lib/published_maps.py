"""Gates of positions, and blocks in groups of channels, the way the published PyTorch code computes them.

Each function takes the module of patterns/modules (for its weights) and x, and gives what that module gives. Formulas
and sources: see there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.lib.published_gates import mean_pool


def simam(own: Any, x: Tensor) -> Tensor:
    """The sum of squares over H*W - 1, and the whole map divided by it."""
    free = x.shape[2] * x.shape[3] - 1
    square = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
    energy = square / (4 * (square.sum(dim=[2, 3], keepdim=True) / free + own.e_lambda)) + 0.5
    return x * torch.sigmoid(energy)


def cbam(own: Any, x: Tensor) -> Tensor:
    """Pooling layers, torch.max with its indices, and in the official code both gates expanded to the whole map."""
    official = own.variant == "official"
    size = (x.shape[2], x.shape[3])
    mean = functional.avg_pool2d(x, size, stride=size) if official else mean_pool(x)
    gate = own._mlp(mean)
    if len(own._form.layers) == 2:
        largest = functional.max_pool2d(x, size, stride=size) if official else functional.adaptive_max_pool2d(x, 1)
        gate = gate + own._mlp(largest)
    gate = torch.sigmoid(gate)
    original, x = x, x * (gate.expand_as(x) if official else gate)
    planes = [torch.mean(x, 1, keepdim=True), torch.max(x, 1, keepdim=True)[0]]
    if own._form.max_first:
        planes.reverse()
    gate = own.get_submodule(own._form.conv)(torch.cat(planes, dim=1))
    if own._form.bn is not None:
        gate = own.get_submodule(own._form.bn)(gate)
    y = x * torch.sigmoid(gate)
    return y + original if own._form.adds_input else y


def bam(own: Any, x: Tensor) -> Tensor:
    """A pooling window of the whole map, and both gates expanded before they meet."""
    if own.variant == "cv-attention":
        pooled = mean_pool(x).flatten(1)
    else:
        pooled = functional.avg_pool2d(x, x.shape[2], stride=x.shape[2]).flatten(1)
    by_channel = own._channel(pooled).unsqueeze(2).unsqueeze(3).expand_as(x)
    by_position = own._spatial(x).expand_as(x)
    both = by_channel * by_position if own.variant == "official" else by_channel + by_position
    return (1 + torch.sigmoid(both)) * x


def gam(own: Any, x: Tensor) -> Tensor:
    """Linear layers on the channels turned to the last axis."""
    batch, channels, height, width = x.shape
    flat = x.permute(0, 2, 3, 1).reshape(batch, -1, channels)
    gate = own.channel_attention(flat).view(batch, height, width, channels).permute(0, 3, 1, 2)
    z = x * (gate.sigmoid() if own.variant == "cv-attention" else gate)
    spatial = own.spatial_attention(z).sigmoid()
    if own.variant == "yolo-grouped":
        spatial = shuffled(spatial, 4)
    return z * spatial


def shuffled(x: Tensor, groups: int) -> Tensor:
    """The channel shuffle by two views and a transposition."""
    batch, channels, height, width = x.shape
    parts = torch.transpose(x.view(batch, groups, channels // groups, height, width), 1, 2).contiguous()
    return parts.view(batch, -1, height, width)


def ema(own: Any, x: Tensor) -> Tensor:
    """Groups folded into the batch, pooling layers, and a softmax of what is constant once trained."""
    batch, channels, height, width = x.shape
    groups, width_of_group = own.groups, channels // own.groups
    group = x.reshape(batch * groups, -1, height, width)
    rows = functional.adaptive_avg_pool2d(group, (None, 1))
    columns = functional.adaptive_avg_pool2d(group, (1, None)).permute(0, 1, 3, 2)
    rows, columns = torch.split(own.conv1x1(torch.cat([rows, columns], dim=2)), [height, width], dim=2)
    pooled = own.gn(group * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid())
    convolved = own.conv3x3(group)
    weights = []
    for one, other in ((pooled, convolved), (convolved, pooled)):
        share = mean_pool(one).reshape(batch * groups, -1, 1).permute(0, 2, 1).softmax(-1)
        weights.append(torch.matmul(share, other.reshape(batch * groups, width_of_group, -1)))
    gate = (weights[0] + weights[1]).reshape(batch * groups, 1, height, width)
    return (group * gate.sigmoid()).reshape(batch, channels, height, width)


def triplet(own: Any, x: Tensor) -> Tensor:
    """The whole map turned, gated and turned back, twice."""
    columns = _turned(own.cw, x, (0, 2, 1, 3))
    rows = _turned(own.hc, x, (0, 3, 2, 1))
    if own.hw is None:
        return 1 / 2 * (columns + rows)
    return 1 / 3 * (_gated(own.hw, x) + columns + rows)


def _turned(gate: Any, x: Tensor, order: tuple[int, ...]) -> Tensor:
    return _gated(gate, x.permute(*order).contiguous()).permute(*order).contiguous()


def _gated(gate: Any, x: Tensor) -> Tensor:
    planes = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
    return x * torch.sigmoid(gate.conv(planes))


def shuffle(own: Any, x: Tensor) -> Tensor:
    """Groups folded into the batch, both halves joined, channels shuffled."""
    batch, _, height, width = x.shape
    first, second = x.reshape(batch * own.groups, -1, height, width).chunk(2, dim=1)
    first = first * torch.sigmoid(own.cweight * mean_pool(first) + own.cbias)
    second = second * torch.sigmoid(own.sweight * own.gn(second) + own.sbias)
    y = torch.cat([first, second], dim=1).reshape(batch, -1, height, width)
    return shuffled(y, 2)


def sge(own: Any, x: Tensor) -> Tensor:
    """Groups folded into the batch, and torch.std."""
    batch, channels, height, width = x.shape
    groups = x.view(batch * own.groups, -1, height, width)
    likeness = (groups * mean_pool(groups)).sum(dim=1, keepdim=True)
    flat = likeness.view(batch * own.groups, -1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    flat = flat / (flat.std(dim=1, keepdim=True) + 1e-5)
    gate = flat.view(batch, own.groups, height, width) * own.weight + own.bias
    gate = gate.view(batch * own.groups, 1, height, width)
    return (groups * torch.sigmoid(gate)).view(batch, channels, height, width)


def sk(own: Any, x: Tensor) -> Tensor:
    """The paths added one by one (paper, official), or stacked along a new first axis (External-Attention)."""
    if own.variant in ("paper", "official"):
        first, second = (torch.relu(d) for d in own._convolved(x))
        choice = own._choice(mean_pool(first) + mean_pool(second))
        shares = torch.softmax(choice.view(x.shape[0], 2, -1, 1, 1), dim=1)
        return first * shares[:, 0] + second * shares[:, 1]
    maps = torch.stack([torch.relu(d) for d in own._convolved(x)], 0)
    hidden = own.fc(sum(maps).mean(-1).mean(-1))  # type: ignore[arg-type]
    shares = torch.stack([fc(hidden).view(x.shape[0], -1, 1, 1) for fc in own.fcs], 0)
    return (torch.softmax(shares, dim=0) * maps).sum(0)


def polarized(own: Any, x: Tensor) -> Tensor:
    """Every 1x1 convolution on the whole map, pooled behind it: the module's own, but for the pooling layer."""
    by_channel = x * torch.sigmoid(own._channel(x))
    source = x if own.variant.endswith("p") else by_channel
    external = own.variant.startswith("external")
    query, value = (own.sp_wq, own.sp_wv) if external else (own.conv_q_left, own.conv_v_left)
    batch, _, height, width = x.shape
    pooled = mean_pool(query(source)).view(batch, 1, -1)
    values = value(source).view(batch, -1, height * width)
    if external:
        pooled = pooled.softmax(2)
    if own.variant == "s":
        values = values.softmax(2)
    context = torch.matmul(pooled, values)
    if own.variant == "p":
        context = context.softmax(2)
    gate = torch.sigmoid(context.view(batch, 1, height, width))
    return by_channel + x * gate if own.variant.endswith("p") else by_channel * gate


def cpca(own: Any, x: Tensor) -> Tensor:
    """Pooling layers in the channel attention."""
    u = functional.gelu(own.conv(x))
    gates = [torch.sigmoid(own.ca._mlp(p)) for p in (mean_pool(u), functional.adaptive_max_pool2d(u, 1))]
    v = (gates[0] + gates[1]).view(-1, x.shape[1], 1, 1) * u
    first = own.dconv5_5(v)
    strips = [own.get_submodule(f"dconv{k}_1")(own.get_submodule(f"dconv1_{k}")(first)) for k in (7, 11, 21)]
    y: Tensor = own.conv(own.conv(strips[0] + strips[1] + strips[2] + first) * v)
    return y


def lsk(own: Any, x: Tensor) -> Tensor:
    """torch.max with its indices, and the selection cut plane by plane."""
    if hasattr(own, "spatial_gating_unit"):
        y: Tensor = own.proj_2(lsk(own.spatial_gating_unit, own.activation(own.proj_1(x))))
        return y + x
    near = own.conv0(x)
    far = own.conv2(own.conv_spatial(near))
    near = own.conv1(near)
    both = torch.cat([near, far], dim=1)
    pooled = torch.cat([torch.mean(both, dim=1, keepdim=True), torch.max(both, dim=1, keepdim=True)[0]], dim=1)
    selection = own.conv_squeeze(pooled).sigmoid()
    gate = own.conv(near * selection[:, 0, :, :].unsqueeze(1) + far * selection[:, 1, :, :].unsqueeze(1))
    return x * gate
