"""Tensors that a module makes of several parameters at once: an exporter computes each into one constant, such as the
sum of a table of rows and one of columns, or what a convolution makes of the coordinates of the positions.

Where such a tensor is an affine function of the parameters, least squares give parameters that make it what it is. Of
several solutions any will do, since the tensor is all that the module computes with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..feature_map import Array

_MOST_STEPS = 100
"""of the conjugate gradients; as many as the function has singular values that differ would do"""
_SOLVED = 1e-12
"""the gradient that is left at the end, as a share of the first"""
_EQUAL = 1e-9
"""how far an affine function may be off, as a share of the largest value"""
_GIVEN = 1e-2
"""the same of what an exporter computed, perhaps in half precision: numbers decide about the whole part later"""


class Folded:
    """A tensor as an affine function ``A p + b`` of the parameters it was computed of.

    Parameters
    ----------
    tensor:
        With the graph of how it was computed; the parameters must keep the values that they have.
    parameters:
        Place of its first element among those of all -> the leaf of that graph.
    """

    def __init__(self, tensor: Tensor, parameters: Mapping[int, Tensor]) -> None:
        leaves = [*parameters.values()]
        self._dual = torch.zeros_like(tensor, requires_grad=True)  # what A^T is taken of, which is linear in it
        with torch.enable_grad():
            every: tuple[Tensor | None, ...] = torch.autograd.grad(
                tensor, leaves, self._dual, create_graph=True, allow_unused=True
            )
        used = [
            (start, leaf, each)
            for (start, leaf), each in zip(parameters.items(), every, strict=True)
            if each is not None
        ]
        self._leaves = [leaf for _, leaf, _ in used]
        self._gradients = [each for _, _, each in used]
        self.places = np.concatenate([np.arange(start, start + leaf.numel()) for start, leaf, _ in used])
        """the places of the elements that it depends on"""
        self._tensor = tensor
        self._offset = tensor.detach() - self._applied([leaf.detach() for leaf in self._leaves])

    def gives(self, numbers: Array, values: Array) -> bool:
        """Whether the function has these values where the parameters are ``numbers``, of all in their order: else it
        is not affine.
        """
        given = torch.from_numpy(numbers[self.places])
        expected = torch.from_numpy(values).reshape(self._tensor.shape)
        off = (self._applied(self._split(given)) + self._offset - expected).abs().max()
        return bool(off <= _EQUAL * expected.abs().max())

    def solve(self, values: Array) -> tuple[Array, Array] | None:
        """(``places``, the elements there for which the tensor has these values, those of least norm where there are
        several); None where there are none.
        """
        wanted = torch.from_numpy(np.ascontiguousarray(values, np.float64)) - self._offset
        found = [torch.zeros_like(leaf) for leaf in self._leaves]
        left, largest = wanted.clone(), wanted.abs().max()
        gradient = self._adjoint(left)
        direction, size = gradient, _square(gradient)
        first = size
        for _ in range(_MOST_STEPS):  # conjugate gradients of the normal equations, from 0: Hestenes and Stiefel, 1952
            if size <= _SOLVED**2 * first or not size:
                break
            step = self._applied(direction)
            length = size / float((step * step).sum())
            found = [each + length * way for each, way in zip(found, direction, strict=True)]
            left = left - length * step
            gradient = self._adjoint(left)
            before, size = size, _square(gradient)
            direction = [each + size / before * way for each, way in zip(gradient, direction, strict=True)]
        if not bool(left.abs().max() <= _GIVEN * largest):
            return None
        elements: Array = torch.cat([each.reshape(-1) for each in found]).numpy()
        return self.places, elements

    def _applied(self, parameters: list[Tensor]) -> Tensor:
        """A of what has the shapes of the parameters."""
        (found,) = torch.autograd.grad(self._gradients, [self._dual], parameters, retain_graph=True)
        return found

    def _adjoint(self, values: Tensor) -> list[Tensor]:
        """A^T of what has the shape of the tensor."""
        return [*torch.autograd.grad(self._tensor, self._leaves, values, retain_graph=True)]

    def _split(self, elements: Tensor) -> list[Tensor]:
        """Elements one after the other as the parameters they belong to."""
        parts = torch.split(elements, [leaf.numel() for leaf in self._leaves])
        return [part.reshape(leaf.shape) for part, leaf in zip(parts, self._leaves, strict=True)]


def _square(tensors: list[Tensor]) -> float:
    return sum(float((each * each).sum()) for each in tensors)
