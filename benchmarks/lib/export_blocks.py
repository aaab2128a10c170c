"""Export the PyTorch modules of some blocks at some sizes with one exporter, in a process of its own.

usage: export_blocks.py torchscript|dynamo|expected FOLDER BATCH CONFIGURATION:FORM:CHANNELSxHEIGHTxWIDTH ...

FORM is published or own. What already lies in FOLDER is not exported again. ``expected`` writes no export but an input
x and what the module gives for it in float64, y.
"""

from __future__ import annotations

import os
import sys
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.lib.blocks import CONFIGURATIONS, OPSET, label, module
from benchmarks.lib.exports import EXPECTED, path
from benchmarks.lib.published import published

_DYNAMO_OPSET = 18
"""The oldest that the exporter writes itself; the conversion to an older one has crashed."""
_INPUTS = 20
_ROUNDING = 2e-5
"""between float32 and float64, of the largest value"""


def main() -> None:
    kind, folder, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    for text in sys.argv[4:]:
        number, form, shape = text.split(":")
        configuration, (channels, height, width) = int(number), map(int, shape.split("x"))
        size = channels, height, width
        target = path(folder, configuration, size, batch, form, kind)
        if target.exists():
            continue
        made = module(configuration, size)
        unfinished = target.with_suffix(".unfinished")
        if kind == EXPECTED:
            with unfinished.open("wb") as file:
                np.savez(file, **_expected(made, (batch, *size), label(configuration)))
        else:
            if form == "published":
                made = published(CONFIGURATIONS[configuration][0], made).eval()
            _export(made, torch.zeros(batch, *size), unfinished, dynamo=kind == "dynamo")
        if kind == "torchscript":
            import onnxslim

            slim = path(folder, configuration, size, batch, form, "onnxslim")
            onnx.save(onnxslim.slim(str(unfinished)), slim)
        os.replace(unfinished, target)


def _export(made: torch.nn.Module, x: torch.Tensor, target: Path, *, dynamo: bool) -> None:
    extra = {"external_data": False, "verbose": False} if dynamo else {}
    opset = _DYNAMO_OPSET if dynamo else OPSET
    torch.onnx.export(made, (x,), str(target), opset_version=opset, dynamo=dynamo, **extra)


def _expected(made: torch.nn.Module, shape: tuple[int, ...], name: str) -> dict[str, np.ndarray[Any, Any]]:
    """An input at which the module is the same in float32 and in float64, and what it gives for that.

    Some modules choose (the windows that a query reads, say), and what is chosen between nearly equal things depends on
    how a sum is rounded: no export can be compared there.
    """
    exact = deepcopy(made).double()
    for seed in range(_INPUTS):
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
        with torch.inference_mode():
            y, rounded = exact(x.double()), made(x)
        if (y - rounded).abs().max() <= _ROUNDING * max(1.0, y.abs().max().item()):
            return {"x": x.numpy(), "y": y.numpy()}
    raise RuntimeError(f"{name} differs between float32 and float64 at each of {_INPUTS} inputs")


if __name__ == "__main__":
    main()
