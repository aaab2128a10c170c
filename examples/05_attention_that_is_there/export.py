"""Make trained.onnx, the model with attention in it: `python export.py [OUT.onnx]`. Weights are drawn from a seed."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from network import Network

SIZE = 160  # pixels: height and width


def export(path: Path) -> None:
    """Write the network to `path` as PyTorch's older exporter does, with the attention as it is programmed."""
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # this exporter is the older of two
        torch.onnx.export(
            Network().eval(),
            (torch.zeros(1, 3, SIZE, SIZE),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["scores"],
        )


if __name__ == "__main__":
    export(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("trained.onnx"))
