"""What `graphsurgery find` tells of real networks: blocks that are there, found and proven, and seconds.

Networks of torchvision, timm, Ultralytics and transformers with attention and without, in variants of tests/exports,
each with its names and with random ones. What is there is counted by hooks on the modules of the PyTorch model, by
their classes. Each file is looked at in a process of its own.

usage: python benchmarks/find_networks.py [--networks NAME ...] [--variants NAME ...] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import onnx

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

from benchmarks.lib.measure import keep
from tests.exports import CLASSIFIERS, export, modules
from tests.recognition.randomise import randomise

NETWORKS = (
    *CLASSIFIERS,
    *("resnet18", "mobilenet_v2"),
    *("yolov5n", "yolov8n", "yolox-nano", "yolo11n", "yolo26n", "yolo12n", "rtdetr-l", "rtdetr-r18"),
)
VARIANTS = ("torchscript", "dynamo", "simplified", "ort-extended")
BLOCKS = {
    "torchvision.ops.misc.SqueezeExcitation": "se",
    "timm.models._efficientnet_blocks.SqueezeExcite": "se",
    "timm.layers.squeeze_excite.SEModule": "se",
    "timm.layers.squeeze_excite.EffectiveSEModule": "ese",
    "timm.layers.eca.EcaModule": "eca",
    "timm.layers.global_context.GlobalContext": "gc",
    "timm.layers.selective_kernel.SelectiveKernel": "sk",
    "timm.layers.cbam.CbamModule": "cbam",
    "timm.layers.coord_attn.CoordAttn": "coordatt",
    "timm.models.swin_transformer.SwinTransformerBlock": "swin",
    "ultralytics.nn.modules.block.PSABlock": "psablock",
    "ultralytics.nn.modules.block.ABlock": "psablock",
    "ultralytics.nn.modules.transformer.AIFI": "aifi",
    "transformers.models.rt_detr.modeling_rt_detr.RTDetrAIFILayer": "aifi",
}
"""class of a module -> the block of the catalogue that it is"""


@dataclass(frozen=True)
class Row:
    """One file."""

    network: str
    variant: str
    names: str
    """own or random"""
    nodes: int
    there: dict[str, int]
    """block -> how many modules that are such ran"""
    found: dict[str, int]
    """block[variant] -> how many of these were listed, proven or not; "own kind" for what is like none"""
    proven: dict[str, int]
    missed: list[str]
    """where names are the network's own: modules that were not proven at their place"""
    seconds: float
    """of the whole command"""
    cpu_seconds: float

    @property
    def invented(self) -> int:
        """How many proven blocks are none that is there."""
        return sum((_by_block(self.proven) - Counter(self.there)).values())


def _by_block(spelled: dict[str, int]) -> Counter[str]:
    found = Counter[str]()
    for name, count in spelled.items():
        found[name.partition("[")[0]] += count
    return found


def there(network: str) -> dict[str, str]:
    """Module path -> block, of the modules of the PyTorch model that ran."""
    return {each.path: BLOCKS[each.kind] for each in modules(network) if each.values and each.kind in BLOCKS}


def looked_at(network: str, variant: str, names: str, folder: Path) -> Row:
    """What the command says of one file."""
    path = export(network, variant)
    model = onnx.load(path)
    if names == "random":
        path = folder / "random.onnx"
        onnx.save(randomise(model).model, path)
    started, used = time.perf_counter(), processor_seconds()
    command = [sys.executable, "-m", "graphsurgery", "find", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    seconds, cpu_seconds = time.perf_counter() - started, processor_seconds() - used
    listed: list[dict[str, Any]] = json.loads(done.stdout)["found"]
    proven = {each["place"]: each["module"] for each in listed if each["proven"]}
    expected = there(network)
    missed = [p for p, block in expected.items() if not any(is_at(p, block, *each) for each in proven.items())]
    return Row(
        network,
        variant,
        names,
        nodes=len(model.graph.node),
        there=dict(Counter(expected.values())),
        found=dict(Counter(each["module"] or "own kind" for each in listed)),
        proven=dict(Counter(proven.values())),
        missed=missed if names == "own" else [],
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
    )


def is_at(path: str, block: str, place: str, spelled: str) -> bool:
    """Whether a block that was proven is a module: its place is the outermost module with just these nodes."""
    return spelled.partition("[")[0] == block and f"{path}.".startswith(f"{place}.")


def processor_seconds() -> float:
    """Of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shown(row: Row) -> str:
    """One line of the table."""
    count = f"{sum(row.there.values()):3} there {sum(row.found.values()):3} found {sum(row.proven.values()):3} proven"
    kinds = ", ".join(row.proven) or "-"
    lacking = f"   missed: {', '.join(row.missed)}" if row.missed else ""
    return (
        f"  {row.network:27} {row.variant:11} {row.names:6} {count} {row.cpu_seconds:5.1f} s of CPU   {kinds}{lacking}"
    )


def totals(rows: Sequence[Row]) -> dict[str, Any]:
    """Of all files together."""
    attention = [row for row in rows if row.there]
    plain = [row for row in rows if not row.there]
    return {
        "files with attention": len(attention),
        "blocks there": sum(sum(row.there.values()) for row in attention),
        "blocks proven": sum(sum((_by_block(row.proven) & Counter(row.there)).values()) for row in attention),
        "files without attention": len(plain),
        "listed in these": sum(sum(row.found.values()) for row in plain),
        "invented": sum(row.invented for row in rows),
        "most seconds of CPU": max((row.cpu_seconds for row in rows), default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=["*"], help="of these alone; * stands for any")
    parser.add_argument("--variants", nargs="+", metavar="NAME", default=list(VARIANTS))
    parser.add_argument("--folder", type=Path, help="where to write the figures, else to benchmarks/results")
    asked = parser.parse_args()
    networks = [name for name in NETWORKS if any(fnmatch(name, wanted) for wanted in asked.networks)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network in networks:
            for variant in asked.variants:
                for names in ("own", "random"):
                    rows.append(looked_at(network, variant, names, Path(folder)))
                    print(shown(rows[-1]), flush=True)
    figures = {"load average": os.getloadavg()[0], "totals": totals(rows), "files": [asdict(row) for row in rows]}
    path = keep("find_networks", figures, **({"folder": asked.folder} if asked.folder else {}))
    print(f"\n{json.dumps(figures['totals'])}")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
