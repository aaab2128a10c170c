"""attach: the blocks of a recipe become children of modules of a live model, each called by a hook."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import userblocks
from ..blocks.block import Block
from ..blocks.residual_module import ResidualGate
from ..blocks.wrapped_module import with_weights
from ..errors import (
    BlockError,
    GraphSurgeryWarning,
    RecipeError,
    SelectorError,
    SiteError,
    WeightsError,
    concerning,
    option,
)
from ..feature_map import Array, FeatureMap
from ..insertion.start import checkpoint, start_of
from ..messages import listed, shape_text
from ..recipe import Recipe
from ..request import Request, arguments
from ..template.around import Around
from ..template.calibration import SCALE_KEY
from ..template.names import UniqueNames
from ..weights import Checkpoint
from ..weights.attachment import Attachment
from .calibration import Calibration
from .detaching import detach
from .dry_run import dry_run
from .hooks import put
from .learning import learns
from .model_check import check
from .selecting import LiveSelection
from .sites import LiveSite, LiveSites

_OF_FILES = {
    "in_place_of": "what stands in a live model is its own code",
    "target": "a file is written for a runtime, and PyTorch runs the module itself",
    "precision": "a live model computes in the type that it has",
    "lowering": "a file is written in one of several forms, and PyTorch runs the module itself",
    "qdq": "only a file has QuantizeLinear and DequantizeLinear",
    "qdq_scale": "only a file has QuantizeLinear and DequantizeLinear",
    "images": "nothing but init: calibrated measures on images",
    "shapes": "a live model tells its shapes itself",
}
"""keys that mean nothing on a live model, and why"""


def attach(
    model: nn.Module,
    recipe: str | Path | Recipe | Sequence[Mapping[str, object] | Request],
    example: object,
) -> list[Attachment]:
    """Attach the blocks of a recipe to a live model, in place.

    Every old key, parameter name, type and output of the model stays. The block is a child of the module that it
    follows, so that its weights are ``model.8.se.*`` in the model's ``state_dict``. Attach before the model is given to
    an optimizer, an EMA, ``DistributedDataParallel`` or ``torch.compile``.

    Parameters
    ----------
    model:
        Any ``torch.nn.Module``, in training or evaluation mode, with whatever weights. After an error it is as it was.
    recipe:
        The path of a YAML file, a :class:`graphsurgery.Recipe`, or a list of entries: mappings with the keys of a
        recipe, or :class:`graphsurgery.Request` objects. Where an entry says nothing of its gate and of its weights,
        the gate is ``residual``: the model's output stays as it is, and training can open the gate. Selectors are
        module paths, with globs and inner parts; roles and types of blocks are looked up in an export of the model.
    example:
        What the model takes: a tensor [N, C, H, W], a list where that is what it takes, a dict of keyword arguments,
        or a tuple of several arguments. The model is run on it once, in evaluation mode and without gradients.

    Returns
    -------
    list[Attachment]
        What was attached, in the order of the recipe.

    Raises
    ------
    RequestError
        If the model is compiled, wrapped, fused or TorchScript, has blocks attached, or does not take the example.
    RecipeError
        If the recipe cannot be read, or has keys that mean nothing on a live model.
    SelectorError
        If a selector matches nothing, or names what only a file has.
    SiteError
        If a module is never called, gives something that is not one feature map, or cannot hold the block.
    BlockError
        If the block cannot work there, or would never learn.
    WeightsError
        If the weights do not fit the block.

    Warns
    -----
    GraphSurgeryWarning
        For what works and is probably not what is meant, a module that is called several times say.

    Examples
    --------
    >>> attach(model, [{"module": "se", "after": "model.8"}], torch.zeros(1, 3, 64, 64))   # doctest: +SKIP
    """
    module = check(model)
    entries = _entries(Recipe.of(recipe))
    _check_keys(entries)
    with torch.inference_mode(False):  # a parameter that is made in it can never be trained
        every = _planned(module, entries, example)
        order = sorted(
            (each for each in every if each.attachment.entry.get("init") == "calibrated"), key=lambda each: each.order
        )
        places = [(each.attachment, str(each.attachment.entry["images"])) for each in order]
        calibration = Calibration(module, example, places) if places else None
        for planned in every:
            put(module, planned.attachment, planned.module)
        notes: dict[str, tuple[str, ...]] = {}
        if calibration is not None:
            try:
                notes = calibration.fit()
            except BaseException:
                detach(module)
                raise
    for planned in every:
        for message in (*planned.warnings, *notes.get(planned.attachment.id, ())):
            warnings.warn(f"{planned.attachment.id}: {message}", GraphSurgeryWarning, stacklevel=2)
    return [planned.attachment for planned in every]


@dataclass(frozen=True)
class _Planned:
    """A block that is ready to be attached."""

    attachment: Attachment
    module: nn.Module
    warnings: tuple[str, ...]
    order: int
    """when, in a forward pass, the block is called"""


def _planned(model: nn.Module, entries: Sequence[tuple[Request, dict[str, Any]]], example: object) -> list[_Planned]:
    """The blocks of the entries of a recipe, and where they go. The model is run, and stays as it was."""
    trust = userblocks.Trust.in_blocks(request.module for request, _ in entries)
    selection = LiveSelection(model, example)
    chosen = []
    for request, _ in entries:
        position = "before" if request.before else "after"
        with request.concerned(), concerning(position, SelectorError, SiteError):
            chosen.append([selection.choose(each, position) for each in request.before or request.after])
    kept = {selection.first[path] for each in chosen for one in each for path in one.paths}
    sites = LiveSites(model, selection, dry_run(model, example, kept))
    planner = _Planner(model)
    for (request, entry), found in zip(entries, chosen, strict=True):
        with request.concerned():
            block = userblocks.make_block(request.module, request.settings, trust)
            trained = checkpoint(request, trust)
            position = "before" if request.before else "after"
            for site in sites.find(found, block.name, position, request.consumers):
                planner.add(request, entry, site, block, trained)
    return planner.planned


class _Planner:
    """Makes the blocks of a recipe without touching the model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names: dict[str, UniqueNames] = {}
        self.planned: list[_Planned] = []

    def add(
        self, request: Request, entry: Mapping[str, Any], site: LiveSite, block: Block, trained: Checkpoint | None
    ) -> None:
        """Make the block for a site."""
        if userblocks.is_file(request.module):
            sentence = f"{request.module} is an ONNX file, which PyTorch cannot train; give the block as a module"
            raise BlockError(sentence, option="module")
        feature = _feature(block, site)
        start = start_of(request, block, feature, trained)
        name = self._name(site, start.block.name)
        weights = start.weights(request.seed, f"{site.named}.{name}")
        with torch.random.fork_rng(devices=[]):
            module = start.block.module(feature)
        init = "calibrated" if SCALE_KEY in weights else start.init  # as it is built again
        module = _loaded(module, weights, request, init, feature.channels)
        if start.init == "identity" and request.gate == "none" and not learns(module, feature):
            raise BlockError(
                f"{start.block.spelled} never learns from an identity: its gate is saturated, and the gradient is 0 at "
                f"every parameter; use {option('gate', 'residual')}, which leaves the output as it is, too",
                option="init",
            )
        host = self._model.get_submodule(site.path)
        module = module.to(site.seen.device, _dtype(host, self._model, site)).train(host.training)
        for shape in dict.fromkeys(each.shape for each in site.maps):
            _check_runs(module, shape, site, start.block)
        notes = list(start.warnings) + start.block.warnings(feature)
        if len(site.maps) > 1:
            notes.append(
                f"{site.path} is called {len(site.maps)} times in a forward pass, each time with this one block"
            )
        attachment = Attachment(
            path=site.path,
            named=site.named,
            name=name,
            position=site.position,
            places=site.places,
            module=start.block.spelled,
            settings=start.block.recorded_values(),
            gate=request.gate,
            init=init,
            channels=feature.channels,
            size=feature.size if feature.static else None,
            entry=entry,
        )
        self.planned.append(_Planned(attachment, module, tuple(notes), site.order))

    def _name(self, site: LiveSite, wish: str) -> str:
        """The name of the block among the children of its module. SiteError if the module uses it."""
        host = self._model.get_submodule(site.path)
        if hasattr(host, wish):
            kind, what = type(host).__name__, type(getattr(host, wish)).__name__
            hint = f"; {site.alike[0]} inside of it has the same map" if site.alike else ""
            raise SiteError(
                f"{site.path} ({kind}) has something called {wish} already ({what}), in whose place the block would "
                f"come{hint}",
                candidates=site.alike,
            )
        return self._names.setdefault(site.path, UniqueNames(set(dir(host)))).reserve(wish)


