"""compare: a whole file with the whole module, on small networks of our own."""

from __future__ import annotations

import copy
import json
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.errors import ParityFailed, RequestError
from graphsurgery.torch.parity import deployed

from ..nets import entry, image, net, state
from ..test_like_a_file import exported

RECIPE = [
    {"module": "se", "after": "c2f", "settings": {"reduction": 4}, "gate": "none"},
    {"module": "simam", "after": "stage", "gate": "none"},
]


@cache
def base() -> bytes:
    """The network as it is exported."""
    return exported(net(), image())


@pytest.fixture(scope="module")
def file() -> gsx.ModelFile:
    """The network as it is deployed, with two blocks."""
    return gsx.Recipe.of(RECIPE).apply(base())


@cache
def trained() -> nn.Module:
    """The network as it was trained, with the same two blocks and weights."""
    made = net()
    gt.attach(made, RECIPE, image())
    return made


@pytest.fixture
def module() -> nn.Module:
    """A copy of it."""
    return copy.deepcopy(trained())


def changed(module: nn.Module, path: str, factor: float = 1.5) -> nn.Module:
    """A copy with one parameter multiplied."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.get_parameter(path).mul_(factor)
    return other


def test_what_was_trained_is_what_is_deployed(file: gsx.ModelFile, module: nn.Module, tmp_path: Path) -> None:
    before = state(module)
    report = gt.compare(file.save(tmp_path / "out.onnx"), module, seeds=2)
    assert report.passed
    assert report.require() is report
    assert state(module) == before
    (row,) = report.quantities
    assert row.unit == "own scale"
    assert 0 < row.error < row.permitted
    assert row.floor is not None
    assert 0 < row.floor < row.permitted
    assert (report.inserted, report.attached) == (("c2f.se", "stage.simam"), ("c2f.se", "stage.1.0.simam"))
    assert report.images == ("random image 1", "random image 2")
    assert report.first is None
    text = str(report)
    assert "the whole of what the module gives: by its own scale" in text
    assert "noise floor: the file without its insertions against the module without its blocks" in text
    assert text.splitlines()[-1].startswith("passed (torch ")
    json.dumps(report.to_json(), allow_nan=False)


def test_a_wrong_weight_in_a_block(file: gsx.ModelFile, module: nn.Module) -> None:
    report = gt.compare(file, changed(module, "c2f.se.fc2.weight", 3.0))
    assert report.first is not None
    assert report.first.path == "c2f.se"
    assert report.first.error > 10 * report.first.permitted
    (row,) = report.quantities
    assert row.floor is not None
    assert row.floor < row.permitted < row.error
    assert "the base differs" not in str(report)
    with pytest.raises(ParityFailed, match=r"the first module that differs is c2f\.se"):
        report.require()


def test_a_wrong_weight_that_no_image_shows(file: gsx.ModelFile, module: nn.Module) -> None:
    """One of a unit behind a ReLU that stays off."""
    unit, seen = module.c2f.se.fc1, list[Tensor]()
    feeds = deployed.Deployed(file).images(None, 1)[0][1]
    unit.register_forward_hook(lambda _, args, output: seen.append(output.flatten()))
    module(torch.from_numpy(next(iter(feeds.values()))))
    unit._forward_hooks.clear()
    off = int(torch.nonzero(seen[0] < 0)[0])
    with torch.no_grad():
        unit.weight[off] *= 1.2
    report = gt.compare(file, module)
    assert all(row.passed for row in report.quantities)
    assert not report.passed
    (text,) = report.weights
    assert text.startswith("fc1.weight of c2f.se is off by ")
    assert f"  weights: {text}" in report.lines()
    assert report.to_json()["weights"] == [text]
    with pytest.raises(ParityFailed, match=r"does not have the weights of the module: fc1\.weight of c2f\.se is off"):
        report.require()


def test_weights_behind_gates_that_are_shut_do_not_matter() -> None:
    entries = [{**RECIPE[0], "gate": "residual"}]
    module = net()
    gt.attach(module, entries, image())
    with torch.no_grad():
        module.c2f.se.block.fc1.weight.mul_(2)
    assert gt.compare(gsx.Recipe.of(entries).apply(base()), module).passed


@pytest.mark.parametrize(
    ("path", "named", "words"),
    [
        ("stem.conv.weight", "stem.bn", "stem.conv (Conv2d) with stem.bn folded into it"),
        ("stage.1.0.bn.weight", "stage.1.0.bn", "stage.1.0.conv (Conv2d) with stage.1.0.bn folded into it"),
        ("c2f.m.0.1.conv.weight", "c2f.m.0.1.bn", "c2f.m.0.1.conv (Conv2d) with c2f.m.0.1.bn folded into it"),
    ],
)
def test_a_wrong_weight_in_the_rest(file: gsx.ModelFile, module: nn.Module, path: str, named: str, words: str) -> None:
    report = gt.compare(file, changed(module, path))
    assert report.first is not None
    assert (report.first.path, report.first.words) == (named, words)
    assert "the base differs as well" in str(report)
    assert any("called " in each for each in report.first.skipped)
    assert not report.passed


def test_a_wrong_weight_in_a_module_that_is_called_several_times(file: gsx.ModelFile, module: nn.Module) -> None:
    """It cannot be compared, and what is behind it is named."""
    report = gt.compare(file, changed(module, "head.shared.weight"))
    assert report.first is not None
    assert report.first.path == "head"
    assert "head.shared (Conv2d): called 2 times" in report.first.skipped


def test_a_block_that_only_the_file_has(file: gsx.ModelFile) -> None:
    report = gt.compare(file, net())
    assert not report.passed
    assert report.attached == ()
    assert report.floor == "not measured: no block is attached to the module that could be taken off"
    assert report.first is not None
    assert report.first.path == "c2f"


def test_a_block_that_only_the_module_has(module: nn.Module) -> None:
    report = gt.compare(base(), module)
    assert not report.passed
    assert "has no insertions to take out" in report.floor
    assert report.first is not None
    assert report.first.path == "c2f"


def test_neither_has_a_block() -> None:
    report = gt.compare(base(), net())
    assert report.passed
    assert report.floor.startswith("the figures above are those of the base")


def test_other_blocks_in_front_of_a_block(file: gsx.ModelFile, module: nn.Module) -> None:
    """What goes wrong between the last module and a block is not the block's fault."""

    class Shifted(type(module.c2f)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            given: Tensor = super().forward(x) * 1.01
            return given

    module.c2f.__class__ = Shifted
    report = gt.compare(file, module)
    assert report.first is not None
    assert report.first.words == "what stands in front of c2f.se (SqueezeExcite)"


def test_a_checkpoint_in_half_precision_is_computed_in_float32() -> None:
    half = net().half()
    report = gt.compare(exported(copy.deepcopy(half).float(), image()), half)
    assert report.passed
    assert report.quantities[0].rounding is None
    assert half.stem.conv.weight.dtype is torch.float16  # type: ignore[union-attr]


class Named(nn.Module):
    """A detector whose outputs have names, with integers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x).flatten(2).transpose(1, 2)
        return {"boxes": found[..., :4], "scores": found[..., 4:].sigmoid(), "labels": found[..., 4:].argmax(-1)}


def named_export(module: nn.Module, names: list[str]) -> onnx.ModelProto:
    """The network with these outputs, in this order."""

    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            found = self.inner(x)
            return tuple(found[name] for name in names)

    found = onnx.load_from_string(exported(Some().eval(), image()))
    for output, name in zip(found.graph.output, names, strict=True):
        for node in found.graph.node:
            node.output[:] = [name if each == output.name else each for each in node.output]
        output.name = name
    return found


def test_outputs_are_known_by_their_names() -> None:
    torch.manual_seed(0)
    module = Named().eval()
    report = gt.compare(named_export(module, ["labels", "boxes"]), module)
    assert report.passed
    assert {row.quantity: row.unit for row in report.quantities} == {"labels": "exact", "boxes": "own scale"}
    assert "boxes, ['boxes'] of what the module gives: by its own scale" in report.outputs
    assert report.notes == ("the module gives ['scores'] as well, which the model does not",)


def test_labels_that_differ() -> None:
    torch.manual_seed(0)
    module = Named().eval()
    file = named_export(copy.deepcopy(module), ["boxes", "labels"])
    with torch.no_grad():
        module.body.bias[4:] += torch.tensor([9.0, 0, 0, 0])  # type: ignore[index]
    rows = {row.quantity: row for row in gt.compare(file, module).quantities}
    assert rows["boxes"].passed
    assert not rows["labels"].passed


def test_other_outputs() -> None:
    module = Named().eval()
    report = gt.compare(named_export(module, ["labels", "boxes"]), module.body)
    assert not report.passed
    assert report.mismatch == (
        "the model has 2 outputs (labels, boxes), and the module gives 1; compare with a module that gives the same"
    )
    with pytest.raises(ParityFailed, match="compare with a module that gives the same"):
        report.require()
    json.dumps(report.to_json(), allow_nan=False)


def test_outputs_of_another_shape() -> None:
    report = gt.compare(base(), net().stem)
    name = onnx.load_from_string(base()).graph.output[0].name
    assert report.mismatch == (
        f"{name} of the model is [1, 4, 320], and what the module gives [1, 16, 16, 16] is another output"
    )


class Choosing(nn.Module):
    """A detector that gives the rows with the highest scores, in an order that no one promises."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 6, 3, 4, 1)
        self.order = order

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.body(x).flatten(2).transpose(1, 2)
        chosen = found[..., 5].topk(len(self.order)).indices[0]
        rows = found[:, chosen[torch.tensor(self.order)]]
        return rows[..., :4], rows[..., 4:]


def test_rows_that_the_model_chose_are_compared_with_their_partners() -> None:
    report = gt.compare(exported(Choosing([0, 2, 1, 3]).eval(), image()), Choosing([3, 2, 1, 0]).eval())
    assert report.passed
    assert {row.reordered for row in report.quantities} == {2}
    assert all("rows that the model chose by score, in any order" in each for each in report.outputs)


def test_rows_that_the_model_chose_and_that_are_others() -> None:
    report = gt.compare(exported(Choosing([0, 2, 1, 3]).eval(), image()), Choosing([3, 2, 1, 1]).eval())
    assert not report.passed


def test_a_dynamic_file(module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "_SIDES", (64, 32))
    proto = onnx.load_from_string(base())
    for value in (*proto.graph.input, *proto.graph.output):
        for axis in (2, 3):
            if axis < len(value.type.tensor_type.shape.dim):
                value.type.tensor_type.shape.dim[axis].dim_param = "size"
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3, 64, 64), np.float32))
    report = gt.compare(gsx.Recipe.of(RECIPE).apply(proto), module, tmp_path)
    assert report.images == ("a.npy",)
    assert report.passed


