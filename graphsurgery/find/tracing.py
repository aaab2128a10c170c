"""What a PyTorch module computes with its parameters, in the order in which it does.

The parameters are numbered through: each element is a negative number of its own. A tensor that is made of them by
slicing, transposing, gathering and the like still holds these numbers, so that it tells which elements of which
parameters it is, and in which order. Where it meets what depends on the input, an exporter, which folds whatever does
not, has a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import or_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..feature_map import Array
from .folded import Folded
from .uses import Kind, Role, Use, as_it_is, unmasked

_ROLES: dict[str, Mapping[int, Role]] = {
    "convolution": {1: Role.MATRIX, 2: Role.SHIFT},
    "linear": {1: Role.MATRIX, 2: Role.SHIFT},
    "addmm": {0: Role.SHIFT, 1: Role.MATRIX, 2: Role.MATRIX},
    "baddbmm": {0: Role.SHIFT, 1: Role.MATRIX, 2: Role.MATRIX},
    "mm": {0: Role.MATRIX, 1: Role.MATRIX},
    "bmm": {0: Role.MATRIX, 1: Role.MATRIX},
    "matmul": {0: Role.MATRIX, 1: Role.MATRIX},
    "native_layer_norm": {2: Role.SCALE, 3: Role.SHIFT},
    "native_group_norm": {1: Role.SCALE, 2: Role.SHIFT},
    "batch_norm": {1: Role.SCALE, 2: Role.SHIFT, 3: Role.MEAN, 4: Role.VARIANCE},
    "mul": dict.fromkeys((0, 1), Role.SCALE),
    "div": dict.fromkeys((0, 1), Role.SCALE),
    "prelu": {1: Role.SCALE},
    "add": dict.fromkeys((0, 1), Role.SHIFT),
    "sub": dict.fromkeys((0, 1), Role.SHIFT),
}
_SECOND = {"addmm": 2, "baddbmm": 2, "mm": 1, "bmm": 1, "matmul": 1}
"""operation -> the place where a matrix is [in, out]"""
_LINEAR = frozenset({"convolution", "linear", "addmm", "mm", "bmm"})


_KINDS = {
    **dict.fromkeys(("_softmax", "softmax", "_log_softmax"), Kind.SOFTMAX),
    **dict.fromkeys(("bmm", "mm", "matmul", "baddbmm", "dot", "mv"), Kind.PRODUCT),
    **dict.fromkeys(("max", "amax", "max_pool2d_with_indices", "adaptive_max_pool2d", "topk", "maximum"), Kind.MAXIMUM),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "std", "var", "var_mean", "sqrt"), Kind.ROOT),
    **dict.fromkeys(("native_batch_norm_legit", "linalg_vector_norm", "rsqrt", "norm"), Kind.ROOT),
    "grid_sampler_2d": Kind.SAMPLING,
}


@dataclass(frozen=True)
class Step:
    """An operation that computes with parameters."""

    uses: tuple[Use, ...]
    norm: bool = False
    """whether it is a BatchNorm"""
    after: int | None = None
    """of a BatchNorm: the step whose output alone it reads, a convolution or a product of matrices"""


@dataclass
class Trace:
    """What one module does with its parameters."""

    steps: list[Step] = field(default_factory=list)
    keys: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    """parameter -> the number of its first element, and its shape"""
    first: int = 1
    """the smallest number: one more than there are elements, so that what is added up or subtracted is no number"""
    count: int = 1
    """one more than the largest number"""
    kinds: set[Kind] = field(default_factory=set)
    """what it does beyond adding and multiplying"""

    @property
    def solves(self) -> bool:
        """Whether it has uses that are made of several parameters at once."""
        return any(use.solve is not None for step in self.steps for use in step.uses)


def trace(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], size: Sequence[int]) -> Trace:
    """Run a module, which is left without its values, on a map of that size [N, C, H, W].

    ``shapes``: its parameters that count; its other tensors keep their values.
    """
    found = Trace()
    module.double().eval()
    state = module.state_dict()
    found.first = found.count = 1 + sum(int(np.prod(shape)) for shape in shapes.values())
    for key, shape in shapes.items():
        found.keys[key] = (found.count, tuple(shape))
        found.count += int(np.prod(shape))
    parameters = [state[key] for key in shapes]
    numbers = np.arange(found.first, found.count)
    _run(module, parameters, -numbers.astype(np.float64), size, found)
    uses = [use for step in found.steps for use in step.uses]
    if any(not _is_made_of(use.read(), found) for use in uses):
        _undo(found, module, parameters, size)
    return found


def _run(
    module: nn.Module, parameters: Sequence[Tensor], values: Array, size: Sequence[int], found: Trace
) -> list[Sequence[Tensor]]:
    """Run a module with these values of all parameters one after the other. The tensors of the uses of each step."""
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            own = values[start : start + parameter.numel()]
            parameter.copy_(torch.from_numpy(own).reshape(parameter.shape))
            start += parameter.numel()
    x = torch.rand(tuple(size), dtype=torch.float64)
    tracer = _Tracer(found, x, parameters)
    with torch.enable_grad(), tracer:  # without gradients, there is a fused attention
        module(x)
    return tracer.tensors


def _is_made_of(values: Array, found: Trace) -> bool:
    """Whether a tensor holds numbers of parameters. They are negative, since many functions leave positive ones."""
    whole, start = (values == np.rint(values)).all(), -found.first
    return bool(whole and values.max(initial=start) <= start and values.min(initial=start) > -found.count)


def _undo(found: Trace, module: nn.Module, parameters: Sequence[Tensor], size: Sequence[int]) -> None:
    """What is a known function of one parameter becomes that parameter, with what undoes the function; what is made of
    several has what solves it, where that can be.
    """
    again = Trace()
    values = np.random.default_rng(0).uniform(-1.0, 1.0, found.count - found.first)
    tensors = _run(module, parameters, values, size, again)
    if len(again.steps) != len(found.steps):
        return
    named = dict(module.named_parameters())
    leaves = {start - found.first: named[key] for key, (start, _) in found.keys.items() if key in named}
    for i, (step, other) in enumerate(zip(found.steps, again.steps, strict=True)):
        uses = (_undone(found, use, twin, values) for use, twin in zip(step.uses, other.uses, strict=True))
        solved = (_solved(found, use, tensor, leaves) for use, tensor in zip(uses, tensors[i], strict=True))
        found.steps[i] = replace(step, uses=tuple(solved))


def _solved(found: Trace, use: Use, tensor: Tensor, leaves: Mapping[int, Tensor]) -> Use:
    """The same with what solves it, where it is an affine function of parameters. ``tensor``: the use in the last run,
    with its graph.
    """
    values, whole = use.read(), _narrowed(tensor)
    if _is_made_of(values, found) or not whole.requires_grad or tuple(whole.shape) != use.shape:
        return use
    with suppress(RuntimeError, ValueError):  # PyTorch cannot tell how it depends on them, or it depends on none
        function = Folded(whole, leaves)
        if function.gives(-np.arange(found.first, found.count, dtype=np.float64), values):
            return replace(use, solve=function.solve)
    return use


def _undone(found: Trace, use: Use, twin: Use, values: Array) -> Use:
    given = twin.read().reshape(-1)
    for start, shape in found.keys.values():
        own = values[start - found.first :][: int(np.prod(shape))]
        if own.size != given.size:
            continue
        for function, inverse in _FUNCTIONS:
            with np.errstate(all="ignore"):
                if np.allclose(function(own), given, rtol=1e-9):
                    numbers = -np.arange(start, start + own.size, dtype=np.float64).reshape(use.shape)
                    return replace(use, read=partial(as_it_is, numbers), inverse=inverse)
    return use


_FUNCTIONS: tuple[tuple[Callable[[Array], Array], Callable[[Array], Array]], ...] = (
    (lambda p: np.log1p(np.exp(p)), lambda y: y + np.log(-np.expm1(-y))),
    (np.exp, np.log),
    (lambda p: 1 / (1 + np.exp(-p)), lambda y: np.log(y / (1 - y))),
    (np.tanh, np.arctanh),
    (np.abs, np.abs),
)
"""(function of one number, what undoes it): softplus, exp, sigmoid, tanh, the absolute value"""


class _Tracer(TorchDispatchMode):  # type: ignore[misc,no-untyped-call,unused-ignore]
    """Notes each operation that has to do both with the input and with parameters.

    What a tensor depends on is known by its memory, which views share.
    """

    def __init__(self, found: Trace, x: Tensor, parameters: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self._found = found
        self._of_input = {_memory(x)}
        self._of_parameters = {_memory(each) for each in parameters}
        self._upstream: dict[int, int] = {}
        """memory -> the steps, a bit each, that what is there depends on"""
        self._linear: dict[int, int] = {}
        """memory of what a linear operation gave -> its step"""
        self.tensors: list[Sequence[Tensor]] = []
        """of the uses of each step"""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and to say so to the compiler takes seconds to load it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, Tensor)]
        of_input = any(_memory(each) in self._of_input for each in given)
        of_parameters = any(_memory(each) in self._of_parameters for each in given)
        upstream = reduce(or_, (self._upstream.get(_memory(each), 0) for each in given), 0)
        step = None
        if of_input and of_parameters:
            step = self._note(func, args, upstream)
        if step is not None:
            upstream |= 1 << step
        name = _name(func)
        if of_input and "scaled_dot_product" in name:
            self._found.kinds |= {Kind.SOFTMAX, Kind.PRODUCT}
        elif of_input and (kind := _KINDS.get(name)) is not None:
            both = sum(_memory(each) in self._of_input for each in given) > 1
            if kind is not Kind.PRODUCT or both:
                self._found.kinds.add(kind)
        for each in tree_leaves(result):
            if not isinstance(each, Tensor):
                continue
            memory = _memory(each)
            views = any(memory == _memory(other) for other in given)
            if of_input:
                self._of_input.add(memory)
                self._of_parameters.discard(memory)
            elif of_parameters:
                self._of_parameters.add(memory)
                self._of_input.discard(memory)
            elif not views:
                self._of_input.discard(memory)
                self._of_parameters.discard(memory)
            self._upstream[memory] = upstream | (self._upstream.get(memory, 0) if views else 0)
            if not views:
                self._linear.pop(memory, None)
            if step is not None and name in _LINEAR:
                self._linear[memory] = step
        return result

    def _note(self, func: Any, args: Sequence[Any], upstream: int) -> int | None:
        name = _name(func)
        roles = _ROLES.get(name, {})
        uses, tensors = [], []
        for place, each in _placed(args):
            if isinstance(each, Tensor) and _memory(each) in self._of_parameters and each.is_floating_point():
                role = roles.get(place, Role.OTHER)
                transposed = role is Role.MATRIX and _SECOND.get(name) == place and each.dim() > 1
                use = self._use(each.detach(), role, transposed=transposed)
                uses.append(replace(use, operation=len(self._found.steps), upstream=upstream))
                tensors.append(each)
        if not uses:
            return None
        norm = name == "batch_norm"
        after = self._linear.get(_memory(args[0])) if norm else None
        self._found.steps.append(Step(tuple(uses), norm, after))
        self.tensors.append(tensors)
        return len(self._found.steps) - 1

    def _use(self, tensor: Tensor, role: Role, *, transposed: bool) -> Use:
        given = _narrowed(tensor).clone().numpy()
        values = unmasked(given)
        if values is not given:
            self._found.kinds.add(Kind.MASK)
        return Use(role, tuple(values.shape), partial(as_it_is, values), "", transposed)


def _narrowed(tensor: Tensor) -> Tensor:
    """A tensor as it was before it was expanded."""
    for axis, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _placed(args: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """(place among the arguments, argument), and of lists each of theirs."""
    for place, each in enumerate(args):
        if isinstance(each, list | tuple):
            yield from ((place, one) for one in each)
        else:
            yield place, each


def _name(func: Any) -> str:
    name = str(func.overloadpacket).rpartition(".")[2].rstrip("_")
    return "batch_norm" if "batch_norm" in name else name


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
