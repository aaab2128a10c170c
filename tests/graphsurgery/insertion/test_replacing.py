"""Blocks in the place of parts: what stays, what is recorded, and that the original comes back to the byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, parser

import graphsurgery as gsx
from graphsurgery.errors import InsertionError, RequestError, SiteError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.graph.part import Part
from graphsurgery.insertion.plan import PlannedInsertion
from graphsurgery.insertion.replacing import replace_parts
from graphsurgery.modelfile import limits
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from graphsurgery.selection.sites import Site, SiteFinder
from graphsurgery.userblocks import make_block
from tests import models
from tests.models import node, value, weight

CHANNELS, HIDDEN = 8, 2
MAP = (1, CHANNELS, 6, 6)
ECA = {"after": "tensor:y"}
SIMAM = {"after": "tensor:a"}


def gated(
    *, opset: int = 17, ir_version: int = 8, hidden: int = HIDDEN, channels: int = CHANNELS, dtype: Any = np.float32
) -> ModelProto:
    """A convolution, an SE whose nodes stand among others, and a convolution; the SE's inner shapes are declared."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = (1, channels, 6, 6)
    nodes = [
        node("Conv", ["x", "c1.weight"], ["a"], "/c1/Conv", kernel_shape=[1, 1]),
        node("GlobalAveragePool", ["a"], ["p"], "/se/GlobalAveragePool"),
        node("Relu", ["a"], ["side"], "/side/Relu"),
        node("Conv", ["p", "se.fc1.weight", "se.fc1.bias"], ["q"], "/se/fc1/Conv", kernel_shape=[1, 1]),
        node("Relu", ["q"], ["r"], "/se/Relu"),
        node("Conv", ["r", "se.fc2.weight", "se.fc2.bias"], ["s"], "/se/fc2/Conv", kernel_shape=[1, 1]),
        node("Sigmoid", ["s"], ["g"], "/se/Sigmoid"),
        node("Neg", ["side"], ["other"], "/side/Neg"),
        node("Mul", ["a", "g"], ["y"], "/se/Mul"),
        node("Conv", ["y", "c2.weight"], ["z"], "/c2/Conv", kernel_shape=[1, 1]),
        node("Add", ["z", "other"], ["out"], "/Add"),
    ]
    weights = [
        weight("c1.weight", (channels, 3, 1, 1), dtype),
        weight("se.fc1.weight", (hidden, channels, 1, 1), dtype),
        weight("se.fc1.bias", (hidden,), dtype),
        weight("se.fc2.weight", (channels, hidden, 1, 1), dtype),
        weight("se.fc2.bias", (channels,), dtype),
        weight("c2.weight", (channels, channels, 1, 1), dtype),
    ]
    declared = [value("a", shape, kind), value("q", (1, hidden, 1, 1), kind), value("y", shape, kind)]
    ends = [value("x", (1, 3, 6, 6), kind)], [value("out", shape, kind)]
    return models.model(nodes, *ends, weights, opset=opset, ir_version=ir_version, value_info=declared)


def replaced(model: Any, module: str = "eca", place: str = "/se", **more: Any) -> ModelFile:
    return gsx.insert(model, module, in_place_of=place, **more)


def given(model: ModelFile | ModelProto) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(ModelFile.load(model).to_bytes())
    (x,) = session.get_inputs()
    kind = np.float16 if x.type == "tensor(float16)" else np.float32
    found: np.ndarray[Any, Any] = session.run(None, {x.name: _image(x.shape, kind)})[0]
    return found


def _image(shape: Sequence[int], kind: Any) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(kind)


# ---------------------------------------------------------------------- in and out


@pytest.mark.parametrize("ir_version", [3, 8])
def test_what_stood_there_comes_back_to_the_byte(ir_version: int) -> None:
    model = gated(ir_version=ir_version)
    edited = replaced(model)
    onnx.checker.check_model(edited.proto(), full_check=True)
    kept = [each.name for each in edited.graph.node if not each.name.startswith("/se/")]
    assert kept == ["/c1/Conv", "/side/Relu", "/side/Neg", "/c2/Conv", "/Add"]
    (insertion,) = edited.insertions()
    assert insertion.origin == "in place of 6 nodes"
    assert insertion.site.consumers == ("/c2/Conv",)
    assert insertion.site.position == "in place of"
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()
    assert not np.array_equal(given(edited), given(model))


