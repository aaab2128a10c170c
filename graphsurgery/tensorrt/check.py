"""Check: a model against the rules of one version of TensorRT, and the report of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..messages import html_table, printable
from ..modelfile.model import ModelFile
from .options import Options
from .rtx import NotAsked, Opinion, ask
from .rtx.findings import findings as refused
from .rule import ERROR, SEVERITIES, Finding
from .rules import RULES
from .summary import Summary, counted
from .support import Version
from .view import View

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource
    from .parser import Verdict


@dataclass(frozen=True)
class TensorRTReport:
    """What a check found."""

    model: str
    version: Version
    dla: str | None
    precision: str
    nodes: int
    findings: list[Finding]
    insertions: Sequence[str]
    """ids of all insertions in the model"""
    summary: Summary
    """whether it builds, and whether the blocks are safe in FP16 and INT8"""
    parser: Verdict | None = None
    """what the installed TensorRT's own parser says; None where there is none"""
    rtx: Opinion | NotAsked | None = None
    """what NVIDIA's parser of TensorRT for RTX says; None where it was not to be asked"""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """id of an insertion in the place of something -> what that was: "rewritten from 17 nodes" """

    def __repr__(self) -> str:
        return printable(f"<TensorRTReport of {self.model}: {self._verdict}; {counted(self.findings)}>")

    def _repr_html_(self) -> str:
        headers = ("severity", "rule", "node", "insertion", "finding", "instead")
        rows = [(f.severity, f.rule, f.node, f.insertion, f.sentence, f.instead) for f in self.findings]
        said = [("parser", line) for each in (self.parser, self.rtx) if each for line in each.lines()]
        return html_table((self.model, ""), [*said, ("verdict", self._verdict)]) + html_table(headers, rows)

    @property
    def _verdict(self) -> str:
        device = f" with DLA ({self.dla})" if self.dla else ""
        return f"TensorRT {self.version}{device} {'does not take' if self.stops else 'takes'} this model"

    @property
    def stops(self) -> bool:
        """Whether TensorRT refuses the model, or would compute something else."""
        refused = self.parser is not None and self.parser.refuses(self.version)
        return refused or any(finding.severity == ERROR for finding in self.findings)

    @property
    def inserted(self) -> list[Finding]:
        """The findings of inserted blocks."""
        return [finding for finding in self.findings if finding.insertion is not None]

    @property
    def others(self) -> list[Finding]:
        """The findings that the model has without them."""
        return [finding for finding in self.findings if finding.insertion is None]

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return {
            "model": self.model,
            "version": str(self.version),
            "dla": self.dla,
            "precision": self.precision,
            "nodes": self.nodes,
            "insertions": list(self.insertions),
            **({"replaced": dict(self.replaced)} if self.replaced else {}),
            "inserted": [finding.to_json() for finding in self.inserted],
            "model_findings": [finding.to_json() for finding in self.others],
            "parser": asdict(self.parser) if self.parser else None,
            "rtx": self.rtx.to_json() if self.rtx else None,
            "stops": self.stops,
            "summary": self.summary.to_json(),
        }

    def lines(self) -> Iterator[str]:
        """The report as text: the summary, what was found, and what TensorRT's own parser says."""
        yield from self.summary.lines()
        if self.insertions:
            named = (f"{id} {self.replaced[id]}" if id in self.replaced else id for id in self.insertions)
            yield f"inserted blocks ({', '.join(named)}): {counted(self.inserted)}"
            yield from _details(self.inserted)
        yield f"the model itself: {counted(self.others)}"
        yield from _details(self.others)
        for said in (self.parser, self.rtx):
            if said is not None:
                yield from said.lines()
        yield f"{self.nodes:,} nodes: {self._verdict}, as far as the table tells"


def findings(
    model: ModelSource, version: str | Version = "10", *, dla: str | None = None, precision: str = "fp32"
) -> list[Finding]:
    """Where a model does not comply with what one version of TensorRT demands. TensorRT need not be installed.

    Parameters
    ----------
    model:
        Any model, with insertions or without.
    version:
        8.6, 10, 11 or a minor version of the last two.
    dla:
        "orin", for what its DLA runs as well; None is the GPU alone.
    precision:
        What the engine is to be built in: "fp32", "fp16" or "int8".

    Returns
    -------
    list[Finding]
        Those of the file as a whole, then those of single nodes; the gravest first in each.

    Raises
    ------
    RequestError
        For a version, DLA or precision that there is no table for.

    Examples
    --------
    >>> model = ModelFile.load("yolov8n-simam.onnx")  # doctest: +SKIP
    >>> [finding.rule for finding in findings(model, "11", precision="fp16")]  # doctest: +SKIP
    ['float16-in-file']
    """
    return check(model, version, dla=dla, precision=precision).findings


