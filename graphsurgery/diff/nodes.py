"""Matching and comparing the nodes of two graphs."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from itertools import zip_longest

import onnx

from ..insertion.removal import chunks
from ..messages import as_text
from ..modelfile.fields import Piece
from .changes import NONE, Change, arrow, unequal

_SMALL = 1 << 12


# ---------------------------------------------------------------------- bytes


def bytes_of(piece: Piece) -> bytes:
    """The bytes of a field or, of one with weights in it, their SHA-256."""
    if piece.end - piece.body <= _SMALL:
        return piece.content
    digest = hashlib.sha256()
    for chunk in chunks([(piece.source, piece.body, piece.end)]):
        digest.update(chunk)
    return digest.digest()


# ---------------------------------------------------------------------- matching


def match(
    a: Sequence[Hashable | None], b: Sequence[Hashable | None]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pairs of indices with equal keys, in order where keys repeat, and what is left of ``a`` and of ``b``.

    A key of None matches nothing.
    """
    places: dict[Hashable, deque[int]] = {}
    for j, key in enumerate(b):
        if key is not None:
            places.setdefault(key, deque()).append(j)
    pairs, left = [], []
    for i, key in enumerate(a):
        if key is not None and places.get(key):
            pairs.append((i, places[key].popleft()))
        else:
            left.append(i)
    matched = {j for _, j in pairs}
    return pairs, left, [j for j in range(len(b)) if j not in matched]


def _by_place(node: onnx.NodeProto) -> Hashable | None:
    return (node.name, node.op_type, *node.output) if any(node.output) else None


def _by_name(node: onnx.NodeProto) -> Hashable | None:
    return node.name or None


def _by_output(node: onnx.NodeProto) -> Hashable | None:
    return next((name for name in node.output if name), None)


def _by_input(node: onnx.NodeProto) -> Hashable | None:
    return (node.op_type, *node.input) if not node.name and any(node.input) else None


_WEAKER: tuple[Callable[[onnx.NodeProto], Hashable | None], ...] = (_by_place, _by_name, _by_output, _by_input)
"""How nodes are recognised whose bytes differ, the surest way first."""


def node_changes(
    a: Sequence[onnx.NodeProto],
    b: Sequence[onnx.NodeProto],
    a_bytes: Sequence[bytes],
    b_bytes: Sequence[bytes],
    replaced: tuple[Set[int], Set[int]] = (frozenset(), frozenset()),
) -> tuple[list[tuple[int, int]], list[Change]]:
    """The pairs of indices that belong together, and what was removed, changed (in the order of ``b``) and added.

    ``replaced``: the nodes of ``a``, and those of ``b``, that have to do with blocks in the place of something. Unless
    their bytes are the same, none of them is another one that has changed.
    """
    pairs, gone, new = match(a_bytes, b_bytes)
    apart = [i for i in gone if i in replaced[0]], [j for j in new if j in replaced[1]]
    gone, new = [i for i in gone if i not in replaced[0]], [j for j in new if j not in replaced[1]]
    changed: list[tuple[int, int]] = []
    for key in _WEAKER:
        if not gone or not new:
            break
        more, left_a, left_b = match([key(a[i]) for i in gone], [key(b[j]) for j in new])
        changed += [(gone[i], new[j]) for i, j in more]
        gone, new = [gone[i] for i in left_a], [new[j] for j in left_b]
    gone, new = sorted([*gone, *apart[0]]), sorted([*new, *apart[1]])
    found = [Change("removed", _label(a[i]), as_text(a[i].op_type)) for i in gone]
    for i, j in sorted(changed, key=lambda pair: pair[1]):
        found.append(Change("changed", _label(b[j]), as_text(b[j].op_type), tuple(_node_details(a[i], b[j]))))
    found += [Change("added", _label(b[j]), as_text(b[j].op_type)) for j in new]
    return sorted(pairs + changed), found


