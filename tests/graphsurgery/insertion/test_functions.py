"""Blocks in local functions: written into the function, recorded, verified, taken out to the byte, and adopted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper, parser

import graphsurgery as gsx
from graphsurgery.errors import InsertionError, SelectorError, SiteError
from graphsurgery.modelfile.model import ModelFile

NESTED = """<ir_version: 9, opset_import: ["":17, "a":1, "b":1]>
g (float[1,8,32,32] x) => (float[1,8,16,16] y, float[1,8,16,16] z) {
  [stage] s, y = b.Stage(x, w)
  z = Exp(s)
}
<opset_import: ["":17], domain: "a">
Act <alpha: float = 0.3> (x) => (y) { [leaky] l = LeakyRelu <alpha: float = @alpha> (x)
  y = Relu(l) }
<opset_import: ["":17, "a":1], domain: "b">
Stage (x, w) => (c, y) { [__conv__Conv] c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)
  n = a.Act(c)
  m = Sigmoid(n)
  [__add__Add] y = Add(n, m) }
"""
"""a function in a function, of another domain and with a default; one of its outputs is read in it as well"""


def nested(text: str = NESTED) -> ModelProto:
    made = parser.parse_model(text)
    for node in (node for function in made.functions for node in function.node):
        node.name = node.name.replace("__", "/")
    values = np.random.default_rng(1).normal(size=(8, 8, 3, 3)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(values, "w"))
    return made


def given(model: ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = np.random.default_rng(2).normal(size=(1, 8, 32, 32)).astype(np.float32)
    found: list[np.ndarray] = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    return found


PLACES = {
    "/stage/conv": ("Stage", "c", "model output and reader"),
    "tensor:n": ("Stage", "n", "two readers"),
    "op:Stage[0]//op:LeakyRelu[0]": ("Act", "l", "a function in a function"),
}


@pytest.mark.parametrize("selector", PLACES)
def test_a_block_goes_into_the_function_and_out_again(selector: str) -> None:
    model, (function, tensor, _) = nested(), PLACES[selector]
    edited = gsx.insert(model, "simam", after=selector)
    (insertion,) = edited.insertions()
    assert insertion.function == ({"Stage": "b", "Act": "a"}[function], function, "")
    assert insertion.site.tensor.removesuffix("_before") == tensor
    assert insertion.site.shape == (1, 8, 16, 16)
    made = edited.proto()
    onnx.checker.check_model(made, full_check=True)
    assert made.graph == model.graph
    assert [each == before for each, before in zip(made.functions, model.functions, strict=True)].count(False) == 1
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()


@pytest.mark.parametrize("selector", PLACES)
def test_it_computes_what_it_does_where_the_calls_are_written_out(selector: str) -> None:
    """ONNX's inliner forgets the default of an attribute, so here the call states it."""
    model = nested(NESTED.replace("a.Act(c)", "a.Act <alpha: float = 0.3> (c)"))
    flat = onnx.inliner.inline_local_functions(model)
    at = {"/stage/conv": 0, "op:Stage[0]//op:LeakyRelu[0]": 1, "tensor:n": 2}[selector]
    outside = gsx.insert(flat, "simam", after=f"tensor:{flat.graph.node[at].output[0]}")
    found = given(gsx.insert(model, "simam", after=selector).proto())
    for here, there in zip(found, given(outside.proto()), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-6)
    assert not np.allclose(found[0], given(model)[0])


@pytest.mark.parametrize("selector", PLACES)
def test_an_identity_changes_nothing(selector: str) -> None:
    model = nested()
    edited = gsx.insert(model, "se", after=selector, settings={"reduction": 2}, gate="residual")
    for before, after in zip(given(model), given(edited.proto()), strict=True):
        np.testing.assert_array_equal(before, after)


def test_verify_compares_it_with_pytorch() -> None:
    pytest.importorskip("torch")
    model = nested()
    edited = gsx.insert(model, "se", after=[*PLACES, "tensor:y"], settings={"reduction": 2})
    report = gsx.verify(edited, providers=["cpu"], original=model)
    assert report.passed
    assert len(report.insertions) == 4
    assert report.rest.sentence == "without the insertions it is the original, byte for byte"


