"""What `graphsurgery sites` costs, as a whole process: time, CPU time and peak memory.

A chain of 100,000 nodes, and the exports of yolov8n, yolo11n and RT-DETR-L. With the Python that another graphsurgery
is installed for, that one is measured in turn, and the median of the ratios of the CPU times is printed, one ratio a
round.

usage: python benchmarks/sites_process.py [--rounds N] [--base PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

from benchmarks.lib.measure import in_turn, keep, summary
from tests.exports import export

MODELS = ("yolov8n", "yolo11n", "rtdetr-l")
STAGES = 500
"""of the chain, 200 nodes each"""
TOOL = [sys.executable, "-m", "graphsurgery"]
INSTALLED = "import sys; sys.argv[0] = 'graphsurgery'; from graphsurgery.cli.main import main; sys.exit(main())"
"""the command line of whatever is installed, whether it has a __main__ or not"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", metavar="PYTHON")
    asked = parser.parse_args()
    tools = {"this": TOOL} | ({"base": [asked.base, "-I", "-c", INSTALLED]} if asked.base else {})
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder, "chain.onnx")
        subprocess.run(
            [sys.executable, str(REPOSITORY / "benchmarks" / "lib" / "synthetic.py"), str(chain), str(STAGES)],
            check=True,
        )
        models = {"100,000 nodes": chain} | {name: export(name, "torchscript") for name in MODELS}
        for name, model in models.items():
            commands = {key: [*tool, "sites", str(model)] for key, tool in tools.items()}
            runs = in_turn(commands, asked.rounds, Path(folder, "none"))
            found[name] = {key: summary(each) for key, each in runs.items()}
            if asked.base:
                pairs = zip(runs["this"], runs["base"], strict=True)
                found[name]["this"]["cpu / base"] = statistics.median(ours[1] / base[1] for ours, base in pairs)
            for key, figures in found[name].items():
                shown = f"   {figures['cpu / base']:.2f} of base" if "cpu / base" in figures else ""
                cost = f"CPU {figures['cpu_seconds']:6.2f} s   peak {figures['peak_mb']:4.0f} MB{shown}"
                print(f"  {name:14} {key:5} {figures['seconds']:6.2f} s   {cost}", flush=True)
    path = keep("sites_process", {"rounds": asked.rounds, "load average": os.getloadavg()[0], "processes": found})
    print(f"\n{json.dumps(json.loads(path.read_text())['machine'])}")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
