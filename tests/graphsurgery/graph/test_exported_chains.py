"""Static models stay static: shape arithmetic as ``torch.onnx.export`` writes it, at every opset, not simplified."""

from __future__ import annotations

import io
from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphsurgery as gsx
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile

IMAGE = (1, 16, 16, 16)


def chunk(x: Tensor) -> Tensor:
    return torch.cat([part.relu() for part in x.chunk(2, 1)], 1)


def split(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    first, second = torch.split(x, [half, x.shape[1] - half], 1)
    return torch.cat([second, first], 1)


def halves(x: Tensor) -> Tensor:
    return torch.cat([x[:, : x.size(1) // 2], x[:, x.size(1) // 2 :]], 1)


def view(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h * w).relu().view(n, c, h, w)


def flatten(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.flatten(2).transpose(1, 2).relu().transpose(1, 2).reshape(n, c, h, w)


def unflatten(x: Tensor) -> Tensor:
    return x.flatten(2).relu().unflatten(2, (x.shape[2], x.shape[3]))


def window(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    tokens = x.permute(0, 2, 3, 1).reshape(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    windows = tokens.relu().reshape(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5)
    return windows.reshape(n, h, w, c).permute(0, 3, 1, 2)


def padded_window(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = functional.pad(x, (0, (7 - w % 7) % 7, 0, (7 - h % 7) % 7))
    tall, wide = x.shape[2:]
    parts = x.view(n, c, tall // 7, 7, wide // 7, 7).permute(0, 2, 4, 3, 5, 1).reshape(-1, 49, c)
    whole = parts.relu().view(n, tall // 7, wide // 7, 7, 7, c).permute(0, 5, 1, 3, 2, 4)
    return whole.reshape(n, c, tall, wide)[:, :, :h, :w]


def channel_shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def resize(x: Tensor) -> Tensor:
    return functional.interpolate(functional.max_pool2d(x, 2), size=x.shape[2:], mode="nearest")


def resize_by_half(x: Tensor) -> Tensor:
    small = functional.interpolate(x, scale_factor=0.5, recompute_scale_factor=True, mode="nearest")
    return functional.interpolate(small, size=[int(small.shape[2] * 2.0), int(small.shape[3] * 2.0)], mode="nearest")


def rescaled(x: Tensor) -> Tensor:
    return x * x.mean((2, 3)).view(x.size(0), -1, 1, 1).expand(x.size(0), x.size(1), x.size(2), x.size(3))


KINDS = [chunk, split, halves, view, flatten, unflatten, window, padded_window, channel_shuffle, resize, resize_by_half]
KINDS += [rescaled]
USUAL = (9, 13, 17)


class Net(nn.Module):
    def __init__(self, kind: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kind = kind
        self.before, self.after = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.kind(self.before(x)).sigmoid())
        return out


def check(kind: Callable[[Tensor], Tensor], opset: int, dynamic: bool) -> None:
    stream = io.BytesIO()
    axes = {"x": {0: "batch"}} if dynamic else None
    options = {"dynamo": False, "opset_version": opset, "input_names": ["x"], "dynamic_axes": axes}
    try:
        torch.onnx.export(Net(kind).eval(), (torch.zeros(IMAGE),), stream, **options)  # type: ignore[arg-type]
    except (torch.onnx.errors.OnnxExporterError, TypeError):
        assert opset < 13
        pytest.skip("the exporter cannot write this in so early an opset")
    model = onnx.load_from_string(stream.getvalue())
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    index = GraphIndex(ModelFile.load(model))
    table, maps = ShapeTable(index), 0
    for node in index.nodes:
        for name in node.output:
            shape = table.lookup(name)[1]
            if shape is not None and len(shape) == 4:
                maps += 1
                assert all(isinstance(size, int) for size in shape[1:]), (node.op_type, name, shape)
    assert maps >= 4
    last = model.graph.node[-1].input[0]
    assert table.lookup(last)[1] == ("batch" if dynamic else 1, *IMAGE[1:])
    (inserted,) = gsx.insert(model, "simam", after=f"tensor:{last}").insertions()
    assert len(inserted.nodes) == 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", USUAL)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_sizes_are_known(kind: Callable[[Tensor], Tensor], opset: int) -> None:
    check(kind, opset, dynamic=False)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "batch"])
@pytest.mark.parametrize("opset", range(9, 21))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_sizes_are_known_at_every_opset(kind: Callable[[Tensor], Tensor], opset: int, dynamic: bool) -> None:
    check(kind, opset, dynamic)
