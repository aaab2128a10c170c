"""Reports of `sweep` for the tests of its page, with every state that a cell can have."""

from __future__ import annotations

from typing import Any

HOSTILE = '<script>alert("x")</script>'
"""a name that must stay text"""
_STARTS = ("default", "gate", "calibrated")


def report(modules: int = 3, places: int = 2, *, complete: bool = True) -> dict[str, Any]:
    """A report of modules x places: the last module failed everywhere, of the first is one cell not timed yet."""
    columns = [f"role:p{number + 3}" for number in range(places - 1)] + [HOSTILE]
    cells = [_cell(m, p, place, m == modules - 1) for m in range(modules) for p, place in enumerate(columns)]
    cells[1] |= {"state": "untimed", "latency": {}}
    site = {"path": "/model.16", "type": "C3k2", "tensor": "t", "shape": [1, 64, 80, 80], "stride": 8}
    return {
        "format": "graphsurgery sweep",
        "version": 1,
        "complete": complete,
        "model": {
            "name": f"{HOSTILE}.onnx",
            "digest": "0" * 64,
            "bytes": 290148,
            "nodes": 234,
            "macs": None,
            "largest_activation": None,
            "inputs": {"images": {"shape": [1, 3, 640, 640], "dtype": "float32"}},
        },
        "settings": {"seed": 0, "rounds": 30, "providers": ["cpu", "cuda"], "images": None, "starts": list(_STARTS)},
        "drift_on": "an image of noise, seed 0",
        "detections": None,
        "not_read": "what the model gives is not known to be detections: [1, 10]",
        "machine": {"processor": "a processor", "cores": 2, "versions": {"onnx": "1.19.0"}, "gpus": [], "cuda": None},
        "columns": [{"place": place, "places": [site], "reason": ""} for place in columns],
        "budgets": ["params=1k"],
        "cells": cells,
    }


def _cell(module: int, column: int, place: str, failed: bool) -> dict[str, Any]:
    name = f"block{module}"
    cell: dict[str, Any] = {
        "key": f"{module}-{column}",
        "module": name,
        "place": place,
        "state": "failed" if failed else "done",
        "reason": f"the map has 3 channels, and {name} needs 4" if failed else "",
        "command": f"graphsurgery insert model.onnx --module {name} --after '{place}' -o out.onnx",
        "fits": not failed and module % 2 == 0,
        "misses": [] if module % 2 == 0 else ["params 2,000 > 1k"],
        "rank": None if failed or module % 2 else module + column + 1,
    }
    if failed:
        empty = dict.fromkeys(("parameters", "nodes", "block_macs", "model_macs", "largest_activation", "growth"))
        return cell | empty | {"float16": {}, "tensorrt": {}, "dla": [], "parity": {}, "drift": {}, "latency": {}}
    difference = 1.5 - 0.25 * (module * 2 + column)
    drift = {"relative": 10.0 ** -(3 * module + column), "boxes": 1.25, "scores": 1e-9, "changed": 3, "detections": 600}
    nothing = dict.fromkeys(drift) | {"reason": "it has no such start"}
    figures = {"before": 30.0, "after": 31.0, "difference": difference, "low": difference - 0.1}
    figures |= {"high": difference + 0.1, "relative": difference / 30, "noise": 0.2}
    verdict = "slower" if difference > 0.2 else "below noise"
    return cell | {
        "parameters": [0, 1234567, 9][module % 3] + column,
        "nodes": 6,
        "block_macs": None,
        "model_macs": None,
        "largest_activation": {"shape": [1, 64, 80, 80], "bytes": 1638400},
        "growth": 0,
        "float16": {"verdict": "safe", "sentence": ""},
        "tensorrt": {"8.6": {"takes": False, "sentence": "an operator"}, "10": {"takes": True, "sentence": ""}},
        "dla": ["ReduceMean"],
        "parity": {"passed": None, "max_abs": None, "ratio": None, "sentence": "not compared"},
        "drift": {"default": drift | {"reason": ""}, "gate": nothing, "calibrated": nothing},
        "latency": {each: figures | {"verdict": verdict} for each in ("cpu", "cuda")},
    }