def _entries(recipe: Recipe) -> list[tuple[Request, dict[str, Any]]]:
    """Requests as they are for a live model, each with the keys that were given, as plain data."""
    plain = plain_entries(recipe)
    return [(_gated(request, each), each) for request, each in zip(recipe.requests, plain, strict=True)]


def plain_entries(recipe: Recipe) -> list[dict[str, Any]]:
    """The entries of a recipe as plain data, as attachments hold them."""
    given: Iterable[Mapping[str, object]] = recipe.entries or map(_stated, recipe.requests)
    return [json.loads(json.dumps(dict(each), default=str)) for each in given]


def _stated(request: Request) -> dict[str, object]:
    """What a request asks for beyond the defaults."""
    values = {each.name: getattr(request, each.name) for each in fields(request)}
    return {name: value for name, value in values.items() if value != arguments()[name].default}


def _gated(request: Request, entry: Mapping[str, object]) -> Request:
    """The request with a residual gate, unless it says how the block starts."""
    if "gate" in entry or request.init != "default" or request.weights is not None:
        return request
    return replace(request, gate="residual").labelled(request.label)


def _check_keys(entries: Sequence[tuple[Request, Mapping[str, Any]]]) -> None:
    """RecipeError for what means nothing on a live model, a line each."""
    lines = [
        f"  {request.label or request.module}: {key}: {getattr(request, key)} ({why})"
        for request, _ in entries
        for key, why in _OF_FILES.items()
        if getattr(request, key) != arguments()[key].default and (key, request.init) != ("images", "calibrated")
    ]
    if lines:
        raise RecipeError("\n".join(["keys that mean nothing on a live model; drop them:", *lines]))


