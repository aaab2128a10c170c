"""The outline of a model: its blocks in order, their places, and how they are wired."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import graphsurgery as gsx
from graphsurgery.errors import RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.edges import Edge
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.outline import outline as outline_of
from graphsurgery.outline.rows import OUTPUT, Row
from graphsurgery.recognition.matcher import Matcher
from graphsurgery.selection.sites import SiteFinder
from tests import models
from tests.exports import export
from tests.exports.dialects import DIALECTS, dialect
from tests.models import model, node, value
from tests.recognition.randomise import randomise


def outline(given: onnx.ModelProto | ModelFile) -> Outline:
    return Outline(SiteFinder(ModelFile.load(given)))


@cache
def yolov8n(*insertions: tuple[str, str]) -> Outline:
    given = ModelFile.load(export("yolov8n", "simplified"))
    for block, after in insertions:
        given = gsx.insert(given, block, after=after)
    return outline(given)


def row(rows: list[Row], name: str) -> Row:
    (found,) = [each for each in rows if each.name == name]
    return found


def test_blocks_in_order() -> None:
    rows = yolov8n().rows()
    stages = ["Conv", "C2f"] * 4
    neck = ["Upsample", "Concat", "C2f", "Upsample", "Concat", "C2f", "Conv", "Concat", "C2f", "Conv", "Concat", "C2f"]
    assert [each.type for each in rows] == ["Conv", *stages, "SPPF", *neck, "Detect"]
    assert [each.path for each in rows] == [f"/model.{i}" for i in range(23)]
    assert [each.number for each in rows if each.type == "C2f"] == list(range(8))


def test_what_a_row_says() -> None:
    found = row(yolov8n().rows(), "C2f[1]")
    assert (found.path, found.shape, found.dtype, found.stride) == ("/model.4", (1, 64, 80, 80), "float32", 8)
    assert (found.role, found.roles) == ("backbone", ("p3", "stage-ends"))
    assert found.readers == ("model.5", "model.14")
    assert found.is_advisable
    assert found.to_json()["selector"] == "C2f[1]"


def test_a_head_is_no_place() -> None:
    head = yolov8n().rows()[-1]
    assert head.site is None
    assert not head.is_advisable
    assert head.readers == (OUTPUT,)
    assert head.to_json()["reason"]


def test_parts_can_be_selected_by_their_names() -> None:
    finder = SiteFinder(ModelFile.load(export("yolov8n", "simplified")))
    rows = [each for each in Outline(finder).rows(None) if each.site]
    assert max(each.depth for each in rows) == 3
    for each in rows:
        (site,) = finder.find([each.name])
        assert site.tensor == each.tensor, each.name


def test_depth_and_what_it_hides() -> None:
    counts = [len(yolov8n().rows(depth)) for depth in (1, 2, 3)]
    assert counts[0] < counts[1] < counts[2] == len(yolov8n().rows(None))
    assert [yolov8n().hidden(depth) for depth in (1, 2, 3)] == [counts[2] - count for count in counts]


def test_readers_inside_of_a_block() -> None:
    rows = yolov8n().rows(None)
    (first,) = row(rows, "C2f[1].m.0.cv1").readers
    assert first == row(rows, "C2f[1].m.0.cv2").path.strip("/").replace("/", ".")  # type: ignore[union-attr]
    assert row(rows, "C2f[1].cv2").readers == ("model.5", "model.14")


def test_names_do_not_matter() -> None:
    named = yolov8n().rows(None)
    anonymous = outline(randomise(onnx.load(export("yolov8n", "simplified")), 1).model).rows(None)
    assert all(each.path is None for each in anonymous)
    for a, b in zip(named, anonymous, strict=True):
        assert (a.name, a.shape, a.stride, a.role, a.roles) == (b.name, b.shape, b.stride, b.role, b.roles)
        assert a.is_advisable == b.is_advisable


@pytest.mark.parametrize("kind", DIALECTS)
def test_dialects_do_not_matter(kind: str) -> None:
    """Modules that are calls of local functions included: there the file's nodes are not those that compute."""
    found, plain = outline(dialect("yolov8n", kind).model), yolov8n()
    rows = [each for each in found.rows() if not each.name.startswith("op:")]  # a Transpose behind the input
    for a, b in zip(rows, plain.rows(), strict=True):
        assert (a.type, a.stride, a.role, a.roles) == (b.type, b.stride, b.role, b.roles)
        assert a.shape == b.shape or (a.shape and b.shape and a.shape[1:] == b.shape[1:])  # Paddle's batch is open
        assert a.is_advisable == b.is_advisable, a.objection
    known = {a.name: b.name for a, b in zip(rows, plain.rows(), strict=True)}
    edges = {(known.get(edge.source), known.get(edge.target)) for edge in found.edges() if edge.source in known}
    assert edges == {(edge.source, edge.target) for edge in plain.edges() if edge.source}


