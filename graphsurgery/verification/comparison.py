"""Comparison of every inserted block with its PyTorch module, on every provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GraphSurgeryError, InsertionError, ModelError, ParityFailed, RequestError, option
from ..feature_map import Array, numpy_dtype
from ..graph.index import GraphIndex
from ..graph.shapes import ShapeTable
from ..graph.validity import fault
from ..graph.written_out import without_calls
from ..insertion.relocation import relocated
from ..insertion.removal import unchanged
from ..insertion.unrecorded import none_recorded
from ..messages import closest, tracked
from ..modelfile.function_body import graph_of
from ..modelfile.model import ModelFile
from ..request import Argument, Selectors, Shapes, checked
from ..runtime.custom_ops import libraries_of, registered
from ..runtime.providers import NAMES, imported, versions
from ..runtime.sample_inputs import image_paths
from ..runtime.session import require, short_name, usable
from ..userblocks import Trust
from ..userblocks.inserted import block_of
from .arriving import Arriving, activations_of
from .cases import Case, cases
from .connection import Connection, Connections
from .cutout import cut_out
from .memory import MEMORY, Memory
from .qdq_pair import PairCheck
from .replaced_part import ReplacedCheck
from .report import InsertionReport, Mode, Report, Row
from .runners import Comparing, Runner, one_thread
from .smaller import Comparable, comparable
from .tolerance import TOLERANCES, comparison_dtype
from .variants import Variants

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource
    from ..modelfile.record import Insertion


def verify(
    model: ModelSource,
    *,
    providers: str | Sequence[str] | None = None,
    images: str | Path | None = None,
    seeds: int = 3,
    only: str | Sequence[str] | None = None,
    original: ModelSource | None = None,
    ignore_rest: bool = False,
    trust: str | Sequence[str] | Trust = (),
    memory: int = MEMORY,
    shapes: Mapping[str, str | Sequence[int | str | None]] | None = None,
    custom_ops: str | Path | Sequence[str | Path] = (),
) -> Report:
    """Compare every inserted block with its PyTorch module, on execution providers of onnxruntime.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.
    providers:
        Short names such as ``["cpu", "cuda"]``. None: the CPU, and CUDA where it is there.
    images:
        A folder of real images for the activation that arrives at each site. None: a random image.
    seeds:
        The number of random inputs of each magnitude, at least 1.
    only:
        The ids of the insertions to compare. None: all of them.
    original:
        The model from before the insertions, to compare the rest with.
    ignore_rest:
        Whether the report may pass although the rest of the model is not what the insertions were put into, because an
        optimiser rewrote it, say.
    trust:
        PyTorch modules of your own (``"mypkg.blocks:MyAttention"``) that may be imported in this call.
    memory:
        How many GB it may take. A block that would take more is compared on a smaller map, and the report says so.
    shapes:
        Shapes of tensors where the model does not tell them, see :func:`graphsurgery.insert`. Those that were given
        then need not be given again.
    custom_ops:
        Libraries with the operators in the model that onnxruntime does not have itself.

    Returns
    -------
    Report
        With ``passed``, and one row for each provider and way to run a block. A failed comparison is in the report;
        its ``require`` raises ParityFailed.

    Raises
    ------
    InsertionError
        If nothing was inserted, or the records of what was are lost.
    ModelError
        If no runtime could run the model, because a tensor has no producer, say.
    RequestError
        If an argument has no such value, a shape contradicts the model, or ``original`` comes with ``ignore_rest``.
    MissingDependency, MissingProvider
        Without torch, onnxruntime, or a provider that was asked for.

    Examples
    --------
    >>> verify("yolov8n-simam.onnx", providers=["cpu"]).passed   # doctest: +SKIP
    True
    """
    providers = checked("providers", providers, Selectors | None, NAMES)
    images = checked("images", images, str | None, Argument(words="is the name of a folder"))
    seeds = checked("seeds", seeds, int, Argument(minimum=1))
    only = checked("only", only, Selectors | None, Argument(words="is the id of an insertion or a list of them"))
    if ignore_rest and original is not None:
        raise RequestError(
            f"{option('original')} is to compare the rest of the model with: drop {option('ignore_rest')}"
        )
    if not isinstance(trust, Trust):
        modules = "is a PyTorch module such as 'mypkg.blocks:MyAttention', or a list of them"
        trust = Trust.in_modules(checked("trust", trust, Selectors, Argument(words=modules)))
    known = checked("shapes", shapes, Shapes)
    libraries = libraries_of(custom_ops)
    limit = Memory(checked("memory", memory, int, Argument(minimum=1, words="is a whole number of GB from 1 on")))
    whole = ModelFile.load(model)
    model = without_calls(whole)
    folder = Path(images) if images is not None else None
    index = GraphIndex(model)
    if found := fault(index):
        raise ModelError(found)
    table = ShapeTable(index, known)
    insertions = [_relocated(index, insertion, trust) for insertion in _chosen(model, only)]
    names = _providers(providers)
    if folder is not None:
        image_paths(folder)  # a bad folder is an error even if the model turns out not to run
    versions = _versions()
    blocks = {insertion.id: _comparable(model, insertion, limit, trust) for insertion in insertions}
    comparable = [each for each in blocks.values() if isinstance(each, Comparable)]
    recorded = {name: shape for insertion in insertions for name, shape in insertion.shapes.items()}
    in_functions = {insertion.id: insertion for insertion in whole.insertions() if insertion.function}
    connections = Connections(index)
    reports = []
    with registered(libraries):
        arriving = activations_of(model, comparable, folder, limit, {**recorded, **table.given})
        with one_thread():
            for insertion in tracked(insertions, "insertions"):
                block = blocks[insertion.id]
                if isinstance(block, Comparable):
                    block = arriving.contradiction(block, insertion.site, table) or block
                shown = in_functions.get(insertion.id, insertion)
                report = _empty_report(shown, connections.check(insertion), arriving.failure)
                if isinstance(block, Comparable):
                    report = replace(report, size=arriving.note(block))
                    rewritten = insertion.replaced is not None and insertion.replaced.same and not block.smaller
                    before = ReplacedCheck(graph_of(whole, shown.function), shown) if rewritten else None
                    report = _compared(report, model, block, arriving, seeds, names, trust, before)
                else:
                    report = replace(report, failure=block)
                reports.append(report)
    rest = unchanged(whole, ModelFile.load(original) if original is not None else None)
    return Report(model.name, tuple(reports), rest, names, versions, ignore_rest)


def _compared(
    report: InsertionReport,
    model: ModelFile,
    block: Comparable,
    arriving: Arriving,
    seeds: int,
    providers: Sequence[str],
    trust: Trust,
    replaced: ReplacedCheck | None,
) -> InsertionReport:
    """The report filled in: every input goes through the PyTorch module once and then every way to run the block."""
    insertion, cutout = block.insertion, block.cutout
    dtype = comparison_dtype(insertion)
    pair = PairCheck(model, block.recorded) if block.recorded.qdq else None
    variants = Variants(block.model, insertion, cutout, providers, trust)
    # In half precision the model's own run may skip the rounding before the block, so that it gets another input.
    in_place = Runner(Row(provider="cpu", mode=Mode.IN_THE_MODEL, tolerance=TOLERANCES[dtype]))
    inputs: list[str] = []

    def compare_all(case: Case) -> Array:
        inputs.append(case.name)
        expected = variants.compare(case)
        if pair:
            pair.compare(case.name, expected)
        if replaced:
            replaced.compare(case.name, case.array, expected, variants.own.conditioning)
        return expected

    made = list(cases(insertion.site.shape, numpy_dtype(dtype), seeds))
    usual = next(case for case in made if case.usual)
    for shape in replaced.shapes if replaced else ():
        made += [case for case in cases(shape, numpy_dtype(dtype), 1) if case.usual]
    for case in made:
        compare_all(case)
    for image, given, output in arriving.at(block):
        case = Case(f"the activation of {image}", given.astype(numpy_dtype(dtype)))
        expected = compare_all(case)
        if output is not None and dtype in ("float32", "float64"):
            comparing = Comparing(case.array, expected, dtype, variants.own.conditioning)
            found = comparing.compare(output, in_place.row.tolerance)
            in_place.record(case.name, found)
    reaching, names = variants.reach(usual.array)
    ways = [*(runner for each in variants.every for runner in each.runners), *reaching]
    ways += [*(check.runner for check in (pair, replaced) if check), in_place]
    return replace(
        report,
        compared_with=block_of(insertion).compared_with(insertion.feature),
        rows=tuple(way.summary() for way in ways if way.found or way.row.reason),
        inputs=(*inputs, *names),
        not_exercised=variants.exercise.hidden,
        failure=variants.exercise.misfit,
    )


def _chosen(model: ModelFile, only: Sequence[str] | None) -> list[Insertion]:
    every = model.insertions()
    if not every:
        raise none_recorded(model, "verify")
    known = sorted(insertion.id for insertion in every)
    unknown = [each for each in only or () if each not in known]
    if unknown:
        raise InsertionError(
            f"{model.name} has no insertion {unknown[0]!r}; it has {', '.join(known)}",
            option="only",
            candidates=closest(unknown[0], known) or known,
        )
    return [insertion for insertion in every if only is None or insertion.id in only]


def _relocated(index: GraphIndex, insertion: Insertion, trust: Trust) -> Insertion:
    """The record with the block's constants by their present names. What it cannot be told by is reported later."""
    try:
        return relocated(index, insertion, lambda: block_of(insertion, trust))
    except GraphSurgeryError:
        return insertion


