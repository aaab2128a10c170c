from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from graphsurgery.modelfile import wire
from graphsurgery.modelfile.source import BytesSource
from tests import models
from tests.models import field, node, parts, value

pytestmark = pytest.mark.smoke


def scan(data: bytes) -> list[wire.Field]:
    return wire.scan(BytesSource(data), 0, len(data))


# ---------------------------------------------------------------------- numbers and headers


@given(st.integers(0, 2**63), st.integers(1, 10))
def test_a_varint_reads_back(number: int, width: int) -> None:
    data = wire.varint(number, width)
    assert len(data) >= width
    assert wire._read_varint(data, 0) == (number, len(data))
    assert wire.varint(number) == models.varint(number)


@pytest.mark.parametrize(
    ("old", "length", "new"),
    [
        (b"\x0a\x05", 9, b"\x0a\x09"),
        (b"\x0a\x05", 300, b"\x0a\xac\x02"),
        (b"\x0a\x85\x80\x00", 9, b"\x0a\x89\x80\x00"),  # padded, and stays as wide
        (b"\x0a\x85\x00", 300, b"\x8a\x00\xac\x02"),  # the padding is used up: the tag keeps the mark
        (b"\x8a\x00\xac\x02", 5, b"\x0a\x85\x00"),  # and gives it back
    ],
)
def test_a_header_is_written_as_oddly_as_before(old: bytes, length: int, new: bytes) -> None:
    assert wire.header_like(old, length) == new


@given(
    tag=st.sampled_from([b"\x0a", b"\x82\x7d"]),
    old=st.integers(0, 2**31 - 1),
    width=st.integers(1, 5),
    between=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4),
)
def test_a_padded_length_survives_any_lengths_in_between(tag: bytes, old: int, width: int, between: list[int]) -> None:
    """A length of two bytes where one would do: it grows until two are needed, and shrinks again."""
    header = tag + wire.varint(old, width)
    changed = header
    for length in between:
        changed = wire.header_like(changed, length)
        _, size = wire._read_varint(changed, 0)
        assert wire._read_varint(changed, size) == (length, len(changed))
        assert size < len(tag) + 5  # protobuf reads tags of five bytes at most, and ours are one byte long
    assert wire.header_like(changed, old) == header


# ---------------------------------------------------------------------- scan


def test_scan_sees_what_protobuf_wrote() -> None:
    data = models.kitchen_sink().SerializeToString()
    found = scan(data)
    assert [(f.number, f.kind, data[f.body : f.end]) for f in found] == [tuple(p) for p in parts(data)]
    assert [f.start for f in found] == [0, *(f.end for f in found[:-1])]
    assert found[-1].end == len(data)


