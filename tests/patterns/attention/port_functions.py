"""What the classes in public code compute whose weights have the keys of another function: each from its formula.

A function takes the weights under the port's own keys and a map [N, C, H, W], both float64. Nothing of the catalogue is
used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import log2

import torch
import torch.nn.functional as F

Weights = Mapping[str, torch.Tensor]
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


def norm(w: Weights, layer: str, x: torch.Tensor) -> torch.Tensor:
    """A BatchNorm over maps, evaluated."""
    parts = (w[f"{layer}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, eps=EPS)


def conv(w: Weights, layer: str, x: torch.Tensor, **more: int) -> torch.Tensor:
    padding = more.pop("padding", w[f"{layer}.weight"].shape[-1] // 2)
    return F.conv2d(x, w[f"{layer}.weight"], w.get(f"{layer}.bias"), padding=padding, **more)


def layers(w: Weights) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] for key in w))


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True)


def largest(x: torch.Tensor) -> torch.Tensor:
    return x.amax((2, 3), keepdim=True)


def se(w: Weights, x: torch.Tensor, act: Callable[..., torch.Tensor], gate: Callable[..., torch.Tensor]) -> torch.Tensor:
    first, second = layers(w)
    return x * gate(dense(w, second, act(dense(w, first, mean(x)))))


def ese(w: Weights, x: torch.Tensor, gate: Callable[..., torch.Tensor]) -> torch.Tensor:
    (layer,) = layers(w)
    return x * gate(dense(w, layer, mean(x)))


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
        y = 0.5 * mean(x) + 0.5 * largest(x) if maximum else mean(x)
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


def scsa(w: Weights, x: torch.Tensor, *, pool: str, softmax: bool, heads: int = 8, window: int = 7) -> torch.Tensor:
    n, channels = x.shape[:2]
    for axis, name in ((3, "h"), (2, "w")):
        pieces = [
            F.conv1d(part, w[f"{dw}.weight"], w[f"{dw}.bias"], padding=w[f"{dw}.weight"].shape[2] // 2, groups=len(w[f"{dw}.bias"]))
            for dw, part in zip(
                ("local_dwc", "global_dwc_s", "global_dwc_m", "global_dwc_l"), x0.mean(axis).chunk(4, 1), strict=True
            )
        ] if (x0 := x if name == "h" else original) is not None else []
        gate = F.group_norm(torch.cat(pieces, 1), 4, w[f"norm_{name}.weight"], w[f"norm_{name}.bias"], EPS)
        gate = (gate.softmax(2) if softmax else gate.sigmoid()).unsqueeze(axis)
        if name == "h":
            original, rows = x, gate
        else:
            x = original * rows * gate
    if pool == "recombination":
        y = F.pixel_unshuffle(x, window)
        raise NotImplementedError(y)
    y = (F.avg_pool2d if pool == "avg" else F.max_pool2d)(x, window, window)
    y = F.group_norm(y, 1, w["norm.weight"], w["norm.bias"], EPS)
    q, k, v = (F.conv2d(y, w[f"{name}.weight"], w.get(f"{name}.bias"), groups=channels) for name in "qkv")
    q, k, v = (each.reshape(n, heads, channels // heads, -1) for each in (q, k, v))
    attended = (q @ k.transpose(2, 3) * (channels // heads) ** -0.5).softmax(-1) @ v
    gate = attended.mean(3).reshape(n, channels, 1, 1)
    return x * (gate.softmax(1) if softmax else gate.sigmoid())


def gam(w: Weights, x: torch.Tensor, *, sigmoid: bool, shuffle: bool = False) -> torch.Tensor:
    gate = dense(w, "channel_attention.2", F.relu(dense(w, "channel_attention.0", x)))
    x = x * (gate.sigmoid() if sigmoid else gate)
    y = F.relu(norm(w, "spatial_attention.1", conv(w, "spatial_attention.0", x)))
    gate = norm(w, "spatial_attention.4", conv(w, "spatial_attention.3", y)).sigmoid()
    return x * (F.channel_shuffle(gate, 4) if shuffle else gate)
