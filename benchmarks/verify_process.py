"""What `graphsurgery verify` costs, as a whole process: time, CPU time and peak memory.

SE on a map of 128 x 80 x 80 (figures over large maps), SE on the RT-DETR-L export (a large model), and MHSA on 80 x 80
positions (attention that does not fit into the memory, and is compared on a smaller map). Beside them, a process that
only imports torch and onnxruntime.

usage: python benchmarks/verify_process.py [ROUNDS]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

from benchmarks.lib.measure import interleaved, keep
from tests.exports import export

TOOL = [sys.executable, "-m", "graphsurgery"]
ONE_MAP = """
import sys
import numpy as np
import onnx
from onnx import helper
path, channels = sys.argv[1], int(sys.argv[2])
kernel = np.random.default_rng(0).standard_normal((channels, 3, 8, 8)).astype(np.float32) / 14
x = helper.make_tensor_value_info("images", 1, [1, 3, 640, 640])
y = helper.make_tensor_value_info("output", 1, [1, channels, 80, 80])
nodes = [
    helper.make_node("Conv", ["images", "kernel"], ["map"], "/model.0/Conv", strides=[8, 8]),
    helper.make_node("Relu", ["map"], ["output"], "/model.1/Relu"),
]
graph = helper.make_graph(nodes, "g", [x], [y], [onnx.numpy_helper.from_array(kernel, "kernel")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
"""
"""One convolution that gives a map of 80 x 80; a process of its own keeps this one small (see measure.run)."""


def one_map(path: Path, channels: int) -> Path:
    subprocess.run([sys.executable, "-c", ONE_MAP, str(path), str(channels)], check=True)
    return path


def inserted(model: Path, block: str, selector: str, output: Path) -> list[str]:
    """Insert a block; the command that verifies it."""
    words = ["insert", str(model), "-m", block, "--after", selector, "-o", str(output), "--no-verify", "--quiet"]
    subprocess.run([*TOOL, *words], check=True, capture_output=True)
    return [*TOOL, "verify", str(output), "--providers", "cpu"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = Path(tempfile.mkdtemp())
    try:
        rtdetr = export("rtdetr-l", "torchscript")
        commands = {
            "SE on 128 x 80 x 80": inserted(
                one_map(folder / "se.onnx", 128), "se", "tensor:map", folder / "se-verified.onnx"
            ),
            "SE on RT-DETR-L": inserted(rtdetr, "se", "/model.9", folder / "rtdetr.onnx"),
            "MHSA on 80 x 80 positions": inserted(
                one_map(folder / "mhsa.onnx", 64), "mhsa", "tensor:map", folder / "mhsa-verified.onnx"
            ),
            "imports of torch and onnxruntime": [sys.executable, "-c", "import torch, onnxruntime, onnx"],
        }
        found = interleaved(commands, rounds, folder / "none")
        for name, figures in found.items():
            times = f"{figures['seconds']:.2f} s ({figures['seconds_min']:.2f} .. {figures['seconds_max']:.2f})"
            print(f"  {name:34} {times:26} CPU {figures['cpu_seconds']:.2f} s   peak {figures['peak_mb']:6.0f} MB")
        path = keep("verify_process", {"rounds": rounds, "processes": found})
        print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