@pytest.mark.parametrize("gap", [1, 19, 20, 21, 2**16 - 30, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_scan_reads_on_wherever_its_window_ends(gap: int) -> None:
    contents = [bytes(gap), b"abc", bytes(gap), b"", bytes(5)] * 3
    data = b"".join(field(2000 + i, 2, content) for i, content in enumerate(contents))
    found = scan(data)
    assert [data[f.body : f.end] for f in found] == contents


def test_scan_of_many_small_fields() -> None:
    data = b"".join(field(1, 2, b"%d" % i) + field(7, 0, models.varint(i)) for i in range(20_000))
    found = scan(data)
    assert len(found) == 40_000
    assert data[found[-2].body : found[-2].end] == b"19999"


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abcd",
        b"\x0a\x80",
        b"\x08",
        b"\x08" + b"\x80" * 10 + b"\x01",
        b"\x80" * 11,
        b"\x0d\x00\x00\x00",
        b"\x09" + bytes(7),
        b"\x0b",
        b"\x0c",
        b"\x0e\x00",
        b"\x0f",
        b"\x00\x00",
        b"\x02\x00",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_scan_refuses_what_is_not_protobuf(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        scan(data)


def test_groups_are_one_field_each() -> None:
    """The oldest way to nest messages: ONNX has none, but protobuf keeps them among the unknown fields."""
    inner = field(5, 2, b"abc") + b"\x33" + field(7, 0, b"\x01") + b"\x34"  # a group 6 in it
    data = field(1, 2, b"x") + b"\x5b" + inner + b"\x5c" + field(2, 2, b"y")
    assert [(f.number, f.kind, data[f.start : f.end]) for f in scan(data)] == [
        (1, 2, field(1, 2, b"x")),
        (11, 3, b"\x5b" + inner + b"\x5c"),
        (2, 2, field(2, 2, b"y")),
    ]
    for broken in (b"\x5b", b"\x5c", b"\x5b\x64", b"\x5b\x33\x5c\x34", b"\x5b" + inner):
        with pytest.raises(wire.WireError):
            scan(broken)


@given(st.binary(max_size=300))
def test_scan_ends_on_any_bytes(data: bytes) -> None:
    try:
        found = scan(data)
    except wire.WireError:
        return
    assert b"".join(data[f.start : f.end] for f in found) == data


# ---------------------------------------------------------------------- slim


def slim(message: onnx.ModelProto | TensorProto) -> bytes:
    data = message.SerializeToString()
    return wire.slim(BytesSource(data), type(message).DESCRIPTOR, 0, len(data))


@pytest.mark.parametrize("storage", ["raw_data", "float_data", "int64_data", "string_data"])
def test_slim_leaves_out_large_payload_only(storage: str) -> None:
    tensor = TensorProto(name="t" * 2000, data_type=1, dims=[1] * 3, doc_string="d" * 3000)
    content = {
        "raw_data": bytes(5000),
        "float_data": [1.0] * 2000,
        "int64_data": [2] * 2000,
        "string_data": [b"s" * 2000],
    }
    if storage == "raw_data":
        tensor.raw_data = bytes(5000)
    else:
        getattr(tensor, storage).extend(content[storage])
    expected = TensorProto()
    expected.CopyFrom(tensor)
    expected.ClearField(storage)
    assert TensorProto.FromString(slim(tensor)) == expected


def test_slim_keeps_small_payload() -> None:
    tensor = TensorProto(name="n" * 2000, raw_data=bytes(wire.PAYLOAD_LIMIT))
    assert slim(tensor) == tensor.SerializeToString()
    tensor.raw_data = bytes(wire.PAYLOAD_LIMIT + 1)
    assert TensorProto.FromString(slim(tensor)) == TensorProto(name="n" * 2000)


def test_slim_finds_tensors_however_deep() -> None:
    deep = models.model([node("Constant", [], ["c"], value=models.weight("", (5000,)))], [], [value("c", (5000,))])
    outer = models.model(
        [node("If", ["flag"], ["y"], then_branch=deep.graph, else_branch=deep.graph)], [], [value("y", None)]
    )
    outer.training_info.add().algorithm.CopyFrom(deep.graph)
    outer.functions.add(name="f").node.extend(deep.graph.node)
    expected = models.ModelProto()
    expected.CopyFrom(outer)
    branches = [a.g for a in expected.graph.node[0].attribute]
    for owner in (*branches, expected.training_info[0].algorithm, expected.functions[0]):
        owner.node[0].attribute[0].t.ClearField("raw_data")
    assert ModelProto.FromString(slim(outer)) == expected


def test_slim_keeps_attributes_that_are_no_tensors() -> None:
    made = models.chain("Relu", "Relu")
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("values", list(range(5000))))
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("text", "x" * 5000))
    assert ModelProto.FromString(slim(made)) == made


# ---------------------------------------------------------------------- rename


def test_renaming_touches_inputs_only() -> None:
    before = node("Add", ["a", "b", "", "a"], ["a2"], "a", a="a")
    before.doc_string = "a"
    models.unknown(before, b"a")
    after = NodeProto.FromString(wire.rename_inputs(before.SerializeToString(), {b"a": b"longer/name"}))
    before.input[0] = before.input[3] = "longer/name"
    assert after == before


def test_renaming_outputs_leaves_inputs() -> None:
    before = node("Add", ["a", "b"], ["b", "a"])
    after = NodeProto.FromString(wire.rename_outputs(before.SerializeToString(), {b"a": b"c"}))
    assert (list(after.input), list(after.output)) == (["a", "b"], ["b", "c"])


def test_renaming_swaps_without_meeting_itself() -> None:
    before = node("Add", ["a", "b"], ["c"])
    after = NodeProto.FromString(wire.rename_inputs(before.SerializeToString(), {b"a": b"b", b"b": b"a"}))
    assert list(after.input) == ["b", "a"]


def branch(
    *nodes: NodeProto, gives: str, inputs: tuple[str, ...] = (), initializer: str = "", sparse: str = ""
) -> NodeProto:
    graph = onnx.helper.make_graph(list(nodes), "g", [value(i) for i in inputs], [value(gives)])
    if initializer:
        graph.initializer.append(models.weight(initializer, (1,)))
    if sparse:
        graph.sparse_initializer.add().values.name = sparse
    return node("If", ["flag"], ["y"], then_branch=graph)


@pytest.mark.parametrize(
    ("inside", "captures"),
    [
        (branch(node("Neg", ["a"], ["d"]), gives="d"), True),
        (branch(gives="a"), True),
        (branch(branch(node("Neg", ["a"], ["d"]), gives="d"), gives="y"), True),
        (branch(node("Neg", ["a"], ["d"]), gives="d", inputs=("a",)), False),
        (branch(node("Neg", ["a"], ["d"]), gives="d", initializer="a"), False),
        (branch(node("Neg", ["a"], ["d"]), gives="d", sparse="a"), False),
        (branch(node("Neg", ["x"], ["a"]), node("Neg", ["a"], ["d"]), gives="d"), False),
        (branch(branch(node("Neg", ["a"], ["d"]), gives="d"), gives="y", inputs=("a",)), False),
        (
            branch(branch(node("Neg", ["a"], ["d"]), gives="d", inputs=("a",)), node("Neg", ["a"], ["z"]), gives="z"),
            True,
        ),
    ],
)
def test_a_subgraph_keeps_its_own_names(inside: NodeProto, captures: bool) -> None:
    data = inside.SerializeToString()
    renamed = wire.rename_inputs(data, {b"a": b"renamed"})
    assert (renamed != data) == captures
    assert b"renamed" in renamed or not captures
    assert wire.rename_inputs(renamed, {b"renamed": b"a"}) == data
    if captures:
        assert _reads(NodeProto.FromString(renamed)) & {"a", "renamed"} == {"renamed"}


def _reads(proto: NodeProto) -> set[str]:
    """Outer names that a node reads, by a second way of finding them."""
    found = set(proto.input)
    for graph in models.captured_graphs(proto):
        own = {v.name for v in graph.input} | {o for n in graph.node for o in n.output}
        found |= {name for n in graph.node for name in _reads(n)} - own
        found |= {v.name for v in graph.output} - own
    return found


@given(st.integers(0, 2**32 - 1))
def test_renaming_and_back_gives_the_same_bytes_in_any_layout(seed: int) -> None:
    for data in models.nodes_of(models.with_if(shadowed=True).SerializeToString()):
        odd = models.relaid(data, seed, NodeProto.DESCRIPTOR)
        renamed = wire.rename_inputs(odd, {b"site": b"s" * 150})
        assert wire.rename_inputs(renamed, {b"s" * 150: b"site"}) == odd
        straight = NodeProto.FromString(wire.rename_inputs(data, {b"site": b"s" * 150}))
        again = NodeProto.FromString(renamed)
        assert _reads(again) == _reads(straight)


def test_field_numbers_are_onnx_own() -> None:
    assert wire.number_of(GraphProto, "node") == 1
    assert wire.number_of(ModelProto, "graph") == 7
    assert wire.number_of(TensorProto, "raw_data") == 9
