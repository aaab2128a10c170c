"""In which types inserted nodes run, which of them have to stay in float32, and the lists that other tools take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx

from ..errors import InsertionError, RequestError
from ..feature_map import float_dtype, type_name
from ..modelfile.model import ModelFile
from .support import TYPE_NAMES, one_of
from .view import View, Visit

UNTOLD = "?"
FORMATS = ("autocast", "trtexec")
_BOUNDED = frozenset({"HardSigmoid", "QuantizeLinear", "Sigmoid", "Softmax", "Tanh"})
_STATISTICS = frozenset(
    {"CumSum", "Exp", "Pow", "Softmax"}
    | {f"{kind}Normalization" for kind in ("Group", "Instance", "Layer", "Lp", "MeanVariance", "RMS")}
    | {f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Prod", "Sum", "SumSquare")}
)


@dataclass(frozen=True)
class NodeType:
    """One inserted node and the type it runs in, as the file says."""

    insertion: str
    node: str
    operator: str
    runs_in: str
    """element type of what it computes with; for a Cast, of its input"""
    gives: str
    statistic: bool
    """whether it holds sums, squares or what is made of them, which float16 may not be able to hold"""
    float32: bool
    """whether it has to stay in float32 when the model is converted or built in a narrower type"""


def inserted_types(model: ModelFile) -> list[NodeType]:
    """Every inserted node, in the order of the model. InsertionError if nothing was inserted.

    A node has to stay in float32 if it runs in it and holds a statistic, or is a float32 island at a narrower site.
    """
    if not model.insertions():
        raise InsertionError(f"{model.name} has no insertions made by graphsurgery, so there is no list to make")
    return types_of(View(model))


def types_of(view: View) -> list[NodeType]:
    """As :func:`inserted_types`, of a model that is opened already; empty if nothing was inserted."""
    sites = {insertion.id: insertion.site.dtype for insertion in view.model.insertions()}
    found = []
    for insertion, site in sites.items():
        visits = [v for v in view.visits if v.insertion == insertion and v.operator != "Constant" and v.within is None]
        statistics = _statistics(visits)
        for visit in visits:
            runs_in = spelled(visit.type(visit.input(0)))
            statistic = visit.label in statistics
            keep = runs_in == "float32" and visit.operator != "Cast" and (statistic or site != "float32")
            gives = spelled(visit.type(visit.output))
            found.append(NodeType(insertion, visit.label, visit.operator, runs_in, gives, statistic, keep))
    order = {visit.label: i for i, visit in enumerate(view.visits)}
    return sorted(found, key=lambda each: order[each.node])


def spelled(kind: int) -> str:
    """Name of an element type; UNTOLD where it is not known."""
    if not kind:
        return UNTOLD
    return float_dtype(kind) or TYPE_NAMES.get(kind, type_name(kind)).lower()


def _statistics(visits: Sequence[Visit]) -> set[str]:
    """The nodes of a block that square, sum or normalise, and those downstream of them: up to the next bounded
    activation, or the end of a float32 island.
    """
    consumers: dict[str, list[Visit]] = {}
    for visit in visits:
        for name in visit.node.input:
            consumers.setdefault(name, []).append(visit)
    pending = [visit for visit in visits if visit.operator in _STATISTICS or _squares(visit)]
    found: set[str] = set()
    while pending:
        visit = pending.pop()
        if visit.label in found:
            continue
        found.add(visit.label)
        if visit.operator in _BOUNDED:
            continue
        downstream = [c for name in visit.outputs() for c in consumers.get(name, ())]
        pending += [c for c in downstream if c.operator not in _BOUNDED and not _narrows(c)]
    return found


def _narrows(visit: Visit) -> bool:
    """Whether a node is the end of a float32 island: what leaves it is made for the narrower type."""
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return visit.operator == "Cast" and visit.type(visit.output) in halves


def _squares(visit: Visit) -> bool:
    return visit.operator == "Mul" and len(visit.node.input) == 2 and visit.node.input[0] == visit.node.input[1]


def node_list(types: Iterable[NodeType], kind: str) -> str:
    """The nodes that have to stay in float32, as another tool takes them; "" where there are none.

    "autocast": regular expressions for ``--nodes_to_exclude`` of ModelOpt's AutoCast, one a line. "trtexec": its flags
    for TensorRT 8.6 and 10 (weakly typed networks), one a line. RequestError for a name that trtexec cannot be given.
    """
    names = [each.node for each in types if each.float32]
    lines = autocast_patterns(names) if one_of("format", kind, FORMATS) == "autocast" else trtexec_flags(names)
    return "".join(f"{line}\n" for line in lines)


def autocast_patterns(names: Iterable[str]) -> list[str]:
    """Patterns that match these node names and no other; ModelOpt anchors them at the start of a name only."""
    return [f"{re.escape(name)}$" for name in names]


def trtexec_flags(names: Sequence[str]) -> list[str]:
    """Flags that keep these nodes in float32, outputs included; none for no names."""
    for name in names:
        if re.search(r"[:,*'\"]", name):
            raise RequestError(f"trtexec cannot be given the node name {name!r}: it has one of : , * and quotes in it")
    if not names:
        return []
    kept = ",".join(f"{name}:fp32" for name in names)
    return ["--precisionConstraints=obey", f"--layerPrecisions={kept}", f"--layerOutputTypes={kept}"]


def lines(types: Sequence[NodeType]) -> Iterator[str]:
    """What the list comes to, in one line."""
    kept = sum(each.float32 for each in types)
    yield f"{len(types)} inserted nodes; {kept or 'none'} of them should stay in float32 where the rest runs in float16"