def test_a_consumer_reads_what_it_read() -> None:
    edited = replaced(gated()).graph
    (reader,) = (each for each in edited.node if each.name == "/c2/Conv")
    assert reader == next(each for each in gated().graph.node if each.name == "/c2/Conv")


STEPS: dict[str, Callable[[ModelFile], ModelFile]] = {
    "replace": lambda model: replaced(model, "eca", "/se"),
    "in front": lambda model: gsx.insert(model, "simam", **SIMAM),
    "behind": lambda model: gsx.insert(model, "srm", **ECA),
    "the other branch": lambda model: gsx.insert(model, "simam", after="tensor:side"),
}


FEW = (
    ("replace", "in front", "behind", "the other branch"),
    ("the other branch", "behind", "in front", "replace"),
    ("in front", "replace", "the other branch", "behind"),
)


@pytest.mark.parametrize("order", FEW, ids=", ".join)
def test_blocks_put_in_and_taken_out_again(order: Sequence[str]) -> None:
    _in_and_out(order, [(0, 1, 2, 3), (3, 1, 0, 2)])


@pytest.mark.long
@pytest.mark.parametrize("order", [each for each in permutations(STEPS) if each not in FEW], ids=", ".join)
def test_blocks_put_in_and_taken_out_in_any_order(order: Sequence[str]) -> None:
    _in_and_out(order, list(permutations(range(len(STEPS)))))


def _in_and_out(order: Sequence[str], ways: Sequence[Sequence[int]]) -> None:
    """Blocks put in, and taken out one after the other in each of several orders."""
    model = edited = ModelFile.load(gated())
    for step in order:
        edited = STEPS[step](edited)
    onnx.checker.check_model(edited.proto(), full_check=True)
    assert gsx.remove(edited).to_bytes() == model.to_bytes()
    ids = [each.id for each in edited.insertions()]
    for way in ways:
        left = edited
        for each in way:
            left = gsx.remove(left, ids[each])
            onnx.checker.check_model(left.proto())
        assert left.to_bytes() == model.to_bytes()


def test_taking_out_a_block_leaves_the_records_of_the_others_right() -> None:
    edited = STEPS["replace"](STEPS["in front"](ModelFile.load(gated())))
    front = next(each for each in edited.insertions() if each.module == "simam")
    assert "/se/GlobalAveragePool" not in front.site.consumers
    (front,) = gsx.remove(edited, "se.eca").insertions()
    assert set(front.site.consumers) == {"/se/GlobalAveragePool", "/se/Mul", "/side/Relu"}


def test_several_in_one_recipe_refer_to_the_model_as_it_was_given() -> None:
    model = gated()
    recipe = gsx.Recipe.of(
        [{"module": "simam", **SIMAM}, {"module": "eca", "in_place_of": "/se"}, {"module": "srm", "after": "tensor:y"}]
    )
    edited = gsx.apply(recipe, model)
    onnx.checker.check_model(edited.proto(), full_check=True)
    assert {each.module.split("[")[0] for each in edited.insertions()} == {"simam", "eca", "srm"}
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()


def test_the_output_of_the_model_keeps_its_name() -> None:
    model = gated()
    del model.graph.node[-2:]
    model.graph.output[0].CopyFrom(value("y", MAP))
    edited = gsx.insert(replaced(model), "simam", after="tensor:y")
    assert [each.name for each in edited.graph.output] == ["y"]
    for ids in permutations(each.id for each in edited.insertions()):
        assert gsx.remove(gsx.remove(edited, ids[0]), ids[1]).to_bytes() == model.SerializeToString()


# ---------------------------------------------------------------------- constants


