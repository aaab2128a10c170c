"""find in models with local functions: parts are told in the graph or function that has them whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import graphsurgery as gsx
from graphsurgery.cli.main import main
from graphsurgery.find import Found, find
from graphsurgery.rewriting import rewrite

HEAD = """<ir_version: 9, opset_import: ["":18, "a":1]>
g (float[1,8,16,16] x) => (float[1,8,16,16] y) {
"""
GATE = """  s = Shape (x)
  p = GlobalAveragePool (x)
  f = Conv (p, {0})
  r = Relu (f)
  e = Conv (r, {1})
  g = Sigmoid (e)
"""
FUNCTION = """<opset_import: ["":18], domain: "a">
"""
WHOLE_CALL = (
    HEAD
    + """  [stem] t = Relu (x)
  [se] u = a.SE (t, w1, w2)
  y = Relu (u)
}
"""
    + FUNCTION
    + "SE (x, w1, w2) => (y) {\n"
    + GATE.format("w1", "w2")
    + "  y = Mul (x, g)\n}\n"
)
GATE_IN_A_CALL = (
    HEAD
    + """  [stem] t = Relu (x)
  [gate] k = a.Gate (t, w1, w2)
  [mul] u = Mul (t, k)
  y = Relu (u)
}
"""
    + FUNCTION
    + "Gate (x, w1, w2) => (g) {\n"
    + GATE.format("w1", "w2")
    + "}\n"
)


def model(text: str) -> onnx.ModelProto:
    """With the weights of a squeeze-and-excitation of 8 channels as initializers."""
    made = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (2, 8, 1, 1)), ("w2", (8, 2, 1, 1))):
        made.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return made


def inside(calls: int = 1, *, cut: bool = False) -> onnx.ModelProto:
    """A function with more in it than the block, which holds the weights itself. ``cut``: its gate ends outside."""
    names = ["x", *(f"t{n}" for n in range(calls - 1)), "y"]
    lines = [f"  [stage{n}] {names[n + 1]} = a.Stage ({names[n]})" for n in range(calls)]
    body = "Stage (z) => (y) {\n  x = Relu (z)\n" + GATE.format("w1", "w2") + "  u = Mul (x, g)\n  y = Relu (u)\n}\n"
    if cut:
        lines = ["  [stage0] t, g = a.Stage (x)", "  u = Mul (t, g)", "  y = Relu (u)"]
        body = "Stage (z) => (x, g) {\n  x = Relu (z)\n" + GATE.format("w1", "w2") + "}\n"
    made = model(HEAD + "\n".join(lines) + "\n}\n" + FUNCTION + body)
    constants = [onnx.helper.make_node("Constant", [], [each.name], value=each) for each in made.graph.initializer]
    nodes = [*constants, *made.functions[0].node]
    del made.graph.initializer[:], made.functions[0].node[:]
    made.functions[0].node.extend(nodes)
    return made


def only(made: onnx.ModelProto) -> Found:
    (found,) = find(made)
    assert found.block is not None
    assert found.block.spelled == "se"
    return found


def test_a_whole_call_is_replaced_in_the_graph() -> None:
    made = model(WHOLE_CALL)
    found = only(made)
    assert (found.proven, found.note, found.part.function) == (True, "", None)
    assert (found.part.nodes, found.part.input, found.part.output) == ((1,), "t", "u")
    done = gsx.rewrite(made, force_form=True)
    assert [each.module for each in done.insertions()] == ["se"]
    assert gsx.verify(done, providers="cpu").passed
    assert gsx.remove(done).to_bytes() == made.SerializeToString()


def test_a_call_and_nodes_of_the_graph() -> None:
    made = model(GATE_IN_A_CALL)
    found = only(made)
    assert (found.proven, found.part.function, found.part.nodes) == (True, None, (1, 2))
    assert gsx.remove(gsx.rewrite(made, force_form=True)).to_bytes() == made.SerializeToString()


def test_nodes_within_a_function() -> None:
    made = inside()
    found = only(made)
    assert (found.proven, found.note) == (True, "it stands in the local function 'Stage'")
    assert found.place == "tensor:u"
    assert (found.part.function, found.part.input, found.part.output) == (("a", "Stage", ""), "x", "u")
    done = gsx.rewrite(made, force_form=True)
    assert [each.function for each in done.insertions()] == [("a", "Stage", "")]
    assert gsx.verify(done, providers="cpu").passed
    assert gsx.remove(done).to_bytes() == made.SerializeToString()


def test_its_place_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, without = inside(), tmp_path / "without.onnx"
    onnx.save(made, tmp_path / "m.onnx")
    assert main(["remove", str(tmp_path / "m.onnx"), "--found", only(made).place, "-o", str(without)]) == 0
    assert gsx.verify(without, providers="cpu").passed
    assert gsx.remove(without).to_bytes() == made.SerializeToString()
    capsys.readouterr()
    assert main(["sites", str(tmp_path / "m.onnx"), "--found"]) == 0
    said = "se, tensor:u: found: 6 nodes, proven, in the local function 'Stage'"
    assert said in capsys.readouterr().out.splitlines()
    assert main(["sites", str(without), "--json"]) == 0
    (standing,) = json.loads(capsys.readouterr().out)["standing"]
    assert (standing["origin"], standing["function"]) == ("in place", ["a", "Stage", ""])


def test_a_function_that_is_called_twice_is_told_once() -> None:
    made = inside(2)
    found = only(made)
    assert found.note == "it stands in the local function 'Stage', which is called 2 times"
    done = gsx.rewrite(made, force_form=True)
    assert len(done.insertions()) == 1
    assert gsx.remove(done).to_bytes() == made.SerializeToString()


def test_weights_that_each_call_gives_are_told() -> None:
    text = WHOLE_CALL.replace("  y = Relu (u)\n}", "  v = Relu (u)\n  y = a.Stage (v, w1, w2)\n}").replace(
        "[se] u = a.SE (t, w1, w2)", "u = a.Stage (t, w1, w2)"
    )
    stage = "Stage (z, w1, w2) => (y) {\n  x = Relu (z)\n" + GATE.format("w1", "w2") + "  y = Mul (x, g)\n}\n"
    made = model(text.partition("SE (x, w1, w2) =>")[0] + stage)
    found = only(made)
    assert found.proven
    (left,) = rewrite(gsx.ModelFile.load(made), force_form=True).left
    assert left.reason.startswith("it stands in the local function 'Stage', which is called 2 times; it reads ")


def test_what_begins_in_a_function_and_ends_outside_is_said_to() -> None:
    made = inside(cut=True)
    found = only(made)
    assert (found.proven, found.note) == (False, "it begins in one local function and ends in another")
    assert gsx.rewrite(made, force_form=True).to_bytes() == made.SerializeToString()
