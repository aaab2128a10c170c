"""Findings: what NVIDIA's parser refuses, as findings of a check: with the node's place, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..rule import ERROR, NOTE, WARNING, Finding
from ..support import Version
from ..view import Visit
from .opinion import GENERATION, Opinion, Refusal

PARSER, BUILDER, LIBRARY = "nvidia-parser", "nvidia-builder", "nvidia-library"
"""the rules that the findings are of"""
_NO_PLUGIN = (
    *("plugin not found", "not found in the plugin registry"),  # 1.7.1
    *("no importer registered", "is not supported in tensorrt-rtx"),  # before
)
"""what the parser says of a node that only a plugin could run. The wheel has none; TensorRT has some, and users have
theirs."""
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
        plugin = any(words in refusal.words.lower() for words in _NO_PLUGIN) and not known
        severity = NOTE if plugin else grave
        end = "; TensorRT runs it by a plugin, and TensorRT for RTX has none" if plugin else of_generation
        path = f" of {visit.path}" if visit is not None and visit.path and visit.path not in visit.label else ""
        what = f"this node{path}" if visit is not None else "the model"
        sentence = f"NVIDIA's parser refuses {what}: {refusal.sentence}{end}"
        instead = known[0].instead if known else _instead(refusal, visit, plugin)
        yield Finding(PARSER, severity, sentence, opinion.source, instead, **place, message=sentence)
    if opinion.build is not None and not opinion.build.built:
        sentence = f"NVIDIA's builder makes no engine of it: {opinion.build.words}"
        instead = "what the builder's own words name"
        yield Finding(BUILDER, grave, sentence, opinion.source, instead, message=sentence)
    if opinion.failure:
        instead = "the check without it, or the model in parts; NVIDIA takes reports of crashes"
        yield Finding(LIBRARY, WARNING, opinion.failure, opinion.source, instead, message=opinion.failure)


def _where(visit: Visit) -> tuple[str, str | None]:
    return visit.label, visit.within


def _place(refusal: Refusal, visits: Sequence[Visit]) -> Visit | None:
    """The node that is refused; the node around it where that is all that is told. None: the model as a whole."""
    same = [v for v in visits if v.operator == refusal.operator and v.node.name == refusal.name]
    main = {v.position: v for v in visits if v.within is None}
    if not refusal.within:
        return main.get(refusal.node) or next((v for v in same if v.within is None), None)
    inside = [v for v in same if v.within is not None]
    around = {v.label: v for v in main.values()}
    return inside[0] if inside else around.get(refusal.within[0].rpartition(" (")[0])


def _instead(refusal: Refusal, visit: Visit | None, plugin: bool) -> str:
    if plugin:
        return "nothing, if its plugin is loaded where the engine is built and run"
    if visit is not None and visit.insertion is not None:
        return "another formulation of the block or another block; please report this one"
    return _INSTEAD.get(refusal.code, _OTHERWISE if visit is not None else _INSTEAD[3])
