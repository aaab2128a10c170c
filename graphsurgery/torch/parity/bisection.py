"""The first module whose output in the file is not what the live module gives: looked for in the order of a run.

A tensor of the file belongs to a module by its path. Exporters fold a BatchNorm into the convolution in front of it:
what the file has as the convolution's output is then compared with that of the BatchNorm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ...feature_map import Array
from ...insertion.activations import upstream
from ...runtime.session import session
from ...selection.borders import Borders
from ...selection.context import Context
from ...weights.attachment import Attachment
from ..detaching import attachments
from ..dry_run import tensors_in
from .deployed import Deployed
from .layout import Wide
from .live import Feeds, Live
from .precision import Precision
from .report import FirstDifference

_FLOOR = 2e-6
"""what a tensor may be off in any case, as a share of its largest value: some sixteen units in the last place"""
_AT_ONCE = 32 << 20
"""elements that are held at a time"""
_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class _Point:
    """A tensor that both sides have."""

    path: str
    """of the module in the live model"""
    tensor: str
    """its name in the file"""
    words: str
    shape: tuple[int, ...]
    before: bool = False
    """whether it is what the module takes, and not what it gives"""


@dataclass
class _Seen:
    """What one run of a module tells."""

    ended: list[str] = field(default_factory=list)
    """paths in the order in which the modules end"""
    calls: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """of modules that give one tensor"""
    after: dict[str, str] = field(default_factory=dict)
    """BatchNorm -> the module whose output it takes right away"""


def first_difference(deployed: Deployed, live: Live, feeds: Feeds, provider: str) -> FirstDifference:
    """Look for it on one image. What cannot be compared is left out, and said."""
    precision = Precision(deployed, dict(feeds))
    context = Context(deployed.model)
    points, skipped = _points(context, live, _seen(live, feeds, precision.expected))
    compared = 0
    for some in _portions(points):
        for point, error, permitted in _errors(context, live, feeds, provider, some, precision):
            if permitted is None:
                skipped.append(f"{point.words}: another shape in the file")
                continue
            compared += 1
            if not error <= permitted:
                return FirstDifference(point.path, point.words, error, permitted, compared, tuple(skipped))
    words = "none of those that can be compared: the difference begins behind them"
    return FirstDifference(
        "", words if compared else "unknown: the file names no module", 0.0, 0.0, compared, tuple(skipped)
    )


def _seen(live: Live, feeds: Feeds, dtype: torch.dtype) -> _Seen:
    """Run the module once, and keep nothing but what it is compared by."""
    model, seen = live.copy(dtype), _Seen()
    paths = {id(module): path for path, module in model.named_modules()}
    last: list[tuple[str, Tensor]] = []

    def enter(module: nn.Module, args: tuple[object, ...]) -> None:
        if isinstance(module, _NORMS) and last and args and args[0] is last[-1][1]:
            seen.after[paths[id(module)]] = last[-1][0]

    def leave(module: nn.Module, args: object, output: object) -> None:
        path, given = paths[id(module)], [tensor for _, tensor in tensors_in(output)]
        seen.calls[path] += 1
        seen.ended.append(path)
        last.clear()
        if len(given) == 1:
            seen.shapes[path] = tuple(given[0].shape)
            last.append((path, given[0]))

    with ExitStack() as undo:
        for path, module in model.named_modules():
            if path:
                undo.callback(module.register_forward_pre_hook(enter).remove)
                undo.callback(module.register_forward_hook(leave).remove)
        live.run(feeds, dtype)
    return seen


def _points(context: Context, live: Live, seen: _Seen) -> tuple[list[_Point], list[str]]:
    """The tensors to compare, in the order of the run, and the modules that are left out, with the reasons."""
    borders, tree = Borders(context), context.tree.modules
    blocks = {each.id: each for each in context.model.insertions()}
    placed = attachments(live.module)
    attached = {each.id: f"{each.named}.{each.name}" for each in placed}
    named = dict(live.module.named_modules())
    folded = {path: norm for norm, path in seen.after.items() if norm not in tree}
    points, skipped = list[_Point](), list[str]()
    for path in dict.fromkeys(seen.ended):
        in_file = attached.get(path, path)
        words = f"{path} ({type(named[path]).__name__})"
        if seen.calls[path] > 1:
            skipped.append(f"{words}: called {seen.calls[path]} times")
        elif path not in seen.shapes:
            skipped.append(f"{words}: it does not give one tensor")
        elif path in folded.values():
            continue  # the convolution in front of it stands for both
        elif any(host == path or host.startswith(f"{path}.") for host in _inside(path, placed)):
            continue  # with the block in the live model, without it in the file: what stands in front of it is compared
        elif path in attached and in_file in blocks:
            block = blocks[in_file]
            points.append(_Point(path, block.site.tensor, f"what stands in front of {words}", (), before=True))
            points.append(_Point(path, block.output_tensor, words, seen.shapes[path]))
        elif in_file not in tree or not (tensor := borders.leaving(in_file)):
            skipped.append(f"{words}: {'not in the file' if in_file not in tree else 'no single tensor in the file'}")
        elif path in folded:
            norm = folded[path]
            points.append(_Point(norm, tensor, f"{words} with {norm} folded into it", seen.shapes[norm]))
        else:
            points.append(_Point(path, tensor, words, seen.shapes[path]))
    return points, skipped


def _inside(path: str, placed: Sequence[Attachment]) -> Iterator[str]:
    """The modules that hold blocks after a module that this one is a part of."""
    for each in placed:
        if each.position == "after" and path.startswith(f"{each.named}."):
            yield each.path


def _portions(points: Sequence[_Point]) -> Iterator[list[_Point]]:
    """The points in order, as many at a time as may be held."""
    some, size = list[_Point](), 0
    for point in points:
        some.append(point)
        size += prod(point.shape)
        if size >= _AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _errors(
    context: Context, live: Live, feeds: Feeds, provider: str, points: Sequence[_Point], precision: Precision
) -> Iterator[tuple[_Point, float, float | None]]:
    """For each point by how much the file is off there, and what is permitted: None where the shapes differ."""
    names = list(dict.fromkeys(point.tensor for point in points))
    kinds = {name: context.shapes.lookup(name)[0] or onnx.TensorProto.FLOAT for name in names}
    part = upstream(context.model, list(kinds.items()))
    given = {name: array for name, array in feeds.items() if name in {each.name for each in part.graph.input}}
    ready = session(part.to_bytes(), provider, folder=part.folder, frugal=True)
    tensors = dict(zip(names, ready.run(given), strict=True))
    coarse, fine = precision.kinds if precision.expected is torch.float32 else (precision.expected,) * 2
    exact = _values(live, feeds, fine, points)
    rounding: list[float] = []
    for value, reference in zip(_values(live, feeds, coarse, points), exact, strict=True):
        rounding.append(_largest(value, reference) if value.shape == reference.shape else 0.0)
    for point, reference, moved in zip(points, exact, rounding, strict=True):
        actual = tensors[point.tensor]
        if actual.shape != reference.shape:
            yield point, 0.0, None
            continue
        peak = float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0))
        yield point, _largest(actual, reference), max(_FLOOR * peak, Precision.TIMES * moved)


def _values(live: Live, feeds: Feeds, dtype: torch.dtype, points: Sequence[_Point]) -> list[Array]:
    """What the module has at each point."""
    model, found = live.copy(dtype), dict[int, Array]()

    def keep(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object = None) -> None:
            tensors = [tensor for _, tensor in tensors_in(args if points[index].before else output)]
            found[index] = tensors[0].double().numpy().copy()

        return hook

    with ExitStack() as undo:
        for index, point in enumerate(points):
            module = model.get_submodule(point.path)
            register = module.register_forward_pre_hook if point.before else module.register_forward_hook
            undo.callback(register(keep(index)).remove)
        live.run(feeds, dtype)
    return [found[index] for index in range(len(points))]


def _largest(actual: Array, reference: Wide) -> float:
    with np.errstate(invalid="ignore"):
        error = np.where(actual == reference, 0.0, np.abs(np.asarray(actual, np.float64) - reference))
    return float(np.where(np.isnan(error), np.inf, error).max(initial=0.0))
