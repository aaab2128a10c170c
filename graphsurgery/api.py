"""The public functions that edit a model, and the listing of its sites. The command line stands on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

from . import userblocks
from .blocks.nothing import NOTHING
from .errors import GraphSurgeryWarning, RequestError, SelectorError, SiteError, concerning, option
from .insertion import qdq_planning, splice
from .insertion.plan import PlannedInsertion
from .insertion.splice import AppliedInsertion
from .insertion.start import Start, checkpoint, start_of
from .messages import html_table, printable, shape_text
from .modelfile import external_data
from .modelfile.model import ModelFile
from .modelfile.record import EDITION, Insertion
from .request import Argument, Request, Selectors, Shapes, arguments, checked
from .runtime.custom_ops import libraries_of, registered
from .selection.sites import Site, SiteFinder
from .template.subgraph import Subgraph
from .userblocks import inserted  # noqa: F401 - it is how records rebuild their blocks

if TYPE_CHECKING:
    from .blocks.block import Block
    from .feature_map import FeatureMap
    from .modelfile.model import ModelSource
    from .rewriting import Rewriting
    from .weights.rest import Comparison
    from .weights.trained_blocks import TrainedBlocks

__all__ = ["Insertion", "ModelFile", "Sites", "insert", "remove", "rewrite", "sites"]


def insert(
    model: ModelSource,
    module: str,
    *,
    after: str | Sequence[str] = (),
    before: str | Sequence[str] = (),
    consumers: str | Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    init: str = "default",
    seed: int = 0,
    gate: str = "none",
    weights: str | Path | None = None,
    target: str = "tensorrt",
    precision: str = "safe",
    lowering: str | None = None,
    qdq: str = "none",
    qdq_scale: str = "site",
    images: str | Path | None = None,
    shapes: Mapping[str, str | Sequence[int | str | None]] | None = None,
    in_place_of: str | Sequence[str] = (),
    custom_ops: str | Path | Sequence[str | Path] = (),
) -> ModelFile:
    """Insert an attention block after, or before, modules of a model.

    The given model is not changed.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.
    module:
        The block: ``"simam"``, ``"ge[theta]"``, ``"./myblock.onnx"`` or ``"mypkg.blocks:MyAttention"``.
    after, before:
        One selector or several, of exactly one of the two. The block goes to every place that they name, each time with
        weights of its own: after a module for all consumers of its output, before a module for that module alone.
    in_place_of:
        In their place: attention that :func:`find` names, or a module that keeps the shape of its input. What stands
        there is taken out, and kept in the record of the block, so that :func:`remove` puts it back.
    consumers:
        With ``after``: only these consumers of the tensor read the block.
    settings:
        Hyper-parameters of the block by name, as in ``{"reduction": 8}``.
    init:
        ``"default"``: the module's own initialisation, from ``seed``. ``"identity"``: the model's output does not
        change. ``"calibrated"``: the module's own, and behind the block a scale and a shift, which give each channel
        the mean and deviation back that it has on ``images`` without the block.
    seed:
        A whole number from 0 on.
    gate:
        ``"residual"``: y = x + alpha * (block(x) - x) with alpha = 0, which does not change the model's output.
    weights:
        Trained weights, ``FILE`` or ``FILE:PREFIX``: .pt, .pth, .safetensors, .npz or .onnx. Not with ``init``. In
        PREFIX, ``{path}`` is the module path of each place and ``{block}`` the name of the block.
    target:
        The runtime that the block is written for: ``"tensorrt"``, ``"onnxruntime"`` or ``"dla"``.
    precision:
        At a site in half precision, ``"safe"`` computes the block in the site's type with its statistics in float32,
        ``"site"`` everything in the site's type, ``"fp32"`` everything in float32. ``"fp16"`` computes the block in
        float16 at a float32 site.
    lowering:
        The formulation of the block. None: the best for the target.
    qdq:
        ``"int8"``, for a model with QuantizeLinear and DequantizeLinear: such a pair after the block, so that its
        consumers keep their quantised input.
    qdq_scale:
        Where the scale of that pair comes from: ``"site"`` (scale and zero point of the site) or ``"images"`` (what the
        block gives on ``images``).
    images:
        A folder of images for ``init="calibrated"`` and ``qdq_scale="images"``.
    shapes:
        Shapes of tensors where the model does not tell them, as in ``{"canvas": "1x64x80x80"}`` or
        ``{"canvas": (1, 64, None, None)}``: behind an operator that is not one of ONNX's, say. What follows from them
        is known, too; the file itself stays without them.
    custom_ops:
        Libraries with the operators in the model that onnxruntime does not have itself, where ``images`` are run
        through it.

    Returns
    -------
    ModelFile
        The new model; ``save`` writes it.

    Raises
    ------
    RequestError
        If the arguments contradict each other, or one has no such value.
    ModelError
        If the model is no ONNX model that can be edited.
    SelectorError
        If a selector matches nothing, or cannot be read.
    SiteError
        If a selector names something that is no feature map [N, C, H, W].
    BlockError
        If there is no such block or hyper-parameter, or the block cannot work there.
    WeightsError
        If the weights do not fit the block.

    Warns
    -----
    GraphSurgeryWarning
        For what works and is probably not what is meant.

    Examples
    --------
    >>> model = insert("yolov8n.onnx", "simam", after="/model.8")                    # doctest: +SKIP
    >>> model = insert(model, "se", after=["role:p4", "role:p5"], init="identity")   # doctest: +SKIP
    >>> model.save("yolov8n-attention.onnx")                                         # doctest: +SKIP
    """
    given = locals()
    request = Request(**{name: given[name] for name in arguments()})
    with registered(libraries_of(custom_ops)):
        edited = carry_out(ModelFile.load(model), [request])
    return warned(*edited)


def warned(model: ModelFile, done: Sequence[AppliedInsertion]) -> ModelFile:
    """The model, with what the user should know of the insertions said as warnings of the caller's caller."""
    for each in done:
        for message in each.warnings:
            warnings.warn(f"{each.insertion.id}: {message}", GraphSurgeryWarning, stacklevel=3)
    return model


