"""The sweep: cells are examined in parallel, then timed alone; what is known is written after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench.inputs import inputs_for
from ..bench.whole import ROUNDS, WARM_UP
from ..graph.work import Work
from ..modelfile.model import ModelFile
from ..request import Argument, Selectors, Settings, checked
from ..runtime.custom_ops import libraries_of, registered
from ..runtime.providers import NAMES
from ..runtime.session import require, short_name
from ..selection.sites import SiteFinder
from .asked import check_blocks, columns, requested
from .budgets import Budget
from .drift import Images, timed_outputs
from .files import prepare
from .identity import keys
from .maps import joined_channels
from .page import marked_picture
from .report import Sweep
from .running import Running, Timing
from .setting import Setting
from .skeleton import skeleton
from .workers import joblib

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource


def sweep(
    model: ModelSource,
    modules: str | Sequence[str] = (),
    *,
    after: str | Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    together: str | Path | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    providers: str | Sequence[str] = ("cpu",),
    images: str | Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
    rounds: int = ROUNDS,
    warm_up: int = WARM_UP,
    threads: int = 0,
    seed: int = 0,
    target: str = "tensorrt",
    precision: str = "safe",
    budget: str | Sequence[str] = (),
    jobs: int = 1,
    memory: int = 4,
    custom_ops: str | Path | Sequence[str | Path] = (),
) -> Sweep:
    """Measure many blocks at many places of a model: size, work, latency, drift, parity, and what TensorRT makes of it.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``. It is not
        changed.
    modules:
        The blocks: ``["simam", "se", "cbam[timm]"]``.
    after:
        The columns: each selector is one, however many places it names.
    settings:
        Hyper-parameters: ``{"reduction": 8}`` for every block that has it, ``{"se.reduction": 8}`` for one.
    together:
        A recipe in which ``module`` may be a list of alternatives: each combination is one more row.
    output:
        The folder that the report is written to, after each step.
    resume:
        Whether to go on with the report in ``output``: what was measured of the same model, block, place, settings,
        versions and machine is kept.
    force:
        Whether to replace the report in ``output``.
    providers:
        Those of onnxruntime that latency is measured on, by their short names.
    images:
        A folder of images to measure drift on, and to calibrate on. None: seeded noise.
    shapes:
        Input name -> sizes, for inputs that the model leaves open; by default a batch of 1 and 640 x 640 pixels.
    batch:
        The first size of every input that leaves it open.
    rounds, warm_up:
        How many rounds count for a latency, and how many before them do not. Fewer than 6 give no verdict.
    threads:
        For one operator on the CPU while it is timed; 0 lets onnxruntime choose.
    seed:
        Of the blocks' initialisation, and of the noise.
    target, precision:
        How the blocks are written; see :func:`graphsurgery.insert`.
    budget:
        What a cell may cost: ``"latency=5%"``, ``"params=50k"``, ``"float16"`` ... Those that fit are ranked.
    jobs:
        How many cells are examined at once, with joblib; nothing else runs while one is timed.
    memory:
        How many GB the models that are timed together may take.
    custom_ops:
        Libraries with the operators in the model that onnxruntime does not have itself.

    Returns
    -------
    Sweep
        One row for each block and column. A cell that fails has its reason.

    Raises
    ------
    RequestError
        For wrong arguments: an unknown block or budget, selectors none of which names a place, images that cannot be
        read. OutputError for a folder that holds something else, and where it cannot be written.
    MissingProvider, MissingDependency
        If a provider, onnxruntime or joblib (for ``jobs``) is not there.
    CannotRun, NoKernel
        If the model without blocks does not run.

    Examples
    --------
    >>> found = sweep("yolo11n.onnx", ["simam", "se"], after=["role:p3", "role:p4"])   # doctest: +SKIP
    >>> found.save("report")                                                           # doctest: +SKIP
    """
    words = "is the name of a block or a list of them"
    names = checked("modules", modules, Selectors, Argument(words=words))
    places = checked("after", after, Selectors)
    budgets = [Budget.of(each) for each in checked("budget", budget, Selectors, Argument(words="is a text"))]
    number = partial(checked, hint=int)
    for name, value, least in (("rounds", rounds, 2), ("warm_up", warm_up, 0), ("threads", threads, 0)):
        number(name, value, argument=Argument(minimum=least))
    jobs, memory = (
        number(name, value, argument=Argument(minimum=1)) for name, value in (("jobs", jobs), ("memory", memory))
    )
    wanted = checked("shapes", shapes, Settings, Argument(words="are sizes by input"))
    folder = checked("images", images, str | None, Argument(words="is the name of a folder"))
    hyper = checked("settings", settings, Settings)
    cells = requested(names, places, together, hyper, {"seed": seed, "target": target, "precision": precision})
    check_blocks(cells)
    on = tuple(dict.fromkeys(short_name(name) for name in checked("providers", providers, Selectors, NAMES)))
    if jobs > 1:
        joblib()
    for name in on:
        require(name)
    loaded, libraries = ModelFile.load(model), libraries_of(custom_ops)
    finder = SiteFinder(loaded)
    places_of = columns(finder, cells)
    feeds = inputs_for(loaded, wanted, batch).arrays
    sizes = {name: tuple(array.shape) for name, array in feeds.items()}
    pictures = Images.of(loaded, sizes, Path(folder) if folder is not None else None, seed)
    where = Path(output) if output is not None else None
    earlier = prepare(where, resume=resume, force=force) if where is not None else None
    with registered(libraries):
        unblocked, one_run = timed_outputs(loaded, pictures)
    work = Work.of(loaded, sizes)
    source: Any = loaded.to_bytes() if not isinstance(model, str | Path) else Path(model).absolute()
    joined = tuple(joined_channels(work.index, work.lookup))
    paths = tuple(str(Path(each).absolute()) for each in libraries)
    setting = Setting(source, pictures, sizes, work.macs(), unblocked, joined, paths, int(jobs > 1))
    asked: dict[str, Any] = {
        "seed": seed,
        "rounds": rounds,
        "warm_up": warm_up,
        "threads": threads,
        "providers": list(on),
        "images": folder,
        "target": target,
        "precision": precision,
        "set": dict(hyper),
        "sizes": {name: list(shape) for name, shape in sizes.items()},
    }
    called = str(model) if isinstance(model, str | Path) else "MODEL"
    report = skeleton(loaded, called, cells, places_of, asked, setting, work)
    report["budgets"] = [each.text for each in budgets]
    for cell, key in zip(report["cells"], keys(loaded, cells, asked, pictures, report["machine"]), strict=True):
        cell["key"] = key
    timing = Timing(finder, feeds, rounds, warm_up, threads, memory)
    running = Running(report, cells, budgets, where, marked_picture(loaded, report), timing)
    running.take_over(earlier)
    running.examine(setting, jobs, one_run)
    with registered(libraries):
        for provider in on:
            running.time(provider)
    running.end()
    return Sweep(report, running.picture)
