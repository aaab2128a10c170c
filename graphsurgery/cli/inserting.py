"""What `insert` and `apply` have in common: carry out, verify, write, and say what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from ..errors import CheckFailed, InvalidModel, MissingDependency, ParityFailed, RequestError
from ..messages import attributes, listed, percent, plain, shape_text
from ..request import Argument
from .files import DASH, Destination, open_model
from .options import provider_list
from .output import Printer, aside, counted, shown

if TYPE_CHECKING:
    from ..insertion.plan import PlannedInsertion
    from ..insertion.splice import AppliedInsertion
    from ..modelfile.model import ModelFile
    from ..request import Request
    from ..tensorrt import TensorRTReport, Version
    from ..userblocks import Trust
    from ..verification import InsertionReport, Report
    from ..weights.rest import Comparison
    from ..weights.trained_blocks import TrainedBlocks

    _Edited: TypeAlias = tuple[ModelFile, list[AppliedInsertion], Comparison | None]

_NEEDED = ("torch", "onnxruntime")
_TENSORRT = "tensorrt"
"""what the result may be checked for, with a version of it behind a colon"""
_CALIBRATED = "calibrated: each channel has its mean and deviation on the images"
"""what such a start does to the scale of x, whatever the block does by itself"""


@dataclass(frozen=True)
class Checking:
    """Whether and how the inserted blocks are verified, and what else the result is checked for.

    Parameters
    ----------
    check: tensorrt[:V]
        Also check that TensorRT takes the result, as graphsurgery tensorrt check does, with NVIDIA's parser where that
        is installed. If not, nothing is written. tensorrt:11: another version than 10.
    """

    no_verify: bool = False
    check: str | None = None
    providers: list[str] | None = None
    images: str | None = None
    memory: Annotated[int | None, Argument(minimum=1)] = None
    custom_ops: list[str] | None = None
    verbose: bool = False

    @property
    def explicit(self) -> bool:
        """Whether the user asked for it in so many words, so that it must not be left out silently."""
        return any(each is not None for each in (self.providers, self.images, self.memory))

    def missing(self) -> str:
        """The package without which nothing can be verified here; "" if all are there, or verifying was asked for."""
        return "" if self.explicit else next((name for name in _NEEDED if find_spec(name) is None), "")

    def tensorrt_version(self) -> Version | None:
        """The version of TensorRT that the result is checked for; None: it is not. RequestError for anything else."""
        if self.check is None:
            return None
        from ..tensorrt import Version

        name, _, version = self.check.partition(":")
        if name != _TENSORRT:
            raise RequestError(f"--check takes tensorrt or tensorrt:VERSION, not {self.check!r}", option="check")
        return Version.of(version or "10")

    def report(self, written: ModelFile, before: ModelFile, ids: Sequence[str], trust: Trust) -> Report:
        """Verify the insertions ``ids`` of the model as it was written, and that the rest is the model from before."""
        from ..insertion.removal import Unchanged, remove, same_bytes
        from ..verification import MEMORY, verify

        with aside():
            images, memory = Path(self.images) if self.images is not None else None, self.memory or MEMORY
            report = verify(written, providers=self.providers, images=images, only=ids, trust=trust, memory=memory)
            same = same_bytes(remove(written, ids), before)
        verb = "is" if same else "is not"
        return replace(report, rest=Unchanged(same, f"without the insertions it {verb} the given model, byte for byte"))


def run(
    requests: Sequence[Request], model: str | None, target: Destination, checking: Checking, printer: Printer
) -> None:
    """Carry out requests on a MODEL argument and deliver the result; print what was done.

    Raises ParityFailed, with nothing written, if a block does not agree with what it is compared with.
    """
    from ..api import carry_out
    from ..runtime.custom_ops import registered
    from ..userblocks import Trust

    if checking.no_verify and any(each.measures for each in requests):
        checking = replace(checking, images=None)  # they are for the calibration, or for the scale

    def edit(before: ModelFile) -> _Edited:
        return *carry_out(before, requests, announce=_announcer(printer)), None

    with aside():
        trust = Trust.in_blocks(request.module for request in requests)
    with registered(checking.custom_ops or ()):
        deliver(edit, trust, model, target, checking, printer)


def run_trained(
    blocks: TrainedBlocks,
    model: str | None,
    target: Destination,
    checking: Checking,
    printer: Printer,
    *,
    ignore_rest: bool,
    trust: Trust,
) -> None:
    """The same with trained blocks. Raises BaseDiffers, too."""
    from ..api import put_in
    from ..runtime.custom_ops import registered

    for note in blocks.notes:
        printer.note(f"note: {note}")

    def edit(before: ModelFile) -> _Edited:
        return put_in(blocks, before, ignore_rest=ignore_rest, trust=trust, announce=_announcer(printer))

    with registered(checking.custom_ops or ()):
        deliver(edit, trust, model, target, checking, printer)


def deliver(
    edit: Callable[[ModelFile], _Edited],
    trust: Trust,
    model: str | None,
    target: Destination,
    checking: Checking,
    printer: Printer,
    outcome_of: Callable[..., Outcome] | None = None,
) -> None:
    """Edit a MODEL argument, verify what was done and deliver it; ``outcome_of``: makes what is printed of that."""
    from ..graph.index import GraphIndex
    from ..graph.validity import fault

    checking = replace(checking, providers=provider_list(checking.providers))
    if checking.no_verify and checking.explicit:
        raise RequestError("--no-verify does not go with --providers, --images or --memory, which say how to verify")
    version = checking.tensorrt_version()
    printer.to_stderr = target.is_standard_output
    before = open_model(model)
    with aside():
        after, done, compared = edit(before)
    if not done:
        checking = replace(checking, no_verify=True)
    lacking = "" if checking.no_verify else checking.missing()
    verifies = not checking.no_verify and not lacking
    macs = _model_macs(before, done, infer=verifies)
    outcome = (outcome_of or Outcome)(model or DASH, target, done, macs, checking.verbose, compared)

    def verified(written: ModelFile) -> None:
        if found := fault(GraphIndex(written)):
            raise InvalidModel(f"{found}; nothing was written. This is a fault of graphsurgery: please report it")
        outcome.report = checking.report(written, before, [each.insertion.id for each in done], trust)
        try:
            outcome.report.require()
        except ParityFailed as error:
            outcome.written = False
            compared = all(each.passed for each in outcome.report.insertions)
            hint = "" if compared else "; with --no-verify it is written all the same"
            failed = ParityFailed(f"{error}{hint}; nothing was written")
            printer.report(outcome, failed)
            raise failed from None

    def taken(written: ModelFile) -> None:
        from ..tensorrt import check

        assert version is not None
        outcome.tensorrt = check(written, version, parser="auto")
        if outcome.tensorrt.stops:
            outcome.written = False
            failed = CheckFailed(f"TensorRT {version} does not take the result; nothing was written", option="check")
            printer.report(outcome, failed)
            raise failed

    def checked(written: ModelFile) -> None:
        verified(written)
        if version is not None:
            taken(written)

    unverified = taken if version is not None else None
    try:
        target.deliver(after, checked if verifies else unverified)
    except MissingDependency as error:  # installed, and cannot be loaded
        if checking.explicit:
            raise
        lacking = str(error)
        target.deliver(after, unverified)
    if lacking:
        reason = f"{lacking} is not installed" if lacking in _NEEDED else lacking
        printer.note(f"note: not compared with PyTorch, because {reason}; do so later with graphsurgery verify")
    printer.report(outcome)


def _announcer(printer: Printer) -> Callable[[PlannedInsertion], None]:
    """Says before anything is written or run how large the scores of an attention will be."""
    from ..insertion.cost import announcement

    def announce(planned: PlannedInsertion) -> None:
        site = planned.site
        if said := announcement(planned.block, site.feature, site.stride):
            printer.note(f"note: {site.label}: {said}")

    return announce


def _model_macs(before: ModelFile, done: Sequence[AppliedInsertion], *, infer: bool) -> int | None:
    """The multiply-accumulates of the model before; ``infer``: also where its shapes have to be inferred for them."""
    known = next((each.model_macs for each in done), None)
    if known is not None or not infer:
        return known
    from ..graph.work import Work

    return Work.of(before).macs()


@dataclass
class Outcome:
    """What was done, as JSON and as text."""

    model: str
    target: Destination
    done: Sequence[AppliedInsertion]
    macs: int | None
    """of the model before"""
    verbose: bool
    compared: Comparison | None = None
    """the model with the rest of the one that its blocks were trained in"""
    report: Report | None = None
    tensorrt: TensorRTReport | None = None
    written: bool = True

    def to_json(self) -> dict[str, Any]:
        """See docs/command-line.md for the keys."""
        insertions = [self._insertion_json(done) for done in self.done]
        figures = ("modules", "compared", "share", "worst", "tolerance")
        base = {"base": attributes(self.compared, *figures)} if self.compared else {}
        checks = {"tensorrt": self.tensorrt.to_json()} if self.tensorrt is not None else {}
        made = {"output": self.output_label, "insertions": insertions, "macs": self.macs}
        return {"model": self.model, **made, **base, **checks}

    @property
    def output_label(self) -> str | None:
        """How the result is called; None where it was not written."""
        return self.target.label if self.written and not self.target.dry else None

    def _insertion_json(self, done: AppliedInsertion) -> dict[str, Any]:
        insertion = done.insertion
        # of an output, the file has a new name
        given: dict[str, Any] = {"tensor": done.tensor, "consumers": list(done.site.readers)}
        given |= {"function": insertion.function} if insertion.function else {}
        return {
            "id": insertion.id,
            "module": insertion.module,
            "settings": shown(insertion.settings),
            "target": insertion.target,
            "lowering": insertion.lowering,
            "precision": insertion.precision,
            "site": asdict(insertion.site) | given,
            "output_tensor": insertion.output_tensor,
            "nodes": list(insertion.nodes),
            "parameters": insertion.parameters,
            "macs": done.work.macs(),
            "largest_activation": plain(done.work.largest()),
            **({"weights": done.source} if done.source else {}),
            **({"replaced": attributes(insertion.replaced, "nodes", "left")} if insertion.replaced else {}),
            "qdq": asdict(insertion.qdq) if insertion.qdq else None,
            "warnings": [*done.warnings, *([_untrained([done])] if _is_untrained(done) else [])],
            "parity": self.parity_json(insertion.id),
        }

    def parity_json(self, name: str) -> dict[str, Any] | None:
        if self.report is None:
            return None
        whole = self.report.to_json()
        (mine,) = [insertion for insertion in whole["insertions"] if insertion["id"] == name]
        unchanged = attributes(self.report.rest, "passed", "sentence")  # there is nothing to ignore here
        return {**mine, "unchanged": unchanged, "versions": whole["versions"]}

    def lines(self) -> Iterator[str]:
        reports = {insertion.id: insertion for insertion in self.report.insertions} if self.report else {}
        for done in self.done:
            report, most = reports.get(done.insertion.id), 1000 if self.verbose else 6
            yield from _insertion_lines(done, report, most, self.macs)
            if self.verbose:
                yield f"  nodes: {', '.join(done.insertion.nodes)}"
        if self.report and not self.report.passed:
            yield from self.report.lines()
        elif self.report:
            yield f"rest of the model: unchanged; {self.report.rest.sentence}"
        if self.compared:
            yield _base_line(self.compared)
        if self.tensorrt is not None:
            yield from self.tensorrt.lines()
        if untrained := [done for done in self.done if _is_untrained(done)]:
            yield _untrained(untrained)
        if self.written:
            yield self.target.sentence


def _insertion_lines(
    done: AppliedInsertion, report: InsertionReport | None, most: int, macs: int | None
) -> Iterator[str]:
    """``most``: how many consumers are named; ``macs``: of the model before."""
    insertion, site = done.insertion, done.insertion.site
    kind = f" ({site.type})" if site.type else ""
    yield f"{insertion.id}: {insertion.module} {site.position} {site.path or done.tensor}{kind}"
    stride = f", stride {site.stride}" if site.stride else ""
    inside = f" in the function {insertion.function[1]}" if insertion.function else ""
    yield f"  site: {done.tensor}{inside}, {shape_text(site.shape)} {site.dtype}{stride}"
    if done.site.note:
        yield f"  note: {done.site.note}"
    readers = [*site.consumers, *(["the model's output"] if done.site.graph_output else [])]
    if insertion.replaced:
        yield f"  taken out: {counted(insertion.replaced.nodes, 'node')}"
        if insertion.replaced.left:
            yield f"  not read any more, and left in the file: {listed(insertion.replaced.left, most)}"
    verb = "read by" if insertion.replaced else "rewired"
    yield f"  {verb}: {counted(len(readers), 'consumer')}: {listed(readers, most)}" if readers else f"  {verb}: nothing"
    if site.others:
        yield f"  left as they are: {counted(len(site.others), 'consumer')}: {listed(site.others, most)}"
    yield f"  added: {counted(len(insertion.nodes), 'node')}, {counted(insertion.parameters, 'parameter')}"
    yield f"  work: {_work(done, macs)}"
    if done.source:
        yield f"  weights: {done.source}"
    if insertion.qdq:
        whose = "of the site" if insertion.qdq.scale_from == "site" else "from the images"
        yield f"  quantised behind the block: {insertion.qdq.type}, with the scale {whose}"
    yield from (f"  {line}" for line in parity_lines(report)) if report else ()
    yield from (f"  warning: {warning}" for warning in done.warnings)


def _work(done: AppliedInsertion, whole: int | None) -> str:
    """The multiply-accumulates of a block, and its largest activation."""
    macs, largest = done.work.macs(), done.work.largest()
    words = ["MACs not known" if macs is None else f"{macs:,} MACs"]
    if done.insertion.function:
        words.append(f" in each call of {done.insertion.function[1]}")
    elif macs is not None:
        words.append(
            f", {percent(macs / whole)} of the model's {whole:,}" if whole else ", those of the model not known"
        )
    return f"{''.join(words)}; largest activation {largest or 'not known'}"


def _base_line(compared: Comparison) -> str:
    """What speaks for it that a model is the one that its blocks were trained in."""
    count, whole = compared.compared, counted(compared.modules, "module")
    return (
        f"the model is the one that the blocks were trained in: {count} of {whole} compared ({compared.share:.0%} of "
        f"the weights), at most {compared.worst:.1e} away, where rounding explains {compared.tolerance:.1e}"
    )


def parity_lines(report: InsertionReport) -> Iterator[str]:
    """One line for each provider."""
    from ..verification import Mode, Verdict, Worst

    for row in report.rows:
        if row.mode is Mode.QUANTISED:
            yield f"quantised and back: {row.verdict}, {row.reason or 'at most half a step away within its range'}"
    blocks = [row for row in report.rows if row.mode is not Mode.QUANTISED]
    for provider, group in groupby(sorted(blocks, key=lambda row: row.provider), key=lambda row: row.provider):
        rows = list(group)
        compared = [row.worst for row in rows if row.worst is not None]
        if compared:
            worst = Worst.of(compared)
            verdict = "FAILED" if any(row.verdict is Verdict.FAILED for row in rows) else "passed"
            figures = f"max error {worst.max_abs:.1e}, {worst.ratio:.2g} of the tolerance ({report.tolerance})"
            count = sum(row.comparisons for row in rows)
            made = f"{counted(count, 'comparison')} with {report.compared_with.short}"
            yield f"parity on {provider}: {verdict}, {figures}, {made}"
        else:
            yield f"parity on {provider}: {rows[0].verdict}: {rows[0].reason}"
    if report.size:
        yield f"parity: {report.size}"
    if report.activation:
        yield f"parity: the activation that really arrives here was not compared: {report.activation}"


def _is_untrained(done: AppliedInsertion) -> bool:
    """Whether the model computes something else than before, with nothing trained for it."""
    return done.insertion.init in ("default", "calibrated") and done.insertion.gate == "none"


def _untrained(done: Sequence[AppliedInsertion]) -> str:
    from ..userblocks.inserted import block_of

    effects = {}
    for each in done:
        own = each.insertion.init == "default"
        effects[each.insertion.module] = block_of(each.insertion).untrained if own else _CALIBRATED
    blocks = " and ".join(f"{module} ({effect})" for module, effect in effects.items())
    return f"no claim about accuracy: the model has not been trained with {blocks}"
