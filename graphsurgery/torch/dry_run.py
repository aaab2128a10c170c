"""One run of a model on an example, and what was seen of it: who was called, who read what, and what came out."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..weights.attachment import Place
from .untouched import untouched

_PROBE = "_graphsurgery_probe"


@dataclass(eq=False)
class Seen:
    """A tensor among those that a module took or gave."""

    place: Place
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    _tensor: weakref.ref[Tensor]
    _version: int

    @classmethod
    def at(cls, place: Place, tensor: Tensor) -> Seen:
        """A tensor, as it is now: an operation in place makes another one of it."""
        version = 0 if tensor.is_inference() else tensor._version
        return cls(place, tuple(tensor.shape), tensor.dtype, tensor.device, weakref.ref(tensor), version)

    def is_same(self, other: Seen) -> bool:
        """Whether both are one tensor with the same values. One of the two has to be kept alive."""
        tensor = self._tensor()
        return tensor is not None and tensor is other._tensor() and self._version == other._version


@dataclass(eq=False)
class Call:
    """One call of a module."""

    path: str
    parent: Call | None
    """the call that it is a part of"""
    inputs: list[Seen]
    outputs: list[Seen] = field(default_factory=list)
    gave: str = ""
    """the type of what came out"""
    began: int = 0
    ended: int = 0
    """when, in the order of all beginnings and ends"""

    def is_within(self, other: Call) -> bool:
        """Whether it is a part of another call."""
        return self.parent is not None and (self.parent is other or self.parent.is_within(other))


class DryRun:
    """The calls of a run, in the order in which they began."""

    def __init__(
        self, calls: list[Call], image: tuple[int, ...], kept: list[Tensor], runs_children: Collection[str]
    ) -> None:
        self.calls = calls
        self.runs_children = runs_children
        """paths of modules, among those that were kept and what is in them, that run whatever children they have"""
        self.image = image
        """the shape of the first image-like tensor of the example; () without one"""
        self._kept = kept  # so that Seen.is_same can tell
        self._by_path: dict[str, list[Call]] = defaultdict(list)
        for call in calls:
            self._by_path[call.path].append(call)

    def of(self, path: str) -> list[Call]:
        """The calls of a module."""
        return self._by_path.get(path, [])

    def readers(self, seen: Seen, within: Call | None = None) -> list[Call]:
        """The calls that took a tensor, but for those that are a part of such a call; all, or those in one."""
        found: list[Call] = []
        for call in self.calls:
            if (
                (within is None or call.is_within(within))
                and any(seen.is_same(each) for each in call.inputs)
                and not any(map(call.is_within, found))
            ):
                found.append(call)
        return found

    def makers(self, seen: Seen) -> list[Call]:
        """The calls that gave a tensor as their only one, the outermost first."""
        return [call for call in self.calls if len(call.outputs) == 1 and seen.is_same(call.outputs[0])]


def arguments(example: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example as positional and keyword arguments: a dict is keywords, a tuple several arguments, anything else, a
    list too, is the one argument.
    """
    if isinstance(example, Mapping):
        return (), {str(key): value for key, value in example.items()}
    return (example if isinstance(example, tuple) else (example,)), {}


def dry_run(model: nn.Module, example: object, kept: Collection[str]) -> DryRun:
    """Run a model once; the tensors that the modules at the paths ``kept`` take and give are kept alive until the
    result is dropped. RequestError if the model does not take the example.
    """
    inner = [name for name, _ in model.named_modules() if any(f"{name}.".startswith(f"{path}.") for path in kept)]
    probed = {path: Probe() for path in inner if _can_hold(model.get_submodule(path))}
    try:
        return _recorded(model, example, kept, probed)
    except RequestError:  # which a probe may be the reason of
        sequential = {path: Probe() for path in probed if type(model.get_submodule(path)) is nn.Sequential}
        return _recorded(model, example, kept, sequential)


class Probe(nn.Module):
    """A child that gives back what it takes, and knows whether it has been called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = False

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Whatever comes first."""
        self.called = True
        return x


def _can_hold(module: nn.Module) -> bool:
    """Whether a module has a forward pass of its own, and children in it: ModuleList has none, Conv2d no children."""
    return bool(module._modules) and type(module).forward is not nn.Module.forward


def _recorded(model: nn.Module, example: object, kept: Collection[str], probes: Mapping[str, Probe]) -> DryRun:
    paths = {id(module): path for path, module in model.named_modules()}
    calls, stack, alive, clock = list[Call](), list[Call](), list[Tensor](), count()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        path = paths[id(module)]
        taken: dict[int | str, Any] = dict(enumerate(args))
        stack.append(Call(path, stack[-1] if stack else None, seen({**taken, **kwargs}, path)))
        stack[-1].began = next(clock)
        calls.append(stack[-1])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = stack.pop()
        call.ended = next(clock)
        call.outputs, call.gave = seen(output, call.path), type(output).__name__

    def seen(value: Any, path: str) -> list[Seen]:
        found = list(tensors_in(value))
        if path in kept:
            alive.extend(tensor for _, tensor in found)
        return [Seen.at(place, tensor) for place, tensor in found]

    args, kwargs = arguments(example)
    with ExitStack() as undo, untouched(model):
        for module in model.modules():
            undo.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        for path, probe in probes.items():
            children = model.get_submodule(path)._modules
            children[_PROBE] = probe
            undo.callback(children.pop, _PROBE)
        try:
            model(*args, **kwargs)
        except Exception as error:  # whatever the user's code raises
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise RequestError(f"the model fails on the example: {reason}", option="example") from None
    shapes = (tuple(tensor.shape) for _, tensor in tensors_in([args, kwargs]))
    image = next(((1,) * (4 - len(shape)) + shape for shape in shapes if len(shape) in (3, 4)), ())
    return DryRun(calls, image, alive, {path for path, probe in probes.items() if probe.called})


def tensors_in(value: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """The tensors in a value, each with its place in it."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, int | str):
                yield from tensors_in(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from tensors_in(inner, (*place, index))
