"""`graphsurgery sweep`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import CheckFailed, GraphSurgeryError, RequestError
from ..request import PRECISIONS, TARGETS, Argument
from .bench import input_shape
from .files import open_model
from .growing import growing
from .options import provider_list
from .options import settings as pairs
from .output import Printer

if TYPE_CHECKING:
    from ..sweep import Sweep


def sweep(
    model: str | None = None,
    *,
    module: list[str] | None = None,
    after: list[str] | None = None,
    settings: list[str] | None = None,
    together: str | None = None,
    output: str | None = None,
    resume: bool = False,
    force: bool = False,
    budget: list[str] | None = None,
    best: Annotated[int, Argument(minimum=0)] = 0,
    images: str | None = None,
    providers: list[str] | None = None,
    shape: list[str] | None = None,
    batch: Annotated[int | None, Argument(minimum=1)] = None,
    rounds: Annotated[int, Argument(minimum=2)] = 30,
    warm_up: Annotated[int, Argument(minimum=0)] = 5,
    threads: Annotated[int, Argument(minimum=0)] = 0,
    seed: Annotated[int, Argument(minimum=0)] = 0,
    target: Annotated[str, Argument(choices=TARGETS)] = "tensorrt",
    precision: Annotated[str, Argument(choices=PRECISIONS)] = "safe",
    jobs: Annotated[int, Argument(minimum=1)] = 1,
    memory: Annotated[int, Argument(minimum=1)] = 4,
    custom_ops: list[str] | None = None,
    printer: Printer,
) -> None:
    """Measure many blocks at many places of a model.

    Each block goes to each column of places, one at a time, and is measured in the same way: size, work, latency, drift
    of the outputs, parity, and what TensorRT makes of it. The report is written after each step: interrupt it, and go
    on with --resume. Ends with 1 if a block could not be put somewhere, does not agree with its PyTorch module or does
    not run; the others are measured all the same.

    \b
    graphsurgery sweep yolo11n.onnx -m simam -m se -m 'cbam[timm]' --after 'role:p{3,4,5}' --after 'C2f[*]' -o report

    Parameters
    ----------
    module: NAME
        A block. May be repeated.
    after: SELECTOR
        A column: all places that it names get the block at once. May be repeated.
    settings: [BLOCK.]NAME=VALUE
        A hyper-parameter: reduction=8 for every block that has it, se.reduction=8 for one. May be repeated.
    together: RECIPE
        A recipe in which module may be a list of alternatives: each combination is one more row.
    output: DIR
        Folder of the report: report.json, .csv, .md, .tex, .html. Default: it is only printed.
    resume:
        Go on with the report in DIR.
    force:
        Replace the report in DIR.
    budget: NAME[=LIMIT]
        What a block may cost: latency=5%, latency=2ms, params=50k, macs=100M, nodes=20, activation=4MB, growth=1MB,
        drift=1%, boxes=2px, float16, tensorrt, dla, parity. Those that fit are ranked. May be repeated.
    best: N
        Show what makes the N best, and write a recipe of each into DIR.
    images: DIR
        Folder of real images to measure drift on. Default: seeded noise.
    providers: NAME[,NAME]
        Providers of onnxruntime to time on (cpu, cuda, tensorrt ...); one that is missing is an error. Default: cpu.
    shape: NAME=1x3x640x640
        Sizes of an input that the model leaves open. May be repeated. Default: batch 1, 640 x 640 pixels.
    batch: N
        The batch, where the model leaves it open.
    rounds: N
        Rounds that count.
    warm_up: N
        Rounds before, that do not.
    threads: N
        Threads on the CPU while it is timed. 0: onnxruntime's choice.
    seed: N
        Seed of the initialisation, and of the noise.
    target:
        The runtime to write the blocks for.
    precision:
        At sites in half precision; see graphsurgery insert.
    jobs: N
        Examine N at once, with joblib. Nothing else runs while one is timed.
    memory: GB
        What the models that are timed together may take.
    """
    from ..sweep import sweep as run
    from ..sweep.report import check_fitting

    names = provider_list(providers) or ["cpu"]
    if best and output is None:
        raise RequestError("--best writes recipes: say where with --output DIR", option="best")
    given = Path(model) if model not in (None, "-") else open_model(model)
    with nullcontext() if printer.quiet else growing():
        found = run(
            given,
            module or (),
            after=after or (),
            settings=pairs(settings or []),
            together=together,
            output=output,
            resume=resume,
            force=force,
            providers=names,
            images=images,
            shapes=dict(map(input_shape, shape or ())),
            batch=batch,
            rounds=rounds,
            warm_up=warm_up,
            threads=threads,
            seed=seed,
            target=target,
            precision=precision,
            budget=budget or (),
            jobs=jobs,
            memory=memory,
            custom_ops=custom_ops or (),
        )
    failure = _failure(found)
    printer.json(found.to_json(), failure)
    printer.table(*found.table, optional=("boxes", "MACs"))
    printer.lines(found.lines())
    for cell in found.best(best):
        printer.lines([f"{cell['rank']}. {cell['command']}", *_recipe(cell, Path(output or ""))])
    if failure is None:
        check_fitting(found)
    else:
        raise failure


def _recipe(cell: dict[str, Any], folder: Path) -> list[str]:
    from ..sweep.files import write_recipe

    path = folder / f"best-{cell['rank']}.yaml"
    write_recipe(cell, path)
    return [f"   {path}"]


def _failure(found: Sweep) -> GraphSurgeryError | None:
    rows = found.failed
    if not rows:
        return None
    first, count = rows[0], f"{len(rows)} of {len(found.rows)} cells"
    return CheckFailed(f"{count} failed: {first['module']} after {first['place']}: {first['reason']}")
