"""Summary: three lines for somebody who only asks whether it will build, and whether the blocks are safe in FP16 and
INT8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..graph import quantisation
from ..messages import listed
from ..modelfile.record import Insertion
from ..runtime.quantised_types import quantised_to
from .options import Options
from .parser import Verdict
from .precision import UNTOLD, NodeType, types_of
from .rtx.findings import BUILDER, LIBRARY, PARSER
from .rtx.opinion import GENERATION
from .rule import ERROR, SEVERITIES, WARNING, Finding
from .rules import plugins
from .rules.precision import RULES as FLOAT16_RULES
from .support import Version
from .view import Origin, View, Visit

_UNBUILT = ", as far as can be told without building it"
_OTHER_GENERATION = {
    PARSER: f"NVIDIA's parser, of the generation of TensorRT {GENERATION}, refuses it",
    BUILDER: f"NVIDIA's builder, of the generation of TensorRT {GENERATION}, makes no engine of it",
}
"""what is told of it where that is no error, because an earlier version was asked about"""
_PLUGINS = frozenset({plugins.plugin.id, plugins.plugin_of_yours.id})


@dataclass(frozen=True)
class Summary:
    """The answers, one sentence each."""

    builds: str
    fp16: str
    int8: str

    @classmethod
    def of(
        cls,
        view: View,
        options: Options,
        found: Sequence[Finding],
        *,
        installed: Verdict | None = None,
        confirmed: str = "",
    ) -> Summary:
        """Of a model that was checked; ``installed``: what the installed TensorRT's parser says; ``confirmed``: what
        NVIDIA's parser for machines without a GPU says for that it builds.
        """
        insertions = list(view.model.insertions())
        if not insertions:
            nothing = "no block was inserted"
            return cls(_builds(options.version, found, installed, confirmed), nothing, nothing)
        builds = _builds(options.version, found, installed, confirmed)
        types = types_of(view)
        unsafe = _unsafe(view, options, types)
        return cls(builds, _fp16(types, unsafe, options.version), _int8(view, unsafe, options.version, insertions))

    def lines(self) -> list[str]:
        """The three lines."""
        return [f"will it build: {self.builds}", f"FP16: {self.fp16}", f"INT8: {self.int8}"]

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return asdict(self)


def counted(found: Sequence[Finding]) -> str:
    """``1 error, 2 warnings``."""
    counts = {severity: sum(f.severity == severity for f in found) for severity in SEVERITIES}
    said = [f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items() if count]
    return ", ".join(said) or "nothing found"


def _builds(version: Version, found: Sequence[Finding], installed: Verdict | None, confirmed: str) -> str:
    errors = [f for f in found if f.severity == ERROR]
    if errors:
        places = listed(list(dict.fromkeys(f.node or "the file as a whole" for f in errors)), 2)
        return f"no; TensorRT {version} refuses it, or computes something else, at {places}"
    if installed is not None and installed.refuses(version):
        return "no; the table finds nothing, and TensorRT's own parser refuses it"
    if doubts := list(_doubts(found, installed)):
        return f"perhaps, with TensorRT {version}; the table finds no error, and {doubts[0]} ({counted(found)})"
    needed = any(f.rule in _PLUGINS for f in found)
    where = f"yes, with TensorRT {version}" + (" and the plugins that are named below" if needed else "")
    return f"{where}{confirmed or _UNBUILT} ({counted(found)})"


def _doubts(found: Sequence[Finding], installed: Verdict | None) -> Iterator[str]:
    """What was said against a model that the table takes, by those who cannot speak for the version."""
    if installed is not None and not installed.supported:
        yield f"the parser of TensorRT {installed.version} refuses it"
    for finding in found:
        if finding.rule in {*_OTHER_GENERATION, LIBRARY} and finding.severity == WARNING:
            yield _OTHER_GENERATION.get(finding.rule, finding.sentence)


def _unsafe(view: View, options: Options, types: Sequence[NodeType]) -> list[str]:
    """The inserted nodes that run in float16, or may, and are not to."""
    kept = {each.node for each in types if each.float32}
    asked = replace(options, precision="fp16")
    inserted = (visit for visit in view.visits if visit.insertion is not None and visit.label not in kept)
    return [visit.label for visit in inserted if any(rule.at(visit, asked) for rule in FLOAT16_RULES)]


def _fp16(types: Sequence[NodeType], unsafe: Sequence[str], version: Version) -> str:
    if unknown := [each.node for each in types if each.runs_in == UNTOLD]:
        return f"not known; the model does not tell in which type {listed(unknown, 2)} {_run(unknown)}"
    if unsafe:
        return f"not safe; {listed(unsafe, 2)} {_run(unsafe)} in float16 and may leave its range"
    kept = [each.node for each in types if each.float32]
    if not kept:
        return "safe; no inserted node has to be kept in float32"
    count = f"{len(kept)} of the {len(types)} inserted nodes {'stays' if len(kept) == 1 else 'stay'} in float32"
    return f"safe if {count}; graphsurgery tensorrt command --version {version} --precision fp16 sees to it"


def _int8(view: View, unsafe: Sequence[str], version: Version, insertions: Sequence[Insertion]) -> str:
    kinds = quantised_to(view.structure)
    inside = _quantised(view) if kinds else []
    if unsafe and not inside:
        return f"no safer than FP16; inserted nodes stay in float, {listed(unsafe, 2)} in float16"
    if not kinds:
        unless = "" if version.strongly_typed else ", unless a calibrator includes them"
        return f"safe with QuantizeLinear nodes for the rest; inserted nodes stay in float{unless}"
    if inside:
        return f"not known; {listed(inside, 2)} {_run(inside)} in integers, too: compare outputs for real images"
    alone = [each for each in insertions if each.qdq is None]
    bare = [each.id for each in alone if quantisation.dequantiser(view.index, each.site.tensor) is not None]
    name = " and ".join(sorted(kind.upper() for kind in kinds))
    if bare:
        return f"safe, and slower than it could be; what reads {listed(bare, 2)} has lost its {name} input"
    return f"safe; inserted nodes run in float, and what reads them keeps its {name} input"


def _run(nodes: Sequence[str]) -> str:
    return "runs" if len(nodes) == 1 else "run"


def _quantised(view: View) -> list[str]:
    """The inserted nodes that compute between a DequantizeLinear and a QuantizeLinear."""
    index = view.index

    def reads_integers(visit: Visit) -> bool:
        data = [name for name in visit.node.input if name and visit.origin(name) is Origin.DATA]
        producers = [index.nodes[index.producer[name]].op_type for name in data if name in index.producer]
        return len(producers) == len(data) and set(producers) == {quantisation.DEQUANTISE}

    def is_quantised(name: str) -> bool:
        return any(node.op_type == quantisation.QUANTISE for node in quantisation.consumers(index, name))

    inserted = (v for v in view.visits if v.insertion and v.within is None and v.operator not in quantisation.PASSING)
    return [v.label for v in inserted if reads_integers(v) and any(map(is_quantised, v.outputs()))]
