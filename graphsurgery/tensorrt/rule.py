"""Rule and Finding: one thing that TensorRT demands of a model, and one place where a model does not comply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from .options import Options
from .support import source
from .view import View, Visit

if TYPE_CHECKING:
    from typing_extensions import Unpack

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
"""error: the model is refused, or computes something else; warning: it is built, perhaps not as it was meant; note: it
is built, and there is something to know."""


@dataclass(frozen=True)
class Finding:
    """One place where a model does not comply with a rule."""

    rule: str
    severity: str
    sentence: str
    source: str
    instead: str
    node: str | None = None
    """name of the node, or operator and position where it has none; None: the model as a whole"""
    operator: str | None = None
    position: int | None = None
    """position of the node, or of the node around it, in the main graph"""
    within: str | None = None
    """the subgraph or the local function that the node is in, if it is not in the main graph"""
    path: str | None = None
    """module path of the node"""
    insertion: str | None = None
    """id of the insertion that the node belongs to"""

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return dict(vars(self))


NodeCheck: TypeAlias = Callable[[Visit, Options], str | None]
FileCheck: TypeAlias = Callable[[View, Options], Iterable[str]]


class _Explained(TypedDict):
    source: str
    """key of the table's sources"""
    instead: str


class Terms(_Explained, total=False):
    """What a rule is declared with, beside its check."""

    severity: str
    since: tuple[int, int]
    before: tuple[int, int]
    dla: bool


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One demand of TensorRT. ``since`` and ``before`` bound the versions that it holds for."""

    id: str
    source: str
    instead: str
    severity: str = ERROR
    operators: frozenset[str] | None = None
    """the operators that it is about; None: all"""
    since: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (99, 0)
    dla: bool = False
    node: NodeCheck | None = None
    file: FileCheck | None = None

    def holds_for(self, options: Options) -> bool:
        """Whether the rule is one of the version and the device that are asked for."""
        return self.since <= options.version < self.before and (not self.dla or options.dla is not None)

    def findings(self, view: View, options: Options) -> Iterable[Finding]:
        """Where a model does not comply."""
        if self.file is not None:
            for sentence in self.file(view, options):
                yield self._finding(sentence)
        if self.node is not None:
            for visit in view.visits:
                if self.operators is None or (visit.standard and visit.operator in self.operators):
                    wrong = self.node(visit, options)
                    if wrong is not None:
                        yield self._finding(wrong, **visit.place)

    def _finding(self, sentence: str, **place: Any) -> Finding:
        return Finding(self.id, self.severity, sentence, source(self.source), self.instead, **place)


def node_rule(id: str, *operators: str, **terms: Unpack[Terms]) -> Callable[[NodeCheck], Rule]:
    """Make a rule of a function from a node to the sentence that says what is wrong with it, or None.

    It is about ``operators`` of the standard set; without any, about every node.
    """
    return lambda check: Rule(id=id, operators=frozenset(operators) or None, node=check, **terms)


def file_rule(id: str, **terms: Unpack[Terms]) -> Callable[[FileCheck], Rule]:
    """Make a rule of a function from a model to the sentences that say what is wrong with it as a whole."""
    return lambda check: Rule(id=id, file=check, **terms)
