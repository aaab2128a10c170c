"""Figures of one cell that need no clock: size, work, drift, parity, and what TensorRT makes of it.

:func:`examine` takes and gives plain values, so that cells can be examined in other processes and on other machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..cards.facts import Facts
from ..cards.listing import TENSORRT
from ..errors import GraphSurgeryError, readable
from ..graph.work import Work
from ..insertion.splice import AppliedInsertion
from ..messages import attributes
from ..modelfile.model import ModelFile
from ..modelfile.target import as_output_error
from ..process import leftovers
from ..runtime.custom_ops import registered
from ..runtime.session import usual_threads
from ..tensorrt.inserted import errors_of_blocks
from ..userblocks.inserted import block_of
from ..verification import verify
from .drift import NOT_COMPARED, drift, outputs_of
from .grid import STARTS, Cell
from .setting import Ready, Setting, ready

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


def examine(cell: Cell, setting: Setting) -> dict[str, Any]:
    """The figures of a cell, but for its latency; with "state", "untimed" or "failed", and the "reason" of that."""
    try:
        with registered(setting.libraries), usual_threads(setting.threads):
            found = _figures(cell, setting, ready(setting))
            return dict(readable({"state": "untimed", "reason": "", **EMPTY, **found}))
    except GraphSurgeryError as error:
        return {**EMPTY, "state": "failed", "reason": reason_of(error)}


def reason_of(error: GraphSurgeryError) -> str:
    """Why a cell, a start or a column is not there, in one line: without the marks below a selector."""
    return str(readable(error.message)).partition("\n")[0]


def _figures(cell: Cell, setting: Setting, at_hand: Ready) -> dict[str, Any]:
    after, done = cell.put_in(at_hand.finder)
    nodes = [name for each in done for name in each.insertion.nodes]
    work = Work.of(after, setting.sizes)
    macs = work.macs()
    largest = work.largest(work.named(nodes))
    parity = _parity(after, [each.insertion.id for each in done], setting.images.folder)
    failed = {"state": "failed", "reason": parity["sentence"]} if parity["passed"] is False else {}
    return {
        "insertions": [each.insertion.id for each in done],
        "parameters": sum(block_of(each.insertion).counts(each.insertion.feature)[0] for each in done),
        "nodes": len(nodes),
        "block_macs": macs - setting.macs if macs is not None and setting.macs is not None else None,
        "model_macs": macs,
        "largest_activation": attributes(largest) if largest else None,
        "growth": after.size - at_hand.finder.model.size,
        **_tensorrt(after),
        "dla": list(dict.fromkeys(name for each in done for name in _left_by_a_dla(each))),
        "parity": parity,
        "drift": dict(_drifts(cell, after, setting, at_hand)),
        **failed,
    }


def _left_by_a_dla(done: AppliedInsertion) -> list[str]:
    return Facts(block_of(done.insertion)).left_by_a_dla(done.insertion.feature)


def _tensorrt(model: ModelFile) -> dict[str, Any]:
    """{"float16", "tensorrt"}: safety, and the errors of inserted blocks by version."""
    errors, sentence = errors_of_blocks(model, TENSORRT, TENSORRT[1])
    verdicts = {
        version: {"takes": not found, "sentence": found[0].sentence if found else ""}
        for version, found in errors.items()
    }
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


def _drifts(cell: Cell, after: ModelFile, setting: Setting, at_hand: Ready) -> Iterator[tuple[str, dict[str, Any]]]:
    """``after``: the model with the block as it begins by default."""
    with TemporaryDirectory(prefix=leftovers.PREFIX) as made:
        leftovers.register(made, content=True)
        for start in STARTS:
            try:
                with as_output_error(Path(made)):
                    images = setting.images.as_folder(Path(made)) if start == "calibrated" else None
                changed = after if start == "default" else cell.put_in(at_hand.finder, start, images)[0]
                outputs = outputs_of(changed, setting.images)
                yield start, drift(setting.outputs, outputs, at_hand.read, at_hand.found)
            except GraphSurgeryError as error:  # not every block has every start, and not every result runs
                yield start, {**NOT_COMPARED, "reason": reason_of(error)}
        leftovers.forget(made)
