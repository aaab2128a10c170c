"""The work as a user asks for it: insert, apply a recipe, list sites. The command line and the public API stand on
this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import externaldata, gate, removal, weights
from .block import Array, Block, make_block
from .errors import BlockError, RequestError, WeightsError
from .featuremap import FeatureMap
from .modelfile import ModelFile
from .record import GATE_KEY
from .sites import Site, SiteFinder
from .splice import Done, Planned, Splicer

if TYPE_CHECKING:
    from .modelfile import ModelSource
    from .parity import Report

INITS = ("default", "identity")


@dataclass(frozen=True)
class Request:
    """One block at one or more places: what one ``graphsurgery insert``, or one entry of a recipe, asks for."""

    module: str
    after: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    init: str = "default"
    seed: int = 0
    gate: str = "none"
    weights: str | None = None
    """FILE[:PREFIX]"""
    target: str = "tensorrt"
    lowering: str | None = None


def insert(
    model: ModelSource,
    module: str,
    *,
    after: str | Sequence[str],
    settings: Mapping[str, object] | None = None,
    init: str = "default",
    seed: int = 0,
    gate: str = "none",
    weights: str | Path | None = None,
    target: str = "tensorrt",
    lowering: str | None = None,
) -> ModelFile:
    """Put a block behind one or more modules of a model; returns the new model, the given one stays as it is.

    ``module`` is a block's name (``"simam"``, ``"ge[theta]"``), ``after`` one selector or several, ``settings`` the
    block's hyper-parameters. ``init`` is "default" (the module's own initialisation, from ``seed``) or "identity" (the
    model's output does not change); ``gate="residual"`` puts x + alpha * (block(x) - x) around the block, alpha = 0;
    ``weights`` is FILE[:PREFIX]. Raises a RequestError that says what is wrong.
    """
    request = Request(
        module=module,
        after=(after,) if isinstance(after, str) else tuple(after),
        settings=dict(settings or {}),
        init=init,
        seed=seed,
        gate=gate,
        weights=str(weights) if weights is not None else None,
        target=target,
        lowering=lowering,
    )
    return carry_out(ModelFile.load(model), [request])[0]


def carry_out(model: ModelFile, requests: Sequence[Request]) -> tuple[ModelFile, list[Done]]:
    """Carry out several requests at once, in order; selectors refer to the model as it was given."""
    externaldata.check(model.external_data, model.folder)
    finder = SiteFinder(model)
    splicer = Splicer(finder)
    for request in requests:
        _check(request)
        block = make_block(request.module, request.settings)
        for site in finder.find(request.after):
            splicer.insert(_planned(request, block, site))
    return splicer.result(), splicer.done


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
) -> Report:
    """Compare every inserted block with its PyTorch module, on every provider of onnxruntime that is asked for.

    ``providers`` are short names ("cpu", "cuda"); None is the CPU, and CUDA where it is there. ``images`` is a folder
    of real images for the activation that arrives at each site, ``seeds`` the number of random inputs of each
    magnitude, ``only`` the ids of the insertions to check, ``original`` the model before them. A failed comparison is
    in the report. Raises MissingDependency without torch or onnxruntime, MissingProvider, and InsertionError if nothing
    was inserted.
    """
    from .parity import verify as compare

    return compare(
        ModelFile.load(model),
        providers=providers,
        images=Path(images) if images is not None else None,
        seeds=seeds,
        only=only,
        original=ModelFile.load(original) if original is not None else None,
    )


def _check(request: Request) -> None:
    if not request.after:
        raise RequestError(f"say where to put {request.module}: --after SELECTOR")
    for kind, value, known in (("gate", request.gate, gate.GATES), ("init", request.init, INITS)):
        if value not in known:
            raise RequestError(f"there is no {kind} {value!r}; it is one of {', '.join(known)}")
    if request.seed < 0:
        raise RequestError(f"the seed is a whole number from 0 on, not {request.seed}")
    if request.weights is not None and request.init != "default":
        raise RequestError(
            "weights come from a file or from an initialisation, not from both: drop --init or --weights"
        )


def _planned(request: Request, block: Block, site: Site) -> Planned:
    make, init = _own(block, site.feature, request), request.init
    if request.weights is not None:
        block, given = _from_file(request, block, site.feature)
        make, init = (lambda rng: given), "weights"
    return Planned(block, site, make, request.seed, init, request.gate, request.target, request.lowering)


def _own(block: Block, feature: FeatureMap, request: Request) -> Callable[[np.random.Generator], Mapping[str, Array]]:
    closed = {GATE_KEY: np.zeros(1, np.float32)} if request.gate == "residual" else {}
    if request.init == "identity" and not closed:
        return lambda rng: block.identity(feature)
    return lambda rng: {**block.initial(feature, rng), **closed}


def _from_file(request: Request, block: Block, feature: FeatureMap) -> tuple[Block, Mapping[str, Array]]:
    path, prefix = weights.split(request.weights or "")
    arrays = weights.read(path, prefix)
    alpha = arrays.pop(GATE_KEY, np.zeros(1, np.float32)) if request.gate == "residual" else None
    if alpha is not None:  # a ResidualGate's own state_dict has the block's keys under block.
        arrays = {key.removeprefix("block."): values for key, values in arrays.items()}
        if alpha.size != 1:
            raise WeightsError(
                f"{GATE_KEY} in {path.name} is the gate's one number, and has the shape {list(alpha.shape)}"
            )
        alpha = alpha.reshape(1)
    if not block.has_weights:
        raise BlockError(f"{block.name} has no weights; drop --weights")
    block, fitted = weights.fit(block, feature, arrays, path.name + (f":{prefix}" if prefix else ""))
    return block, fitted if alpha is None else {**fitted, GATE_KEY: alpha}
