"""Comparison of a whole file, as it is deployed, with the whole PyTorch module that it was made from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...errors import RequestError, option
from ...feature_map import Array
from ...messages import listed, tracked
from ...modelfile.model import ModelFile
from ...request import Argument, Selectors, checked
from ...runtime.providers import NAMES, versions
from ...runtime.session import require, short_name, usable
from ..detaching import attachments
from .bisection import first_difference
from .block_weights import other_weights
from .deployed import Deployed, Image
from .layout import SMALLEST_SCORE, Layout
from .live import Live
from .matching import Distance, distances
from .pair import Pair
from .precision import Precision
from .queries import is_tie
from .report import QuantityReport, WholeReport

if TYPE_CHECKING:
    from ...modelfile.model import ModelSource


def compare(
    file: ModelSource,
    module: nn.Module,
    images: str | Path | None = None,
    *,
    providers: str | Sequence[str] | None = None,
    seeds: int = 1,
    against: str = "the module",
) -> WholeReport:
    """Compare a whole file, as it is deployed, with the whole PyTorch module that it was made from.

    The blocks that are attached to the module are a part of it. The module is computed in float32, whatever its weights
    are stored in; it is not changed. See docs/verification.md for what is compared and how much error is allowed.

    Parameters
    ----------
    file:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.
    module:
        The module, such as ``YOLO("best.pt").model``. Outputs of Ultralytics' heads are known: boxes are compared in
        pixels, scores apart. Those of other modules are compared by their own scale.
    images:
        A folder of pictures, letterboxed to the file's input; ``.npy`` arrays are used as they are. None: random
        images.
    providers:
        Short names such as ``["cpu", "cuda"]``. None: the CPU, and CUDA where it is there.
    seeds:
        How many random images there are without ``images``.
    against:
        What the report calls the module.

    Returns
    -------
    WholeReport
        With ``passed``, and one row for each quantity and provider. Where they differ it names the first module that
        does; its ``require`` raises ParityFailed.

    Raises
    ------
    RequestError
        If the module is none, or does not take what the file takes; for a quantised file and for bad images.
    ModelError
        If the file is no ONNX model that can be run.
    CannotRun, NoKernel
        If onnxruntime does not run it.
    MissingDependency, MissingProvider
        Without onnxruntime, or a provider that was asked for.

    Examples
    --------
    >>> compare("yolov8n-se.onnx", YOLO("best.pt").model, "photos/").passed   # doctest: +SKIP
    True
    """
    _check_module(module)
    given = checked("images", images, str | None, Argument(words="is the name of a folder"))
    seeds = checked("seeds", seeds, int, Argument(minimum=1))
    names = _providers(checked("providers", providers, Selectors | None, NAMES))
    deployed = Deployed(ModelFile.load(file))
    samples = deployed.images(Path(given) if given is not None else None, seeds)
    pair = Pair.of(deployed, Live(module), samples[0])
    report = WholeReport(
        model=deployed.model.name,
        against=against,
        run=pair.words,
        known_from=pair.layout.known_from if pair.layout else "",
        outputs=pair.layout.lines if pair.layout else (),
        images=tuple(name for name, _ in samples),
        inserted=tuple(each.id for each in deployed.model.insertions()),
        attached=tuple(each.id for each in attachments(module)),
        floor="",
        quantities=(),
        mismatch=pair.mismatch,
        versions={"torch": str(torch.__version__), **versions(("onnx", "onnxruntime", "onnxruntime-gpu"))},
    )
    if pair.layout is None:
        return replace(report, floor="not measured: the outputs are not the same ones")
    base = _base(pair)
    found, ties, peaks = _compared(pair, pair.layout, base if isinstance(base, Pair) else None, samples, names)
    floor = base if isinstance(base, str) else "the file without its insertions against the module without its blocks"
    weights = other_weights(deployed, pair.live)
    report = replace(
        report, floor=floor, quantities=tuple(found), ties=tuple(ties), notes=_notes(peaks, pair), weights=weights
    )
    failed = next((each for each in found if not each.passed), None)
    if failed is None:
        return report
    feeds = dict(samples)[failed.image]
    return replace(report, first=first_difference(deployed, pair.live, feeds, failed.provider))


def _base(pair: Pair) -> Pair | str:
    """The file without its insertions and the module without its blocks; why they are not compared, else."""
    inserted, bare = pair.deployed.model.insertions(), pair.live.bare()
    if not inserted and bare is None:
        return "the figures above are those of the base: neither the file nor the module has blocks"
    if bare is None:
        return "not measured: no block is attached to the module that could be taken off"
    without = pair.deployed.bare()
    if isinstance(without, str):
        return f"not measured: {without}"
    return replace(pair, deployed=without, live=bare)


def _notes(peaks: Sequence[float], pair: Pair) -> tuple[str, ...]:
    """What the comparison does not tell. ``peaks``: the largest score on each image."""
    notes = []
    if pair.left_over:
        notes.append(f"the module gives {listed(pair.left_over, 4)} as well, which {pair.deployed.model.name} does not")
    if peaks and max(peaks) < SMALLEST_SCORE:
        little = f"no score on these images is above {max(peaks):.1e}, so that they tell little of the classes"
        notes.append(f"{little}; give {option('images')} with objects in them")
    return tuple(notes)


def _compared(
    pair: Pair, layout: Layout, base: Pair | None, samples: Sequence[Image], providers: Sequence[str]
) -> tuple[list[QuantityReport], list[str], list[float]]:
    """The row of each provider and quantity, of the image on which most of what is permitted was used; the images that
    were not compared; and the largest scores, where there are scores.
    """
    rows: dict[tuple[str, str], QuantityReport] = {}
    ties: dict[str, None] = {}
    peaks: list[float] = []
    known: dict[str, float] = {}  # of the image where it was last needed: it takes long, and images hardly differ in it
    for name, feeds in tracked(samples, "images"):
        precision = Precision(pair.deployed, feeds)
        expected = pair.module(feeds, precision.expected)
        floors = base.module(feeds, precision.expected) if base else None
        if (peak := layout.largest_score(expected)) is not None:
            peaks.append(peak)
        for provider in providers:
            actual = pair.deployed.run(feeds, provider)
            new = _rows(provider, name, layout, actual, expected, {})
            if known and not _agree(new):
                new = _rows(provider, name, layout, actual, expected, known)
            if not _agree(new):
                known = precision.rounding(layout, pair.kept(feeds, precision.expected, expected))
                new = _rows(provider, name, layout, actual, expected, known)
            if not _agree(new) and is_tie(pair.live, feeds, *precision.kinds):
                ties[name] = None
                continue
            if base is not None and floors is not None:
                noise = {e.quantity: e.error for e in distances(layout, base.deployed.run(feeds, provider), floors)}
                new = [replace(each, floor=noise[each.quantity]) for each in new]
            for each in new:
                key = (provider, each.quantity)
                if key not in rows or _used(each) > _used(rows[key]):
                    rows[key] = each
    return list(rows.values()), list(ties), peaks


def _rows(
    provider: str,
    image: str,
    layout: Layout,
    actual: Sequence[Array],
    expected: Sequence[Array],
    rounding: Mapping[str, float],
) -> list[QuantityReport]:
    """The row of each quantity on one image. ``rounding``: how far that moves a quantity, where it was measured."""
    widened = {quantity: Precision.TIMES * moved for quantity, moved in rounding.items()}
    return [
        _row(provider, image, each, rounding.get(each.quantity))
        for each in distances(layout, actual, expected, widened)
    ]


def _agree(rows: Sequence[QuantityReport]) -> bool:
    return all(each.passed for each in rows)


def _row(provider: str, image: str, found: Distance, rounding: float | None) -> QuantityReport:
    permitted = max(found.stated, Precision.TIMES * (rounding or 0.0))
    return QuantityReport(
        provider=provider,
        quantity=found.quantity,
        unit=found.unit,
        error=found.error,
        permitted=permitted,
        rounding=rounding,
        image=image,
        passed=found.error <= permitted,
        reordered=found.reordered,
        left_out=found.left_out,
        unpaired=found.unpaired,
    )


def _used(row: QuantityReport) -> float:
    """The share of what is permitted."""
    return row.error / row.permitted if row.permitted else row.error


def _check_module(module: object) -> None:
    """RequestError for what is no module to compare with."""
    if not isinstance(module, nn.Module):
        what = f"the class {module.__name__}" if inspect.isclass(module) else f"of type {type(module).__name__}"
        raise RequestError(f"a file is compared with a torch.nn.Module; this is {what}", option="module")
    if type(module).__module__.startswith("ultralytics.") and hasattr(module, "predictor"):
        name = type(module).__name__
        raise RequestError(f"{name} is the wrapper that trains and exports; compare with its .model", option="module")


def _providers(asked: Sequence[str] | None) -> tuple[str, ...]:
    if not asked:
        require("cpu")
        return ("cpu", "cuda") if usable("cuda") else ("cpu",)
    names = tuple(dict.fromkeys(short_name(name) for name in asked))
    for name in names:
        require(name)
    return names
