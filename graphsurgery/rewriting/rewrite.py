"""Rewrite found blocks: which of them, and why others are left as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BlockError, GraphSurgeryError
from ..find import Found
from ..graph.index import GraphIndex
from ..insertion.lowering import lower
from ..insertion.plan import PlannedInsertion
from ..insertion.replacing import CHANNELS_LAST, Boundary, replace_parts
from ..insertion.splice import AppliedInsertion, SubgraphCheck
from ..modelfile.function_body import graph_of
from ..modelfile.model import ModelFile
from ..modelfile.operators import operator
from ..modelfile.record import EDITION, Insertion
from ..request import Request
from ..runtime.session import require
from ..selection.sites import SiteFinder
from ..template.names import UniqueNames
from .gains import bad_for, nothing_gained
from .places import Standing, Standings


@dataclass(frozen=True)
class Rewritten:
    """A found block that was rewritten."""

    found: Found
    applied: AppliedInsertion

    def to_json(self) -> dict[str, Any]:
        """The object that ``rewrite --json`` lists."""
        insertion = self.applied.insertion
        assert insertion.replaced is not None
        return {
            **_described(self.found),
            "id": insertion.id,
            "nodes_before": insertion.replaced.nodes,
            "nodes_after": len(insertion.nodes),
            "max_error": self.found.max_error,
            "findings": list(self.found.findings),
            "reused": list(insertion.replaced.reused),
            "moved": sorted(insertion.replaced.moved),
            "left_in_file": list(insertion.replaced.left),
            "warnings": list(self.applied.warnings),
        }


@dataclass(frozen=True)
class Left:
    """A found block that was left as it is."""

    found: Found
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The object that ``rewrite --json`` lists."""
        return {**_described(self.found), "proven": self.found.proven, "reason": self.reason}


@dataclass(frozen=True)
class Rewriting:
    """What became of the attention in a model."""

    model: ModelFile
    """the new one; the given one itself where nothing was rewritten"""
    rewritten: tuple[Rewritten, ...] = ()
    left: tuple[Left, ...] = ()

    @property
    def insertions(self) -> list[Insertion]:
        """The records of what was rewritten."""
        return [each.applied.insertion for each in self.rewritten]


def rewrite(
    model: ModelFile,
    *,
    only: Sequence[str] = (),
    module: str | None = None,
    target: str = "tensorrt",
    precision: str = "safe",
    force_form: bool = False,
    check: SubgraphCheck | None = None,
) -> Rewriting:
    """Put found blocks into the form of their templates; see :func:`graphsurgery.rewrite`.

    ``check``: called with each block's subgraph; what it returns is added to the warnings.
    """
    require("cpu")  # without it nothing can be proven
    finder = SiteFinder(model)
    standings = Standings(finder)
    wanted = standings.chosen(only, "only") if only else standings.found
    choice = _Choice(finder, target, precision, force_form)
    left, planned = list[Left](), list[tuple[Found, PlannedInsertion]]()
    for found in wanted:
        if module is not None and not _is(found, module):
            continue
        try:
            reason, plan = choice.of(standings.of(found), found)
        except GraphSurgeryError as error:
            reason, plan = error.message, None
        if plan is None:
            left.append(Left(found, reason))
        else:
            planned.append((found, plan))
    if not planned:
        return Rewriting(model, (), tuple(left))
    edited, done = replace_parts(finder, model, [plan for _, plan in planned], check)
    at = {(each.site.function, each.insertion.output_tensor): each for each in done}
    rewritten = tuple(Rewritten(found, at[found.part.function, found.part.output]) for found, _ in planned)
    return Rewriting(edited, rewritten, tuple(left))


@dataclass
class _Choice:
    """Decides of each found block whether it is rewritten."""

    finder: SiteFinder
    target: str
    precision: str
    force_form: bool
    _indexes: dict[tuple[str, ...] | None, GraphIndex] = field(default_factory=dict)

    def of(self, standing: Standing, found: Found) -> tuple[str, PlannedInsertion | None]:
        """(why it is left as it is, None), or ("", what to put there)."""
        block = found.block
        if block is None or not found.proven:
            return found.note or "it is not proven to be a block of the catalogue", None
        if found.part.channels_last:
            return f"it {CHANNELS_LAST}", None
        index = self._index(found.part.function)
        there = Boundary.of(index, found.part.nodes)
        if isinstance(there, str):
            return "; ".join(filter(None, (found.note, f"it {there}"))), None
        request = Request(
            block.spelled,
            in_place_of=(found.place,),
            settings=block.values,
            target=self.target,
            precision=self.precision,
        )
        planned = PlannedInsertion(
            request, block, standing.site, _given(found.weights), "weights", part=found.part, same=True
        )
        try:
            block.check(standing.site.feature)
        except BlockError as error:
            return error.message, None
        names = UniqueNames({there.input})
        written = lower(planned, "block", "/block", there.input, index.model, names, EDITION).subgraph
        if not self.force_form:
            before = [operator(index.nodes[each]) for each in sorted(there.nodes - there.constants)]
            after = [operator(node) for node in written.nodes if node.op_type != "Constant"]
            feature = standing.site.feature
            findings = bad_for(self.target, found.findings)
            if reason := nothing_gained(block, feature, self.target, before, after, findings):
                return reason, None
        return "", planned

    def _index(self, function: tuple[str, ...] | None) -> GraphIndex:
        if function is None:
            return self.finder.index
        if function not in self._indexes:
            self._indexes[function] = GraphIndex(graph_of(self.finder.model, function))
        return self._indexes[function]


def _given(weights: Mapping[str, Any]) -> Callable[[int, str], Mapping[str, Any]]:
    return lambda seed, id: weights


def _is(found: Found, module: str) -> bool:
    """Whether a found block is the one that a user names, in whatever variant where none is named."""
    return found.block is not None and module in (found.block.name, found.block.spelled)


def _described(found: Found) -> dict[str, Any]:
    described = found.to_dict()
    return {key: described[key] for key in ("place", "module", "settings")}
