"""What `graphsurgery sites` costs, as a whole process: time, CPU time and peak memory.

A chain of 100,000 nodes, and the exports of yolov8n, yolo11n and RT-DETR-L. With the Python that another graphsurgery
is installed for, that one is measured in turn, and the ratio of the CPU times is printed: of the medians.

usage: python benchmarks/sites_process.py [--rounds N] [--base PYTHON]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

from benchmarks.lib.measure import interleaved, keep
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
            found[name] = interleaved(commands, asked.rounds, Path(folder, "none"))
            for key, figures in found[name].items():
                ratio = figures["cpu_seconds"] / found[name]["base"]["cpu_seconds"] if asked.base else 1
                shown = f"   {ratio:.2f} of base" if asked.base and key == "this" else ""
                cost = f"CPU {figures['cpu_seconds']:6.2f} s   peak {figures['peak_mb']:4.0f} MB{shown}"
                print(f"  {name:14} {key:5} {figures['seconds']:6.2f} s   {cost}", flush=True)
    path = keep("sites_process", {"rounds": asked.rounds, "processes": found})
    print(f"\n{json.dumps(json.loads(path.read_text())['machine'])}")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