def in_another_order(pairs: Sequence[tuple[int, int]]) -> int:
    """At least how many pairs have moved: all but the longest run that kept its order. The pairs are sorted."""
    ends: list[int] = []
    for _, j in pairs:
        place = bisect_left(ends, j)
        ends[place : place + 1] = [j]
    return len(pairs) - len(ends)


# ---------------------------------------------------------------------- details


def _label(node: onnx.NodeProto) -> str:
    output = next((name for name in node.output if name), "")
    return as_text(node.name) or (
        f"the node that makes {as_text(output)}" if output else "a node without name or output"
    )


def _node_details(a: onnx.NodeProto, b: onnx.NodeProto) -> list[str]:
    details = []
    for field in ("name", "op_type", "domain", "overload", "doc_string"):
        old, new = getattr(a, field), getattr(b, field)
        if old != new:
            details.append(f"{field}: {arrow(old, new)}")
    for what, before, after in (("input", a.input, b.input), ("output", a.output, b.output)):
        for i, (old, new) in enumerate(zip_longest(before, after, fillvalue="(absent)")):
            if old != new:
                details.append(f"{what} {i}: {as_text(old) or NONE} -> {as_text(new) or NONE}")
    details += _attributes(a, b)
    metadata = ({entry.key: entry.value for entry in node.metadata_props} for node in (a, b))
    details += [f"metadata {as_text(key)}: {arrow(old, new)}" for key, old, new in unequal(*metadata)]
    return details or ["its contents differ (weights in it, or fields unknown to onnx)"]


def _attributes(a: onnx.NodeProto, b: onnx.NodeProto) -> Iterator[str]:
    before, after = ({attribute.name: attribute for attribute in node.attribute} for node in (a, b))
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield f"attribute {as_text(name)}: {arrow(_value(old), _value(new))}"
        elif old.SerializeToString(deterministic=True) != new.SerializeToString(deterministic=True):
            inner = list(_subgraph(old.g, new.g)) if old.HasField("g") and new.HasField("g") else []
            texts = _value(old), _value(new)
            same = "its contents differ" if texts[0] == texts[1] else arrow(*texts)
            yield from (f"attribute {as_text(name)}: {line}" for line in inner or [same])


def _subgraph(a: onnx.GraphProto, b: onnx.GraphProto) -> Iterator[str]:
    """What changed in the nodes of a nested graph, a line each."""
    first, second = ([node.SerializeToString(deterministic=True) for node in graph.node] for graph in (a, b))
    for change in node_changes(a.node, b.node, first, second)[1]:
        lines = [f"{change.name}: {line}" for line in change.details]
        yield from lines or [f"{change.kind} {change.name} ({change.what})"]


def _value(attribute: onnx.AttributeProto | None) -> str:
    if attribute is None:
        return NONE
    kind = str(onnx.AttributeProto.AttributeType.Name(attribute.type))
    if attribute.ref_attr_name:
        return f"the function's {as_text(attribute.ref_attr_name)}"
    if attribute.type == onnx.AttributeProto.TENSOR:
        return f"a tensor {list(attribute.t.dims)}"
    if attribute.type == onnx.AttributeProto.GRAPH:
        return f"a graph of {len(attribute.g.node)} nodes"
    if kind in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS"):
        value = onnx.helper.get_attribute_value(attribute)
        return as_text(value)
    return kind.lower()


def type_text(kind: onnx.TypeProto) -> str:
    """A tensor's type in words: ``float [1, 3, 640, 640]``; other types by their kind."""
    if not kind.HasField("tensor_type"):
        return (kind.WhichOneof("value") or "unknown").removesuffix("_type")
    tensor = kind.tensor_type
    kinds = onnx.TensorProto.DataType
    known = tensor.elem_type in kinds.values()
    element = kinds.Name(tensor.elem_type).lower() if known else f"type {tensor.elem_type}"
    if not tensor.HasField("shape"):
        return f"{element} of unknown rank"
    sizes = (str(d.dim_value) if d.HasField("dim_value") else as_text(d.dim_param) or "?" for d in tensor.shape.dim)
    return f"{element} [{', '.join(sizes)}]"
