"""Rule and Finding: one thing that TensorRT demands of a model, and one place where a model does not comply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from ..errors import as_argument, spelled
from .options import Options
from .support import source
from .view import View, Visit

if TYPE_CHECKING:
    from typing_extensions import Required, Unpack

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
    message: str = field(default="", repr=False, compare=False)
    """the sentence, with options as :func:`graphsurgery.errors.option` marks them"""

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        data = {**vars(self), "sentence": self.message}
        del data["message"]
        return data


NodeCheck: TypeAlias = Callable[[Visit, Options], str | None]
FileCheck: TypeAlias = Callable[[View, Options], Iterable[str]]


class Terms(TypedDict, total=False):
    """What a rule is declared with, beside its check; see :class:`Rule`."""

    source: Required[str]
    instead: Required[str]
    severity: str
    when: Callable[[Visit], bool]
    since: tuple[int, int]
    before: tuple[int, int]
    dla: bool
    cited: Callable[[Visit, Options], str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One demand of TensorRT. ``since`` and ``before`` bound the versions that it holds for."""

    id: str
    """the name of the check, with dashes"""
    source: str
    """key of the table's sources"""
    instead: str
    severity: str = ERROR
    operators: frozenset[str] | None = None
    """the operators that it is about; None: all"""
    when: Callable[[Visit], bool] = lambda visit: True
    """the nodes among them that it is about"""
    since: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (99, 0)
    dla: bool = False
    cited: Callable[[Visit, Options], str] | None = None
    """gives another key of the table's sources for a node; None: ``source`` for all of them"""
    node: NodeCheck | None = None
    file: FileCheck | None = None

    def holds_for(self, options: Options) -> bool:
        """Whether the rule is one of the version and the device that are asked for."""
        return self.since <= options.version < self.before and (not self.dla or options.dla is not None)

    def findings(self, view: View, options: Options) -> Iterable[Finding]:
        """Where a model does not comply."""
        if self.file is not None:
            yield from (self._finding(wrong, self.source) for wrong in self.file(view, options))
        yield from (found for visit in view.visits if (found := self.at(visit, options)))

    def at(self, visit: Visit, options: Options) -> Finding | None:
        """What is wrong with one node; None where nothing is, or the rule is about others."""
        wrong = self.node(visit, options) if self.node is not None and self._is_about(visit) else None
        if wrong is None:
            return None
        return self._finding(wrong, self.cited(visit, options) if self.cited else self.source, **visit.place)

    def _is_about(self, visit: Visit) -> bool:
        named = self.operators is None or (visit.imported and visit.operator in self.operators)
        return named and self.when(visit)

    def _finding(self, sentence: str, key: str, **place: Any) -> Finding:
        plain = spelled(sentence, as_argument)
        return Finding(self.id, self.severity, plain, source(key), self.instead, **place, message=sentence)


def node_rule(*operators: str, id: str = "", **terms: Unpack[Terms]) -> Callable[[NodeCheck], Rule]:
    """Make a rule of a function from a node to the sentence that says what is wrong with it, or None.

    It is about ``operators`` of the standard set, in whatever domain; without any, about every node. ``id``: where
    several rules share a function.
    """
    return lambda check: Rule(id=id or _id(check), operators=frozenset(operators) or None, node=check, **terms)


def file_rule(**terms: Unpack[Terms]) -> Callable[[FileCheck], Rule]:
    """Make a rule of a function from a model to the sentences that say what is wrong with it as a whole."""
    return lambda check: Rule(id=_id(check), file=check, **terms)


def _id(check: NodeCheck | FileCheck) -> str:
    return check.__name__.strip("_").replace("_", "-")
