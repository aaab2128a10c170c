"""Compare every inserted block with its PyTorch module, on every provider."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from ..errors import InsertionError, MissingDependency, ParityFailed
from ..runtime.activations import Activations, activations
from ..runtime.sample_inputs import image_paths
from ..runtime.session import require, short_name, usable
from ..template.residual_gate import GATE_KEY
from ..userblocks import NO_TRUST, Trust
from ..weights.inserted import block_of, module_of, module_with
from .cases import Case, cases
from .conditioning import Conditioning
from .cutout import Cutout, cut_out, numpy_dtype, with_constants
from .metrics import compare
from .qdq_pair import PairCheck
from .random_weights import drawn
from .report import InsertionReport, Mode, Report, Rest
from .runners import Runner, judge, runners
from .tolerance import TOLERANCES, judged_as

if TYPE_CHECKING:
    import torch

    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

Array = npt.NDArray[Any]


def verify(
    model: ModelFile,
    *,
    providers: Sequence[str] | None = None,
    images: Path | None = None,
    seeds: int = 3,
    only: Sequence[str] | None = None,
    original: ModelFile | None = None,
    trust: Trust = NO_TRUST,
) -> Report:
    """Run every inserted block, cut out as it stands in the file, and compare it with its PyTorch module in float64.

    ``providers``: short names of onnxruntime providers; None is the CPU, and CUDA where it starts. ``images``: a
    folder of real images for the activation that arrives at each site; None is one random image. ``seeds``: how many
    random inputs per magnitude. ``only``: ids of the insertions to check; None is all. ``original``: the model before
    the insertions, to compare the rest with; without it the rest is checked against the record in the model.
    ``trust``: the user's own PyTorch modules that may be imported.

    A failed comparison is in the report (see Report.require), not an exception. Raises InsertionError where there is
    nothing to verify, MissingProvider and MissingDependency, and RequestError for bad images or an unknown provider.
    """
    chosen = _chosen(model, only)
    names = _providers(providers)
    if images is not None:
        image_paths(images)  # a bad folder is an error even if the model turns out not to run
    versions = _versions()
    cutouts = {insertion.id: _cut(model, insertion) for insertion in chosen}
    arriving = _arriving(model, [cutout for cutout in cutouts.values() if isinstance(cutout, Cutout)], images)
    reports = []
    for insertion in chosen:
        cutout = cutouts[insertion.id]
        report = _empty(insertion, arriving.failure)
        if isinstance(cutout, str):
            reports.append(replace(report, failure=cutout))
        else:
            report = replace(report, compared_with=block_of(insertion).compared_with(insertion.feature))
            pair = PairCheck(model, insertion) if insertion.qdq else None
            subjects = [_subject(insertion, cutout, module_of(insertion, model, trust), names)]
            if insertion.gate == "residual":
                subjects.append(_opened(insertion, cutout, module_of(insertion, model, trust), names))
            other = drawn(insertion, cutout, model)
            if other is not None:
                module = module_with(insertion, other.weights, trust)
                subjects.append(_subject(insertion, other.cutout, module, names, weights_drawn=True))
            reports.append(_checked(report, insertion, subjects, arriving, seeds, pair))
    return Report(model.name, tuple(reports), _rest(model, original), names, versions)


@dataclass(frozen=True)
class _Subject:
    """A block, its PyTorch module, and the ways to run it."""

    cutout: Cutout
    twin: _Twin
    ways: list[Runner]
    weights_drawn: bool = False
    """Then one input of each shape will do."""

    def judge(self, case: Case, dtype: str) -> Array:
        """Compare on one input; gives what the PyTorch module made of it."""
        expected = self.twin(case.array)
        if self.weights_drawn and not np.isfinite(expected).all():
            return expected  # the module is not made for such weights: it takes their logarithm, say
        slack = self.twin.slack(case.array, expected)
        judge(self.ways, case, expected, dtype, slack, lambda: self.twin.rounding(case.array, expected))
        return expected


def _checked(
    report: InsertionReport,
    insertion: Insertion,
    subjects: Sequence[_Subject],
    arriving: Activations,
    seeds: int,
    pair: PairCheck | None,
) -> InsertionReport:
    """The report filled in: every input, through the PyTorch module once and then every way to run the block."""
    dtype = judged_as(insertion)
    cutout = subjects[0].cutout
    inputs: list[str] = []
    for case in cases(insertion.site.shape, numpy_dtype(dtype), seeds):
        inputs.append(case.name)
        made = [subject.judge(case, dtype) for subject in subjects if case.usual or not subject.weights_drawn]
        if pair:
            pair.judge(case.name, made[0])
    # In half precision the model's own run may skip the rounding in front of the block, so that it gets another input.
    in_place = Runner("cpu", Mode.IN_THE_MODEL, TOLERANCES[dtype])
    for image, tensors in arriving.images:
        case = Case(f"the activation of {image}", tensors[cutout.input].astype(numpy_dtype(dtype)))
        inputs.append(case.name)
        expected, *_ = [subject.judge(case, dtype) for subject in subjects if not subject.weights_drawn]
        if dtype in ("float32", "float64"):
            limits = replace(in_place.tolerance, slack=subjects[0].twin.slack(case.array, expected))
            found = compare(tensors[cutout.output], expected, dtype, signal=case.array, tolerance=limits)
            in_place.record(case.name, found)
        if pair:
            pair.judge(case.name, expected)
    ways = [*(way for subject in subjects for way in subject.ways), *([pair.runner] if pair else []), in_place]
    return replace(report, rows=tuple(way.row() for way in ways if way.found or way.reason), inputs=tuple(inputs))


def _subject(
    insertion: Insertion,
    cutout: Cutout,
    module: torch.nn.Module,
    providers: Sequence[str],
    *,
    gate_opened: bool = False,
    weights_drawn: bool = False,
) -> _Subject:
    ways = runners(cutout, judged_as(insertion), providers)
    for way in ways:
        way.gate_opened, way.weights_drawn = gate_opened, weights_drawn
    return _Subject(cutout, _Twin(module, judged_as(insertion)), ways, weights_drawn)


def _opened(insertion: Insertion, cutout: Cutout, module: torch.nn.Module, providers: Sequence[str]) -> _Subject:
    """The block with its residual gate open. Closed, as it is at the start, the gate would hide any block behind it."""
    import torch

    torch.nn.init.ones_(module.get_parameter(GATE_KEY))
    opened = with_constants(cutout, {insertion.stored[GATE_KEY]["initializer"]: np.ones(())})
    return _subject(insertion, opened, module, providers, gate_opened=True)


def _chosen(model: ModelFile, only: Sequence[str] | None) -> list[Insertion]:
    every = model.insertions()
    if not every:
        raise InsertionError(f"{model.name} has no insertions made by graphsurgery, so there is nothing to verify")
    known = {insertion.id for insertion in every}
    unknown = [each for each in only or () if each not in known]
    if unknown:
        raise InsertionError(f"{model.name} has no insertion {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return [insertion for insertion in every if only is None or insertion.id in only]


def _providers(asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        require("cpu")
        return ("cpu", "cuda") if usable("cuda") else ("cpu",)
    names = tuple(dict.fromkeys(short_name(name) for name in asked))
    for name in names:
        require(name)
    return names or _providers(None)


def _empty(insertion: Insertion, activation: str) -> InsertionReport:
    site = insertion.site
    return InsertionReport(
        id=insertion.id,
        module=insertion.module,
        path=site.path,
        tensor=site.tensor,
        shape=tuple(site.shape),
        dtype=site.dtype,
        tolerance=TOLERANCES[judged_as(insertion)],
        activation=activation,
    )


def _cut(model: ModelFile, insertion: Insertion) -> Cutout | str:
    try:
        return cut_out(model, insertion)
    except ParityFailed as error:
        return str(error)


def _arriving(model: ModelFile, cutouts: Sequence[Cutout], images: Path | None) -> Activations:
    """What arrives at, and what leaves, each block when the model runs."""
    wanted: dict[str, int] = {}
    for cutout in cutouts:
        kind = cutout.model.graph.input[0].type.tensor_type.elem_type
        wanted |= {cutout.input: kind, cutout.output: kind}
    if not wanted:
        return Activations(failure="there is no whole block to run up to")
    return activations(model, list(wanted.items()), images)


class _Twin:
    """The PyTorch module as a function of arrays: [N, C, H, W] of any element type -> float64."""

    def __init__(self, module: torch.nn.Module, dtype: str) -> None:
        self._module = module
        self._conditioning = Conditioning(module, dtype)

    def __call__(self, array: Array) -> Array:
        import torch

        with _one_thread(), torch.inference_mode():
            return np.asarray(self._module(torch.from_numpy(array.astype(np.float64))).numpy())

    def slack(self, array: Array, expected: Array) -> float:
        """What rounding the input and the weights anew may change, see conditioning.py."""
        with _one_thread():
            return self._conditioning.slack(array, expected)

    def rounding(self, array: Array, expected: Array) -> float:
        """How far rounding alone can move the result in half precision, relative to it, see conditioning.py."""
        with _one_thread():
            return self._conditioning.relative(array, expected)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # see runners._THREADS
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _versions() -> dict[str, str]:
    """Versions of what computes the two sides. Raises MissingDependency without torch."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        raise MissingDependency(
            f"PyTorch, which parity is checked against, {reason}; it comes with pip install 'graphsurgery[torch]'"
        ) from None
    found = {"torch": str(torch.__version__), "onnx": onnx.__version__}
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _rest(model: ModelFile, original: ModelFile | None) -> Rest:
    from ..insertion.removal import unchanged

    result = unchanged(model, original)
    return Rest(result.passed, result.sentence)