def carry_out(
    model: ModelFile,
    requests: Sequence[Request],
    trust: userblocks.Trust | None = None,
    starts: Sequence[Callable[[Block, FeatureMap], Start]] = (),
    edition: int = EDITION,
    announce: Callable[[PlannedInsertion], None] | None = None,
    finder: SiteFinder | None = None,
) -> tuple[ModelFile, list[AppliedInsertion]]:
    """Carry out several requests at once, in order; selectors refer to the model as it was given.

    ``trust``: the PyTorch modules that may be imported; None: those that the requests name. ``starts``: for each
    request how its block begins at a feature map, where the request itself does not say it. ``edition``: of the forms
    that the blocks are written in. ``announce`` is called with each insertion before any block is written or run.
    ``finder``: of the model, if there is one already.
    """
    external_data.check(model.external_data, model.folder)
    finder = finder or SiteFinder(model)
    for request in requests:  # shapes are of the model, and so known for all of them
        with request.concerned():
            finder.shapes.give(request.shapes)
    trust = trust or userblocks.Trust.in_blocks(request.module for request in requests)
    plans: list[PlannedInsertion] = []
    parts: list[PlannedInsertion] = []
    standing = None
    if any(request.in_place_of for request in requests):
        from .rewriting import Standings

        standing = Standings(finder)
    for request, begin in zip_longest(requests, starts):
        with request.concerned():
            block = userblocks.make_block(request.module, request.settings, trust)
            trained = checkpoint(request, trust)
            begin = begin or partial(start_of, request, trained=trained)
            if standing is not None and request.in_place_of:
                there = standing.at(request.in_place_of, "in_place_of")
                parts += [
                    replace(_planned(request, each.site, begin(block, each.site.feature)), part=each.part)
                    for each in there
                ]
                continue
            if block.name == NOTHING:
                raise RequestError(f"{NOTHING} can only stand {option('in_place_of')} something")
            position = "before" if request.before else "after"
            with concerning(position, SelectorError, SiteError):
                sites_of = finder.find(request.before or request.after, position=position, consumers=request.consumers)
            planned = [_planned(request, site, begin(block, site.feature)) for site in sites_of]
            plans += [qdq_planning.with_pair(each, finder) for each in planned]
    if announce is not None:
        for each in (*plans, *parts):
            announce(each)
    if any(request.init == "calibrated" for request in requests):
        from .insertion.calibrating import calibrate

        plans = calibrate(finder, plans)
    edited, done = splice.insert(finder, qdq_planning.fit_scales(finder, plans), _gpu_fallback, edition)
    if parts:
        from .insertion import replacing

        edited, more = replacing.replace_parts(finder, edited, parts, _gpu_fallback, edition)
        done += more
    return edited, done


