"""ONNX files whose declaration leaves sizes open and whose inside does not fit the site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphsurgery.cli.main import main
from tests import models

from .test_onnx_block import C, put, refused, saved

OPEN: models.Shape = ("n", "c", "h", "w")


def constant(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.full(shape, 0.5, np.float32), name)


def file(folder: Path, nodes: Sequence[NodeProto], constants: Sequence[TensorProto], opset: int = 17) -> str:
    x, y = (models.value(name, OPEN) for name in ("in", "out"))
    made = models.model(list(nodes), [x], [y], list(constants), opset=opset, ir_version=8 if opset < 21 else 10)
    return saved(made, folder / "b.onnx")


def node(operator: str, inputs: str, output: str = "out", **attributes: object) -> NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


GATE = [
    node("GlobalAveragePool", "in", "mean"),
    node("Conv", "mean w", "z"),
    node("Sigmoid", "z", "g"),
    node("Mul", "in g"),
]


def test_weights_for_another_number_of_channels(tmp_path: Path) -> None:
    path = file(tmp_path, GATE, [constant("w", 64, 64, 1, 1)])
    assert refused(path) == "model.2 has 16 channels; b.onnx is made for 64"
    put(file(tmp_path, GATE, [constant("w", C, C, 1, 1)]))


def test_the_command_ends_with_2_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(models.detector(), tmp_path / "m.onnx")
    file(tmp_path, GATE, [constant("w", 64, 64, 1, 1)])
    arguments = ["insert", "m.onnx", "--after", "/model.2", "--module", "b.onnx", "--no-verify", "-o", "o.onnx"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "graphsurgery: error: model.2 has 16 channels; b.onnx is made for 64\n"
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("nodes", "shapes", "reason"),
    [
        ([node("Conv", "in w")], {"w": (C, 24, 1, 1)}, "Conv: its weights are for 24 channels, and 16 arrive"),
        ([node("Conv", "in w", group=2)], {"w": (C, 16, 1, 1)}, "Conv: its weights are for 32 channels, and 16 arrive"),
        ([node("Conv", "in w b")], {"w": (C, C, 1, 1), "b": (5,)}, "Conv: its bias has 5 elements for 16 channels"),
        (
            [node("ConvTranspose", "in w")],
            {"w": (24, C, 1, 1)},
            "ConvTranspose: its weights are for 24 channels, and 16 arrive",
        ),
        (
            [node("PRelu", "in w")],
            {"w": (1, 3, 1)},
            "PRelu: its weights have the shape [1, 3, 1], and what arrives [1, 16, 8, 8]",
        ),
        (
            [node("Mul", "in w", "a"), node("Add", "a v")],
            {"w": (24, 1, 1), "v": (7, 1, 1)},
            "Mul: incompatible dimensions",
        ),
    ],
)
def test_why_it_does_not_fit(
    tmp_path: Path, nodes: list[NodeProto], shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    path = file(tmp_path, nodes, [constant(name, *shape) for name, shape in shapes.items()])
    assert refused(path) == f"b.onnx does not work on model.2, [1, 16, 8, 8]: {reason}"


def test_normalisations(tmp_path: Path) -> None:
    """They give what they are given, so that the scale alone says what they are made for."""
    scale = [constant(name, 24) for name in "sb"]
    words = "model.2 has 16 channels; b.onnx is made for 24"
    assert refused(file(tmp_path, [node("InstanceNormalization", "in s b")], scale)) == words
    recent = models.detector(opset=21, ir_version=10)
    path = file(tmp_path, [node("GroupNormalization", "in s b", num_groups=4)], scale, opset=21)
    assert refused(path, recent) == words


def test_a_number_of_positions_that_is_built_in(tmp_path: Path) -> None:
    """An exporter that traced at 10 x 10 and called the sizes dynamic all the same."""
    shapes = [numpy_helper.from_array(np.array(s), n) for n, s in (("a", [1, C, 100]), ("b", [1, C, 10, 10]))]
    nodes = [node("Reshape", "in a", "flat"), node("Softmax", "flat", "soft", axis=-1), node("Reshape", "soft b")]
    assert refused(file(tmp_path, nodes, shapes)) == (
        "b.onnx does not work on model.2, [1, 16, 8, 8]: Reshape: [1, 16, 8, 8] cannot be seen as [1, 16, 100]"
    )


def test_at_a_dynamic_site(tmp_path: Path) -> None:
    path = file(tmp_path, GATE, [constant("w", 24, 24, 1, 1)])
    dynamic = models.detector(image=("n", 3, "h", "w"))
    assert refused(path, dynamic) == "model.2 has 16 channels; b.onnx is made for 24"