def test_blocks_in_functions_go_one_by_one() -> None:
    model = nested()
    one = gsx.insert(model, "simam", after="tensor:n")
    two = gsx.insert(one, "se", after="tensor:n", settings={"reduction": 2})
    both = gsx.insert(two, "simam", after="tensor:l")
    ids = [each.id for each in both.insertions()]
    assert gsx.remove(both, ids[2]).to_bytes() == two.to_bytes()
    assert gsx.remove(both, ids[1:]).to_bytes() == one.to_bytes()
    assert gsx.remove(gsx.remove(both, ids[0]), ids[1:]).to_bytes() == model.SerializeToString()


def test_in_front_of_a_module_in_a_function() -> None:
    model = nested()
    edited = gsx.insert(model, "simam", before="node:leaky")
    (insertion,) = edited.insertions()
    assert (insertion.site.tensor, insertion.site.consumers, insertion.site.position) == ("c", ("Act#1",), "before")
    assert insertion.site.others == ("output:c",)
    assert gsx.remove(edited).to_bytes() == model.SerializeToString()


CHAINS = {
    "in front of all": (("after", "tensor:c"), ("after", "tensor:c"), ("before", "node:leaky")),
    "behind a part": (("before", "node:leaky"), ("after", "tensor:c"), ("after", "tensor:n")),
    "behind an output that is read in it": (("after", "tensor:s"), ("after", "tensor:n"), ("before", "op:Exp[0]")),
    "outside, then in it": (("after", "tensor:y"), ("after", "tensor:l"), ("after", "/stage/conv")),
}


@pytest.mark.parametrize("steps", CHAINS.values(), ids=CHAINS)
def test_blocks_on_blocks_are_connected_as_their_records_say(steps: Sequence[tuple[str, str]]) -> None:
    """The reader of a part is a call without a name, which is another node of the function after each insertion."""
    pytest.importorskip("torch")
    model = edited = nested()
    for position, selector in steps:
        edited = gsx.insert(edited, "simam", **{position: selector})
    report = gsx.verify(edited, providers=["cpu"], original=model, seeds=1)
    assert report.passed, str(report)
    onnx.checker.check_model(edited.proto(), full_check=True)
    for insertion in edited.insertions():
        edited = gsx.remove(edited, insertion.id)
    assert edited.to_bytes() == model.SerializeToString()


def test_pictures_show_blocks_in_functions() -> None:
    edited = gsx.insert(nested(), "simam", after=["tensor:n", "tensor:l", "tensor:y"])
    picture = gsx.outline(edited).as_svg()
    assert [f">{each.id}<" in picture for each in edited.insertions()] == [True] * 3


def test_blocks_of_a_place_are_called_alike_whatever_stands_before_it() -> None:
    model = gsx.insert(nested(), "simam", after=["tensor:n", "/stage/conv"])
    edited = gsx.insert(model, "simam", after=["tensor:n", "/stage/conv"])
    ids = ["stage.Act#1.simam", "stage.conv.simam"]
    assert sorted(each.id for each in edited.insertions()) == [ids[0], f"{ids[0]}_1", ids[1], f"{ids[1]}_1"]


QUANTISED = """<ir_version: 9, opset_import: ["":17, "a":1]>
g (float[1,8,32,32] x) => (float[1,8,32,32] y) { [stage] y = a.F(x) }
<opset_import: ["":17], domain: "a"> F (x) => (y) {
  s = Constant <value = float {0.05}> ()
  o = Constant <value = int8 {0}> ()
  q = QuantizeLinear(x, s, o)
  d = DequantizeLinear(q, s, o)
  y = Tanh(d) }
"""


def test_the_pair_behind_a_block_in_a_function_is_verified() -> None:
    pytest.importorskip("torch")
    model = parser.parse_model(QUANTISED)
    edited = gsx.insert(model, "se", after="tensor:d", settings={"reduction": 2}, qdq="int8")
    report = gsx.verify(edited, providers=["cpu"], original=model, seeds=1)
    assert report.passed, str(report)
    assert any(row.mode == "quantised and back" for each in report.insertions for row in each.rows)