def put_in(
    blocks: TrainedBlocks,
    model: ModelFile,
    *,
    ignore_rest: bool = False,
    trust: userblocks.Trust = userblocks.NO_TRUST,
    announce: Callable[[PlannedInsertion], None] | None = None,
) -> tuple[ModelFile, list[AppliedInsertion], Comparison | None]:
    """Put trained blocks into an export of the rest of their model, after a comparison with that unless
    ``ignore_rest``; see :func:`graphsurgery.apply`.
    """
    from .insertion import trained

    external_data.check(model.external_data, model.folder)
    trained.check_free(blocks, model)
    attachments = trained.in_order(blocks.attachments)
    requests = [trained.request_of(each) for each in attachments]
    compared = None if ignore_rest else trained.check_base(blocks, model)
    starts = [trained.starter(blocks, each) for each in attachments]
    return *carry_out(model, requests, trust, starts, announce=announce), compared


def _planned(request: Request, site: Site, start: Start) -> PlannedInsertion:
    return PlannedInsertion(request, start.block, site, start.weights, start.init, start.warnings, start.source)


def _gpu_fallback(planned: PlannedInsertion, subgraph: Subgraph, source: str, model: ModelFile) -> str | None:
    """Which operators of a block for a DLA go to the GPU."""
    if planned.request.target != "dla":
        return None
    from .tensorrt.fallback import to_the_gpu

    opset, ir_version = model.opset, int(model.structure.ir_version)
    float32 = planned.request.precision == "fp32"
    return to_the_gpu(subgraph, source, planned.site.feature, opset=opset, ir_version=ir_version, float32=float32)


def remove(model: ModelSource, ids: str | Sequence[str] | None = None) -> ModelFile:
    """Take insertions out of a model again.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``. It is not
        changed.
    ids:
        The ids of the insertions, such as ``"model.8.simam"``. None: all of them.

    Returns
    -------
    ModelFile
        The model with the bytes from before these insertions.

    Raises
    ------
    InsertionError
        If there is no such insertion, or another tool altered it.

    Examples
    --------
    >>> remove("yolov8n-simam.onnx").save("yolov8n.onnx")   # doctest: +SKIP
    """
    words = "is the id of an insertion, such as 'model.8.simam', or a list of them"
    from .insertion import removal

    return removal.remove(ModelFile.load(model), checked("ids", ids, Selectors | None, Argument(words=words)))


