"""(c) The latency of each template against the best of three exports of the same PyTorch module, in onnxruntime.

Exports: the TorchScript exporter, the dynamo exporter, and the former after onnxslim, each of the module as its authors
publish it (lib/published.py) and of our own module, which does the same with fewer operations. All models of a block,
and one export once more as a control, run in one process, one call at a time in random order, on one thread pool and
through I/O binding; their outputs are compared before anything is timed. A ratio is the best export's median over the
template's. Slower beyond noise is what is slower than our own module's best export by more than the control differs
from its like in nine rounds of ten.

usage: python benchmarks/latency.py [--rounds N] [--threads N] [--provider cpu|cuda] [--target onnxruntime|tensorrt]
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
FORMS = ("published", "own")
WARM_UP, CALLS_A_ROUND = 20, 5


def exports(configuration: int, folder: Path) -> None:
    """Export one block with each exporter, each in its own process (torch has crashed exporting several in one)."""
    script = Path(__file__).resolve().parent / "lib" / "export_blocks.py"
    for form in forms(configuration):
        for exporter in ("torchscript", "dynamo"):
            command = [sys.executable, str(script), str(configuration), exporter, form, str(folder)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"{label(configuration)}: the {exporter} export failed:\n{result.stderr[-2000:]}")


def forms(configuration: int) -> tuple[str, ...]:
    """The forms of a module that differ: Gather-Excite is published in the form of ours."""
    return FORMS[1:] if CONFIGURATIONS[configuration][0].startswith("ge") else FORMS


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
    expected = found["own torchscript"].output.numpy()
    for name, candidate in found.items():
        np.testing.assert_allclose(candidate.output.numpy(), expected, rtol=2e-5, atol=2e-5, err_msg=name)
    order = list(found.values())
    for _ in range(rounds * CALLS_A_ROUND):
        for place in rng.permutation(len(order)):
            order[place].time()
    micros = {name: np.array(candidate.micros) for name, candidate in found.items()}
    medians = {name: float(np.median(values)) for name, values in micros.items()}
    by_round = {name: np.median(values.reshape(rounds, -1), axis=1) for name, values in micros.items()}
    noise = float(np.percentile(np.abs(np.log(by_round["own torchscript"] / by_round["control"])), 90))
    row: dict[str, Any] = {"microseconds": {name: round(value, 1) for name, value in medians.items()}, "noise": noise}
    for form in FORMS:
        exported = [name for name in medians if name.startswith(form)] or [n for n in medians if n.startswith("own")]
        best = min(exported, key=medians.__getitem__)
        quartiles = np.percentile(by_round[best] / by_round["template"], (25, 50, 75))
        row[form] = {"best": best, "ratio": medians[best] / medians["template"], "quartiles": quartiles.tolist()}
    row["slower beyond noise"] = bool(-math.log(row["own"]["quartiles"][1]) > noise)
    return row


def geometric(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def summarised(table: dict[str, Any], form: str) -> dict[str, Any]:
    """Geometric means of the ratios: over configurations and sizes, and over blocks (over their extents) and sizes."""
    by_block: dict[str, list[float]] = {}
    for name, sizes in table.items():
        by_block.setdefault(name.split()[0], []).extend(row[form]["ratio"] for row in sizes.values())
    blocks = {name: geometric(values) for name, values in by_block.items()}
    every = [ratio for values in by_block.values() for ratio in values]
    return {"configurations": geometric(every), "blocks": geometric(list(blocks.values())), "each block": blocks}


def show(name: str, size: tuple[int, int, int], row: dict[str, Any]) -> None:
    micros = row["microseconds"]
    best = ", ".join(f"{row[form]['best']} {micros[row[form]['best']]:.1f} x{row[form]['ratio']:.2f}" for form in FORMS)
    flag = "  SLOWER" if row["slower beyond noise"] else ""
    print(f"{name:28} {size[0]:4}  {micros['template']:7.1f} us; {best}{flag}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    arguments = parser.parse_args()
    ort.set_default_logger_severity(3)
    ort.set_global_thread_pool_sizes(arguments.threads, 1)
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for configuration in range(len(CONFIGURATIONS)):
            exports(configuration, Path(folder))
            for size in SIZES:
                names = [f"{form} {exporter}" for form in forms(configuration) for exporter in EXPORTERS]
                start = f"{configuration}-{size[0]}-"
                files = {n: Path(folder, f"{start}{n.replace(' ', '-')}.onnx").read_bytes() for n in names}
                ours = template(configuration, size, arguments.target)
                models = {"template": ours, **files, "control": files["own torchscript"]}
                row = measure(models, size, arguments.rounds, arguments.provider)
                table.setdefault(label(configuration), {})["x".join(map(str, size))] = row
                show(label(configuration), size, row)
    summary = {form: summarised(table, form) for form in FORMS}
    cells = [(name, size, row) for name, sizes in table.items() for size, row in sizes.items()]
    slower = [f"{name} {size}" for name, size, row in cells if row["slower beyond noise"]]
    print(summary, "slower beyond noise:", slower)
    data = {"rounds": arguments.rounds, "threads": arguments.threads, "target": arguments.target}
    forms_of = "" if arguments.target == "onnxruntime" else f"_{arguments.target}_forms"
    results = {**data, "geometric means": summary, "slower beyond noise": slower, "table": table}
    print(f"written to {keep(f'latency_{arguments.provider}{forms_of}', results).name}")


if __name__ == "__main__":
    main()
