"""Layouts are followed from the operators, upstream and downstream, and not known where these do not tell."""

from __future__ import annotations

import random

import onnx
import pytest

from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.layouts import Layouts
from graphsurgery.modelfile.model import ModelFile
from tests.models import weight

_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "qonnx.custom_op.channels_last", "lab")
_LAST, _FIRST = "Transpose <perm = [0, 2, 3, 1]>", "Transpose <perm = [0, 3, 1, 2]>"


def layouts(nodes: str, x: str = "float[1, 8, 8, 8] x") -> Layouts:
    imports = ", ".join(f'"{domain}": 1' for domain in _DOMAINS)
    text = (
        f'<ir_version: 8, opset_import: ["": 17, {imports}]> g ({x}) => (float[N, A, B, C] y) '
        f"<float[4] s = {{1, 2, 2, 1}}> {{ {nodes} }}"
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend([weight("w", (8, 8, 1, 1)), weight("m", (8, 8)), weight("b", (8,))])
    return Layouts(GraphIndex(ModelFile.load(model)))


def told(found: Layouts, *names: str) -> list[str | None]:
    return ["NCHW" if found.is_channels_first(name) else found.foreign(name) for name in names]


def test_a_transpose_behind_a_convolution_gives_nhwc_and_elementwise_operators_keep_it() -> None:
    found = layouts(f"a = Conv (x, w) n = {_LAST} (a) c = Mul (n, b) d = Relu (c) e = Add (n, d) y = {_FIRST} (e)")
    assert told(found, "x", "a", "n", "c", "d", "e", "y") == ["NCHW", "NCHW", *["NHWC"] * 4, "NCHW"]


def test_what_is_transposed_into_a_convolution_is_nhwc() -> None:
    found = layouts(f"a = Mul (x, b) t = {_FIRST} (a) y = Conv (t, w)")
    assert told(found, "x", "a", "t", "y") == ["NHWC", "NHWC", "NCHW", "NCHW"]


def test_a_sibling_of_what_a_convolution_reads_has_its_layout() -> None:
    found = layouts(f"r = Relu (x) t = {_FIRST} (x) c = Conv (t, w) n = {_LAST} (c) y = Concat <axis = 3> (n, r)")
    assert told(found, "r", "y") == ["NHWC", "NHWC"]


def test_other_orders_of_the_axes_are_named() -> None:
    found = layouts("a = Conv (x, w) y = Transpose <perm = [0, 2, 1, 3]> (a)")
    assert told(found, "y") == ["NHCW"]


@pytest.mark.parametrize("ending", ["Flatten", "Squeeze", "Shape", "ReduceMean <keepdims = 0>"])
def test_a_layout_ends(ending: str) -> None:
    found = layouts(f"a = Conv (x, w) n = {_LAST} (a) e = {ending} (n) y = Relu (e)")
    assert told(found, "n", "e", "y") == ["NHWC", None, None]


def test_a_linear_layer_keeps_the_channels_last() -> None:
    found = layouts(f"a = Conv (x, w) n = {_LAST} (a) l = MatMul (n, m) y = Relu (l)")
    assert told(found, "l", "y") == ["NHWC", "NHWC"]


def test_what_an_unknown_operator_makes_of_nhwc_is_taken_for_nhwc_unless_something_tells() -> None:
    found = layouts(f"a = Conv (x, w) n = {_LAST} (a) e = lab.MaxPool (n) y = Relu (e)")
    assert told(found, "e", "y") == ["NHWC", "NHWC"]
    told_by_reader = layouts(f"a = Conv (x, w) n = {_LAST} (a) e = lab.MaxPool (n) y = Conv (e, w)")
    assert told(told_by_reader, "n", "e") == ["NHWC", "NCHW"]
    first = layouts(f"a = Conv (x, w) e = lab.MaxPool (a) n = {_LAST} (a) y = Relu (e)")
    assert told(first, "e", "y") == [None, None]


def test_contradictions_are_not_known() -> None:
    found = layouts(f"a = Conv (x, w) n = {_LAST} (a) e = Add (a, n) r = Relu (n) y = Conv (r, w)")
    assert told(found, "a", "n", "e", "r", "y") == ["NCHW", "NHWC", None, None, "NCHW"]


def test_a_convolution_tells_more_than_one_behind_a_transpose() -> None:
    found = layouts(f"a = Relu (x) t = {_FIRST} (a) c = Conv (t, w) d = Conv (a, w) y = Add (c, d)")
    assert told(found, "x", "a") == ["NCHW", "NCHW"]


def test_a_tensor_that_two_operators_read_in_two_layouts_is_not_known() -> None:
    found = layouts("a = Relu (x) c = com.microsoft.NhwcMaxPool (a) d = Conv (a, w) y = Add (c, d)")
    assert told(found, "x", "a") == [None, None]


@pytest.mark.parametrize(
    ("node", "layout"),
    [
        ("com.ms.internal.nhwc.MaxPool <kernel_shape = [2, 2]> (x)", "NHWC"),
        ("qonnx.custom_op.channels_last.MaxPool <kernel_shape = [2, 2]> (x)", "NHWC"),
        ("com.microsoft.NhwcMaxPool <kernel_shape = [2, 2]> (x)", "NHWC"),
        ("com.microsoft.QLinearAveragePool <channels_last = 1> (x, s, s, s, s)", "NHWC"),
        ("com.microsoft.QLinearAveragePool <channels_last = 0> (x, s, s, s, s)", None),
        ('lab.MultiThreshold <data_layout = "NHWC"> (x, b)', "NHWC"),
        ("com.microsoft.nchwc.Conv (x, w)", "NCHWc"),
        ("com.microsoft.nchwc.ReorderInput (x)", "NCHWc"),
        ("com.microsoft.nchwc.ReorderOutput <channels = 8, channels_last = 1> (x)", "NHWC"),
        ("lab.MaxPool <kernel_shape = [2, 2]> (x)", None),
        ("Resize (x, , s)", None),  # nothing else in the graph moves channels
    ],
)
def test_operators_of_other_layouts(node: str, layout: str | None) -> None:
    found = layouts(f"a = {node} y = Relu (a)")
    assert [found.foreign("a"), found.foreign("y")] == [layout, layout]


def test_scales_of_a_resize_tell_where_height_and_width_are() -> None:
    found = layouts(f"r = Resize (x, , s) a = Relu (r) t = {_FIRST} (a) f = Flatten (t) y = Relu (f)")
    assert told(found, "x", "a", "t") == ["NHWC", "NHWC", "NCHW"]


def test_blocks_of_channels_end_where_they_are_reordered() -> None:
    found = layouts(
        "a = com.microsoft.nchwc.Conv (x, w) b2 = Relu (a) c = com.microsoft.nchwc.Conv (b2, w) "
        "y = com.microsoft.nchwc.ReorderOutput <channels = 8> (c)"
    )
    assert told(found, "a", "b2", "c", "y") == ["NCHWc", "NCHWc", "NCHWc", "NCHW"]


def test_a_transpose_is_taken_as_what_it_looks_like_where_nothing_else_tells() -> None:
    found = layouts(f"a = lab.Plugin (x) y = {_LAST} (a)")
    assert told(found, "a", "y") == ["NCHW", "NHWC"]
    tokens = layouts(f"a = Softmax (x) b2 = MatMul (a, a) y = {_LAST} (b2)")
    assert told(tokens, "b2", "y") == [None, None]


def test_no_transpose_no_question() -> None:
    found = layouts("a = Conv (x, w) y = Relu (a)")
    assert told(found, "a", "y") == [None, None]


class TestDetours:
    """Transposes around elementwise operators are a detour; those in front of tokens are not."""

    @pytest.mark.parametrize(
        ("nodes", "count"),
        [
            (f"a = Conv (x, w) n = {_LAST} (a) c = Relu (n) t = {_FIRST} (c) y = Conv (t, w)", 2),
            (f"t = {_FIRST} (x) y = Conv (t, w)", 1),
            (f"a = Conv (x, w) y = {_LAST} (a)", 1),
            (f"a = Conv (x, w) n = {_LAST} (a) f = Flatten (n) y = Relu (f)", 0),
            (f"a = Conv (x, w) n = {_LAST} (a) l = MatMul (n, m) t = {_FIRST} (l) y = Conv (t, w)", 0),
        ],
        ids=["elementwise", "image", "output", "tokens", "linear"],
    )
    def test_which(self, nodes: str, count: int) -> None:
        assert len(layouts(nodes).detours) == count


class TestMovedChannels:
    """Behind NHWC or tokens, what no operator tells may be NHWC; behind NCHW it is taken for NCHW."""

    @pytest.mark.parametrize(
        "nodes",
        [
            f"n = {_LAST} (a) r = Reshape (n, rows) l = MatMul (r, m) y = Reshape (l, map)",
            f'n = {_LAST} (a) y = Einsum <equation = "bhwc,cd->bhwd"> (n, m)',
            f"n = {_LAST} (a) y = Gather <axis = 3> (n, order)",
            f"n = {_LAST} (a) y = Add (a, n)",
            "f = Reshape (a, flat) n = Transpose <perm = [0, 2, 1]> (f) y = Reshape (n, map)",
            "n = Relu (a) y = Reshape (a, one)",
            "n = lab.Convolution (image, w) y = Relu (n)",
        ],
        ids=["dense", "einsum", "gather", "joined", "tokens", "one channel", "image"],
    )
    def test_behind(self, nodes: str) -> None:
        found = _behind_conv(nodes)
        assert found.foreign("y") is None
        assert found.moved("y") is not None

    @pytest.mark.parametrize(
        "nodes",
        [
            "f = Reshape (a, flat) y = Reshape (f, map)",
            "f = Reshape (a, flat) t = Transpose <perm = [0, 2, 1]> (f) r = LayerNormalization (t, b) "
            "u = Transpose <perm = [0, 2, 1]> (r) y = Reshape (u, map)",
            "f = Reshape (a, flat) t = Transpose <perm = [0, 2, 1]> (f) e = MatMul (t, f) o = MatMul (e, t) "
            "u = Transpose <perm = [0, 2, 1]> (o) y = Reshape (u, map)",
            "f = Reshape (a, flat) t = Transpose <perm = [0, 2, 1]> (f) e = MatMul (t, f) o = MatMul (f, e) "
            "y = Reshape (o, map)",
            "f = Reshape (a, groups) t = Transpose <perm = [0, 2, 1, 3, 4]> (f) y = Reshape (t, map)",
            f"n = {_LAST} (a) s = Shape (n) y = Reshape (a, s)",
            f"n = {_LAST} (a) e = Reshape (n, map) y = Conv (e, w)",
            "y = lab.Plugin (a)",
        ],
        ids=["flat", "tokens and back", "non-local", "position attention", "shuffle", "sizes", "read", "plugin"],
    )
    def test_not_behind(self, nodes: str) -> None:
        found = _behind_conv(nodes)
        assert [found.foreign("y"), found.moved("y"), found.moved("a")] == [None, None, None]


def _behind_conv(nodes: str) -> Layouts:
    shapes = {"rows": (-1, 8), "map": (1, 8, 8, 8), "flat": (1, 8, 64), "one": (1, 64, 8, 1), "groups": (1, 2, 4, 8, 8)}
    initializers = ", ".join(
        f"int64[{len(sizes)}] {name} = {{{', '.join(map(str, sizes))}}}"
        for name, sizes in {**shapes, "order": (7, 6, 5, 4, 3, 2, 1, 0)}.items()
    )
    imports = ", ".join(f'"{domain}": 1' for domain in _DOMAINS)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17, {imports}]> '
        "g (float[1, 8, 8, 8] x, float[1, 8, 8, 3] image) "
        f"=> (float[N, A, B, C] y) <{initializers}> {{ a = Conv (x, w) {nodes} }}"
    )
    model.graph.initializer.extend([weight("w", (8, 8, 1, 1)), weight("m", (8, 8)), weight("b", (8,))])
    return Layouts(GraphIndex(ModelFile.load(model)))


