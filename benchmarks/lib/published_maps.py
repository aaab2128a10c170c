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


def simam(twin: Any, x: Tensor) -> Tensor:
    """The sum of squares over H*W - 1, and the whole map divided by it."""
    free = x.shape[2] * x.shape[3] - 1
    square = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
    energy = square / (4 * (square.sum(dim=[2, 3], keepdim=True) / free + twin.e_lambda)) + 0.5
    return x * torch.sigmoid(energy)


def cbam(twin: Any, x: Tensor) -> Tensor:
    """Pooling layers, torch.max with its indices, and in the official code both gates expanded to the whole map."""
    official = twin.variant == "official"
    size = (x.shape[2], x.shape[3])
    mean = functional.avg_pool2d(x, size, stride=size) if official else mean_pool(x)
    gate = twin._mlp(mean)
    if len(twin._form.layers) == 2:
        largest = functional.max_pool2d(x, size, stride=size) if official else functional.adaptive_max_pool2d(x, 1)
        gate = gate + twin._mlp(largest)
    gate = torch.sigmoid(gate)
    x = x * (gate.expand_as(x) if official else gate)
    planes = [torch.mean(x, 1, keepdim=True), torch.max(x, 1, keepdim=True)[0]]
    if twin._form.max_first:
        planes.reverse()
    gate = twin.get_submodule(twin._form.conv)(torch.cat(planes, dim=1))
    if twin._form.bn is not None:
        gate = twin.get_submodule(twin._form.bn)(gate)
    return x * torch.sigmoid(gate)


def bam(twin: Any, x: Tensor) -> Tensor:
    """A pooling window of the whole map, and both gates expanded before they meet."""
    if twin.variant == "cv-attention":
        pooled = mean_pool(x).flatten(1)
    else:
        pooled = functional.avg_pool2d(x, x.shape[2], stride=x.shape[2]).flatten(1)
    by_channel = twin._channel(pooled).unsqueeze(2).unsqueeze(3).expand_as(x)
    by_position = twin._spatial(x).expand_as(x)
    both = by_channel * by_position if twin.variant == "official" else by_channel + by_position
    return (1 + torch.sigmoid(both)) * x


def gam(twin: Any, x: Tensor) -> Tensor:
    """Linear layers on the channels turned to the last axis."""
    batch, channels, height, width = x.shape
    flat = x.permute(0, 2, 3, 1).reshape(batch, -1, channels)
    gate = twin.channel_attention(flat).view(batch, height, width, channels).permute(0, 3, 1, 2)
    z = x * (gate.sigmoid() if twin.variant == "cv-attention" else gate)
    spatial = twin.spatial_attention(z).sigmoid()
    if twin.variant == "yolo-grouped":
        spatial = shuffled(spatial, 4)
    return z * spatial


