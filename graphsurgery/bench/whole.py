"""The latency of a whole model before and after its insertions, in onnxruntime.

Three sessions run in turns: the baseline, the model, and the baseline once more as the control. Inputs and outputs stay
where the provider has its tensors, so nothing is copied between host and device but what the model itself copies. A run
ends when its outputs are there: onnxruntime waits for the device at the end of each run by default.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, option
from ..feature_map import Array, type_name
from ..graph.work import Work
from ..insertion.removal import remove
from ..modelfile.model import ModelFile
from ..request import Argument, Selectors, Settings, checked
from ..runtime.custom_ops import libraries_of, registered
from ..runtime.placement import by_provider
from ..runtime.providers import NAMES, NVIDIA
from ..runtime.quantised_types import element_types, is_quantised
from ..runtime.sample_inputs import graph_inputs
from ..runtime.session import require, session, short_name
from ..runtime.timing import in_turns, wall
from .inputs import inputs_for
from .machine import describe, gpus
from .report import BenchReport, Side, Timed

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource

ROUNDS, WARM_UP = 30, 5


def bench(
    model: ModelSource,
    baseline: ModelSource | None = None,
    *,
    providers: str | Sequence[str] = ("cpu",),
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
    rounds: int = ROUNDS,
    warm_up: int = WARM_UP,
    threads: int = 0,
    custom_ops: str | Path | Sequence[str | Path] = (),
) -> BenchReport:
    """Time a model and its baseline in turns, on each provider of onnxruntime.

    float32 is computed as each provider does by default, with TF32 where that is on.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.
    baseline:
        What to compare with; None is the model with its insertions taken out.
    providers:
        Short names: ``"cpu"``, ``"cuda"``, ``"tensorrt"`` ...
    shapes:
        Input name -> sizes, for inputs that the model leaves open; by default a batch of 1 and 640 x 640 pixels.
    batch:
        The first size of every input that leaves it open.
    rounds, warm_up:
        How many rounds count, two or more, and how many before them do not.
    threads:
        For one operator on the CPU; 0 lets onnxruntime choose.
    custom_ops:
        Libraries with the operators in the models that onnxruntime does not have itself.

    Returns
    -------
    BenchReport
        Milliseconds of both models on each provider, and whether they differ by more than the noise.

    Raises
    ------
    RequestError
        For a model without insertions and baseline, for models with different inputs and for shapes that do not fit.
    MissingProvider, MissingDependency
        If a provider or onnxruntime itself is not there.
    CannotRun, NoKernel
        If a model does not run.

    Examples
    --------
    >>> report = gsx.bench("yolov8n-simam.onnx", "yolov8n.onnx", providers=["cpu", "cuda"])   # doctest: +SKIP
    >>> report.timed[0].difference.median                                                    # doctest: +SKIP
    0.184
    """
    providers = checked("providers", providers, Selectors, NAMES)
    sizes = "are sizes by input, as in {'images': (1, 3, 640, 640)}"
    shapes = checked("shapes", shapes, Settings, Argument(words=sizes))
    batch = checked("batch", batch, int | None, Argument(minimum=1))
    rounds = checked("rounds", rounds, int, Argument(minimum=2))
    warm_up = checked("warm_up", warm_up, int, Argument(minimum=0))
    threads = checked("threads", threads, int, Argument(minimum=0))
    libraries = libraries_of(custom_ops)
    after = ModelFile.load(model)
    insertions = after.insertions()
    if baseline is None and not insertions:
        raise RequestError(
            f"{after.name} has no insertions made by graphsurgery; name a {option('baseline')} to compare with"
        )
    before = remove(after) if baseline is None else ModelFile.load(baseline)
    _check_inputs(before, after)
    names = tuple(dict.fromkeys(short_name(name) for name in providers))
    for name in names:
        require(name)
    inputs = inputs_for(after, shapes, batch)
    fed = {name: tuple(array.shape) for name, array in inputs.arrays.items()}
    work = {when: Work.of(each, fed).totals for when, each in (("before", before), ("after", after))}
    models = (before, after, before)
    with registered(libraries):
        timed = tuple(_timed(name, models, inputs.arrays, rounds, warm_up, threads) for name in names)
    return BenchReport(
        model=after.name,
        baseline=before.name if baseline is not None else "itself without its insertions",
        removed=None if baseline is not None else len(insertions),
        inputs={name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in inputs.arrays.items()},
        chosen=inputs.chosen,
        precision=precision(after),
        threads=threads,
        work=work,
        timed=timed,
        machine=describe(),
        put_back=0 if baseline is not None else sum(each.replaced is not None for each in insertions),
    )


def precision(model: ModelFile) -> dict[str, Any]:
    """{"weights": {dtype: how many tensors of it}, "quantised": whether there are QuantizeLinear nodes}."""
    weights = Counter(type_name(tensor.data_type) for tensor in model.structure.graph.initializer)
    return {"weights": dict(weights.most_common()), "quantised": is_quantised(model.structure)}


def _check_inputs(before: ModelFile, after: ModelFile) -> None:
    first, second = (
        {each.name: (each.dtype, each.shape) for each in graph_inputs(model.structure)} for model in (before, after)
    )
    if first != second:
        names = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        raise RequestError(f"{after.name} and {before.name} do not have the same inputs: they differ in {names[0]}")


def _timed(
    provider: str, models: Sequence[ModelFile], feeds: Mapping[str, Array], rounds: int, warm_up: int, threads: int
) -> Timed:
    """``models``: the baseline, the model, and the baseline once more."""
    sides = [timer(model, provider, feeds, threads) for model in models]
    taken = in_turns([run for run, _ in sides], rounds, warm_up=warm_up)
    first, second, control = (Side(tuple(t), counts) for t, (_, counts) in zip(taken, sides, strict=True))
    on_gpu = provider in NVIDIA
    tf32 = os.environ.get("NVIDIA_TF32_OVERRIDE") != "0" if on_gpu else None
    return Timed(provider, first, second, control, tf32, tuple(gpus()) if on_gpu else ())


def timer(
    model: ModelFile, provider: str, feeds: Mapping[str, Array], threads: int = 0
) -> tuple[Callable[[], float], Mapping[str, int]]:
    """A timer of one inference, in milliseconds, of a model that has run once; and by how many kernels each provider
    ran it. Raises CannotRun and NoKernel.
    """
    ready = session(
        model.to_bytes(),
        provider,
        folder=model.folder,
        threads=threads,
        types=element_types(model.structure),
        exact=False,
        profiled=True,
    )
    return wall(ready.bound(feeds)), by_provider(ready.executed)
