"""What `graphsurgery rewrite --target onnxruntime` gains in networks that have attention of their own, in onnxruntime.

Each part that is rewritten is cut out of the network, before and after, and both are timed in turns with a control;
then so are the whole networks. Parts with the same form and map are timed once and count as often as they are there.

usage: python benchmarks/rewrite_networks.py [--networks NAME ...] [--rounds N] [--threads N] [--exports FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

import onnx

from benchmarks.lib.measure import geometric_mean, keep
from graphsurgery.bench.whole import bench
from graphsurgery.graph.part import Part
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.rewriting.rewrite import Rewriting, Rewritten, rewrite
from graphsurgery.runtime.timing import Verdict
from tests.exports import export

EXPORTED = ("mobilenet_v3_large", "efficientnet_b0", "yolo11n", "rtdetr-l")
MADE = ("seresnet50", "yolo11n with blocks", "rtdetr-l with blocks")
"""by lib/attention_networks.py"""
_MAKE = REPOSITORY / "benchmarks" / "lib" / "attention_networks.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=(*EXPORTED, *MADE), default=(*EXPORTED, *MADE))
    parser.add_argument("--rounds", type=int, default=100, help="of a part; of a whole network, a third of it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--exports", type=Path, help="folder where exports are kept")
    asked = parser.parse_args()
    networks: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.exports or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in asked.networks:
            networks[name] = measured(exported(name, folder), asked.rounds, asked.threads)
            print(f"{name}: {_line(networks[name])}", flush=True)
    ratios = [
        part["times as fast"] for each in networks.values() for part in each["parts"] for _ in range(part["count"])
    ]
    slower = [f"{name}: {part['module']}" for name, each in networks.items() for part in each["parts"] if _slower(part)]
    slower += [name for name, each in networks.items() if _slower(each["whole"])]
    print(f"\n{len(ratios)} parts, {geometric_mean(ratios):.2f} times as fast in the geometric mean")
    print(f"slower beyond noise: {', '.join(slower) or 'none'}")
    found = {
        "threads": asked.threads,
        "rounds": asked.rounds,
        "parts": len(ratios),
        "geometric mean": geometric_mean(ratios),
    }
    if len(networks) == len(EXPORTED) + len(MADE):
        print(f"written to {keep('rewrite_networks', {**found, 'slower': slower, 'networks': networks}).name}")


def exported(name: str, folder: Path) -> Path:
    """The file of a network, made by its exporter unless it is there."""
    if name in EXPORTED:
        return export(name, "torchscript")
    path = folder / f"{name}.onnx"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished.onnx")
        subprocess.run([sys.executable, str(_MAKE), name, str(unfinished)], check=True, stdout=subprocess.DEVNULL)
        unfinished.rename(path)
    return path


def measured(path: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Figures of one network: its parts, and the whole."""
    model = ModelFile.load(path)
    done = rewrite(model, target="onnxruntime")
    before, after = (onnx.load_model_from_string(each.to_bytes()) for each in (model, done.model))
    counts, first = Counter[tuple[Any, ...]](), dict[tuple[Any, ...], Rewritten]()
    for each in done.rewritten:
        key = alike(each, before)
        counts[key] += 1
        first.setdefault(key, each)
    parts = []
    for key, count in counts.items():
        each = first[key]
        part, insertion = each.found.part, each.applied.insertion
        old = cut(before, part, part.output)
        new = cut(after, part, insertion.output_tensor)
        row = {
            "module": insertion.module,
            "place": each.found.place,
            "map": f"{part.feature.channels}x{part.feature.height}x{part.feature.width}",
            "count": count,
        }
        parts.append(row | timed(new, old, rounds, threads))
    whole = timed(done.model, model, max(10, rounds // 3), threads) if done.rewritten else {}
    return {"rewritten": len(done.rewritten), "left": left(done), "parts": parts, "whole": whole}


def cut(model: onnx.ModelProto, part: Part, output: str) -> onnx.ModelProto:
    """What computes a tensor from the map that enters a part, as a model of its own."""
    graph, wanted, nodes = model.graph, {output}, list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.insert(0, node)
            wanted.update(set(node.input) - {part.input})
    weights = [each for each in graph.initializer if each.name in wanted]
    shape = (part.feature.batch, part.feature.channels, *part.feature.size)
    kind = part.feature.onnx_type
    ends = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in (part.input, output))
    alone = onnx.helper.make_graph(nodes, "part", [next(ends)], [next(ends)], weights)
    return onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)


def alike(each: Rewritten, model: onnx.ModelProto) -> tuple[Any, ...]:
    """What parts have in common that are timed once."""
    part = each.found.part
    operators = tuple(model.graph.node[node].op_type for node in part.nodes)
    return each.applied.insertion.module, str(each.applied.insertion.settings), part.feature, operators


def timed(after: Any, before: Any, rounds: int, threads: int) -> dict[str, Any]:
    """Medians in milliseconds, and how many times as fast the second is."""
    (found,) = bench(after, before, rounds=rounds, warm_up=max(3, rounds // 10), threads=threads).timed
    old, new = found.before.times.median, found.after.times.median
    verdict = str(found.difference.verdict)
    return {"before_ms": round(old, 4), "after_ms": round(new, 4), "times as fast": old / new, "verdict": verdict}


def left(done: Rewriting) -> list[str]:
    """What was left as it is, and why."""
    return [f"{each.found.place}: {each.reason}" for each in done.left]


def _slower(row: dict[str, Any]) -> bool:
    return row.get("verdict") == Verdict.SLOWER.value


def _line(network: dict[str, Any]) -> str:
    parts = ", ".join(
        f"{part['count']} {part['module']} {part['map']} x{part['times as fast']:.2f}" for part in network["parts"]
    )
    whole = network["whole"]
    figures = f"whole {whole['before_ms']} to {whole['after_ms']} ms, {whole['verdict']}" if whole else "nothing"
    return f"{network['rewritten']} rewritten, {len(network['left'])} left; {figures}; {parts}"


if __name__ == "__main__":
    main()