def _feature(block: Block, site: LiveSite) -> FeatureMap:
    """What the block needs to know of a site: its size only if it cannot work without. BlockError if it cannot work."""
    shapes = dict.fromkeys(each.shape for each in site.maps)
    static = [
        FeatureMap(shape[1], shape[2], shape[3], batch=shape[0], label=site.named, path=site.named) for shape in shapes
    ]
    for feature in static:
        block.check(feature)
    dynamic = FeatureMap(static[0].channels, None, None, label=site.named, path=site.named)
    try:
        block.check(dynamic)
    except BlockError:
        if len(static) > 1:
            raise BlockError(f"{block.spelled} works at one size, and {site.named} has several") from None
        return replace(static[0], batch=None)
    return dynamic


def _loaded(module: nn.Module, weights: Mapping[str, Array], request: Request, init: str, channels: int) -> nn.Module:
    """The module with its weights, in float32, and with what its start puts around it."""
    if wrong := [key for key, values in weights.items() if not np.isfinite(np.asarray(values, np.float64)).all()]:
        raise WeightsError(f"{listed(wrong)} of {request.module} has values that are not finite")
    return with_weights(module, channels, Around(init == "calibrated", request.gate == "residual"), weights).float()


def _dtype(host: nn.Module, model: nn.Module, site: LiveSite) -> torch.dtype:
    """The element type of the parameters around a site; autocast may give the map another one."""
    for module in (host, model):
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return site.seen.dtype


def _check_runs(module: nn.Module, shape: tuple[int, ...], site: LiveSite, block: Block) -> None:
    """BlockError for a block that fails on a map like the one that was seen, or gives another shape; a gate around it
    could hide that.
    """
    inner = module.block if isinstance(module, ResidualGate) else module
    was = module.training
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), site.seen.dtype)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            y = inner.eval()(torch.zeros(shape, dtype=dtype, device=site.seen.device))
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(str(error).split())[:200]
        raise BlockError(f"{block.spelled} fails on a map {shape_text(shape)}: {reason}") from None
    finally:
        module.train(was)
    if not isinstance(y, torch.Tensor) or y.shape != shape:
        what = shape_text(y.shape) if isinstance(y, torch.Tensor) else f"a {type(y).__name__}"
        raise BlockError(f"a block keeps the shape of its input; {block.spelled} makes {what} of {shape_text(shape)}")