def test_constants_that_nothing_reads_are_kept_in_the_record() -> None:
    edited = replaced(gated())
    assert [each.name for each in edited.graph.initializer if each.name.startswith("se.fc")] == []
    assert "q" not in {each.name for each in edited.graph.value_info}


def test_a_large_constant_stays_in_the_file_and_is_named() -> None:
    model = gated(hidden=128, channels=256)
    assert model.graph.initializer[1].ByteSize() > limits.KEPT_CONSTANT_BYTES
    edited = replaced(model)
    (insertion,) = edited.insertions()
    assert insertion.replaced is not None
    assert insertion.replaced.left == ("se.fc1.weight", "se.fc2.weight")
    assert {"se.fc1.weight", "se.fc2.weight"} < {each.name for each in edited.graph.initializer}
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()


def test_constants_with_the_right_bytes_are_read_where_they_are(tmp_path: Path) -> None:
    model = ModelFile.load(gated())
    weights = {f"fc{n}.{kind}": model.tensor(f"se.fc{n}.{kind}") for n in (1, 2) for kind in ("weight", "bias")}
    file = {name: values.astype(np.float32) for name, values in weights.items()}
    np.savez(tmp_path / "se.npz", **file)
    edited = replaced(model, "se", weights=str(tmp_path / "se.npz"))
    (insertion,) = edited.insertions()
    assert insertion.replaced is not None
    assert set(insertion.replaced.reused) == {f"se.{key}" for key in weights}
    assert insertion.added == ()
    assert edited.structure.graph.initializer == model.structure.graph.initializer
    assert {key: values.tolist() for key, values in insertion.weights(edited).items()} == {
        key: values.astype(np.float64).tolist() for key, values in file.items()
    }
    np.testing.assert_allclose(given(edited), given(model.proto()), rtol=0, atol=1e-5)
    assert gsx.remove(edited).to_bytes() == model.to_bytes()