def check(
    model: ModelSource,
    version: str | float | Version = "10",
    *,
    dla: str | None = None,
    precision: str = "fp32",
    plugin: str | Sequence[str] = (),
    parser: str = "none",
    build: bool = False,
    require_parser: bool = False,
    shapes: str | Sequence[str] = (),
    installed: Verdict | None = None,
) -> TensorRTReport:
    """Check every node of a model against what TensorRT takes. TensorRT need not be installed.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.
    version:
        The version of TensorRT: ``"8.6"``, ``"10"``, ``"11"``, or a minor version such as ``"10.9"``.
    dla:
        ``"orin"``: what runs on a DLA of that, too.
    precision:
        What the engine is to run in: ``"fp32"``, ``"fp16"`` or ``"int8"``.
    plugin:
        The name of a plugin that is loaded where the model is built, or several; those of TensorRT's own library are
        known.
    parser:
        ``"auto"``: NVIDIA's own parser is asked, too, where the extra ``parser`` is installed; ``"rtx"``: it has to be.
        What it refuses is an error for TensorRT 11, whose generation it is of, and a warning for earlier ones.
    build:
        Have its builder make an engine, which is not kept.
    require_parser:
        Whether there has to be a verdict of it.
    shapes:
        Sizes of dynamic inputs for ``build``: ``"images:1x3x640x640"``, or three such shapes.
    installed:
        The verdict of the installed TensorRT, to set beside the findings.

    Returns
    -------
    TensorRTReport
        With ``findings``, a list of :class:`Finding`, and ``stops``: whether TensorRT refuses the model or would
        compute something else.

    Raises
    ------
    RequestError
        If there is no table for the version, the DLA or the precision.
    EnvironmentLacks
        If NVIDIA's parser has to be asked and cannot be; MissingDependency if it is not installed.

    Examples
    --------
    >>> check("yolov8n-simam.onnx", "8.6").stops   # doctest: +SKIP
    False
    """
    model = ModelFile.load(model)
    plugins = (plugin,) if isinstance(plugin, str) else plugin
    options, view = Options.of(version, precision=precision, dla=dla, plugins=plugins), View(model)
    origins = {insertion.id: insertion.origin for insertion in model.insertions()}
    found = [f for rule in RULES if rule.holds_for(options) for f in rule.findings(view, options)]
    sizes = (shapes,) if isinstance(shapes, str) else shapes
    rtx = ask(model, parser, build=build, required=require_parser, shapes=sizes)
    if isinstance(rtx, Opinion):
        found += refused(rtx, view.visits, options.version, found)
    found.sort(key=lambda f: (f.node is not None, SEVERITIES.index(f.severity)))
    confirmed = rtx.confirms(options.version) if isinstance(rtx, Opinion) else ""
    answers = Summary.of(view, options, found, installed=installed, confirmed=confirmed)
    return TensorRTReport(
        model.name,
        options.version,
        dla,
        precision,
        len(view.visits),
        found,
        list(origins),
        answers,
        installed,
        rtx,
        replaced={id: origin for id, origin in origins.items() if origin},
    )


def _details(found: Sequence[Finding], most: int = 3) -> Iterator[str]:
    """The findings, those of one rule together: the first few places, and how many more there are."""
    for rule in dict.fromkeys((f.severity, f.rule) for f in found):
        same = [f for f in found if (f.severity, f.rule) == rule]
        for finding in same[:most]:
            where = "" if finding.node is None else f" {finding.node}"
            where += f" (in {finding.within})" if finding.within else ""
            yield f"  {finding.severity} [{finding.rule}]{where}: {finding.message}"
        if len(same) > most:
            yield f"  {rule[0]} [{rule[1]}] and {len(same) - most} more"
        yield f"      instead: {same[0].instead}"
        yield f"      source: {same[0].source}"