def rewrite(
    model: ModelSource,
    *,
    only: str | Sequence[str] = (),
    module: str | None = None,
    target: str = "tensorrt",
    precision: str = "safe",
    force_form: bool = False,
) -> ModelFile:
    """Put attention that an exporter wrote into the form of the block's template.

    What :func:`find` proves to be a block of the catalogue is replaced, where that gains something. The rest of the
    file keeps its bytes; :func:`remove` gives the original back.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, onnx-graphsurgeon ``Graph`` or ``ModelFile``. It is not changed.
    only:
        Only what these selectors name: places as :func:`find` lists them, or selectors of their modules.
    module:
        Only this block: ``"se"``, or ``"ge[theta]"`` for one variant.
    target, precision:
        As for :func:`insert`.
    force_form:
        Whether to rewrite what gains nothing, too.

    Returns
    -------
    ModelFile
        The new model; the given one where nothing was rewritten. Its ``insertions`` tell what was.

    Raises
    ------
    RequestError
        If an argument has no such value.
    SelectorError, SiteError
        If a selector names nothing that was found.
    BlockError
        If there is no such block.
    MissingDependency
        Without onnxruntime, with which blocks are proven.

    Examples
    --------
    >>> rewrite("mobilenet_v3.onnx", target="onnxruntime").save("faster.onnx")   # doctest: +SKIP
    """
    choices = arguments()
    done = rewritten(
        ModelFile.load(model),
        only=checked("only", only, Selectors),
        module=checked("module", module, str | None),
        target=checked("target", target, str, choices["target"].argument),
        precision=checked("precision", precision, str, choices["precision"].argument),
        force_form=force_form,
    )
    return warned(done.model, [each.applied for each in done.rewritten])


def rewritten(
    model: ModelFile, *, only: Selectors, module: str | None, target: str, precision: str, force_form: bool
) -> Rewriting:
    """What :func:`rewrite` does, with what was rewritten and what was left."""
    from .rewriting import rewrite as rewrite_found

    if module is not None:
        userblocks.make_block(module)
    external_data.check(model.external_data, model.folder)
    return rewrite_found(
        model,
        only=only,
        module=module,
        target=target,
        precision=precision,
        force_form=force_form,
        check=_gpu_fallback,
    )


class Sites(list[Site]):
    """Places to insert, in the order of the model; a shell shows them a line each, a notebook as a table."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Site: ...

    @overload
    def __getitem__(self, index: slice, /) -> Sites: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> Site | Sites:
        return Sites(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def __repr__(self) -> str:
        rows = [(_called(site), printable(site.type or ""), shape_text(site.shape)) for site in self]
        called, kind = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
        return "\n".join(f"{row[0]:<{called}}  {row[1]:<{kind}}  {row[2]}" for row in rows) or "no sites"

    def _repr_html_(self) -> str:
        headers = ("module", "type", "shape", "dtype", "stride", "consumers")
        rows = [
            (
                _called(site),
                site.type,
                shape_text(site.shape),
                site.dtype,
                site.stride,
                ", ".join(site.consumers),
            )
            for site in self
        ]
        return html_table(headers, rows)


def _called(site: Site) -> str:
    return printable(site.path or f"tensor:{site.tensor}")


def sites(
    model: ModelSource,
    selector: str | Sequence[str] | None = None,
    *,
    shapes: Mapping[str, str | Sequence[int | str | None]] | None = None,
) -> Sites:
    """List the places where a block can be inserted.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.
    selector:
        Only what ``insert(after=selector)`` would name, such as ``"C2f[-1]"`` or ``["role:p4", "role:p5"]``.
    shapes:
        Shapes of tensors where the model does not tell them; see :func:`insert`.

    Returns
    -------
    Sites
        A list of :class:`Site` in the order of the model: one for each module that a single feature map [N, C, H, W]
        leaves; of a model whose nodes carry no module paths, one for each such tensor.

    Raises
    ------
    SelectorError
        If the selector matches nothing, or cannot be read.
    SiteError
        If it names something that is no feature map.
    RequestError
        If one of the shapes contradicts the model, or is of no tensor of it.

    Examples
    --------
    >>> [site.path for site in sites("yolov8n.onnx", "role:p4")]   # doctest: +SKIP
    ['/model.18']
    """
    selectors = checked("selector", selector, Selectors | None)
    finder = SiteFinder(ModelFile.load(model), checked("shapes", shapes, Shapes))
    if selectors is None:
        return Sites(finder.listing() or finder.tensors())
    with concerning("selector", SelectorError, SiteError):
        return Sites(finder.find(selectors))
