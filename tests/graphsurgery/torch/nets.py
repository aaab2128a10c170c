"""Small networks to attach blocks to, and what tests ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphsurgery import torch as gt

IMAGE = (1, 3, 32, 32)


class Conv(nn.Module):
    """Convolution, BatchNorm, SiLU, with the shared activation and the fusion of Ultralytics."""

    default_act = nn.SiLU()

    def __init__(self, inner: int, outer: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outer)
        self.act = self.default_act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def forward_fuse(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class C2f(nn.Module):
    """Two halves, one of which goes through bottlenecks."""

    def __init__(self, channels: int, count: int = 1) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 1)
        self.m = nn.ModuleList(
            nn.Sequential(Conv(channels // 2, channels // 2), Conv(channels // 2, channels // 2)) for _ in range(count)
        )
        self.cv2 = Conv(channels + count * channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Concat(nn.Module):
    """Several maps as one."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Head(nn.Module):
    """One convolution for maps of all sizes, as RetinaNet has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(channels, channels, 1)
        self.box = nn.Conv2d(channels, 4, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([self.box(self.shared(each).relu()).flatten(2) for each in maps], 2)


class Net(nn.Module):
    """A detector in small: a backbone with a C2f, a neck with a Concat, and a head that gives [N, 4, boxes]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 16, stride=2)
        self.c2f = C2f(16)
        self.down = Conv(16, 16, stride=2)
        self.stage = nn.Sequential(Conv(16, 16), nn.Sequential(Conv(16, 16)))
        self.up = nn.Upsample(scale_factor=2)
        self.concat = Concat()
        self.out = Conv(32, 16)
        self.drop = nn.Dropout(0.1)
        self.unused = Conv(16, 16)
        self.head = Head(16)
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        p1 = self.c2f(self.stem(x))
        p2 = self.stage(self.down(p1))
        p1 = self.drop(self.out(self.concat([self.up(p2), p1])))
        return self.head(list(self.pair(p1, p2).values()))

    def fuse(self) -> Net:
        """What Ultralytics does before it predicts or exports."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.conv = nn.utils.fuse_conv_bn_eval(module.conv, module.bn)
                del module.bn
                module.forward = module.forward_fuse
        return self


class Pair(nn.Module):
    """Two maps in, and out as a dictionary."""

    def forward(self, high: Tensor, low: Tensor) -> dict[str, Tensor]:
        return {"high": high + 0, "low": low + 0}


def net(seed: int = 0) -> Net:
    """The network, in evaluation mode, with statistics like those of a trained one."""
    torch.manual_seed(seed)
    made = Net().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.1, 0.5)
            module.running_mean.normal_(0, 0.1)
    return made


def image(seed: int = 1) -> Tensor:
    return torch.rand(IMAGE, generator=torch.Generator().manual_seed(seed))


def entry(module: str, after: str, **keys: object) -> Mapping[str, object]:
    """One entry of a recipe."""
    return {"module": module, "after": after, **keys}


def open_gates(model: nn.Module, alpha: float = 0.7) -> None:
    """Let the blocks behind residual gates do something."""
    with torch.no_grad():
        for name, parameter in gt.block_parameters(model):
            if name.endswith(".alpha"):
                parameter.fill_(alpha)


def run(model: nn.Module, x: Any) -> Tensor:
    """The output, without gradients."""
    with torch.no_grad():
        result: Tensor = model(x)
    return result


def state(model: nn.Module) -> dict[str, Any]:
    """All that an error must leave alone: attributes, hooks, children, parameters and buffers of every module."""
    found: dict[str, Any] = {"rng": torch.get_rng_state().tolist()}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            inner = {key: id(each) for key, each in value.items()} if isinstance(value, dict) else None
            found[f"{path}.{name}"] = (id(value), inner)
        for key, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            found[f"{path}.{key}"] = (value.requires_grad, value.tolist())
    return found
