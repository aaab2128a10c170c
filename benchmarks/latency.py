"""(c) The latency of every block's template against the best of three exports of its PyTorch module, in onnxruntime.

How: see lib/templates.py. A run of all blocks is written to results/; --quick, which takes the smallest map and no
dynamo exports, and a run of some --blocks are only printed. --exports keeps the exports in a folder, for the next run
with the same modules.

usage: python benchmarks/latency.py [--quick] [--blocks PATTERN ...] [--rounds N] [--seconds S] [--threads N]
                                    [--provider cpu|cuda] [--target onnxruntime|tensorrt] [--exports FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import onnxruntime as ort

from benchmarks.lib.blocks import CONFIGURATIONS, SIZES, label
from benchmarks.lib.measure import keep
from benchmarks.lib.templates import FORMS, Plan, compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest map, no dynamo exports, one second a case")
    parser.add_argument("--blocks", nargs="*", default=["*"], help="only blocks that match one of these, cbam* say")
    parser.add_argument("--rounds", type=int, default=60, help="most rounds for one case")
    parser.add_argument("--seconds", type=float, default=2.5, help="time for one case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    parser.add_argument("--exports", type=Path, help="folder where exports are kept")
    arguments = parser.parse_args()
    chosen = [n for n in range(len(CONFIGURATIONS)) if any(_matches(n, pattern) for pattern in arguments.blocks)]
    if not chosen:
        parser.error("no block matches")
    plan = Plan(
        arguments.provider,
        arguments.target,
        arguments.rounds,
        arguments.threads,
        configurations=chosen,
        sizes=SIZES[2:] if arguments.quick else SIZES,
        exporters=("torchscript",) if arguments.quick else ("torchscript", "dynamo"),
        seconds=min(1.0, arguments.seconds) if arguments.quick else arguments.seconds,
    )
    ort.set_default_logger_severity(3)
    if plan.threads > 1:
        ort.set_global_thread_pool_sizes(plan.threads, 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.exports or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = compared(plan, folder)
    for form in FORMS:
        means = results["geometric means"][form]
        print(f"\nagainst {form} modules: {', '.join(f'{name} {means[name]:.3f}' for name in _MEANS)}")
        print(", ".join(f"{name} {ratio:.2f}" for name, ratio in means["each block"].items()))
        print(f"slower beyond noise: {', '.join(results['slower beyond noise'][form]) or 'none'}")
    if len(chosen) == len(CONFIGURATIONS) and not arguments.quick:
        forms_of = "" if plan.target == "onnxruntime" else f"_{plan.target}_forms"
        threads = "_1_thread" if plan.threads == 1 else f"_{plan.threads}_threads"
        print(f"written to {keep(f'latency_{plan.provider}{forms_of}{threads}', results).name}")


_MEANS = ("blocks", "configurations", "cases")


def _matches(configuration: int, pattern: str) -> bool:
    return pattern in ("*", label(configuration)) or fnmatch(CONFIGURATIONS[configuration][0], pattern)


if __name__ == "__main__":
    main()