def _providers(asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        require("cpu")
        return ("cpu", "cuda") if usable("cuda") else ("cpu",)
    names = tuple(dict.fromkeys(short_name(name) for name in asked))
    for name in names:
        require(name)
    return names or _providers(None)


def _empty_report(insertion: Insertion, connected: Connection, activation: str) -> InsertionReport:
    site = insertion.site
    return InsertionReport(
        id=insertion.id,
        module=insertion.module,
        path=site.path,
        tensor=site.tensor,
        shape=tuple(site.shape),
        dtype=site.dtype,
        tolerance=TOLERANCES[comparison_dtype(insertion)],
        connected=connected,
        position=site.position,
        activation=activation,
    )


def _comparable(model: ModelFile, insertion: Insertion, memory: Memory, trust: Trust) -> Comparable | str:
    """The block as a model of its own, or why it cannot be one, or not within the memory."""
    try:
        return comparable(model, insertion, cut_out(model, insertion), memory, trust)
    except ParityFailed as error:
        return error.message


def _versions() -> dict[str, str]:
    """Versions of what computes the two sides. Raises MissingDependency without torch."""
    torch = imported("torch", "PyTorch, which parity is checked against,", 'pip install "graphsurgery[torch]"')
    return {"torch": str(torch.__version__), **versions(("onnx", "onnxruntime", "onnxruntime-gpu"))}
