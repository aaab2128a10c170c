"""The matcher: expressions, and what makes a match a block."""

from __future__ import annotations

from graphsurgery.graph.index import GraphIndex
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition.block import RecognisedBlock
from graphsurgery.recognition.graph_view import View
from graphsurgery.recognition.matcher import Matcher
from graphsurgery.recognition.pattern import Chain, Each, Half, OneOf, Op, Part, Pattern, Value
from graphsurgery.recognition.strides import Strides
from tests.patterns.detector.graphs import graph


def found(pattern: Pattern, body: str, at: str = "y", others: tuple[Pattern, ...] = ()) -> list[RecognisedBlock]:
    view = View(GraphIndex(ModelFile.load(graph(body))))
    return [b for b in Matcher(view, Strides(view), [pattern, *others]).ending_at(at) if b.type == pattern.name]


RELU = Pattern("Relu", "", Op("Relu", Value()))


def test_one_expression_is_one_tensor() -> None:
    x = Value()
    pattern = Pattern("P", "", Op("Concat", Op("Relu", x), Op("Sigmoid", x)))
    assert found(pattern, "a = Relu(x) b = Sigmoid(x) y = Concat <axis = 1> (a, b)")
    assert not found(pattern, "n = Neg(x) a = Relu(x) b = Sigmoid(n) y = Concat <axis = 1> (a, b)")


def test_one_expression_is_one_tensor_in_each_of_several_patterns() -> None:
    x = Value()
    inner = Op("Relu", x)
    once, twice = Pattern("Once", "", inner), Pattern("Twice", "", Op("Add", x, inner))
    for others, body, count in (((once,), "y = Add(x, a)", 1), ((once,), "n = Neg(x) y = Add(n, a)", 0)):
        assert len(found(twice, f"a = Relu(x) {body}", others=others)) == count
    chained = Pattern("Chained", "", Chain("m", lambda previous, _: Op("Add", x, previous), Op("Neg", Value())))
    assert found(chained, "n = Neg(x) a = Add(x, n) y = Add(a, x)", others=(once,))
    assert not found(chained, "n = Neg(x) a = Add(x, n) y = Add(a, n)", others=(once,)), "x is x in every link"


def test_a_greedy_match_goes_on_with_what_is_calculated_from_it_alone() -> None:
    x = Value()
    negative = Op("Neg", x)
    pattern = Pattern("P", "", OneOf(negative, Op("Mul", negative, Op("Sigmoid", negative))), greedy=True)
    body = "n = Neg(x) g = Sigmoid(n) m = Mul(g, n) y = Add(m, x)"
    assert [len(block.nodes) for block in found(pattern, body, at="m")] == [3]
    assert not found(pattern, body, at="n")
    assert found(pattern, "n = Neg(x) g = Sigmoid(x) m = Mul(g, n) y = Relu(m)", at="n")


def test_what_patterns_have_in_common_is_matched_once() -> None:
    asked = []
    common = Op("Relu", Value(), where=lambda view, position: asked.append(position) is None)
    patterns = [Pattern(name, "", common) for name in ("P", "Q", "R")]
    view = View(GraphIndex(ModelFile.load(graph("y = Relu(x)"))))
    assert [block.type for block in Matcher(view, Strides(view), patterns).ending_at("y")] == ["P", "Q", "R"]
    assert asked == [0]


def test_sums_and_products_match_in_either_order() -> None:
    pattern = Pattern("P", "", Op("Add", Op("Relu", Value()), Op("Sigmoid", Value())))
    for order in ("a, b", "b, a"):
        assert found(pattern, f"a = Relu(x) b = Sigmoid(x) y = Add({order})")
    ordered = Pattern("P", "", Op("Concat", Op("Relu", Value()), Op("Sigmoid", Value())))
    assert not found(ordered, "a = Relu(x) b = Sigmoid(x) y = Concat <axis = 1> (b, a)")


def test_what_others_read_is_no_inside() -> None:
    pattern = Pattern("P", "", Op("Sigmoid", Op("Relu", Value())))
    assert found(pattern, "a = Relu(x) y = Sigmoid(a)")
    assert not found(pattern, "a = Relu(x) b = Sigmoid(a) y = Add(a, b)", at="b")
    assert found(pattern, "a = Relu(x) s = Shape(a) y = Sigmoid(a)"), "who asks for the shape reads no values"


def test_a_chain_is_numbered_from_its_beginning() -> None:
    chain = Chain("m", lambda previous, name: Part(name, "Relu", previous), Op("Neg", Value()))
    (block,) = found(Pattern("P", "", chain), "n = Neg(x) a = Relu(n) b = Relu(a) y = Relu(b)", others=(RELU,))
    assert [(name, part.output) for name, part in block.parts] == [("m.0", "a"), ("m.1", "b"), ("m.2", "y")]


def test_each_link_of_a_chain_in_a_concatenation() -> None:
    start = Op("Neg", Value())
    each = Each("m", lambda previous, name: Part(name, "Relu", previous), start)
    pattern = Pattern("P", "", Op("Concat", start, each))
    body = "n = Neg(x) a = Relu(n) b = Relu(a) y = Concat <axis = 1> (n, a, b)"
    (block,) = found(pattern, body, others=(RELU,))
    assert [name for name, _ in block.parts] == ["m.0", "m.1"]
    assert not found(pattern, body.replace("(n, a, b)", "(n, b, a)"), others=(RELU,))


def test_halves() -> None:
    source = Op("Neg", Value())
    pattern = Pattern("P", "", Op("Add", Half(source, 0), Op("Relu", Half(source, 1))))
    split = "n = Neg(x) a, b = Split <axis = 1, num_outputs = 2> (n)"
    assert found(pattern, f"{split} r = Relu(b) y = Add(a, r)")
    assert not found(pattern, f"{split} r = Relu(a) y = Add(b, r)")


def test_the_same_pattern_inside_of_itself_is_not_a_part() -> None:
    x = Value()
    pattern = Pattern("P", "", Op("Add", x, Op("Relu", x)))
    assert [sorted(b.nodes) for b in found(pattern, "r = Relu(x) y = Add(x, r)")] == [[0, 1]]


def test_a_cycle_ends() -> None:
    model = graph("a = Relu(b) b = Sigmoid(a) y = Add(x, b)")
    view = View(GraphIndex(ModelFile.load(model)))
    matcher = Matcher(view, Strides(view), [RELU])
    assert not [block for name in ("b", "y") for block in matcher.ending_at(name)]
    assert 0 not in view.order, "nodes of a cycle have no place in the order"
