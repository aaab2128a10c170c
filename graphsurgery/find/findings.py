"""What is bad about the form that an exporter gave to a part: for TensorRT, in half precision, on a DLA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..graph.index import GraphIndex
from ..graph.part import Part
from ..modelfile.model import ModelFile
from ..tensorrt.check import findings as of_tensorrt
from ..tensorrt.rule import NOTE

_SHAPES = frozenset({"Shape", "Size", "ConstantOfShape", "Range", "NonZero"})
_SUMS = frozenset({"ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp"})


class FormFindings:
    """Those of one model, looked for once."""

    def __init__(self, model: ModelFile, index: GraphIndex) -> None:
        self._index = index
        self._told: Mapping[int, Sequence[str]] = _told(model)

    def of(self, part: Part) -> tuple[str, ...]:
        """Those of a part, each once."""
        operators = [self._index.operators[node_index] for node_index in part.nodes]
        found = list[str]()
        computed = sum(each in _SHAPES for each in operators)
        if computed:
            found.append(f"{computed} node{'s' * (computed > 1)} of shape arithmetic")
        if sums := [each for each in operators if each in _SUMS]:
            found.append(f"a sum over the map that can leave float16 ({sums[0]})")
        for node_index in part.nodes:
            found += self._told.get(node_index, ())
        return tuple(dict.fromkeys(found))


def _told(model: ModelFile) -> dict[int, list[str]]:
    """Node -> what the rules of TensorRT say of it in half precision, and of a DLA."""
    found = defaultdict[int, list[str]](list)
    for each in of_tensorrt(model, dla="orin", precision="fp16"):
        if each.position is not None and each.severity != NOTE:
            where = f"{each.operator}: " if each.operator else ""
            found[each.position].append(f"[{each.rule}] {where}{each.sentence}")
    return found
