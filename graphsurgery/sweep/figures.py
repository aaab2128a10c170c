"""Figures of one cell that need no clock: size, work, drift, parity, and what TensorRT makes of it.

:func:`examine` takes and gives plain values, so that cells can be examined in other processes and on other machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..cards.facts import Facts
from ..cards.listing import TENSORRT
from ..errors import GraphSurgeryError, readable
from ..insertion.splice import AppliedInsertion
from ..messages import attributes
from ..modelfile.model import ModelFile
from ..modelfile.target import as_output_error
from ..process import leftovers
from ..request import Shapes
from ..runtime.custom_ops import registered
from ..tensorrt import check
from ..userblocks.inserted import block_of
from ..verification import verify
from .drift import NOT_COMPARED, Images, Outputs, detections_in, drift, outputs_of
from .grid import STARTS, Cell
from .outputs import Reader
from .reading import reader
from .work import WholeWork

EMPTY: dict[str, Any] = {
    "insertions": [],
    **dict.fromkeys(("parameters", "nodes", "block_macs", "model_macs", "largest_activation", "growth", "float16")),
    "tensorrt": {},
    "dla": [],
    "parity": None,
    "drift": {},
    "latency": {},
}
"""the figures of a cell of which nothing is known"""
_NEEDED = ("torch", "onnxruntime")
"""what parity needs"""


@dataclass(frozen=True)
class Setting:
    """What all cells of a sweep have in common."""

    source: Path | bytes
    images: Images
    sizes: Shapes
    macs: int | None
    """of the model without blocks"""
    outputs: Outputs
    """of the model without blocks"""
    joined: tuple[tuple[int, ...], ...] = ()
    """of each output, the channels of what it is joined from"""
    libraries: tuple[str, ...] = ()
    threads: int = 0

    @property
    def model(self) -> ModelFile:
        """The model without blocks."""
        return ModelFile.load(self.source)

    @property
    def reader(self) -> Reader | str:
        """How detections are read from the outputs; or why they are not, in a sentence."""
        if self.images.pixels is None:
            return "the model has no image input"
        return reader(self.outputs, *self.images.pixels, self.joined)


def examine(cell: Cell, setting: Setting) -> dict[str, Any]:
    """The figures of a cell, but for its latency; with "state", "untimed" or "failed", and the "reason" of that."""
    try:
        with registered(setting.libraries):
            return dict(readable({"state": "untimed", "reason": "", **EMPTY, **_figures(cell, setting)}))
    except GraphSurgeryError as error:
        return {**EMPTY, "state": "failed", "reason": reason_of(error)}


def reason_of(error: GraphSurgeryError) -> str:
    """Why a cell, a start or a column is not there, in one line: without the marks below a selector."""
    return str(readable(error.message)).partition("\n")[0]


def _figures(cell: Cell, setting: Setting) -> dict[str, Any]:
    model = setting.model
    after, done = cell.put_in(model)
    nodes = [name for each in done for name in each.insertion.nodes]
    work = WholeWork(after, setting.sizes)
    macs = work.macs
    largest = work.largest(nodes)
    parity = _parity(after, [each.insertion.id for each in done], setting.images.folder)
    failed = {"state": "failed", "reason": parity["sentence"]} if parity["passed"] is False else {}
    return {
        "insertions": [each.insertion.id for each in done],
        "parameters": sum(block_of(each.insertion).counts(each.insertion.feature)[0] for each in done),
        "nodes": len(nodes),
        "block_macs": macs - setting.macs if macs is not None and setting.macs is not None else None,
        "model_macs": macs,
        "largest_activation": attributes(largest) if largest else None,
        "growth": after.size - model.size,
        **_tensorrt(after),
        "dla": list(dict.fromkeys(name for each in done for name in _left_by_a_dla(each))),
        "parity": parity,
        "drift": dict(_drifts(cell, model, setting)),
        **failed,
    }


def _left_by_a_dla(done: AppliedInsertion) -> list[str]:
    return Facts(block_of(done.insertion)).left_by_a_dla(done.insertion.feature)


def _tensorrt(model: ModelFile) -> dict[str, Any]:
    """{"float16", "tensorrt"}: safety, and the errors of inserted blocks by version."""
    verdicts = {}
    for version in TENSORRT:
        errors = [each.sentence for each in check(model, version).inserted if each.severity == "error"]
        verdicts[version] = {"takes": not errors, "sentence": errors[0] if errors else ""}
    sentence = check(model, TENSORRT[1], precision="fp16").summary.fp16
    verdict = next(word for word in ("not safe", "not known", "safe") if sentence.startswith(word))
    return {"float16": {"verdict": verdict, "sentence": sentence}, "tensorrt": verdicts}


def _parity(model: ModelFile, ids: Sequence[str], images: Path | None) -> dict[str, Any]:
    lacking = next((name for name in _NEEDED if find_spec(name) is None), None)
    if lacking:
        return {"passed": None, "max_abs": None, "ratio": None, "sentence": f"{lacking} is not installed"}
    report = verify(model, providers=["cpu"], images=images, only=ids, ignore_rest=True)
    worst = [row.worst for each in report.insertions for row in each.rows if row.worst is not None]
    try:
        report.require()
        sentence = ""
    except GraphSurgeryError as error:
        sentence = reason_of(error)
    return {
        "passed": report.passed,
        "max_abs": max((each.max_abs for each in worst), default=None),
        "ratio": max((each.ratio for each in worst), default=None),
        "sentence": sentence,
    }


def _drifts(cell: Cell, model: ModelFile, setting: Setting) -> Iterator[tuple[str, dict[str, Any]]]:
    told = setting.reader
    read = told if isinstance(told, Reader) else None
    found = detections_in(setting.outputs, read) if read is not None else []
    with TemporaryDirectory(prefix=leftovers.PREFIX) as made:
        leftovers.register(made, content=True)
        for start in STARTS:
            try:
                with as_output_error(Path(made)):
                    images = setting.images.as_folder(Path(made)) if start == "calibrated" else None
                changed, _ = cell.put_in(model, start, images)
                yield start, drift(setting.outputs, outputs_of(changed, setting.images, setting.threads), read, found)
            except GraphSurgeryError as error:  # not every block has every start, and not every result runs
                yield start, {**NOT_COMPARED, "reason": reason_of(error)}
        leftovers.forget(made)
