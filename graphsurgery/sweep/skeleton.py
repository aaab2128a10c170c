"""The report before anything is measured: the model, the machine, and a row for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import _version
from ..bench.machine import describe
from ..graph.index import GraphIndex
from ..graph.work import Work
from ..messages import attributes
from ..modelfile.model import ModelFile
from ..runtime.sample_inputs import graph_inputs
from .figures import EMPTY
from .files import FORMAT, VERSION
from .grid import STARTS, Cell
from .outputs import Reader
from .setting import Setting


def skeleton(
    model: ModelFile,
    path: str,
    cells: Sequence[Cell],
    columns: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any],
    setting: Setting,
    work: Work,
) -> dict[str, Any]:
    """A report of which no cell is known; keys as in docs/sweep.md. ``path``: what commands call the model; ``work``:
    that of the model.
    """
    largest = work.largest()
    read = setting.reader
    reasons = {each["place"]: each["reason"] for each in columns}
    dtypes = {each.name: str(each.dtype) for each in graph_inputs(model.structure)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "graphsurgery": _version.__version__,
        "complete": False,
        "model": {
            "name": model.name,
            "digest": model.digest(),
            "bytes": model.size,
            "nodes": len(GraphIndex(model).nodes),
            "macs": setting.macs,
            "largest_activation": attributes(largest) if largest else None,
            "inputs": {name: {"shape": list(s), "dtype": dtypes[name]} for name, s in setting.sizes.items()},
        },
        "settings": {**asked, "starts": list(STARTS)},
        "drift_on": setting.images.words,
        "detections": read.words if isinstance(read, Reader) else None,
        "not_read": "" if isinstance(read, Reader) else read,
        "machine": describe(),
        "columns": list(columns),
        "budgets": [],
        "cells": [_row(cell, path, reasons[cell.place]) for cell in cells],
    }


def _row(cell: Cell, path: str, reason: str) -> dict[str, Any]:
    told = {"module": cell.module, "place": cell.place, "state": "failed" if reason else "pending", "reason": reason}
    return {"key": "", **told, "command": cell.command(path), "recipe": cell.entries, **EMPTY}