def shuffled(x: Tensor, groups: int) -> Tensor:
    """The channel shuffle by two views and a transposition."""
    batch, channels, height, width = x.shape
    parts = torch.transpose(x.view(batch, groups, channels // groups, height, width), 1, 2).contiguous()
    return parts.view(batch, -1, height, width)


def ema(twin: Any, x: Tensor) -> Tensor:
    """Groups folded into the batch, pooling layers, and a softmax of what is constant once trained."""
    batch, channels, height, width = x.shape
    groups, width_of_group = twin.groups, channels // twin.groups
    group = x.reshape(batch * groups, -1, height, width)
    rows = functional.adaptive_avg_pool2d(group, (None, 1))
    columns = functional.adaptive_avg_pool2d(group, (1, None)).permute(0, 1, 3, 2)
    rows, columns = torch.split(twin.conv1x1(torch.cat([rows, columns], dim=2)), [height, width], dim=2)
    pooled = twin.gn(group * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid())
    convolved = twin.conv3x3(group)
    weights = []
    for one, other in ((pooled, convolved), (convolved, pooled)):
        share = mean_pool(one).reshape(batch * groups, -1, 1).permute(0, 2, 1).softmax(-1)
        weights.append(torch.matmul(share, other.reshape(batch * groups, width_of_group, -1)))
    gate = (weights[0] + weights[1]).reshape(batch * groups, 1, height, width)
    return (group * gate.sigmoid()).reshape(batch, channels, height, width)


def triplet(twin: Any, x: Tensor) -> Tensor:
    """The whole map turned, gated and turned back, twice."""
    columns = _turned(twin.cw, x, (0, 2, 1, 3))
    rows = _turned(twin.hc, x, (0, 3, 2, 1))
    if twin.hw is None:
        return 1 / 2 * (columns + rows)
    return 1 / 3 * (_gated(twin.hw, x) + columns + rows)


def _turned(gate: Any, x: Tensor, order: tuple[int, ...]) -> Tensor:
    return _gated(gate, x.permute(*order).contiguous()).permute(*order).contiguous()


def _gated(gate: Any, x: Tensor) -> Tensor:
    planes = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
    return x * torch.sigmoid(gate.conv(planes))


def shuffle(twin: Any, x: Tensor) -> Tensor:
    """Groups folded into the batch, both halves joined, channels shuffled."""
    batch, _, height, width = x.shape
    first, second = x.reshape(batch * twin.groups, -1, height, width).chunk(2, dim=1)
    first = first * torch.sigmoid(twin.cweight * mean_pool(first) + twin.cbias)
    second = second * torch.sigmoid(twin.sweight * twin.gn(second) + twin.sbias)
    y = torch.cat([first, second], dim=1).reshape(batch, -1, height, width)
    return shuffled(y, 2)


def sge(twin: Any, x: Tensor) -> Tensor:
    """Groups folded into the batch, and torch.std."""
    batch, channels, height, width = x.shape
    groups = x.view(batch * twin.groups, -1, height, width)
    likeness = (groups * mean_pool(groups)).sum(dim=1, keepdim=True)
    flat = likeness.view(batch * twin.groups, -1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    flat = flat / (flat.std(dim=1, keepdim=True) + 1e-5)
    gate = flat.view(batch, twin.groups, height, width) * twin.weight + twin.bias
    gate = gate.view(batch * twin.groups, 1, height, width)
    return (groups * torch.sigmoid(gate)).view(batch, channels, height, width)


def sk(twin: Any, x: Tensor) -> Tensor:
    """The paths added one by one (official), or stacked along a new first axis (External-Attention)."""
    if twin.variant == "official":
        first, second = (torch.relu(d) for d in twin._convolved(x))
        choice = twin._choice(mean_pool(first) + mean_pool(second))
        shares = torch.softmax(choice.view(x.shape[0], 2, -1, 1, 1), dim=1)
        return first * shares[:, 0] + second * shares[:, 1]
    maps = torch.stack([torch.relu(d) for d in twin._convolved(x)], 0)
    hidden = twin.fc(sum(maps).mean(-1).mean(-1))  # type: ignore[arg-type]
    shares = torch.stack([fc(hidden).view(x.shape[0], -1, 1, 1) for fc in twin.fcs], 0)
    return (torch.softmax(shares, dim=0) * maps).sum(0)


def polarized(twin: Any, x: Tensor) -> Tensor:
    """Every 1x1 convolution on the whole map, pooled behind it: the module's own, but for the pooling layer."""
    by_channel = x * torch.sigmoid(twin._channel(x))
    source = x if twin.variant.endswith("p") else by_channel
    external = twin.variant.startswith("external")
    query, value = (twin.sp_wq, twin.sp_wv) if external else (twin.conv_q_left, twin.conv_v_left)
    batch, _, height, width = x.shape
    pooled = mean_pool(query(source)).view(batch, 1, -1)
    values = value(source).view(batch, -1, height * width)
    if external:
        pooled = pooled.softmax(2)
    if twin.variant == "s":
        values = values.softmax(2)
    context = torch.matmul(pooled, values)
    if twin.variant == "p":
        context = context.softmax(2)
    gate = torch.sigmoid(context.view(batch, 1, height, width))
    return by_channel + x * gate if twin.variant.endswith("p") else by_channel * gate


def cpca(twin: Any, x: Tensor) -> Tensor:
    """Pooling layers in the channel attention."""
    u = functional.gelu(twin.conv(x))
    gates = [torch.sigmoid(twin.ca._mlp(p)) for p in (mean_pool(u), functional.adaptive_max_pool2d(u, 1))]
    v = (gates[0] + gates[1]).view(-1, x.shape[1], 1, 1) * u
    first = twin.dconv5_5(v)
    strips = [twin.get_submodule(f"dconv{k}_1")(twin.get_submodule(f"dconv1_{k}")(first)) for k in (7, 11, 21)]
    y: Tensor = twin.conv(twin.conv(strips[0] + strips[1] + strips[2] + first) * v)
    return y


def lsk(twin: Any, x: Tensor) -> Tensor:
    """torch.max with its indices, and the selection cut plane by plane."""
    if hasattr(twin, "spatial_gating_unit"):
        y: Tensor = twin.proj_2(lsk(twin.spatial_gating_unit, twin.activation(twin.proj_1(x))))
        return y + x
    near = twin.conv0(x)
    far = twin.conv2(twin.conv_spatial(near))
    near = twin.conv1(near)
    both = torch.cat([near, far], dim=1)
    pooled = torch.cat([torch.mean(both, dim=1, keepdim=True), torch.max(both, dim=1, keepdim=True)[0]], dim=1)
    selection = twin.conv_squeeze(pooled).sigmoid()
    gate = twin.conv(near * selection[:, 0, :, :].unsqueeze(1) + far * selection[:, 1, :, :].unsqueeze(1))
    return x * gate