def test_layouts_are_followed_through_calls_of_functions() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "lab": 1]> g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] w) '
        "=> (float[N, A, B, C] y) { a = lab.Last (x, w) b = Relu (a) y = Conv (x, w) } "
        '<opset_import: ["": 17], domain: "lab"> Last (i, v) => (o) '
        f"{{ t = {_FIRST} (i) c = Conv (t, v) o = {_LAST} (c) }}"
    )
    found = Layouts(GraphIndex(ModelFile.load(model)))
    assert told(found, "a", "b") == ["NHWC", "NHWC"]


@pytest.mark.parametrize(
    "linear",
    [
        "l = MatMul (n, v)",
        "l = com.microsoft.FusedMatMul (n, m)",
        "q, z, s2 = DynamicQuantizeLinear (n) l = MatMulInteger (q, k)",
    ],
    ids=["computed weight", "fused", "integers"],
)
def test_a_linear_layer_in_every_spelling_keeps_the_channels_last(linear: str) -> None:
    found = layouts(f"a = Conv (x, w) v = Transpose <perm = [1, 0]> (m) n = {_LAST} (a) {linear} y = Relu (l)")
    assert told(found, "y") == ["NHWC"]


@pytest.mark.parametrize("seed", range(150))
def test_a_tensor_that_is_asked_for_first_has_the_layout_that_a_search_through_the_graph_finds(seed: int) -> None:
    """What is around a tensor tells it, mostly. Nodes contradict each other in these graphs, and are in any order."""
    rng = random.Random(seed)
    names, nodes = ["x"], list[str]()
    kinds = [
        "Conv ({0}, w)",
        "Relu ({0})",
        "Add ({0}, {1})",
        "Concat <axis = 1> ({0}, {1})",
        "Split <num_outputs = 2> ({0})",
        "Transpose <perm = [0, 2, 3, 1]> ({0})",
        "Transpose <perm = [0, 3, 1, 2]> ({0})",
        "Transpose <perm = [0, 1, 3, 2]> ({0})",
        "Flatten ({0})",
        "vendor.Op ({0})",
    ]
    for number in range(rng.randint(3, 16)):
        kind, outputs = rng.choice(kinds), [f"t{number}"]
        if kind.startswith("Split"):
            outputs.append(f"s{number}")
        nodes.append(f"{', '.join(outputs)} = {kind.format(rng.choice(names), rng.choice(names))}")
        names += outputs
    if seed % 3 == 0:
        rng.shuffle(nodes)
    written = "\n".join([*nodes, f"y = Identity ({names[-1]})"])
    searched = layouts(written)
    searched.moved("nothing")  # nothing around it tells anything
    for name in (*names, "y", "w"):
        asked = layouts(written)
        assert (asked.foreign(name), asked.is_channels_first(name), asked.moved(name)) == (
            searched.foreign(name),
            searched.is_channels_first(name),
            searched.moved(name),
        ), (name, written)