BRANCH = """<ir_version: 9, opset_import: ["":17, "a":1]>
g (float[1,8,32,32] x, bool k) => (float[1,8,32,32] y) {
  t = a.G(x)
  y = If (k) <then_branch = tb () => (float[1,8,32,32] u) { u = a.F(t) },
              else_branch = eb () => (float[1,8,32,32] v) { v = Neg(t) }>
}
<opset_import: ["":17, "a":1], domain: "a"> F (x) => (y) { c = Relu(x)
  y = a.G(c) }
<opset_import: ["":17], domain: "a"> G (x) => (y) { s = Tanh(x)
  m = Mul(x, s)
  y = Exp(m) }
"""


def test_a_call_in_a_function_that_a_branch_calls_counts() -> None:
    with pytest.raises(SelectorError, match="inside the local function 'G', where no block can be put"):
        gsx.insert(parser.parse_model(BRANCH), "simam", after="tensor:m")


def test_records_that_a_tool_dropped_are_put_back(tmp_path: Path) -> None:
    model, recipe = nested(), tmp_path / "recipe.yaml"
    recipe.write_text("insertions:\n- module: simam\n  after: ['tensor:n', 'tensor:y']\n")
    inserted = gsx.insert(model, "simam", after=["tensor:n", "tensor:y"])
    stripped = inserted.proto()
    del stripped.metadata_props[:]
    adopted = gsx.adopt(stripped, recipe)
    assert adopted.to_bytes() == inserted.to_bytes()
    assert {each.function for each in adopted.insertions()} == {None, ("b", "Stage", "")}
    assert gsx.remove(adopted).to_bytes() == model.SerializeToString()


def test_a_function_that_is_called_twice_is_left_alone() -> None:
    text = NESTED.replace("s, y = b.Stage(x, w)", "s, t = b.Stage(x, w)\n  u, v = b.Stage(x, w)\n  y = Add(t, v)")
    with pytest.raises(SiteError, match="no block can be put for that call alone: it is called 2 times; what the node"):
        gsx.insert(nested(text), "simam", after="/stage/conv")


def test_a_function_in_another_version_of_the_operators_is_left_alone() -> None:
    """onnxruntime takes the operators of a function as those of the model's version."""
    text = NESTED.replace('["":17, "a":1], domain: "b"', '["":18, "a":1], domain: "b"')
    with pytest.raises(SiteError, match="it is written in opset 18, and the model in 17"):
        gsx.insert(nested(text), "simam", after="/stage/conv")


def test_records_of_blocks_in_functions_have_a_format_of_their_own() -> None:
    """A graphsurgery from before would look for the nodes in the main graph."""
    edited = gsx.insert(nested(), "simam", after=["tensor:n", "tensor:y"])
    kept = [json.loads(each.value) for each in edited.proto().metadata_props]
    assert sorted((each["format"], each.get("function")) for each in kept) == [(1, None), (3, ["b", "Stage", ""])]


def test_a_record_of_a_function_that_is_gone() -> None:
    made = gsx.insert(nested(), "simam", after="tensor:n").proto()
    made.functions[1].name = "Other"
    made.graph.node[0].op_type = "Other"
    with pytest.raises(InsertionError, match="has no local function 'Stage', which a block was inserted into"):
        gsx.remove(ModelFile.load(made))


@pytest.mark.parametrize("after", [["/stage/conv", "tensor:z"], ["tensor:z", "/stage/conv"]])
def test_shapes_that_are_given_hold_in_the_function_too(after: list[str]) -> None:
    """In whatever order the blocks are asked for; each record has them."""
    model = parser.parse_model(
        """<ir_version: 9, opset_import: ["":17, "b":1, "my":1]>
        g (float[1,8,32,32] x) => (float[1,8,h,w] y) { canvas = my.Scatter(x)
          z = Relu(canvas)
          [stage] y = b.Stage(z) }
        <opset_import: ["":17], domain: "b">
        Stage (x) => (y) { [__conv__Conv] c = Sigmoid(x)
          y = Relu(c) }"""
    )
    model.functions[0].node[0].name = "/conv/Sigmoid"
    made = gsx.insert(model, "simam", after=after, shapes={"canvas": "1x8x16x16"})
    assert len(made.insertions()) == 2
    for insertion in made.insertions():
        assert insertion.shapes == {"canvas": (1, 8, 16, 16)}
        assert insertion.site.shape == (1, 8, 16, 16)
    assert gsx.verify(made).passed
