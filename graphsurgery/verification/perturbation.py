"""Random last bits in all that torch computes: each result of an operator is moved by up to one rounding error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def perturbed(unit: float, seed: int, absolute: Mapping[str, float] | None = None) -> Iterator[None]:
    """Inside, every floating-point result that an operator computes is multiplied by 1 + r with |r| <= unit.

    Each element has an r of its own, from ``seed``. Views are left alone; the normalisations, which torch computes in
    one operator, are computed step by step, so that their means and variances are moved, too. ``absolute``: an operator
    of torch, "sigmoid" say -> what each element of its result is moved by at most on top.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    own = {getattr(torch.ops.aten, name).default: error for name, error in (absolute or {}).items()}
    generator = torch.Generator().manual_seed(seed)

    def noise(value: torch.Tensor) -> torch.Tensor:
        found = torch.rand(value.shape, generator=generator, dtype=value.dtype)
        return found.mul_(2).sub_(1)  # in place: it can be as large as all scores

    def moved(value: Any, by: float = 0.0) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        rounded = value * noise(value).mul_(unit).add_(1)
        return rounded.add_(noise(value), alpha=by) if by else rounded

    class Perturbing(TorchDispatchMode):  # type: ignore[misc,no-untyped-call,unused-ignore]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # nothing here is compiled, and to say so to the compiler takes seconds to load it

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if (steps := _in_steps().get(func)) is not None:
                return steps(moved, *args, **(kwargs or {}))
            result = func(*args, **(kwargs or {}))
            if any(returned.alias_info is not None for returned in func._schema.returns):
                return result  # a view, or what is written in place: nothing is computed anew
            return type(result)(map(moved, result)) if isinstance(result, tuple) else moved(result, own.get(func, 0.0))

    with Perturbing():  # type: ignore[no-untyped-call,unused-ignore]
        yield


@cache
def _in_steps() -> dict[Any, Callable[..., Any]]:
    """Operators of torch that hold a mean and a variance -> the same in steps."""
    import torch

    aten = torch.ops.aten

    def normalised(moved: Callable[[Any], Any], x: torch.Tensor, dims: tuple[int, ...], eps: float) -> Any:
        mean = moved(x.mean(dims, keepdim=True))
        deviations = moved(x - mean)
        variance = moved(moved(deviations * deviations).mean(dims, keepdim=True))
        inverse = moved(torch.rsqrt(variance + eps))
        return moved(deviations * inverse), mean, inverse

    def scaled(moved: Callable[[Any], Any], y: torch.Tensor, weight: Any, bias: Any, shape: list[int]) -> Any:
        if weight is not None:
            y = moved(y * weight.reshape(shape))
        return moved(y + bias.reshape(shape)) if bias is not None else y

    def group_norm(moved: Any, x: Any, weight: Any, bias: Any, n: int, c: int, hw: int, group: int, eps: float) -> Any:
        y, mean, inverse = normalised(moved, x.reshape(n, group, -1), (2,), eps)
        shape = [1, c, *([1] * (x.dim() - 2))]
        return scaled(moved, y.reshape(x.shape), weight, bias, shape), mean.reshape(n, group), inverse.reshape(n, group)

    def layer_norm(moved: Any, x: Any, shape: list[int], weight: Any, bias: Any, eps: float) -> Any:
        dims = tuple(range(-len(shape), 0))
        y, mean, inverse = normalised(moved, x, dims, eps)
        return scaled(moved, y, weight, bias, list(shape)), mean, inverse

    return {aten.native_group_norm.default: group_norm, aten.native_layer_norm.default: layer_norm}
