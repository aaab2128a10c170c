"""Export the PyTorch modules of some blocks at some sizes with one exporter, in a process of its own.

usage: export_blocks.py torchscript|dynamo FOLDER BATCH CONFIGURATION:FORM:CHANNELSxHEIGHTxWIDTH ...

FORM is published or own. What already lies in FOLDER is not exported again.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import onnx
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.lib.blocks import CONFIGURATIONS, OPSET, module
from benchmarks.lib.published import published

_DYNAMO_OPSET = 18
"""The oldest that the exporter writes itself; the conversion to an older one has crashed."""


def main() -> None:
    exporter, folder, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    for text in sys.argv[4:]:
        number, form, size = text.split(":")
        configuration, (channels, height, width) = int(number), map(int, size.split("x"))
        path = folder / f"{configuration}-{batch}x{size}-{form}-{exporter}.onnx"
        if path.exists():
            continue
        made, x = module(configuration, (channels, height, width)), torch.zeros(batch, channels, height, width)
        if form == "published":
            made = published(CONFIGURATIONS[configuration][0], made).eval()
        dynamo = exporter == "dynamo"
        extra = {"external_data": False, "verbose": False} if dynamo else {}
        opset = _DYNAMO_OPSET if dynamo else OPSET
        unfinished = path.with_suffix(".unfinished")
        torch.onnx.export(made, (x,), str(unfinished), opset_version=opset, dynamo=dynamo, **extra)
        if not dynamo:
            import onnxslim

            onnx.save(onnxslim.slim(str(unfinished)), path.with_name(path.name.replace("torchscript", "onnxslim")))
        os.replace(unfinished, path)


if __name__ == "__main__":
    main()
