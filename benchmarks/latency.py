"""(c) The latency of each template against the best of three exports of the same PyTorch module, in onnxruntime.

Exports: the TorchScript exporter, the dynamo exporter, and the former after onnxslim. All four models of a block, and the first export
once more as a control, run in one process, one call at a time in random order, on one thread pool and through I/O binding.
A ratio is the best export's median over the template's. A template is slower beyond noise if it is slower than the best
export by more than the control differs from itself. The output of each is compared with the others before anything is timed.

usage: python benchmarks/latency.py [--rounds N] [--provider cpu|cuda] [--target onnxruntime|tensorrt]
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np
import onnxruntime as ort

from benchmarks.lib.blocks import CONFIGURATIONS, SIZES, label, template
from benchmarks.lib.measure import keep

EXPORTERS = ("torchscript", "dynamo", "onnxslim")
WARM_UP, CALLS_A_ROUND = 20, 5


def exports(configuration: int, folder: Path) -> None:
    """Export one block with each exporter, each in its own process (torch has crashed exporting several in one)."""
    script = Path(__file__).resolve().parent / "lib" / "export_blocks.py"
    for exporter in ("torchscript", "dynamo"):
        command = [sys.executable, str(script), str(configuration), exporter, str(folder)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"{label(configuration)}: the {exporter} export failed:\n{result.stderr[-2000:]}")


class Candidate:
    """One model, ready to run on inputs and outputs that stay where they are."""

    def __init__(self, model: bytes, x: np.ndarray[Any, Any], provider: str) -> None:
        options = ort.SessionOptions()
        options.use_per_session_threads = False
        options.log_severity_level = 3
        name = "CUDAExecutionProvider" if provider == "cuda" else "CPUExecutionProvider"
        self.session = ort.InferenceSession(model, options, providers=[name])
        if self.session.get_providers()[0] != name:
            raise RuntimeError(f"onnxruntime has no {name} here")
        self.binding = self.session.io_binding()
        value = ort.OrtValue.ortvalue_from_numpy(x, provider)
        self.output = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(x), provider)
        self.binding.bind_ortvalue_input(self.session.get_inputs()[0].name, value)
        self.binding.bind_ortvalue_output(self.session.get_outputs()[0].name, self.output)
        self.micros: list[float] = []
        for _ in range(WARM_UP):
            self.session.run_with_iobinding(self.binding)

    def time(self) -> None:
        start = time.perf_counter_ns()
        self.session.run_with_iobinding(self.binding)
        self.micros.append((time.perf_counter_ns() - start) / 1e3)


def measure(models: dict[str, bytes], size: tuple[int, int, int], rounds: int, provider: str) -> dict[str, Any]:
    """Medians in microseconds, and the ratios, of the models of one block at one size."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, *size)).astype(np.float32)
    found = {name: Candidate(model, x, provider) for name, model in models.items()}
    expected = found["torchscript"].output.numpy()
    for name, candidate in found.items():
        np.testing.assert_allclose(candidate.output.numpy(), expected, rtol=2e-5, atol=2e-5, err_msg=name)
    order = list(found.values())
    for _ in range(rounds * CALLS_A_ROUND):
        for place in rng.permutation(len(order)):
            order[place].time()
    medians = {name: float(np.median(candidate.micros)) for name, candidate in found.items()}
    best = min(EXPORTERS, key=medians.__getitem__)
    ours, theirs, again = (np.array(found[name].micros).reshape(rounds, -1) for name in ("template", best, "control"))
    first = np.array(found["torchscript"].micros).reshape(rounds, -1)
    noise = np.abs(np.log(np.median(first, axis=1) / np.median(again, axis=1)))
    ratios = np.median(theirs, axis=1) / np.median(ours, axis=1)
    return {
        "microseconds": {name: round(value, 1) for name, value in medians.items()},
        "best export": best,
        "ratio": medians[best] / medians["template"],
        "ratio quartiles over rounds": [float(q) for q in np.percentile(ratios, (25, 50, 75))],
        "control ratio": medians["torchscript"] / medians["control"],
        "noise": float(np.median(noise)),
        "slower beyond noise": bool(-math.log(medians[best] / medians["template"]) > np.median(noise)),
    }


def geometric(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    arguments = parser.parse_args()
    ort.set_default_logger_severity(3)
    ort.set_global_thread_pool_sizes(2, 1)
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for configuration in range(len(CONFIGURATIONS)):
            exports(configuration, Path(name))
            for size in SIZES:
                files = {e: Path(name, f"{configuration}-{size[0]}-{e}.onnx").read_bytes() for e in EXPORTERS}
                ours = template(configuration, size, arguments.target)
                models = {"template": ours, **files, "control": files["torchscript"]}
                row = measure(models, size, arguments.rounds, arguments.provider)
                table.setdefault(label(configuration), {})["x".join(map(str, size))] = row
                times = " ".join(f"{key} {value:7.1f}" for key, value in row["microseconds"].items())
                flag = "  SLOWER" if row["slower beyond noise"] else ""
                print(f"{label(configuration):28} {size[0]:4}  {times}  x{row['ratio']:.2f}{flag}", flush=True)
    cells = [row["ratio"] for sizes in table.values() for row in sizes.values()]
    by_block: dict[str, list[float]] = {}
    for name, sizes in table.items():
        by_block.setdefault(name.split()[0], []).extend(row["ratio"] for row in sizes.values())
    summary = {
        "geometric mean over configurations and sizes": geometric(cells),
        "geometric mean over blocks and sizes": geometric([geometric(values) for values in by_block.values()]),
        "by block": {name: geometric(values) for name, values in by_block.items()},
        "slower beyond noise": [
            f"{name} {size}"
            for name, sizes in table.items()
            for size, row in sizes.items()
            if row["slower beyond noise"]
        ],
    }
    print(summary)
    title = f"latency_{arguments.provider}" + (
        "" if arguments.target == "onnxruntime" else f"_{arguments.target}_forms"
    )
    path = keep(
        title, {"rounds": arguments.rounds, "threads": 2, "target": arguments.target, **summary, "table": table}
    )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
