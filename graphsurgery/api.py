"""The work as a user asks for it: insert, apply a recipe, list sites. The command line and the public API stand on
this.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import userblocks
from .blocks.block import Array, Block
from .errors import BlockError, GraphSurgeryWarning, RequestError, WeightsError
from .feature_map import FeatureMap
from .insertion import qdq_planning, removal, splice
from .insertion.plan import PlannedInsertion
from .insertion.splice import AppliedInsertion
from .modelfile import external_data
from .modelfile.model import ModelFile
from .request import Request, of_kind, selectors
from .request import settings as by_name
from .selection.sites import Site, SiteFinder
from .template import residual_gate
from .template.residual_gate import GATE_KEY
from .template.subgraph import Subgraph
from .template.writer import PRECISIONS
from .tensorrt.fallback import to_the_gpu

if TYPE_CHECKING:
    from .modelfile.model import ModelSource
    from .verification import Report
    from .weights import Checkpoint, Fitted

INITS = ("default", "identity")


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
) -> ModelFile:
    """Put a block behind one or more modules of a model, or in front of them; the given model stays as it is.

    ``module`` is a block's name (``"simam"``, ``"ge[theta]"``), ``after`` one selector or several, ``settings`` the
    block's hyper-parameters. ``before``, in place of ``after``, puts it in front of the modules named, for what reads
    the tensor in them; ``consumers``, with ``after``, names those readers of the tensor that are to read the block.
    ``init`` is "default" (the module's own initialisation, from ``seed``) or "identity" (the model's output does not
    change); ``gate="residual"`` puts x + alpha * (block(x) - x) around the block, alpha = 0; ``weights`` is
    FILE[:PREFIX]. ``target`` is the runtime that the block is written for ("tensorrt", "onnxruntime", "dla"),
    ``lowering`` its formulation. At a site in half precision, ``precision="safe"`` computes the block in the site's
    type and its statistics in float32 between Casts, "site" everything in the site's type, "fp32" everything in
    float32; "fp16" computes it in float16 between Casts at a float32 site. In a model with QuantizeLinear and
    DequantizeLinear, ``qdq="int8"`` puts such a pair behind the block, so that its readers keep their quantised input;
    ``qdq_scale`` is "site" (scale and zero point of the site) or "images" (such as fit what the block gives on the
    images in the folder ``images``). Returns the new model. Raises a RequestError that says what is wrong; issues a
    GraphSurgeryWarning for what works and is probably not what is meant.
    """
    request = Request(
        module=of_kind("module", module, str, "the name of a block, a text such as 'simam'"),
        after=selectors("after", after),
        before=selectors("before", before),
        consumers=selectors("consumers", consumers),
        settings=by_name(settings),
        init=init,
        seed=int(of_kind("seed", seed, Integral, "a whole number")),
        gate=gate,
        weights=str(weights) if weights is not None else None,
        target=target,
        precision=precision,
        lowering=lowering,
        qdq=qdq,
        qdq_scale=qdq_scale,
        images=str(images) if images is not None else None,
    )
    return warned(*carry_out(ModelFile.load(model), [request]))


def warned(model: ModelFile, done: Sequence[AppliedInsertion]) -> ModelFile:
    """The model, with what the user should know of the insertions said as warnings of the caller's caller."""
    for each in done:
        for message in each.warnings:
            warnings.warn(f"{each.insertion.id}: {message}", GraphSurgeryWarning, stacklevel=3)
    return model


def carry_out(model: ModelFile, requests: Sequence[Request]) -> tuple[ModelFile, list[AppliedInsertion]]:
    """Carry out several requests at once, in order; selectors refer to the model as it was given."""
    external_data.check(model.external_data, model.folder)
    finder = SiteFinder(model)
    plans: list[PlannedInsertion] = []
    for request in requests:
        check(request)
        userblocks.asked_for(request.module)
        block = userblocks.make_block(request.module, request.settings)
        trained = _read(request.weights) if request.weights is not None else None
        position = "before" if request.before else "after"
        sites_of = finder.find(request.before or request.after, position=position, consumers=request.consumers)
        planned = [_planned(request, block, site, trained) for site in sites_of]
        plans += [qdq_planning.with_pair(each, finder) for each in planned]
    return splice.insert(finder, qdq_planning.fit_scales(finder, plans), _gpu_fallback)


def _gpu_fallback(planned: PlannedInsertion, subgraph: Subgraph, source: str, model: ModelFile) -> str | None:
    """Which operators of a block for a DLA go to the GPU."""
    if planned.request.target != "dla":
        return None
    opset, ir_version = model.opset, int(model.structure.ir_version)
    float32 = planned.request.precision == "fp32"
    return to_the_gpu(subgraph, source, planned.site.feature, opset=opset, ir_version=ir_version, float32=float32)


