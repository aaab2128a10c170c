"""Findings: what NVIDIA's parser refuses, as findings of a check: with the node's place, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..rule import ERROR, NOTE, WARNING, Finding
from ..support import Version
from ..view import Visit
from .opinion import GENERATION, Opinion, Refusal

PARSER, BUILDER, LIBRARY = "nvidia-parser", "nvidia-builder", "nvidia-library"
"""the rules that the findings are of"""
_NO_PLUGIN = re.compile(
    r"\bplugin\b.*\bnot found\b|failed to load \w+ plugin|requires plugin"  # 1.7.1
    r"|no importer registered|is not supported in tensorrt-rtx",  # before
    re.IGNORECASE,
)
"""what the parser says of a node that it would have a plugin run. The wheel has none; TensorRT has some, a layer of its
own for NonZero, and users have theirs."""
_UNDECIDED = {
    "Error Code 2: Internal Error": "TensorRT may have kernels that TensorRT for RTX lacks",
    "dynamic or shape inputs, but no optimization profile": "inputs that are shapes need values, which nobody gave",
}
"""what the builder says -> why nothing follows for TensorRT: an assertion of its own failed, for want of a kernel of
NonMaxSuppression above all, or it was not told enough"""
_INSTEAD = {
    2: "a machine with more memory",
    3: "a model that onnx.checker takes",
    9: "another value of the attribute",
    10: "other inputs, constants above all",
    11: "a Cast in front of the node, to a type that it takes",
    12: "a static shape",
    13: "another shape, by a Reshape in front of the node",
}
"""by nvonnxparser::ErrorCode"""
_IMPORTER = re.compile("^(import|check)")
"""in front of an operator, in the names of the functions that import it"""
_OTHERWISE = "other operators for the same function"


def findings(
    opinion: Opinion, visits: Sequence[Visit], version: Version, table: Sequence[Finding]
) -> Iterator[Finding]:
    """What was refused, what was not built, and a library that died. ``table``: the findings of the rules."""
    grave = ERROR if version.major >= GENERATION else WARNING
    of_generation = "" if version.major >= GENERATION else f"; TensorRT {version} may take it all the same"
    for refusal in opinion.refusals:
        visit = _place(refusal, visits)
        place = visit.place if visit is not None else {}
        known = [f for f in table if f.severity == ERROR and (f.node, f.within) == _where(visit)] if visit else []
        plugin = bool(_NO_PLUGIN.search(refusal.words)) and not known
        severity = NOTE if plugin else grave
        end = "; it wants a plugin, and TensorRT for RTX has none" if plugin else of_generation
        path = f" of {visit.path}" if visit is not None and visit.path and visit.path not in visit.label else ""
        part = f"a {refusal.operator} in " if visit is not None and not _is_it(visit, refusal) else ""
        what = f"{part}this node{path}" if visit is not None else "the model"
        sentence = f"NVIDIA's parser refuses {what}: {refusal.sentence}{end}"
        instead = known[0].instead if known else _instead(refusal, visit, plugin)
        yield Finding(PARSER, severity, sentence, opinion.source, instead, **place, message=sentence)
    if opinion.build is not None and not opinion.build.built:
        words = opinion.build.words
        undecided = next((reason for said, reason in _UNDECIDED.items() if said in words), "")
        sentence = f"NVIDIA's builder makes no engine of it: {words}" + (f"; {undecided}" if undecided else "")
        instead = "what the builder's own words name"
        yield Finding(BUILDER, WARNING if undecided else grave, sentence, opinion.source, instead, message=sentence)
    if opinion.failure:
        instead = "the check without it, or the model in parts; NVIDIA takes reports of crashes"
        yield Finding(LIBRARY, WARNING, opinion.failure, opinion.source, instead, message=opinion.failure)


def _where(visit: Visit) -> tuple[str, str | None]:
    return visit.label, visit.within


def _place(refusal: Refusal, visits: Sequence[Visit]) -> Visit | None:
    """The node that is refused; the node around it where it is not told which of several it is. None: the model as a
    whole.
    """
    main = {v.position: v for v in visits if v.within is None}
    if refusal.node < 0:
        return _only([v for v in visits if v.operator == _IMPORTER.sub("", refusal.function)])
    if not refusal.within and refusal.node in main and _is_it(main[refusal.node], refusal):
        return main[refusal.node]
    same = [v for v in visits if v.within is not None and _is_it(v, refusal) and v.node.name == refusal.name]
    inside = [v for v in same if v.position == refusal.node or (v.position is None and _is_called(v, refusal))]
    return _only(inside) or main.get(refusal.node)


def _is_it(visit: Visit, refusal: Refusal) -> bool:
    return refusal.operator in (visit.operator, "")


def _is_called(visit: Visit, refusal: Refusal) -> bool:
    """Whether a node of a function is in that one whose call is told last."""
    called = refusal.within[-1].rpartition(" (")[2].removesuffix(")") if refusal.within else ""
    return re.search(rf"the function (\S+\.)?{re.escape(called)}(,|$)", visit.within or "") is not None


def _only(visits: Sequence[Visit]) -> Visit | None:
    """The one node that visits are of; None where they are of several."""
    return visits[0] if len({_where(visit) for visit in visits}) == 1 else None


def _instead(refusal: Refusal, visit: Visit | None, plugin: bool) -> str:
    if plugin:
        return "nothing, if TensorRT has the operator itself, or its plugin is loaded where the engine is built and run"
    if visit is not None and visit.insertion is not None:
        return "another formulation of the block or another block; please report this one"
    return _INSTEAD.get(refusal.code, _OTHERWISE if visit is not None else _INSTEAD[3])
