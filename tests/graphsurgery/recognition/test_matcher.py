"""The matcher: expressions, and what makes a match a block."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto, helper

from graphsurgery.graph.index import GraphIndex
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition.block import RecognisedBlock
from graphsurgery.recognition.graph_view import View
from graphsurgery.recognition.matcher import Matcher
from graphsurgery.recognition.pattern import Chain, Each, Half, OneOf, Op, Part, Pattern, TokenPath, Value
from graphsurgery.recognition.strides import Strides
from tests.patterns.detector.graphs import graph


def matcher(model: ModelProto, *patterns: Pattern) -> Matcher:
    view = View(GraphIndex(ModelFile.load(model)))
    return Matcher(view, Strides(view), patterns)


def found(
    pattern: Pattern, body: str | ModelProto, at: str = "y", others: tuple[Pattern, ...] = ()
) -> list[RecognisedBlock]:
    model = graph(body) if isinstance(body, str) else body
    return [b for b in matcher(model, pattern, *others).ending_at(at) if b.type == pattern.name]


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


def test_a_greedy_match_does_not_go_on_with_what_needs_another_value() -> None:
    x = Value()
    pattern = Pattern("P", "", OneOf(Op("Neg", x), Op("Add", Op("Neg", x), Value())), greedy=True)
    assert found(pattern, "n = Neg(x) y = Add(n, x)", at="n")
    assert not found(pattern, "n = Neg(x) y = Add(n, n)", at="n")


def test_what_patterns_have_in_common_is_matched_once() -> None:
    asked = []
    common = Op("Relu", Value(), where=lambda view, position: asked.append(position) is None)
    patterns = [Pattern(name, "", common) for name in ("P", "Q", "R")]
    assert [block.type for block in matcher(graph("y = Relu(x)"), *patterns).ending_at("y")] == ["P", "Q", "R"]
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


@pytest.mark.parametrize(("least", "lengths"), [(0, [0, 1, 2]), (1, [1, 2]), (2, [2])])
def test_a_chain_has_a_least_length(least: int, lengths: list[int]) -> None:
    chain = Chain("m", lambda previous, name: Part(name, "Relu", previous), Op("Neg", Value()), least=least)
    bodies = ["y = Neg(x)", "n = Neg(x) y = Relu(n)", "n = Neg(x) a = Relu(n) y = Relu(a)"]
    pattern = Pattern("P", "", chain)
    assert [length for length, body in enumerate(bodies) if found(pattern, body, others=(RELU,))] == lengths


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
    searched = matcher(graph("a = Relu(b) b = Sigmoid(a) y = Add(x, b)"), RELU)
    assert not [block for name in ("b", "y") for block in searched.ending_at(name)]
    assert 0 not in searched.view.order, "nodes of a cycle have no place in the order"


INSIDE = Pattern("P", "", Op("Sigmoid", Op("Relu", Value())))


@pytest.mark.parametrize(("body", "output"), [("", "a"), ("i = Identity(a)", "i")])
def test_an_output_of_the_model_is_no_inside(body: str, output: str) -> None:
    model = graph(f"a = Relu(x) {body} y = Sigmoid(a)")
    assert found(INSIDE, model)
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    assert not found(INSIDE, model)


def test_what_a_subgraph_captures_is_no_inside() -> None:
    result = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Neg", ["a"], ["o"])], "branch", [], [result])
    model = graph("a = Relu(x) y = Sigmoid(a)")
    model.graph.node.append(helper.make_node("If", ["really"], ["z"], then_branch=branch, else_branch=branch))
    model.graph.input.append(helper.make_tensor_value_info("really", TensorProto.BOOL, []))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert not found(INSIDE, model)


def test_parts_do_not_overlap() -> None:
    x = Value()
    pattern = Pattern("P", "", Op("Add", Part("one", "Relu", x), Part("two", "Relu", x)))
    assert found(pattern, "a = Relu(x) b = Relu(x) y = Add(a, b)", others=(RELU,))
    assert not found(pattern, "a = Relu(x) y = Add(a, a)", others=(RELU,))


def test_a_part_has_one_entry() -> None:
    pair = Pattern("Pair", "", Op("Concat", Value(), Value()))
    pattern = Pattern("P", "", Op("Relu", Part("pair", "Pair", Value())))
    assert found(pattern, "k = Concat <axis = 1> (x, x) y = Relu(k)", others=(pair,))
    assert not found(pattern, "n = Neg(x) k = Concat <axis = 1> (x, n) y = Relu(k)", others=(pair,))


def test_a_part_meets_all_of_its_conditions() -> None:
    for conditions, count in (((), 1), (lambda block: True, 1), ((lambda b: True, lambda b: b.output == "x"), 0)):
        assert (
            len(found(Pattern("P", "", Part("part", "Relu", Value(), conditions)), "y = Relu(x)", "y", (RELU,)))
            == count
        )


def test_the_largest_blocks_that_do_not_overlap_are_kept() -> None:
    triple = Pattern("Triple", "", Op("Neg", Op("Sigmoid", Op("Relu", Value()))))
    searched = matcher(graph("a = Relu(x) b = Sigmoid(a) c = Neg(b) d = Relu(c) y = Exp(d)"), RELU, INSIDE, triple)
    assert [(block.type, block.output) for block in searched.outermost()] == [("Triple", "c"), ("Relu", "d")]


def test_only_the_first_operand_is_looked_at() -> None:
    assert found(
        Pattern("P", "", Op("Concat", Op("Relu", Value()), first=True)), "a = Relu(x) y = Concat<axis=1>(a, x)"
    )
    assert not found(Pattern("P", "", Op("Concat", Op("Relu", Value()))), "a = Relu(x) y = Concat<axis=1>(a, x)")


TOKENS = "c = Conv(x, w) d = Conv(x, w) t = Transpose <perm = [0,2,3,1]> (c) u = Transpose <perm = [0,2,3,1]> ({0}) "


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        (TokenPath(Value()), "c", 1),
        (TokenPath(Value()), "d", 0),  # two maps
        (TokenPath(Value(), contains=["MatMul", ("Neg", "Transpose")]), "c", 1),
        (TokenPath(Value(), contains=["MatMul", "Softmax"]), "c", 0),
        (TokenPath(Value(), ends=("MatMul", "Reshape")), "c", 1),
        (TokenPath(Value(), ends="Reshape"), "c", 0),
    ],
)
def test_a_path_on_tokens_comes_from_one_map(path: TokenPath, source: str, count: int) -> None:
    model = graph(f"{TOKENS.format(source)} y = MatMul(t, u)", w=(8, 8, 1, 1))
    blocks = found(Pattern("P", "", path), model)
    assert [(block.entries, len(block.nodes)) for block in blocks] == [(("c",), 3)] * count


def test_a_pattern_may_have_itself_as_a_part_but_does_not_begin_with_itself() -> None:
    x = Value()
    nested = Pattern("Nested", "", OneOf(Op("Relu", x), Op("Neg", Part("inner", "Nested", x))))
    (block,) = found(nested, "a = Relu(x) b = Neg(a) y = Neg(b)")
    assert [each.output for each in block.everything()] == ["a", "b", "y"]
    endless = Pattern("Endless", "", OneOf(Part("inner", "Endless", x), Op("Relu", x)))
    (block,) = found(endless, "y = Relu(x)")
    assert block.parts == ()


def test_the_old_name_of_a_token_path() -> None:
    from graphsurgery.recognition import pattern

    with pytest.warns(DeprecationWarning, match="TokenPath"):
        assert pattern.Beyond is TokenPath
    with pytest.raises(AttributeError, match="Above"):
        pattern.Above  # noqa: B018
