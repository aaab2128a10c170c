"""(c) The latency of every block's template against the best of three exports of its PyTorch module, in onnxruntime.

How: see lib/templates.py. A run of all blocks, or of a --set of them, is written to results/; --quick, which takes the
smallest map and no dynamo exports, and a run of some --blocks are only printed. --exports keeps the exports in a
folder, for the next run with the same modules.

usage: python benchmarks/latency.py [--quick] [--set all|newer | --blocks PATTERN ...] [--rounds N] [--seconds S]
                                    [--threads N]
                                    [--provider cpu|cuda] [--target onnxruntime|tensorrt] [--exports FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import onnxruntime as ort

from benchmarks.lib.blocks import CONFIGURATIONS, SETS, SIZES, label, matches
from benchmarks.lib.measure import keep
from benchmarks.lib.templates import FORMS, Plan, compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest map, no dynamo exports, one second a case")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--set", choices=SETS, default="all", help="newer: the blocks after the first catalogue")
    which.add_argument("--blocks", nargs="+", help="only blocks that match one of these, cbam* say")
    parser.add_argument("--rounds", type=int, default=60, help="most rounds for one case")
    parser.add_argument("--seconds", type=float, default=2.5, help="time for one case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    parser.add_argument("--exports", type=Path, help="folder where exports are kept")
    arguments = parser.parse_args()
    patterns = arguments.blocks or SETS[arguments.set]
    chosen = [n for n in range(len(CONFIGURATIONS)) if matches(label(n), patterns)]
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
        print(f"\nagainst {form} modules: {_means(means)}")
        print(", ".join(f"{name} {ratio:.2f}" for name, ratio in means["each block"].items()))
        if rearranged := results["of those that rearrange"]:
            names = ", ".join(rearranged[form]["each configuration"])
            print(f"of {names}, which rearrange the map: {_means(rearranged[form])}")
        print(f"slower beyond noise: {', '.join(results['slower beyond noise'][form]) or 'none'}")
    for case, error in results["exports that differ"].items():
        print(f"left out: {case}, which is {error:.2g} off")
    if not (arguments.blocks or arguments.quick):
        parts = [plan.provider, *([f"{plan.target}_forms"] if plan.target != "onnxruntime" else [])]
        parts += [arguments.set] if arguments.set != "all" else []
        parts += ["1_thread" if plan.threads == 1 else f"{plan.threads}_threads"]
        print(f"written to {keep('_'.join(['latency', *parts]), results).name}")


def _means(means: dict[str, Any]) -> str:
    return ", ".join(f"{name} {means[name]:.3f}" for name in ("blocks", "configurations", "cases"))


if __name__ == "__main__":
    main()
