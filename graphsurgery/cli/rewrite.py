"""`graphsurgery rewrite`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from ..messages import listed
from ..request import PRECISIONS, TARGETS, Argument, Selectors
from .files import Output
from .inserting import Checking, Outcome, deliver, parity_lines
from .output import Printer, counted

if TYPE_CHECKING:
    from ..insertion.splice import AppliedInsertion
    from ..modelfile.model import ModelFile
    from ..rewriting import Rewriting, Rewritten


def rewrite(
    model: str | None = None,
    *,
    only: Selectors = (),
    module: str | None = None,
    target: Annotated[str, Argument(choices=TARGETS)] = "tensorrt",
    precision: Annotated[str, Argument(choices=PRECISIONS)] = "safe",
    force_form: bool = False,
    output: Output,
    checking: Checking,
    printer: Printer,
) -> None:
    """Put attention that an exporter wrote into the tool's own form.

    What graphsurgery find proves to be a block of the catalogue is replaced by the block's template, with its weights,
    where that gains something; the rest of the file keeps its bytes. Nothing else of the model changes, and
    graphsurgery remove gives the original file back. Where nothing is rewritten the result has the bytes of MODEL.

    \b
    graphsurgery rewrite yolo11n.onnx -o out.onnx
    graphsurgery rewrite mobilenet_v3.onnx --module se --target onnxruntime -o out.onnx
    graphsurgery rewrite model.onnx --only /model.9/attn --force-form -o out.onnx

    Parameters
    ----------
    only: SELECTOR
        Only these: places as graphsurgery find lists them, or selectors of their modules. May be repeated.
    module: NAME
        Only this block: se, or 'ge[theta]' for one variant.
    target:
        The runtime to write the blocks for. dla: as far as possible for a DLA of NVIDIA's Orin.
    precision:
        In half precision: statistics in float32 between Casts, everything in the model's type, or everything in
        float32. fp16: the blocks in float16 in a float32 model.
    force_form:
        Rewrite what gains nothing, too.
    """
    from ..api import rewritten
    from ..userblocks import NO_TRUST

    state = _State()

    def edit(before: ModelFile) -> tuple[ModelFile, list[AppliedInsertion], None]:
        found = rewritten(
            before, only=tuple(only or ()), module=module, target=target, precision=precision, force_form=force_form
        )
        state.rewriting = found
        return found.model, [each.applied for each in found.rewritten], None

    deliver(edit, NO_TRUST, model, output.destination(model), checking, printer, partial(_RewriteOutcome, state))


@dataclass
class _State:
    rewriting: Rewriting | None = None


class _RewriteOutcome(Outcome):
    """What was rewritten and what was left, as JSON and as text."""

    def __init__(self, state: _State, *given: Any) -> None:
        super().__init__(*given)
        assert state.rewriting is not None
        self._rewriting = state.rewriting

    def to_json(self) -> dict[str, Any]:
        """See docs/rewrite.md for the keys."""
        rewritten = [
            {**each.to_json(), "parity": self.parity_json(each.applied.insertion.id)}
            for each in self._rewriting.rewritten
        ]
        left = [each.to_json() for each in self._rewriting.left]
        checks = {"tensorrt": self.tensorrt.to_json()} if self.tensorrt is not None else {}
        return {"model": self.model, "output": self.output_label, "rewritten": rewritten, "left": left, **checks}

    def lines(self) -> Iterator[str]:
        reports = {insertion.id: insertion for insertion in self.report.insertions} if self.report else {}
        for each in self._rewriting.rewritten:
            yield from _rewritten_lines(each)
            report = reports.get(each.applied.insertion.id)
            yield from (f"  {line}" for line in parity_lines(report)) if report else ()
        for left in self._rewriting.left:
            module = left.found.block.spelled if left.found.block else "attention"
            yield f"{left.found.place}: {module}, left as it is: {left.reason}"
        if not self._rewriting.rewritten:
            yield "nothing was rewritten: the result has the bytes of the model"
        if self.report and not self.report.passed:
            yield from self.report.lines()
        elif self.report:
            yield f"rest of the model: unchanged; {self.report.rest.sentence}"
        if self.tensorrt is not None:
            yield from self.tensorrt.lines()
        if self.written:
            yield self.target.sentence


def _rewritten_lines(each: Rewritten) -> Iterator[str]:
    insertion = each.applied.insertion
    replaced = insertion.replaced
    assert replaced is not None
    after = counted(len(insertion.nodes), "node")
    yield f"{each.found.place}: {insertion.module}, {insertion.origin} to {after}; its id is {insertion.id}"
    yield from (f"  was: {finding}" for finding in each.found.findings)
    if replaced.left:
        yield f"  not read any more, and left in the file: {listed(replaced.left, 4)}"
    yield from (f"  warning: {warning}" for warning in each.applied.warnings)