def test_inserted_blocks_stand_behind_what_they_were_inserted_behind() -> None:
    found = yolov8n(("simam", "C2f[3]"), ("se", "C2f[3]"))
    behind = row(found.rows(), "C2f[3]").insertions
    assert len(behind) == 2
    assert [each.name for each in found.rows()] == [each.name for each in yolov8n().rows()]
    assert Edge("C2f[3]", "SPPF[0]", behind) in found.edges()
    assert Edge("C2f[2]", "Conv[20]", ()) in found.edges()


def test_wiring() -> None:
    edges = yolov8n().edges()
    assert edges[0] == Edge(None, "Conv[0]", ())
    assert edges[-1] == Edge("Detect[0]", None, ())
    assert {edge.source for edge in edges if edge.target == "Concat[2]"} == {"Conv[35]", "C2f[4]"}
    assert {edge.source for edge in edges if edge.target == "Detect[0]"} == {"C2f[5]", "C2f[6]", "C2f[7]"}


def _with_an_unknown_operator() -> onnx.ModelProto:
    """Convolution, an operator that no pattern knows, and a way off the plane and back between two convolutions."""
    weight = numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.float32), "w")
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["x", "w"], ["a"], **conv),
        node("Sin", ["a"], ["b"]),
        node("Conv", ["b", "w"], ["c"], **conv),
        node("Relu", ["c"], ["y"]),
    ]
    return model(nodes, [value("x")], [value("y")], [weight])


def test_nodes_in_no_block_are_listed() -> None:
    found = outline(_with_an_unknown_operator())
    assert [each.name for each in found.rows()] == ["Conv[0]", "op:Sin[0]", "Conv[1]"]
    assert [(edge.source, edge.target) for edge in found.edges()] == [
        (None, "Conv[0]"),
        ("Conv[0]", "op:Sin[0]"),
        ("op:Sin[0]", "Conv[1]"),
        ("Conv[1]", None),
    ]


# ---------------------------------------------------------------------- advice


@pytest.mark.parametrize(
    ("exported", "tensor", "said"),
    [
        (("yolov8n", "simplified"), "/model.8/cv2/conv/Conv_output_0", "and its activation"),
        (("yolov8n", "simplified"), "/model.8/cv2/act/Mul_output_0", None),
        (("yolov8n", "simplified"), "/model.22/cv2.0/cv2.0.2/Conv_output_0", "read only as tokens"),
        (("yolov8n", "simplified"), "output0", "no map of the image"),
        (("yolo11n", "simplified"), "/model.10/m/m.0/attn/qkv/conv/Conv_output_0", "read only as tokens"),
        (("yolo11n", "simplified"), "/model.10/m/m.0/attn/proj/conv/Conv_output_0", "the sum that it goes into"),
        (("rtdetr-l", "simplified"), "/model.10/conv/Conv_output_0", None),
        (("yolov8n", "qdq"), "/model.8/cv2/act/Mul_output_0", "behind the DequantizeLinear"),
        (("yolov8n", "qdq"), "/model.8/cv2/act/Mul_output_0_QuantizeLinear_Output", "quantised integers"),
        (("yolov8n", "qdq"), "/model.8/cv2/act/Mul_output_0_DequantizeLinear_Output", None),
        (("yolov8n", "qoperator"), "/model.8/cv2/act/Mul_output_0_quantized", "quantised integers"),
    ],
)
def test_objections(exported: tuple[str, str], tensor: str, said: str | None) -> None:
    finder = SiteFinder(ModelFile.load(export(*exported)))
    assert tensor in finder.index.producer
    found = finder.adviser.advice(tensor)
    assert found is None if said is None else found is not None and said in found.sentence


def test_an_objection_names_the_better_place() -> None:
    finder = SiteFinder(ModelFile.load(export("yolov8n", "simplified")))
    found = finder.adviser.advice("/model.8/cv2/conv/Conv_output_0")
    assert found is not None
    assert "use /model.8/cv2 to insert" in found.sentence
    (better,) = finder.find(["model.8.cv2"])
    assert finder.adviser.advice(better.tensor) is None


# ---------------------------------------------------------------------- size


