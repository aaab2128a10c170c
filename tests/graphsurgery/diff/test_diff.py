"""What changed between two models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.diff.diff import SECTIONS, Difference, diff
from graphsurgery.errors import ExternalDataError
from tests import models
from tests.counting import calls

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
Model = onnx.ModelProto


def value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def build(nodes: list[onnx.NodeProto], count: int = 1) -> Model:
    """A model around nodes that lead from x to y, with weights w0, w1 ..."""
    weights = [numpy_helper.from_array(np.full((2, 3), i, np.float32), f"w{i}") for i in range(count)]
    graph = helper.make_graph(nodes, "g", [value("x", [2, 3])], [value("y", [2, 3])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(length: int, name: Callable[[int], str] = "n{}".format) -> list[onnx.NodeProto]:
    names = ["x", *(f"t{i}" for i in range(1, length)), "y"]
    return [helper.make_node("Relu", [names[i]], [names[i + 1]], name=name(i)) for i in range(length)]


def compare(a: Model, b: Model) -> Difference:
    return diff(gsx.ModelFile.load(a), gsx.ModelFile.load(b), names=("a", "b"))


def changes(difference: Difference) -> dict[str, list[tuple[str, str, tuple[str, ...]]]]:
    return {
        section: [(change.kind, change.name, change.details) for change in found]
        for section, found in difference.changes.items()
    }


def edited(edit: Callable[[Model], object], nodes: list[onnx.NodeProto] | None = None) -> Difference:
    """The difference that an edit makes to a small model."""
    before = build(nodes or chain(4), 2)
    after = Model.FromString(before.SerializeToString())
    edit(after)
    return compare(before, after)


def test_identical() -> None:
    model = gsx.ModelFile.load(DETECTOR)
    for other in (model, gsx.ModelFile.load(DETECTOR), gsx.ModelFile.load(DETECTOR.read_bytes())):
        difference = diff(model, other, names=("a", "b"))
        assert difference.empty
        assert difference.lines() == ["a and b are identical"]
        assert difference.to_json()["identical"] is True


def test_an_insertion_and_its_removal_mirror_each_other() -> None:
    before = gsx.ModelFile.load(DETECTOR)
    after = gsx.insert(before, "se", after=["/model.4", "/model.8"])
    there, back = diff(before, after), diff(after, before)
    found = changes(there)
    assert [c for c in found["nodes"] if c[0] == "changed"] == [
        ("changed", "/model.5/conv/Conv", (arrow("/model.4", "se", 0),)),
        ("changed", "/model.9/cv1/conv/Conv", (arrow("/model.8", "se", 0),)),
        ("changed", "/model.14/Concat", (arrow("/model.4", "se", 1),)),
    ]
    assert {c[1] for c in found["nodes"] if c[0] == "added"} == {n for i in after.insertions() for n in i.nodes}
    assert {c[1] for c in found["initializers"]} == {n for i in after.insertions() for n in i.initializers}
    assert set(found) == {"nodes", "initializers", "value_info", "metadata"}
    assert there.notes == ()
    for section in SECTIONS:
        a, b = there.to_json()[section], back.to_json()[section]
        assert {c["name"] for c in a["added"]} == {c["name"] for c in b["removed"]}
        assert len(a["changed"]) == len(b["changed"])


def arrow(path: str, block: str, position: int) -> str:
    return f"input {position}: {path}/cv2/act/Mul_output_0 -> {path}/{block}/Mul_output_0"


def test_attributes() -> None:
    def edit(model: Model) -> None:
        model.graph.node[0].attribute[0].f = 2.0
        del model.graph.node[1].attribute[:]
        model.graph.node[2].attribute.append(helper.make_attribute("axes", [1, 2]))

    nodes = chain(4)
    nodes[0].attribute.append(helper.make_attribute("alpha", 1.0))
    nodes[1].attribute.append(helper.make_attribute("mode", "nearest"))
    assert changes(edited(edit, nodes)) == {
        "nodes": [
            ("changed", "n0", ("attribute alpha: 1.0 -> 2.0",)),
            ("changed", "n1", ("attribute mode: nearest -> (none)",)),
            ("changed", "n2", ("attribute axes: (none) -> [1, 2]",)),
        ]
    }


def test_operator_inputs_and_outputs() -> None:
    def edit(model: Model) -> None:
        model.graph.node[1].op_type = "PRelu"
        model.graph.node[1].input.append("w0")
        model.graph.node[2].output[0] = "other"
        model.graph.node[3].input[0] = "other"

    assert changes(edited(edit))["nodes"] == [
        ("changed", "n1", ("op_type: Relu -> PRelu", "input 1: (absent) -> w0")),
        ("changed", "n2", ("output 0: t3 -> other",)),
        ("changed", "n3", ("input 0: t3 -> other",)),
    ]


def test_a_renamed_node_is_found_by_its_output() -> None:
    found = changes(edited(lambda model: setattr(model.graph.node[1], "name", "renamed")))
    assert found == {"nodes": [("changed", "renamed", ("name: n1 -> renamed",))]}


def test_a_nameless_node_is_found_by_what_it_reads() -> None:
    def edit(model: Model) -> None:
        model.graph.node[1].output[0] = model.graph.node[2].input[0] = "other"

    assert changes(edited(edit, chain(4, lambda i: ""))) == {
        "nodes": [
            ("changed", "the node that makes other", ("output 0: t2 -> other",)),
            ("changed", "the node that makes t3", ("input 0: t2 -> other",)),
        ]
    }


def test_a_name_says_more_than_an_output() -> None:
    def edit(model: Model) -> None:
        first, second = model.graph.node[0].output, model.graph.node[1].output
        first[0], second[0] = second[0], first[0]

    assert changes(edited(edit, chain(4)))["nodes"] == [
        ("changed", "n0", ("output 0: t1 -> t2",)),
        ("changed", "n1", ("output 0: t2 -> t1",)),
    ]


def test_metadata_of_a_node() -> None:
    def edit(model: Model) -> None:
        model.graph.node[1].metadata_props.add(key="layer", value="7")

    assert changes(edited(edit)) == {"nodes": [("changed", "n1", ("metadata layer: (none) -> 7",))]}


@pytest.mark.parametrize("name", ["", "same"])
def test_blank_and_duplicate_names(name: str) -> None:
    def edit(model: Model) -> None:
        model.graph.node[2].doc_string = "changed"
        del model.graph.node[0]

    found = changes(edited(edit, chain(6, lambda i: name)))["nodes"]
    label = name or "the node that makes t3"
    assert found == [
        ("removed", name or "the node that makes t1", ()),
        ("changed", label, ("doc_string: (none) -> changed",)),
    ]


def test_equal_nodes_are_counted() -> None:
    def edit(model: Model) -> None:
        model.graph.node.insert(0, model.graph.node[0])

    node = helper.make_node("Constant", [], [], value_float=1.0)
    found = changes(edited(edit, [node, node, *chain(2)]))
    assert found == {"nodes": [("added", "a node without name or output", ())]}


def test_order() -> None:
    def edit(model: Model) -> None:
        moved = model.graph.node.pop(1)
        model.graph.node.append(moved)

    difference = edited(edit)
    assert (difference.changes, difference.notes) == ({}, ("1 node moved to another place in the order",))
    assert not difference.empty


def test_weights() -> None:
    def edit(model: Model) -> None:
        model.graph.initializer[0].raw_data = np.arange(6, dtype=np.float32).tobytes()
        changed = numpy_helper.from_array(np.zeros((3, 2), np.float16), "w1")
        model.graph.initializer[1].CopyFrom(changed)
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "new"))

    assert changes(edited(edit)) == {
        "initializers": [
            ("changed", "w0", ("its values differ, or are stored in another way",)),
            ("changed", "w1", ("float [2, 3] -> float16 [3, 2]",)),
            ("added", "new", ()),
        ]
    }
    described = edited(lambda model: setattr(model.graph.initializer[0], "doc_string", "trained"))
    assert changes(described) == {"initializers": [("changed", "w0", ("doc_string: (none) -> trained",))]}


def test_large_weights_are_compared_to_the_last_byte(tmp_path: Path) -> None:
    weight = np.zeros(700_000, np.float32)
    paths = []
    for last in (0.0, 1.0):
        weight[-1] = last
        model = build([*chain(1), helper.make_node("Constant", [], ["c"], name="c")])
        model.graph.node[1].attribute.append(helper.make_attribute("value", numpy_helper.from_array(weight)))
        model.graph.initializer.append(numpy_helper.from_array(weight, "large"))
        paths.append(tmp_path / f"{last}.onnx")
        onnx.save(model, paths[-1])
    found = changes(diff(*(gsx.ModelFile.load(path) for path in paths)))
    assert [c[1] for c in found["initializers"]] == ["large"]
    assert found["nodes"] == [("changed", "c", ("its contents differ (weights in it, or fields unknown to onnx)",))]


def test_everything_else() -> None:
    def edit(model: Model) -> None:
        model.ir_version = 9
        model.producer_name = "other"
        model.graph.name = "h"
        model.opset_import[0].version = 18
        model.opset_import.append(helper.make_opsetid("custom", 1))
        model.metadata_props.add(key="names", value="{0: 'cat'}")
        model.graph.value_info.append(value("t1", [2, 3]))
        model.graph.output[0].CopyFrom(value("y", ["n", 3]))
        model.graph.input.append(value("extra", [1]))
        body = helper.make_node("Relu", ["a"], ["b"])
        model.functions.append(helper.make_function("custom", "f", ["a"], ["b"], [body], model.opset_import))

    found = edited(edit)
    assert changes(found) == {
        "value_info": [("added", "t1", ())],
        "inputs": [("added", "extra", ())],
        "outputs": [("changed", "y", ("float [2, 3] -> float [n, 3]",))],
        "metadata": [("added", "names", ())],
        "opsets": [("changed", "ai.onnx", ("version 17 -> version 18",)), ("added", "custom", ())],
        "functions": [("added", "custom::f", ())],
        "header": [
            ("changed", "ir_version", ("8 -> 9",)),
            ("changed", "producer_name", ("(none) -> other",)),
            ("changed", "graph.name", ("g -> h",)),
        ],
    }
    lines = found.lines()
    assert "outputs: 1 changed" in lines
    assert "  ~ y  float [n, 3]" in lines
    assert "      float [2, 3] -> float [n, 3]" in lines
    data = json.loads(json.dumps(found.to_json()))
    assert list(data) == ["a", "b", "identical", "notes", *SECTIONS]
    assert data["metadata"]["added"] == [{"name": "names", "what": "{0: 'cat'}", "details": []}]


def test_nested_graphs() -> None:
    def model(inner: str) -> Model:
        body = helper.make_graph([helper.make_node("Relu", [inner], ["r"], name="r")], "b", [], [value("r", [2, 3])])
        branch = helper.make_node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=body)
        return build([helper.make_node("Relu", ["x"], ["t"], name="t"), branch])

    (change,) = compare(model("x"), model("t")).changes["nodes"]
    assert change.details == (
        "attribute else_branch: r: input 0: x -> t",
        "attribute then_branch: r: input 0: x -> t",
    )


def test_only_the_encoding_differs() -> None:
    data = build(chain(2)).SerializeToString()
    unknown = data + b"\xa2\x06\x01x"  # field 100, which onnx does not have
    difference = diff(gsx.ModelFile.load(data), gsx.ModelFile.load(unknown))
    assert difference.changes == {}
    assert len(difference.notes) == 1
    assert "identical" not in " ".join(difference.lines())


def test_external_data(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "model.onnx")
        values = np.ones((40, 40), np.float32) * (2 if name == "c" else 1)
        model = build(chain(1))
        model.graph.initializer.append(numpy_helper.from_array(values, "outside"))
        onnx.save(model, paths[-1], save_as_external_data=True, location="w.bin", size_threshold=1024)
    a, b, c = (gsx.ModelFile.load(path) for path in paths)
    assert diff(a, b).empty
    assert changes(diff(a, c)) == {"initializers": [("changed", "outside", ("its values differ",))]}
    (tmp_path / "b" / "w.bin").write_bytes(bytes(100))
    with pytest.raises(ExternalDataError, match=r"w\.bin"):
        diff(a, b)
    (tmp_path / "b" / "w.bin").unlink()
    with pytest.raises(ExternalDataError, match="is missing"):
        diff(a, b)


def test_another_place_in_the_same_external_file(tmp_path: Path) -> None:
    def at(offset: int) -> gsx.ModelFile:
        model = build(chain(1))
        weight = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT, dims=[4])
        weight.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "w.bin"), ("offset", str(offset)), ("length", "16")):
            weight.external_data.add(key=key, value=text)
        path = tmp_path / f"at{offset}.onnx"
        path.write_bytes(model.SerializeToString())
        return gsx.ModelFile.load(path)

    (tmp_path / "w.bin").write_bytes(np.arange(12, dtype=np.float32).tobytes())
    assert changes(diff(at(0), at(16))) == {
        "initializers": [("changed", "outside", ("external offset: 0 -> 16", "its values differ"))]
    }


def test_it_reads_well_in_a_shell_and_a_notebook() -> None:
    found = diff(DETECTOR, gsx.insert(DETECTOR, "simam", after="/model.8").to_bytes(), names=("a", "<b>"))
    assert repr(found).startswith("<Difference of a and <b>: nodes: ")
    assert str(found).splitlines() == found.lines()
    table = found._repr_html_()
    assert table.count("<tr>") == 1 + sum(len(each) for each in found.changes.values())
    assert "<td>/model.9/cv1/conv/Conv</td>" in table
    assert repr(diff(DETECTOR, DETECTOR)) == "<Difference of detector.onnx and detector.onnx: identical>"


def test_large_graphs_take_work_in_proportion() -> None:
    def work(length: int) -> int:
        nodes = chain(length, lambda i: "" if i % 3 else f"n{i % 100}")
        before = gsx.ModelFile.load(build(nodes))
        for node in nodes[::2]:
            node.doc_string = "x"
        after = gsx.ModelFile.load(build(nodes[::-1]))
        assert before.structure
        assert after.structure
        found, count = calls(lambda: diff(before, after))
        assert len(found.changes["nodes"]) == length // 2
        return count

    assert work(20_000) < 15 * work(2_000)  # with the square it would be 100 times


def strings(message: Message) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Every string in a message: its kind, and what sets it."""
    for field in message.DESCRIPTOR.fields:
        kind, found = f"{message.DESCRIPTOR.name}.{field.name}", getattr(message, field.name)
        repeated = not isinstance(found, str | bytes | int | float | Message)
        if field.type == field.TYPE_STRING and repeated:
            yield from ((kind, lambda text, i=i, found=found: found.__setitem__(i, text)) for i in range(len(found)))
        elif field.type == field.TYPE_STRING:
            yield kind, lambda text, name=field.name: setattr(message, name, text)
        elif field.type == field.TYPE_MESSAGE and repeated:
            for each in found:
                yield from strings(each)
        elif field.type == field.TYPE_MESSAGE and message.HasField(field.name):
            yield from strings(found)


@pytest.mark.parametrize("build", [models.kitchen_sink, models.detector])
def test_strings_that_are_not_utf_8_are_spelled_out(build: Callable[[], Model]) -> None:
    before = gsx.ModelFile.load(build())
    kinds = []
    for i, (kind, _) in enumerate(strings(build())):
        if kind in kinds:
            continue
        kinds.append(kind)
        changed = build()
        list(strings(changed))[i][1]("not text")
        after = gsx.ModelFile.load(changed.SerializeToString().replace(b"not text", b"\xff\xfe\xfd text"))
        for difference in (diff(before, after), diff(after, before)):
            shown = json.dumps(difference.to_json()), str(difference), difference._repr_html_()
            assert not any("b'" in text or "b&#x27;" in text for text in shown), kind
    assert {"NodeProto.name", "NodeProto.op_type", "TensorProto.name", "ValueInfoProto.name"} <= set(kinds)


def test_a_name_that_is_not_utf_8() -> None:
    before = build(chain(2)).SerializeToString()
    (change,) = diff(before, before.replace(b"n0", b"\xff0")).changes["nodes"]
    assert (change.name, change.details) == (r"\xff0", (r"name: n0 -> \xff0",))
