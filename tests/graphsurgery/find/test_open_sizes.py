"""find: blocks whose sizes the exporter computes elsewhere, in models that leave sizes open."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery.blocks.registry import catalogue_block
from graphsurgery.feature_map import FeatureMap
from graphsurgery.find import find
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.rewriting import rewrite
from graphsurgery.verification.report import Mode, Verdict
from tests.find.recovery import Net, trained

MAP = FeatureMap(32, 16, 16, batch=1)
STRIDE = 8
IMAGES = ((1, 3, 128, 128), (1, 3, 192, 320))


class Strided(Net):
    """The net with maps smaller than its image."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block, MAP.channels)
        self.before = nn.Conv2d(3, MAP.channels, STRIDE, STRIDE)


def by_dynamo(module: nn.Module, *open_axes: int) -> ModelFile:
    """A net with the module, with these axes of its image left open."""
    net = Strided(module).float().eval()
    shapes = (dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC),)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        image = torch.rand(2 if 0 in open_axes else 1, *IMAGES[0][1:])
        made = torch.onnx.export(net, (image,), dynamo=True, opset_version=18, dynamic_shapes=shapes, verbose=False)
    assert made is not None
    return ModelFile.load(made.model_proto.SerializeToString())


def by_torchscript(module: nn.Module) -> ModelFile:
    """The same by the other exporter, with height and width open."""
    net, data = Strided(module).float().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"image": {2: "height", 3: "width"}}
        image = (torch.rand(IMAGES[0]),)
        torch.onnx.export(net, image, data, dynamo=False, opset_version=17, input_names=["image"], dynamic_axes=axes)
    return ModelFile.load(data.getvalue())


def output(model: ModelFile, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image})
    return np.asarray(found)


def block(spelled: str, settings: Mapping[str, object]) -> nn.Module:
    return trained(catalogue_block(spelled, settings), MAP)


@pytest.mark.parametrize(
    ("spelled", "settings", "open_axes"),
    [
        ("simam", {}, (2, 3)),
        ("psablock[yolo11]", {}, (2, 3)),
        pytest.param("swin[shifted]", {}, (0,), marks=pytest.mark.long),
        pytest.param("psablock[yolo11]", {}, (0, 2, 3), marks=pytest.mark.long),
    ],
)
def test_a_block_whose_sizes_come_from_the_input(
    spelled: str, settings: dict[str, object], open_axes: tuple[int, ...]
) -> None:
    model = by_dynamo(block(spelled, settings), *open_axes)
    (found,) = find(model)
    assert (found.block and found.block.spelled, found.proven) == (spelled, True)
    assert None in found.part.shape
    assert not any(model.graph.node[each].op_type == "Shape" for each in found.part.nodes)


@pytest.mark.parametrize("spelled", ["simam", "psablock[yolo11]"])
def test_it_is_rewritten_verified_and_taken_back(spelled: str) -> None:
    model = by_dynamo(block(spelled, {}), 2, 3)
    done = rewrite(model, force_form=True)
    assert len(done.rewritten) == 1
    report = gsx.verify(done.model, providers="cpu")
    assert report.passed
    (replaced,) = (row for row in report.insertions[0].rows if row.mode is Mode.REPLACED)
    assert replaced.verdict is Verdict.PASSED
    assert replaced.comparisons == 2  # at two sizes of the image
    for shape in IMAGES:
        image = np.random.default_rng(0).random(shape, np.float32)
        np.testing.assert_allclose(output(done.model, image), output(model, image), rtol=1e-4, atol=1e-5)
    assert gsx.remove(done.model).to_bytes() == model.to_bytes()


def test_it_is_taken_out() -> None:
    model = by_dynamo(block("simam", {}), 2, 3)
    without = gsx.insert(model, "nothing", in_place_of=find(model)[0].place)
    plain = by_dynamo(nn.Identity(), 2, 3)
    torch.manual_seed(0)
    image = np.random.default_rng(0).random(IMAGES[1], np.float32)
    assert output(without, image).shape == output(plain, image).shape
    assert gsx.remove(without).to_bytes() == model.to_bytes()


class OfTheHeight(nn.Module):
    """Squeeze-and-excitation with logits that are multiplied by a share of the height: 1 at the first size tried."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()) * (x.shape[2] / 256)
        return x * gate.sigmoid()


def test_what_is_a_block_at_one_size_alone_is_none() -> None:
    (found,) = find(by_dynamo(OfTheHeight(), 2, 3)) or [None]
    assert found is None or not found.proven


def test_a_block_that_cannot_be_written_for_open_sizes_is_left() -> None:
    """Area Attention on four areas: which sizes these divide, nobody knows."""
    model = by_torchscript(block("psablock[area]", {"area": 4}))
    (found,) = find(model)
    assert found.block is not None
    assert (found.proven, found.block.spelled, found.block.values["area"]) == (True, "psablock[area]", 4)
    done = rewrite(model)
    assert not done.rewritten
    assert done.model.to_bytes() == model.to_bytes()
    assert "cuts the map into areas" in done.left[0].reason