def _stages(count: int) -> onnx.ModelProto:
    """Small C2f blocks one behind the other."""
    weights = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in {"in": (8, 8, 1, 1), "m": (4, 4, 3, 3), "out": (8, 12, 1, 1)}.items()
    ]
    nodes: list[onnx.NodeProto] = []

    def conv(x: str, weight: str, name: str) -> str:
        kernel = 3 if weight == "m" else 1
        sizes = {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", [x, weight], [f"{name}c"], **sizes))
        nodes.append(helper.make_node("Sigmoid", [f"{name}c"], [f"{name}s"]))
        nodes.append(helper.make_node("Mul", [f"{name}c", f"{name}s"], [name]))
        return name

    x = "x"
    for i in range(count):
        first = conv(x, "in", f"a{i}")
        nodes.append(helper.make_node("Split", [first], [f"l{i}", f"r{i}"], axis=1))
        inner = conv(conv(f"r{i}", "m", f"b{i}"), "m", f"d{i}")
        nodes.append(helper.make_node("Add", [f"r{i}", inner], [f"e{i}"]))
        nodes.append(helper.make_node("Concat", [f"l{i}", f"r{i}", f"e{i}"], [f"f{i}"], axis=1))
        x = conv(f"f{i}", "out", f"y{i}")
    return model(nodes, [value("x", (1, 8, 16, 16))], [value(x, (1, 8, 16, 16))], weights, opset=13)


def _work(given: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> int:
    count = 0
    solve = Matcher.solve

    def counted(*arguments: object) -> object:
        nonlocal count
        count += 1
        return solve(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Matcher, "solve", counted)
        outline(given).rows()
    return count


def test_the_work_grows_with_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (_work(_stages(count), monkeypatch) for count in (20, 80))
    assert 0 < large < 4.5 * small
    assert large / (80 * 15) < 50  # per node; without a look ahead it is more than twice that


def test_a_long_chain_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["x", *(f"t{i}" for i in range(3000)), "y"]
    nodes = [helper.make_node("Add", [names[i], names[max(i - 1, 0)]], [names[i + 1]]) for i in range(3001)]
    given = model(nodes, [value("x")], [value("y")])
    assert _work(given, monkeypatch) < 20 * 3001
    found = outline(given)
    assert found.is_empty
    assert len(found.rows()) == 3001
    assert len(found.edges()) > 3001


# ---------------------------------------------------------------------- odd models


def test_models_without_a_convolution_have_no_head() -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Relu", ["u"], ["v"])]
    assert outline(model(nodes, [value("x"), value("u")], [value("y"), value("v")])).is_empty


def test_a_cycle() -> None:
    nodes = [node("Add", ["x", "c"], ["a"]), node("Relu", ["a"], ["c"]), node("Relu", ["x"], ["y"])]
    found = outline(model(nodes, [value("x")], [value("y")]))
    assert [each.tensor for each in found.rows()] == ["y"]
    assert found.edges() == [Edge(None, "op:Relu[1]", ()), Edge("op:Relu[1]", None, ())]


def test_a_cycle_around_the_calls_of_functions() -> None:
    """The blocks are seen with the calls written out; in the file, no order leads to those of the cycle."""
    made = models.detector()
    body = [node("Identity", ["a"], ["b"])]
    made.functions.append(helper.make_function("local", "Pass", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    made.opset_import.append(helper.make_opsetid("local", 1))
    first, last = (each for each in made.graph.node if each.op_type == "Concat")
    made.graph.node.append(helper.make_node("Pass", list(last.output), ["late"], domain="local"))
    before = len(outline(made).rows())
    first.input[0] = "late"
    assert len(outline(made).rows()) < before


def test_a_python_user_sees_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model([node("Relu", ["x"], ["y"], "/a/Relu")], [value("x")], [value("y")]), path)
    found = outline_of(path)
    assert repr(found) == "<Outline of small.onnx: 1 places, 1 advisable>"
    assert str(found) == "\n".join(str(each) for each in found.rows())
    assert found._repr_html_() == found.as_svg()


def test_a_row_in_a_shell() -> None:
    assert str(row(yolov8n().rows(), "C2f[3]")) == "C2f[3]: /model.8, [1, 256, 20, 20], stride 32, backbone, advisable"


def test_nothing_is_drawn_of_a_model_without_a_map() -> None:
    flat = model([node("Relu", ["x"], ["y"])], [value("x", [2, 3])], [value("y", [2, 3])])
    found = outline(flat)
    assert found._repr_html_() is None
    with pytest.raises(RequestError, match="cannot be drawn"):
        found.as_svg()


SPLIT = """<ir_version: 9, opset_import: ["":17, "a":1]>
g (float[1,8,32,32] x) => (float[1,8,32,32] y) {
  c = Exp(x)
  p, q = Split <axis=1> (c)
  r = Tanh(q)
  y = Concat <axis=1> (p, r)
}
"""


def test_what_names_one_of_several_outputs_is_accepted() -> None:
    model = parser.parse_model(SPLIT)
    row = next(row for row in gsx.outline(model).rows() if row.type == "Split")
    assert (row.name, row.title) == ("tensor:p", "Split[0]")
    assert gsx.sites(model, row.name)[0].tensor == "p"


def test_a_block_behind_the_second_output_of_a_node_is_drawn() -> None:
    edited = gsx.insert(parser.parse_model(SPLIT), "simam", after="tensor:q")
    assert ">simam<" in gsx.outline(edited).as_svg()
