"""Gates of channels, rows and columns the way the published PyTorch code computes them.

Each function takes the module of patterns/modules (for its weights) and x, and gives what that module gives. Formulas
and sources: see there. What differs is what exporters make of it: pooling layers, views, expansions, joined maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def mean_pool(x: Tensor) -> Tensor:
    """nn.AdaptiveAvgPool2d(1): [N, C, H, W] -> [N, C, 1, 1]."""
    return functional.adaptive_avg_pool2d(x, 1)


def se(own: Any, x: Tensor) -> Tensor:
    """With the linear layers that most detectors copy (its authors published Caffe)."""
    batch, channels = x.shape[:2]
    hidden = torch.relu(_linear(mean_pool(x).view(batch, channels), own.fc1))
    gate = torch.sigmoid(_linear(hidden, own.fc2)).view(batch, channels, 1, 1)
    return x * gate.expand_as(x)


def ese(own: Any, x: Tensor) -> Tensor:
    """CenterMask's: the hard sigmoid as a relu6."""
    return x * (functional.relu6(own.fc(mean_pool(x)) + 3) / 6)


def eca(own: Any, x: Tensor) -> Tensor:
    """The channels turned into a sequence and back; timm's ring as timm has it."""
    side = own.conv.kernel_size[0] // 2
    if own.circular:
        sequence = functional.pad(x.mean((2, 3)).view(x.shape[0], 1, -1), (side, side), mode="circular")
        return x * own.conv(sequence).view(x.shape[0], -1, 1, 1).sigmoid().expand_as(x)
    sequence = mean_pool(x).squeeze(-1).transpose(-1, -2)
    gate = functional.conv1d(sequence, own.conv.weight, own.conv.bias, padding=side)
    return x * torch.sigmoid(gate.transpose(-1, -2).unsqueeze(-1)).expand_as(x)


def gc(own: Any, x: Tensor) -> Tensor:
    """The map flattened with one more axis, as mmcv's ContextBlock and timm's GlobalContext have it."""
    batch, channels, height, width = x.shape
    mask = own.get_submodule(own._form.mask)
    flat = x.view(batch, channels, height * width).unsqueeze(1)
    weights = torch.softmax(mask(x).view(batch, 1, height * width), 2).unsqueeze(-1)
    context = torch.matmul(flat, weights).view(batch, channels, 1, 1)
    for branch in own._form.branches:
        term = own._transformed(context, branch)
        x = x + term if branch.add else x * torch.sigmoid(term)
    return x


def srm(own: Any, x: Tensor) -> Tensor:
    """torch.std, and both statistics side by side."""
    batch, channels = x.shape[:2]
    flat = x.view(batch, channels, -1)
    statistics = torch.cat((flat.mean(dim=2, keepdim=True), flat.std(dim=2, keepdim=True)), dim=2)
    style = torch.sum(statistics * own.cfc[None], dim=2)[:, :, None, None]
    return x * torch.sigmoid(own.bn(style))


def lct(own: Any, x: Tensor) -> Tensor:
    """The variance as the mean of squares less the square of the mean."""
    batch, channels = x.shape[:2]
    groups = mean_pool(x).view(batch, own.groups, -1)
    mean = groups.mean(dim=2, keepdim=True)
    variance = (groups**2).mean(dim=2, keepdim=True) - mean**2
    normal = ((groups - mean) / torch.sqrt(variance + own.eps)).view(batch, channels, 1, 1)
    gate = own.w.view(1, -1, 1, 1) * normal + own.b.view(1, -1, 1, 1)
    return x * torch.sigmoid(gate)


def nam(own: Any, x: Tensor) -> Tensor:
    """The weights are multiplied on with the channels last; so is the spatial part of the forks."""
    for name, part in own.named_children():
        x = _by_channel(part.bn2, x) if name == "Channel_Att" else _by_position(part.bn2, x)
    return x


def _by_channel(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    last = norm(x).permute(0, 2, 3, 1).contiguous()
    return torch.sigmoid(torch.mul(_shares(norm), last).permute(0, 3, 1, 2).contiguous()) * x


def _by_position(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    positions = x.permute(0, 2, 3, 1).reshape(batch, height * width, 1, channels)
    gate = norm(positions) * _shares(norm).reshape(1, -1, 1, 1)
    return x * torch.sigmoid(gate.reshape(batch, height, width, channels).permute(0, 3, 1, 2))


def coordatt(own: Any, x: Tensor) -> Tensor:
    """Pooling layers, turned columns, both joined, and relu6 for the hard swish; timm's is the module itself."""
    height, width = x.shape[2:]
    rows = functional.adaptive_avg_pool2d(x, (None, 1))
    columns = functional.adaptive_avg_pool2d(x, (1, None)).permute(0, 1, 3, 2)
    hidden = own.bn1(own.conv1(torch.cat([rows, columns], dim=2)))
    hidden = hidden * (functional.relu6(hidden + 3) / 6)
    rows, columns = torch.split(hidden, [height, width], dim=2)
    return x * own.conv_w(columns.permute(0, 1, 3, 2)).sigmoid() * own.conv_h(rows).sigmoid()


def ela(own: Any, x: Tensor) -> Tensor:
    """Strips as sequences, turned into maps by views."""
    batch, channels, height, width = x.shape
    rows = torch.mean(x, dim=3, keepdim=True).view(batch, channels, height)
    columns = torch.mean(x, dim=2, keepdim=True).view(batch, channels, width)
    rows = torch.sigmoid(own.gn(own.conv(rows))).view(batch, channels, height, 1)
    columns = torch.sigmoid(own.gn(own.conv(columns))).view(batch, channels, 1, width)
    return x * rows * columns


def mlca(own: Any, x: Tensor) -> Tensor:
    """A pooling layer down to the cells. The way up is the module's own: exporters know no pooling that enlarges."""
    from graphsurgery.patterns.modules.mlca import _adaptive_means

    batch, channels, height, width = x.shape
    size = own.local_size
    cells = functional.adaptive_avg_pool2d(x, size)
    whole = mean_pool(cells)
    local = cells.view(batch, channels, -1).transpose(-1, -2).reshape(batch, 1, -1)
    whole = whole.view(batch, channels, -1).transpose(-1, -2)
    local, whole = own.conv_local(local), own.conv(whole)
    local = local.reshape(batch, size * size, channels).transpose(-1, -2).reshape(batch, channels, size, size)
    whole = whole.transpose(-1, -2).unsqueeze(-1)
    whole = whole.sigmoid().expand(batch, channels, size, size)
    gate = whole * (1 - own.local_weight) + local.sigmoid() * own.local_weight
    return x * _adaptive_means(gate, height, width)


def _linear(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """The linear layer with the weights of a 1x1 convolution."""
    return functional.linear(x, convolution.weight.flatten(1), convolution.bias)


def _shares(norm: nn.BatchNorm2d) -> Tensor:
    scale = norm.weight.detach().abs()
    return scale / scale.sum()
