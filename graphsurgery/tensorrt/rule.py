"""Rule and Finding: one thing that TensorRT demands of a model, and one place where a model does not comply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from .support import Support, Version, source
from .view import View, Visit

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
"""error: the model is refused, or computes something else; warning: it is built, perhaps not as it was meant; note: it
is built, and there is something to know."""


@dataclass(frozen=True)
class Asked:
    """What a check is made for."""

    support: Support
    dla: str | None
    precision: str
    """"fp32", "fp16" or "int8" """

    @property
    def version(self) -> Version:
        return self.support.version


@dataclass(frozen=True)
class Finding:
    """One place where a model does not comply with a rule."""

    rule: str
    severity: str
    sentence: str
    source: str
    instead: str
    node: str | None
    """name of the node, or operator and position where it has none; None: the model as a whole"""
    operator: str | None
    position: int | None
    """position of the node, or of the node around it, in the main graph"""
    within: str | None
    """the subgraph or the local function that the node is in, if it is not in the main graph"""
    path: str | None
    """module path of the node"""
    insertion: str | None
    """id of the insertion that the node belongs to"""

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return dict(vars(self))


NodeCheck: TypeAlias = Callable[[Visit, Asked], str | None]
FileCheck: TypeAlias = Callable[[View, Asked], Iterable[str]]


@dataclass(frozen=True)
class Rule:
    """One demand of TensorRT. ``since`` and ``before`` bound the versions that it holds for."""

    id: str
    source: str
    """key of the table's sources"""
    instead: str
    severity: str = ERROR
    operators: frozenset[str] | None = None
    """the operators that it is about; None: all"""
    since: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (99, 0)
    dla: bool = False
    node: NodeCheck | None = None
    file: FileCheck | None = None

    def holds_for(self, asked: Asked) -> bool:
        """Whether the rule is one of the version and the device that are asked for."""
        return self.since <= asked.version < self.before and (not self.dla or asked.dla is not None)

    def findings(self, view: View, asked: Asked) -> Iterable[Finding]:
        """Where a model does not comply."""
        if self.file is not None:
            for sentence in self.file(view, asked):
                yield self._finding(sentence, None)
        if self.node is not None:
            for visit in view.visits:
                if self.operators is None or (visit.standard and visit.operator in self.operators):
                    wrong = self.node(visit, asked)
                    if wrong is not None:
                        yield self._finding(wrong, visit)

    def _finding(self, sentence: str, visit: Visit | None) -> Finding:
        return Finding(
            self.id,
            self.severity,
            sentence,
            source(self.source),
            self.instead,
            visit.label if visit else None,
            visit.operator if visit else None,
            visit.position if visit else None,
            visit.within if visit else None,
            visit.path if visit else None,
            visit.insertion if visit else None,
        )


def node_rule(
    id: str,
    *operators: str,
    source: str,
    instead: str,
    severity: str = ERROR,
    since: tuple[int, int] = (0, 0),
    before: tuple[int, int] = (99, 0),
    dla: bool = False,
) -> Callable[[NodeCheck], Rule]:
    """Make a rule of a function from a node to the sentence that says what is wrong with it, or None.

    It is about ``operators`` of the standard set; without any, about every node.
    """

    def made(check: NodeCheck) -> Rule:
        return Rule(id, source, instead, severity, frozenset(operators) or None, since, before, dla, node=check)

    return made


def file_rule(
    id: str,
    *,
    source: str,
    instead: str,
    severity: str = ERROR,
    since: tuple[int, int] = (0, 0),
    before: tuple[int, int] = (99, 0),
    dla: bool = False,
) -> Callable[[FileCheck], Rule]:
    """Make a rule of a function from a model to the sentences that say what is wrong with it as a whole."""

    def made(check: FileCheck) -> Rule:
        return Rule(id, source, instead, severity, None, since, before, dla, file=check)

    return made
