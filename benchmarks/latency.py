"""(c) The latency of each template against the best of three exports of the same PyTorch module, in onnxruntime.

How: see lib/templates.py.

usage: python benchmarks/latency.py [--rounds N] [--threads N] [--provider cpu|cuda] [--target onnxruntime|tensorrt]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import onnxruntime as ort

from benchmarks.lib.measure import keep
from benchmarks.lib.templates import Plan, compared


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    arguments = parser.parse_args()
    ort.set_default_logger_severity(3)
    if arguments.threads > 1:
        ort.set_global_thread_pool_sizes(arguments.threads, 1)
    with tempfile.TemporaryDirectory() as folder:
        results = compared(Plan(**vars(arguments)), Path(folder))
    print(results["geometric means"], "slower beyond noise:", results["slower beyond noise"])
    forms_of = "" if arguments.target == "onnxruntime" else f"_{arguments.target}_forms"
    print(f"written to {keep(f'latency_{arguments.provider}{forms_of}', results).name}")


if __name__ == "__main__":
    main()
