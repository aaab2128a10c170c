"""Export one block's PyTorch module at some sizes with one exporter, in a process of its own.

usage: export_blocks.py CONFIGURATION torchscript|dynamo published|own FOLDER BATCHxCHANNELSxHEIGHTxWIDTH ...
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.lib.blocks import CONFIGURATIONS, OPSET, module
from benchmarks.lib.published import published


def main() -> None:
    configuration, exporter, form, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    warnings.simplefilter("ignore")
    for text in sys.argv[5:]:
        batch, channels, height, width = map(int, text.split("x"))
        path = folder / f"{configuration}-{text}-{form}-{exporter}.onnx"
        made, x = module(configuration, (channels, height, width)), torch.zeros(batch, channels, height, width)
        if form == "published":
            made = published(CONFIGURATIONS[configuration][0], made).eval()
        dynamo = exporter == "dynamo"
        extra = {"external_data": False, "verbose": False} if dynamo else {}
        torch.onnx.export(made, (x,), str(path), opset_version=OPSET, dynamo=dynamo, **extra)
        if not dynamo:
            import onnxslim

            onnx.save(onnxslim.slim(str(path)), path.with_name(path.name.replace("torchscript", "onnxslim")))


if __name__ == "__main__":
    main()
