"""The whole insert process: (a) on the RT-DETR-L export and (b) on a synthetic graph of 20,000 nodes, against other
ways; (d) with verification, on the YOLOv8n export, beside a process that only imports torch.

Compared with: a script that makes the same edit with onnx-graphsurgeon, onnx.load + onnx.save without any edit, and cp.
Each writes a new file; the script and ours flush it to the disk. Added memory is the peak of a process less the peak of
one that only imports the same packages. Our package is compiled to bytecode first, as the others are. Verification is
off but in (d): it is a second job, which the others do not do at all. Where a machine has other work, the CPU time says
more than the time does.

usage: python benchmarks/insert_process.py [ROUNDS]
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

TOOL = str(Path(sys.executable).with_name("graphsurgery"))
LIB = Path(__file__).resolve().parent / "lib"


def commands(model: Path, folder: Path, selector: str, tensors: list[str], size: int) -> dict[str, list[str]]:
    """The commands to compare on one model."""
    python, source, out = sys.executable, str(model), str(folder / "out.onnx")
    copy = f"import onnx; onnx.save(onnx.load({source!r}), {out!r})"
    insert = [TOOL, "insert", source, "--module", "simam", "--after", selector, "-o", out, "--no-verify"]
    return {
        "graphsurgery insert": insert,
        "onnx-graphsurgeon script": [
            python,
            str(LIB / "graphsurgeon_insert.py"),
            source,
            out,
            str(size),
            str(size),
            *tensors,
        ],
        "onnx.load + onnx.save": [python, "-c", copy],
        "cp": ["cp", source, out],
        "imports of graphsurgery": [python, "-c", "import graphsurgery.cli.main, graphsurgery.api"],
        "imports of the script": [python, "-c", "import onnx, numpy, onnx_graphsurgeon"],
    }


def summary(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """The ratios that matter."""
    ours, script = found["graphsurgery insert"], found["onnx-graphsurgeon script"]
    added = ours["peak_mb"] - found["imports of graphsurgery"]["peak_mb"]
    script_added = script["peak_mb"] - found["imports of the script"]["peak_mb"]
    return {
        "time / onnx-graphsurgeon script": ours["seconds"] / script["seconds"],
        "CPU time / onnx-graphsurgeon script": ours["cpu_seconds"] / script["cpu_seconds"],
        "time / onnx.load + onnx.save": ours["seconds"] / found["onnx.load + onnx.save"]["seconds"],
        "added memory / onnx-graphsurgeon script": added / script_added,
        "added_mb": added,
        "script_added_mb": script_added,
    }


def show(title: str, found: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    for name, figures in found.items():
        times = f"{figures['seconds']:.3f} s ({figures['seconds_min']:.3f} .. {figures['seconds_max']:.3f})"
        print(f"  {name:40} {times:32} CPU {figures['cpu_seconds']:.3f} s   peak {figures['peak_mb']:7.1f} MB")


def verified(rounds: int, folder: Path) -> dict[str, object]:
    """(d) SE behind a layer of the YOLOv8n export, inserted and verified."""
    model, out = export("yolov8n", "torchscript"), folder / "out.onnx"
    words = ["insert", str(model), "--module", "se", "--after", "/model.9", "-o", str(out), "--providers", "cpu"]
    found = interleaved(
        {"insert, verified": [TOOL, *words], "import of torch": [sys.executable, "-c", "import torch"]}, rounds, out
    )
    show(f"(d) YOLOv8n, {model.stat().st_size / 1e6:.0f} MB, one SE behind /model.9, verified", found)
    ours, torch = found.values()
    beyond = {f"{kind} beyond the import of torch": ours[kind] - torch[kind] for kind in ("seconds", "cpu_seconds")}
    print("  ", {key: round(value, 3) for key, value in beyond.items()})
    return {"processes": found, **beyond}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    # as pip does when it installs a package for use
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", REPOSITORY / "graphsurgery", REPOSITORY / "patterns"], check=True
    )
    folder = Path(tempfile.mkdtemp())
    try:
        model = export("rtdetr-l", "torchscript")
        tensor = "/model.9/ec/act/Relu_output_0"
        large = interleaved(commands(model, folder, "/model.9", [tensor], 20), rounds, folder / "out.onnx")
        show(f"(a) RT-DETR-L, {model.stat().st_size / 1e6:.0f} MB, one SimAM behind /model.9", large)
        ratios = summary(large)
        print("  ", {key: round(value, 3) for key, value in ratios.items()})

        graph = folder / "synthetic.onnx"
        subprocess.run([sys.executable, str(LIB / "synthetic.py"), str(graph)], check=True)
        leaving = [f"/stage.{stage}/39/Add_output_0" for stage in range(100)]
        one = commands(graph, folder, "/stage.50", leaving[50:51], 32)
        hundred = commands(graph, folder, "/stage.*", leaving, 32)
        names = ("graphsurgery insert", "onnx-graphsurgeon script")
        both = {
            f"{name}, {n}": c[name] for n, c in (("1 insertion", one), ("100 insertions", hundred)) for name in names
        }
        both |= {name: one[name] for name in ("onnx.load + onnx.save", "cp")}
        many = interleaved(both, rounds, folder / "out.onnx")
        show("(b) 20,000 nodes", many)
        one_insertion, hundred_insertions = (
            many[f"graphsurgery insert, {n}"] for n in ("1 insertion", "100 insertions")
        )
        growth, cpu_growth = (hundred_insertions[kind] / one_insertion[kind] for kind in ("seconds", "cpu_seconds"))
        print(f"   100 insertions cost {growth:.2f} times what one costs, and {cpu_growth:.2f} times its CPU time")
        path = keep(
            "insert_process",
            {
                "rounds": rounds,
                "rtdetr_l": {"megabytes": model.stat().st_size / 1e6, "processes": large, "ratios": ratios},
                "synthetic_20000_nodes": {
                    "processes": many,
                    "100 insertions / 1 insertion": growth,
                    "CPU time of 100 insertions / of 1": cpu_growth,
                },
                "yolov8n": verified(rounds, folder),
            },
        )
        print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
