"""What `graphsurgery sweep` costs, as a whole process, against a pair of commands `insert` and `bench` for each cell.

Eight blocks at role:p3, p4, p5 and the neck's outputs of a model, with the default rounds: time, CPU time of the
process and its workers, and the most memory that they had together. The two sides run one after the other.

usage: python benchmarks/sweep_process.py MODEL [--jobs N] [--only-sweep] [--keep FOLDER]

--only-sweep leaves the commands out. --keep FOLDER keeps the report there (for sweep_agreement.py).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

from benchmarks.lib.measure import keep, run, together

BLOCKS = ("simam", "se", "eca", "nam", "cbam[timm]", "coordatt", "ema", "gc")
PLACES = ("role:p3", "role:p4", "role:p5", "role:neck-outputs")
TOOL = [sys.executable, "-m", "graphsurgery"]


def sweep(model: Path, folder: Path, jobs: int) -> dict[str, float]:
    """The figures of one sweep, whose report is in ``folder`` then."""
    words = [word for block in BLOCKS for word in ("-m", block)] + [word for at in PLACES for word in ("--after", at)]
    command = [*TOOL, "sweep", str(model), *words, "-o", str(folder), "--force", "--jobs", str(jobs), "--quiet"]
    return together(command)


def separate(model: Path, folder: Path) -> dict[str, float]:
    """The sums of time and CPU time over an `insert` that verifies and a `bench` for each cell; the largest memory."""
    made, found = folder / "cell.onnx", {"seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0}
    for block, place in product(BLOCKS, PLACES):
        words = ["-m", block, "--after", place, "-o", str(made), "--force", "--providers", "cpu"]
        for command in ([*TOOL, "insert", str(model), *words], [*TOOL, "bench", str(made)]):
            wall, cpu, peak = run(command)
            found["seconds"] += wall
            found["cpu_seconds"] += cpu
            found["peak_mb"] = max(found["peak_mb"], peak)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only-sweep", action="store_true")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        found = {"sweep": sweep(given.model, given.keep or folder / "report", given.jobs)}
        if not given.only_sweep:
            found["commands"] = separate(given.model, folder)
    finally:
        shutil.rmtree(folder)
    for name, figures in found.items():
        times = f"{figures['seconds'] / 60:.1f} min   CPU {figures['cpu_seconds']:.0f} s"
        print(f"  {name:10} {times}   peak {figures['peak_mb']:.0f} MB")
    asked = {"model": given.model.name, "blocks": BLOCKS, "places": PLACES, "jobs": given.jobs}
    ratio = {}
    if "commands" in found:
        ratio = {"ratio": found["sweep"]["cpu_seconds"] / found["commands"]["cpu_seconds"]}
        print(f"  the sweep needs {ratio['ratio']:.2f} of the CPU time of {2 * len(BLOCKS) * len(PLACES)} commands")
    path = keep(f"sweep_process_{given.model.stem}", {**asked, "processes": found, **ratio})
    print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
