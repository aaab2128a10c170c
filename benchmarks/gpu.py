"""The figures of a machine with a GPU: parity of every block, latency of templates, overhead in whole models.

1. Parity: every block and variant, in float32 without TF32, float16 and bfloat16, and where its nodes ran.
2. Templates against the exporters' forms (lib/templates.py) at three sizes, for batches of 1 and 16.
3. yolov8n and rtdetr-l before and after some insertions (graphsurgery.bench).

Ends with 3 where a provider cannot start. --quick does a little of each, on a model that lies in the repository.

usage: python benchmarks/gpu.py [--providers cuda,tensorrt] [--parts parity templates models] [--quick] [--folder DIR]
                                [--exports FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import graphsurgery as gsx
from benchmarks.lib.blocks import SIZES
from benchmarks.lib.measure import RESULTS, keep
from benchmarks.lib.parity import DTYPES, parity, spelled_blocks
from benchmarks.lib.templates import Plan, compared
from graphsurgery.bench import bench
from graphsurgery.errors import GraphSurgeryError
from graphsurgery.runtime.session import require, short_name

PARTS = ("parity", "templates", "models")
BATCHES = (1, 16)
WHOLE = {
    "yolov8n": ("/model.8", ("/model.15", "/model.18", "/model.21")),
    "rtdetr-l": ("/model.9", ()),
}
"""Export -> a site of its own, and sites for one insertion at each."""
BLOCKS = ("simam", "se", "nam", "ge", "cbam", "eca", "coordatt", "ema")
EXAMPLE = ROOT / "examples" / "01_first_insertion" / "detector.onnx"


def whole(provider: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Models before and after insertions: what `bench` reports, with what was inserted."""
    for name, path, selectors in _models(quick):
        for block in BLOCKS[:1] if quick else BLOCKS:
            model = gsx.insert(path, block, after=selectors)
            report = bench(model, path, providers=[provider], rounds=2 if quick else 50, warm_up=1 if quick else 10)
            print(f"{name}, {block} after {', '.join(selectors)}: {report.timed[0].difference}", flush=True)
            yield {"export": name, "block": block, "after": list(selectors), **report.to_json()}


def _models(quick: bool) -> Iterator[tuple[str, Path, Sequence[str]]]:
    if quick:
        yield "detector", EXAMPLE, ("/model.8",)
        return
    from tests.exports import export

    for name, (one, several) in WHOLE.items():
        path = export(name, "torchscript")
        yield name, path, (one,)
        if several:
            yield name, path, several


def templates(provider: str, quick: bool, exports: Path | None) -> list[dict[str, Any]]:
    """Templates against exports, a table for each batch."""
    target = "tensorrt" if provider == "tensorrt" else "onnxruntime"
    plans = [Plan(provider, target, batch=batch) for batch in BATCHES]
    if quick:
        plans = [Plan(provider, target, 2, configurations=(0,), sizes=SIZES[2:], exporters=("torchscript",))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = exports or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return [compared(plan, folder) for plan in plans]


def blocks(provider: str, quick: bool) -> list[dict[str, Any]]:
    """Parity of every block in every element type."""
    names = spelled_blocks()[:2] if quick else spelled_blocks()
    return [parity(name, dtype, provider, seeds=1 if quick else 3) for name in names for dtype in DTYPES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--providers", default="cuda", help="names with commas between them")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to do; each is kept by itself")
    parser.add_argument("--quick", action="store_true", help="a little of each part")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--exports", type=Path, help="folder where exports are kept")
    arguments = parser.parse_args()
    quick, failed = arguments.quick, []
    providers = [short_name(name) for name in arguments.providers.split(",")]
    for provider in providers:
        require(provider)
    for provider in providers:
        work: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "parity": partial(blocks, provider, quick),
            "templates": partial(templates, provider, quick, arguments.exports),
            "models": partial(lambda *given: list(whole(*given)), provider, quick),
        }
        for part in arguments.parts:
            found = work[part]()
            results = {"provider": provider, "quick": quick, part: found}
            print(f"written to {keep(f'gpu_{provider}_{part}', results, arguments.folder)}", flush=True)
            failed += [f"{row['block']} {row['dtype']}" for row in found if row.get("verdict") == "failed"]
    if failed:
        sys.exit(f"no parity: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main()
    except GraphSurgeryError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