def test_external_data_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(gated(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = path.read_bytes()
    edited = replaced(path)
    (insertion,) = edited.insertions()
    assert insertion.replaced is not None
    assert len(insertion.replaced.left) == 4
    assert gsx.remove(edited).to_bytes() == before


def test_a_constant_that_others_read_stays() -> None:
    model = gated()
    model.graph.node.append(node("Identity", ["se.fc2.bias"], ["bias"], "/more/Identity"))
    model.graph.output.append(value("bias", (CHANNELS,)))
    edited = replaced(model)
    assert "se.fc2.bias" in {each.name for each in edited.graph.initializer}
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()


# ---------------------------------------------------------------------- nothing in its place


def test_attention_is_taken_out() -> None:
    model = gated()
    edited = replaced(model, "nothing")
    without = gated()
    for each in without.graph.node:
        if each.name == "/c2/Conv":
            each.input[0] = "a"
    np.testing.assert_array_equal(given(edited), given(without))
    assert gsx.verify(edited, providers="cpu").passed
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()


def test_nothing_stands_only_where_something_stood() -> None:
    with pytest.raises(RequestError, match=r"nothing can only stand in_place_of= something"):
        gsx.insert(gated(), "nothing", after="/c1")


# ---------------------------------------------------------------------- functions

IN_A_FUNCTION = """<ir_version: 9, opset_import: ["":17, "b":1]>
g (float[1,8,6,6] x) => (float[1,8,6,6] y) {
  [first] a = b.Stage(x)
  [second] y = b.Stage(a)
}
<opset_import: ["":17], domain: "b">
Stage (x) => (y) {
  c = Relu(x)
  m = GlobalAveragePool(c)
  n = Neg(x)
  s = Sigmoid(m)
  z = Mul(c, s)
  y = Add(z, n)
}
"""


def test_a_part_of_a_function_is_replaced_in_the_function() -> None:
    model = ModelFile.load(parser.parse_model(IN_A_FUNCTION))
    key = ("b", "Stage", "")
    feature = FeatureMap(CHANNELS, 6, 6, "float32", 1)
    site = Site("c", MAP, "float32", None, None, None, (), False, position="in place of", function=key)
    block = make_block("simam")
    request = Request("simam", in_place_of=("tensor:z",))
    part = Part((1, 3, 4), "c", "z", feature, key)
    planned = PlannedInsertion(request, block, site, lambda seed, id: {}, "default", part=part)
    edited, _ = replace_parts(SiteFinder(model), model, [planned])
    made = edited.proto()
    onnx.checker.check_model(made, full_check=True)
    assert made.graph == model.proto().graph
    assert [each.op_type for each in made.functions[0].node[:2]] == ["Relu", "Neg"]
    assert gsx.verify(edited, providers="cpu").passed
    assert gsx.remove(edited).to_bytes() == model.to_bytes()


def test_what_stood_in_a_function_is_rebuilt_to_compare_with() -> None:
    """It was no SimAM: that has to show, and nothing else."""
    model = ModelFile.load(parser.parse_model(IN_A_FUNCTION))
    feature = FeatureMap(CHANNELS, 6, 6, "float32", 1)
    key = ("b", "Stage", "")
    site = Site("c", MAP, "float32", None, None, None, (), False, position="in place of", function=key)
    part = Part((1, 3, 4), "c", "z", feature, key)
    request = Request("simam", in_place_of=("tensor:z",))
    planned = PlannedInsertion(request, make_block("simam"), site, lambda seed, id: {}, "weights", part=part, same=True)
    (insertion,) = gsx.verify(replace_parts(SiteFinder(model), model, [planned])[0], providers="cpu").insertions
    (failed,) = (row for row in insertion.rows if row.verdict == "failed")
    assert failed.mode == "what it replaced"
    assert failed.comparisons > 10
    assert insertion.connected.passed


# ---------------------------------------------------------------------- what is refused


def test_what_changes_the_shape_is_refused() -> None:
    with pytest.raises(SiteError, match=r"c1 takes x \[1, 3, 6, 6\] and gives a \[1, 8, 6, 6\]; .* keeps the shape"):
        replaced(gated(), place="/c1")


def test_an_insertion_inside_is_refused() -> None:
    inside = gsx.insert(two_in_a_row(), "simam", after="tensor:b")
    with pytest.raises(SiteError, match=r"m has the insertion m.first.simam in it; take that out first"):
        replaced(inside, place="/m")


def two_in_a_row() -> ModelProto:
    nodes = [
        node("Sigmoid", ["x"], ["b"], "/m/first/Sigmoid"),
        node("Mul", ["x", "b"], ["c"], "/m/Mul"),
        node("Relu", ["c"], ["y"], "/Relu"),
    ]
    return models.model(nodes, [value("x", MAP)], [value("y", MAP)])


@pytest.mark.parametrize(
    "more", [{"qdq": "int8"}, {"after": "/c1"}, {"consumers": "/c2"}, {"init": "calibrated", "images": "x"}]
)
def test_what_does_not_go_with_it(more: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="in_place_of="):
        replaced(gated(), **more)


def test_adopt_says_why_it_cannot_put_such_a_record_back() -> None:
    edited = replaced(gated()).proto()
    del edited.metadata_props[:]
    with pytest.raises(InsertionError, match="what stood in the place of the block went with its record"):
        gsx.adopt(edited, gsx.Recipe.of([{"module": "eca", "in_place_of": "/se"}]))


def test_a_damaged_record_is_told() -> None:
    edited = replaced(gated()).proto()
    entry = edited.metadata_props[0]
    (insertion,) = ModelFile.load(edited).insertions()
    assert insertion.replaced is not None
    entry.value = entry.value.replace(insertion.replaced.fields, insertion.replaced.fields[:-8] + "AAAAAAA=")
    with pytest.raises(InsertionError, match="damaged"):
        gsx.remove(edited)


def test_records_of_blocks_that_replace_nothing_are_as_before() -> None:
    (entry,) = gsx.insert(gated(), "simam", **SIMAM).proto().metadata_props
    assert "replaced" not in entry.value
    (entry,) = replaced(gated()).proto().metadata_props
    assert entry.value.startswith('{"format":5,')
