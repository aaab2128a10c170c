"""What changed between two models, node by node.

Nodes are matched by their bytes first, then by name, output or input, so that blank and duplicate names do no harm.
Weights are compared as ranges of bytes, never decoded. The time grows with the size of the models, not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import onnx

from ..insertion.removal import same_bytes
from ..messages import as_text, html_table
from ..modelfile.fields import INITIALIZER, NODE
from ..modelfile.model import ModelFile
from .blocks import blocks_changed, nodes_of_blocks
from .changes import Change, arrow, short
from .nodes import bytes_of, in_another_order, match, node_changes, type_text
from .tensors import tensor_details, tensor_text

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource

_MARKS: dict[str, str] = {"removed": "-", "changed": "~", "added": "+"}


@dataclass(frozen=True, repr=False)
class Difference:
    """What changed from the first model to the second."""

    first: str
    second: str
    changes: Mapping[str, tuple[Change, ...]]
    """section -> its changes, in the order of SECTIONS"""
    notes: tuple[str, ...] = ()
    """differences that belong to no single thing, the order of nodes say"""

    @property
    def empty(self) -> bool:
        """Whether the models are the same, byte for byte, external data included."""
        return not self.notes and not any(self.changes.values())

    def to_json(self) -> dict[str, Any]:
        """``{"a", "b", "identical", "notes": [text], section: {"removed": [...], "changed": [...], "added": [...]}}``.

        Every section of SECTIONS is there; each change is ``{"name", "what", "details": [text]}``.
        """
        sections = {
            section: {kind: [c.to_json() for c in self.changes.get(section, ()) if c.kind == kind] for kind in _MARKS}
            for section in SECTIONS
        }
        return {"a": self.first, "b": self.second, "identical": self.empty, "notes": list(self.notes), **sections}

    def __repr__(self) -> str:
        counts = "; ".join(f"{section}: {_counts(found)}" for section, found in self.changes.items())
        found = "; ".join(filter(None, (counts, *self.notes))) or "identical"
        return f"<Difference of {self.first} and {self.second}: {found}>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        rows = [
            (section.replace("_", " "), change.kind, change.name, change.what, "; ".join(change.details))
            for section, found in self.changes.items()
            for change in found
        ]
        notes = [("", "", note, "", "") for note in self.notes]
        return html_table(("section", "change", "name", "what", "details"), [*rows, *notes])

    def lines(self) -> list[str]:
        """The difference for people: + what is only in the second model, - only in the first, ~ changed."""
        if self.empty:
            return [f"{self.first} and {self.second} are identical"]
        lines = []
        for section, changes in self.changes.items():
            lines.append(f"{section.replace('_', ' ')}: {_counts(changes)}")
            for change in changes:
                lines.append(f"  {_MARKS[change.kind]} {change.name}" + (f"  {change.what}" if change.what else ""))
                lines += [f"      {detail}" for detail in change.details]
        return lines + list(self.notes)


def diff(a: ModelSource, b: ModelSource, *, names: tuple[str, str] | None = None) -> Difference:
    """What changed from one model to another, node by node and weight by weight.

    Parameters
    ----------
    a, b:
        The two models: a path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or
        ``ModelFile`` each.
    names:
        How the result calls them; by default by the names of their files.

    Returns
    -------
    Difference
        Its ``empty`` says whether the models are the same; printed, it lists what was added, removed and changed.

    Raises
    ------
    ModelError
        If a model cannot be read.
    ExternalDataError
        If external data that has to be compared is not there.

    Examples
    --------
    >>> print(gsx.diff("yolov8n.onnx", "yolov8n-simam.onnx"))   # doctest: +SKIP
    nodes: 9 added, 1 changed
    ...
    """
    first, second = ModelFile.load(a), ModelFile.load(b)
    called = names or (first.name, second.name)
    changes, notes = _compared(first, second)
    kept = {section: changes[section] for section in SECTIONS if changes.get(section)}
    return Difference(*called, kept, tuple(notes))


def _compared(first: ModelFile, second: ModelFile) -> tuple[dict[str, tuple[Change, ...]], list[str]]:
    a, b = first.structure, second.structure
    changes: dict[str, tuple[Change, ...]] = {}
    notes: list[str] = []
    same = same_bytes(first, second)
    if not same or first.external_data:
        changes["initializers"] = _initializers(first, second)
    if not same:
        changes["blocks"] = blocks_changed(first, second)
        changes["nodes"], moved = _nodes(first, second)
        for section, field in _NAMED.items():
            changes[section] = field(a, b)
        changes["header"] = tuple(_header(a, b))
        if moved:
            notes.append(f"{moved} node{'s' if moved > 1 else ''} moved to another place in the order")
        if not notes and not any(changes.values()):
            notes.append("the files differ only in the order or the encoding of fields, or in fields unknown to onnx")
    return changes, notes


def _nodes(first: ModelFile, second: ModelFile) -> tuple[tuple[Change, ...], int]:
    a, b = first.structure.graph.node, second.structure.graph.node
    keys = [bytes_of(piece) for piece in first.pieces(NODE)], [bytes_of(piece) for piece in second.pieces(NODE)]
    pairs, found = node_changes(a, b, *keys, nodes_of_blocks(first, second))
    return tuple(found), in_another_order(pairs)


def _initializers(first: ModelFile, second: ModelFile) -> tuple[Change, ...]:
    a, b = list(first.structure.graph.initializer), list(second.structure.graph.initializer)
    left, right = first.pieces(INITIALIZER), second.pieces(INITIALIZER)

    def details(i: int, j: int) -> tuple[str, ...]:
        return tensor_details((a[i], left[i], first.folder), (b[j], right[j], second.folder))

    return _named(a, b, lambda t: as_text(t.name), tensor_text, details)


def _named(
    a: Sequence[Any],
    b: Sequence[Any],
    name: Callable[[Any], str],
    what: Callable[[Any], str],
    details: Callable[[int, int], tuple[str, ...]],
) -> tuple[Change, ...]:
    """The changes of a list of things with names. ``details`` says what is not the same in a pair, () if all is."""
    pairs, gone, new = match([name(item) for item in a], [name(item) for item in b])
    changes = [Change("removed", name(a[i]), what(a[i])) for i in gone]
    changed = ((j, details(i, j)) for i, j in pairs)
    changes += [Change("changed", name(b[j]), what(b[j]), found) for j, found in changed if found]
    return (*changes, *(Change("added", name(b[j]), what(b[j])) for j in new))


def _section(
    items: Callable[[onnx.ModelProto], Sequence[Any]], name: Callable[[Any], str], text: Callable[[Any], str]
) -> Callable[[onnx.ModelProto, onnx.ModelProto], tuple[Change, ...]]:
    """How to compare one list of the model whose items are compared as a whole."""

    def compare(first: onnx.ModelProto, second: onnx.ModelProto) -> tuple[Change, ...]:
        a, b = items(first), items(second)

        def details(i: int, j: int) -> tuple[str, ...]:
            if a[i].SerializeToString(deterministic=True) == b[j].SerializeToString(deterministic=True):
                return ()
            before, after = text(a[i]), text(b[j])
            return (arrow(before, after),) if before != after else ("its contents differ",)

        return _named(a, b, name, lambda item: short(text(item)), details)

    return compare


def _function_name(function: onnx.FunctionProto) -> str:
    return "::".join(as_text(part) for part in (function.domain, function.name, function.overload) if part)


_NAMED: dict[str, Callable[[onnx.ModelProto, onnx.ModelProto], tuple[Change, ...]]] = {
    "sparse_initializers": _section(
        lambda m: m.graph.sparse_initializer, lambda s: as_text(s.values.name), lambda s: tensor_text(s.values)
    ),
    "value_info": _section(lambda m: m.graph.value_info, lambda v: as_text(v.name), lambda v: type_text(v.type)),
    "inputs": _section(lambda m: m.graph.input, lambda v: as_text(v.name), lambda v: type_text(v.type)),
    "outputs": _section(lambda m: m.graph.output, lambda v: as_text(v.name), lambda v: type_text(v.type)),
    "metadata": _section(lambda m: m.metadata_props, lambda e: as_text(e.key), lambda e: as_text(e.value)),
    "opsets": _section(
        lambda m: m.opset_import, lambda o: as_text(o.domain) or "ai.onnx", lambda o: f"version {o.version}"
    ),
    "functions": _section(lambda m: m.functions, _function_name, lambda f: f"{len(f.node)} nodes"),
    "annotations": _section(
        lambda m: m.graph.quantization_annotation, lambda q: as_text(q.tensor_name), lambda q: "quantisation"
    ),
}


SECTIONS = ("blocks", "nodes", "initializers", *_NAMED, "header")
_HEADER = (
    *("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"),
    *("graph.name", "graph.doc_string"),
)


def _header(first: onnx.ModelProto, second: onnx.ModelProto) -> list[Change]:
    pairs = [(field, attrgetter(field)(first), attrgetter(field)(second)) for field in _HEADER]
    pairs.append(("training_info", len(first.training_info), len(second.training_info)))
    return [Change("changed", field, "", (arrow(as_text(a), as_text(b)),)) for field, a, b in pairs if a != b]


def _counts(changes: Sequence[Change]) -> str:
    numbers = {kind: sum(change.kind == kind for change in changes) for kind in ("added", "removed", "changed")}
    return ", ".join(f"{number} {kind}" for kind, number in numbers.items() if number)