def _read(spelled: str) -> Checkpoint:
    from . import weights  # the readers cost milliseconds, for those who give a file

    return weights.read(weights.split(spelled)[0])


def remove(model: ModelSource, ids: str | Sequence[str] | None = None) -> ModelFile:
    """Take insertions out of a model again, all of them if ``ids`` is None; the result has the bytes of before.

    Raises InsertionError if one is not there, or was altered by another tool.
    """
    return removal.remove(ModelFile.load(model), [ids] if isinstance(ids, str) else ids)


def sites(model: ModelSource) -> list[Site]:
    """The places to insert: one for each module that a single image-like tensor leaves, in the order of the model.

    For a model whose nodes carry no module paths: one for each image-like activation.
    """
    finder = SiteFinder(ModelFile.load(model))
    return finder.listing() or finder.tensors()


def verify(
    model: ModelSource,
    *,
    providers: Sequence[str] | None = None,
    images: str | Path | None = None,
    seeds: int = 3,
    only: Sequence[str] | None = None,
    original: ModelSource | None = None,
    trust: Sequence[str] = (),
) -> Report:
    """Compare every inserted block with its PyTorch module, on every provider of onnxruntime that is asked for.

    ``providers`` are short names ("cpu", "cuda"); None is the CPU, and CUDA where it is there. ``images`` is a folder
    of real images for the activation that arrives at each site, ``seeds`` the number of random inputs of each
    magnitude, ``only`` the ids of the insertions to check, ``original`` the model before them. ``trust`` names the
    PyTorch modules of your own ("mypkg.blocks:MyAttention") that may be imported for it. A failed comparison is in the
    report. Raises MissingDependency without torch or onnxruntime, MissingProvider, and InsertionError if nothing
    was inserted.
    """
    from .verification import verify as compare

    userblocks.trust(trust)
    return compare(
        ModelFile.load(model),
        providers=providers,
        images=Path(images) if images is not None else None,
        seeds=seeds,
        only=only,
        original=ModelFile.load(original) if original is not None else None,
    )


def check(request: Request) -> None:
    """Raise RequestError for a request that contradicts itself, whatever the model."""
    if not request.after and not request.before:
        raise RequestError(f"say where to put {request.module}: --after SELECTOR, or --before SELECTOR")
    if request.after and request.before:
        raise RequestError("a block goes behind something or in front of something: give --after or --before, not both")
    if request.before and request.consumers:
        raise RequestError("--consumers goes with --after; --before names the consumers itself")
    for kind, value, known in (
        ("gate", request.gate, residual_gate.GATES),
        ("init", request.init, INITS),
        ("precision", request.precision, PRECISIONS),
    ):
        if value not in known:
            raise RequestError(f"there is no {kind} {value!r}; it is one of {', '.join(known)}")
    qdq_planning.check(request)
    if request.seed < 0:
        raise RequestError(f"the seed is a whole number from 0 on, not {request.seed}")
    if request.weights is not None and request.init != "default":
        raise RequestError(
            "weights come from a file or from an initialisation, not from both: drop --init or --weights"
        )


def _planned(request: Request, block: Block, site: Site, trained: Checkpoint | None) -> PlannedInsertion:
    if trained is None:
        return PlannedInsertion(request, block, site, _own(block, site.feature, request), request.init)
    own = _from_file(request, block, site.feature, trained)
    return PlannedInsertion(request, own.block, site, lambda rng: own.arrays, "weights", own.warnings)


def _own(block: Block, feature: FeatureMap, request: Request) -> Callable[[np.random.Generator], Mapping[str, Array]]:
    closed = {GATE_KEY: np.zeros(1, np.float32)} if request.gate == "residual" else {}
    if request.init == "identity" and not closed:
        return lambda rng: block.identity(feature)
    return lambda rng: {**block.initial(feature, rng), **closed}


def _from_file(request: Request, block: Block, feature: FeatureMap, trained: Checkpoint) -> Fitted:
    if not block.has_weights:
        raise BlockError(f"{block.name} has no weights; drop --weights")
    from . import weights

    _, prefix = weights.split(request.weights or "")
    part = weights.part(trained, prefix, block, feature)
    if request.gate != "residual":
        return weights.fitted(block, feature, part, request.settings)
    # a ResidualGate's own state_dict has the block's keys under block.
    arrays = {key.removeprefix("block."): part.arrays[key] for key in part.arrays}
    alpha = arrays.pop(GATE_KEY, np.zeros(1, np.float32))
    if alpha.size != 1:
        raise WeightsError(
            f"{GATE_KEY} in {trained.name} is the gate's one number, and has the shape {list(alpha.shape)}"
        )
    fitted = weights.fitted(block, feature, replace(part, arrays=arrays), request.settings)
    return replace(fitted, arrays={**fitted.arrays, GATE_KEY: alpha.reshape(1)})
