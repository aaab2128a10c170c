"""Export one block's PyTorch module at all sizes with one exporter, in a process of its own.

usage: export_blocks.py CONFIGURATION torchscript|dynamo FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.lib.blocks import OPSET, SIZES, module


def main() -> None:
    configuration, exporter, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    warnings.simplefilter("ignore")
    for size in SIZES:
        path = folder / f"{configuration}-{size[0]}-{exporter}.onnx"
        made, x = module(configuration, size), torch.zeros(1, *size)
        dynamo = exporter == "dynamo"
        extra = {"external_data": False, "verbose": False} if dynamo else {}
        torch.onnx.export(made, (x,), str(path), opset_version=OPSET, dynamo=dynamo, **extra)
        if not dynamo:
            import onnxslim

            onnx.save(onnxslim.slim(str(path)), path.with_name(path.name.replace("torchscript", "onnxslim")))


if __name__ == "__main__":
    main()