def test_what_is_no_module(file: gsx.ModelFile) -> None:
    wrapper = type("YOLO", (nn.Module,), {"__module__": "ultralytics.models.yolo", "predictor": None})
    for wrong, sentence in [
        ("best.pt", "a file is compared with a torch.nn.Module; this is of type str"),
        (nn.Conv2d, "a file is compared with a torch.nn.Module; this is the class Conv2d"),
        (wrapper(), "YOLO is the wrapper that trains and exports; compare with its .model"),
    ]:
        with pytest.raises(RequestError) as raised:
            gt.compare(file, wrong)  # type: ignore[arg-type]
        assert str(raised.value) == sentence


def test_a_module_that_does_not_take_what_the_file_takes(file: gsx.ModelFile) -> None:
    name = file.graph.input[0].name
    with pytest.raises(RequestError, match=rf"the module fails on what the file takes \({name} \[1, 3, 32, 32\]\)"):
        gt.compare(file, nn.Linear(7, 7))


def test_a_module_that_cannot_be_copied(file: gsx.ModelFile) -> None:
    module = nn.Identity()
    module.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(RequestError, match="the module cannot be copied"):
        gt.compare(file, module)


def test_a_quantised_file() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y)
    <float s = {0.1}, int8 z = {0}> { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"""
    with pytest.raises(RequestError, match="is quantised and computes something else"):
        gt.compare(onnx.parser.parse_model(text), nn.Identity())


def test_bad_images(file: gsx.ModelFile, module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        gt.compare(file, module, tmp_path / "none")


def test_not_a_number_on_one_side(file: gsx.ModelFile, module: nn.Module) -> None:
    report = gt.compare(file, changed(module, "head.box.bias", float("nan")))
    assert not report.passed
    assert "not a number on one side" in str(report)
    json.dumps(report.to_json(), allow_nan=False)


def test_attached_by_another_recipe(file: gsx.ModelFile) -> None:
    module = net()
    gt.attach(module, [entry("simam", "c2f", gate="none"), entry("simam", "stage", gate="none")], image())
    report: Any = gt.compare(file, module)
    assert not report.passed
    assert report.first.path in ("c2f", "c2f.simam")
