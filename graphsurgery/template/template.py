"""Template: the builder that a block writes its ONNX subgraph with.

It knows the model's operator set, the site's element type and the target, so that a block says what it computes and the
template says how that is spelled there: attribute or input, which constant type, which form of an operator. Authored
with onnx-graphsurgeon; constants become initializers in the element type that the nodes around them compute in: the
site's own, or float32 within ``statistics`` and where the whole block is to be computed in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from . import dla_mean, nearest_resize, weight_folding
from .writer import GraphWriter

Array = np.ndarray[Any, Any]


class Template(GraphWriter):
    """Builds one block's subgraph after the tensor ``x`` [N, C, H, W], with the block's parameters."""

    # ------------------------------------------------------------------ parameters

    def values(self, key: str) -> Array:
        """Parameter ``key`` in float64, to fold constants with."""
        return np.asarray(self._weights[key], dtype=np.float64)

    def has(self, key: str) -> bool:
        """Whether the block has a parameter ``key``."""
        return key in self._weights

    def weight(self, key: str, shape: Sequence[int] | None = None, *, factor: float = 1.0) -> gs.Constant:
        """A parameter as a constant of the model, which the insertion's record reads it back from.

        Parameters
        ----------
        key:
            Its official key.
        shape:
            The shape that the constant is given, [1, C, 1, 1] say; that of the parameter where not given.
        factor:
            What its values are multiplied by.

        Returns
        -------
        gs.Constant
            In the element type that nodes compute in now.

        Raises
        ------
        WeightsError
            If that type cannot hold the values.

        Examples
        --------
        >>> t.mul(t.x, t.weight("scale", (1, t.feature.channels, 1, 1)))
        """
        values = self.values(key) * factor
        tensor = self.constant(values.reshape(shape) if shape is not None else values, key)
        self._stored[key] = {"initializer": tensor.name} | ({"factor": factor} if factor != 1 else {})
        return tensor

    def kept(self, key: str) -> Array:
        """Parameter ``key``, rounded to the element type of here, for a constant that holds its values rearranged.

        The record keeps it as it is in the model. Where it is computed with instead, ``values`` is more exact.
        """
        wide = self.values(key)
        rounded = wide.astype(self._computing.numpy_dtype).astype(np.float64)
        self._stored[key] = weight_folding.keep(rounded if self.dtype == "float64" else rounded.astype(np.float32))
        return rounded

    def folded(
        self, key: str, bn: str, eps: float, *, factor: float = 1.0, shape: Sequence[int] | None = None
    ) -> tuple[gs.Constant, Array]:
        """A convolution with its BatchNorm folded in, in float64.

        Parameters
        ----------
        key:
            The convolution's weight, [O, I, kH, kW].
        bn, eps:
            Prefix and epsilon of the BatchNorm over its O outputs.
        factor, shape:
            What the weight is multiplied by and reshaped to, for lowerings that write the convolution otherwise.

        Returns
        -------
        tuple[gs.Constant, Array]
            The weight, and the values of the bias [O], float64.
        """
        scale, shift = weight_folding.affine(self.values, bn, eps)
        weight = self.values(key)
        weight = weight * weight_folding.per_output(scale * factor, weight.ndim)
        tensor = self.constant(weight if shape is None else weight.reshape(shape), key)
        self._stored[key] = {"initializer": tensor.name, "divided_by": bn, "eps": eps, "factor": factor}
        return tensor, shift

    def rows(
        self,
        key: str,
        rows: Sequence[int],
        *,
        shape: Sequence[int] | None = None,
        factor: float = 1.0,
        transposed: bool = False,
        bn: str = "",
        eps: float = 0.0,
    ) -> gs.Constant:
        """Some rows of a parameter as a constant of their own. Every row has to end up in exactly one.

        Parameters
        ----------
        key, rows:
            The parameter, and numbers along its first axis.
        shape:
            The shape that the constant is given.
        factor:
            What the values are multiplied by.
        transposed:
            Whether [rows, n] becomes [n, rows], as a MatMul with the input on its left wants it; before ``shape``.
        bn, eps:
            Prefix and epsilon of a BatchNorm over all rows that is folded in.
        """
        values = self.values(key)
        entry: dict[str, Any] = {"parts": []}
        if bn:
            scale, _ = weight_folding.affine(self.values, bn, eps)
            values = values * weight_folding.per_output(scale, values.ndim)
            entry |= {"divided_by": bn, "eps": eps, "factor": 1.0}
        part = values[list(rows)] * factor
        part = part.reshape(len(rows), -1).T if transposed else part
        tensor = self.constant(part if shape is None else part.reshape(shape), key)
        stored = self._stored.setdefault(key, entry)
        stored["parts"].append(
            {
                "initializer": tensor.name,
                "rows": weight_folding.runs(rows),
                "transposed": transposed,
                "factor": factor,
            }
        )
        return tensor

    # ------------------------------------------------------------------ means, resizes and affine maps

    def reduce(self, kind: str, x: gs.Tensor, axes: Sequence[int], keepdims: int = 1) -> gs.Variable:
        """A reduction, with its axes as attribute or as input, as the opset wants it.

        The mean of a large map (FeatureMap.large) is taken along one side and then along the other.
        A DLA has no means, and gets them as poolings or convolutions where the sizes are known.

        Parameters
        ----------
        kind:
            ``"ReduceMean"``, ``"ReduceMax"``, ``"ReduceSum"`` ...
        axes:
            From 0 on.
        keepdims:
            1: they stay with the size 1; 0: they go.

        Examples
        --------
        >>> peak = t.reduce("ReduceMax", t.x, (2, 3))  # [N, C, 1, 1]
        """
        if self.target == "dla" and kind == "ReduceMean" and keepdims:
            pooled = dla_mean.mean(self, x, axes)
            if pooled is not None:
                return pooled
        if kind == "ReduceMean" and tuple(axes) == (2, 3) and self.feature.large:
            x, axes = self.reduce(kind, x, (3,)), (2,) if keepdims else (2, 3)
        return self.plain_reduce(kind, x, axes, keepdims)

    def plain_reduce(self, kind: str, x: gs.Tensor, axes: Sequence[int], keepdims: int = 1) -> gs.Variable:
        """The same as one operator on every target, for what is no map: tokens, say."""
        as_input_from = 13 if kind == "ReduceSum" else 18
        if self.opset >= as_input_from:
            return self.op(kind, x, self.integers(axes, "axes"), keepdims=keepdims)
        return self.op(kind, x, axes=list(axes), keepdims=keepdims)

    def mean_hw(self, x: gs.Tensor) -> gs.Variable:
        """Mean over height and width: [N, C, 1, 1].

        Not GlobalAveragePool: onnxruntime reorders the whole map for it, and for TensorRT the two are one.
        """
        return self.reduce("ReduceMean", x, (2, 3))

    def per_channel_affine(self, x: gs.Tensor, scale: Array | str, shift: Array | str, name: str) -> gs.Variable:
        """x * scale + shift per channel, as the one operator that runtimes are best at: a BatchNormalization.

        Its variance is 1 and its epsilon the default, made up for in the scale, since cuDNN takes no smaller epsilon.

        Parameters
        ----------
        scale, shift:
            Values [C], or the keys of the parameters that they are.
        name:
            What the names of the constants begin with.
        """
        if not self.supports("BatchNormalization"):
            shape = (1, -1, 1, 1)
            scaled = self.mul(x, self._vector(scale, f"{name}.weight", shape=shape))
            return self.add(scaled, self._vector(shift, f"{name}.bias", shape=shape))
        eps = 1e-5
        count = (self.values(scale) if isinstance(scale, str) else scale).size
        return self.op(
            "BatchNormalization",
            x,
            self._vector(scale, f"{name}.weight", factor=float(np.sqrt(1 + eps))),
            self._vector(shift, f"{name}.bias"),
            self.constant(np.zeros(count), f"{name}.running_mean"),
            self.constant(np.ones(count), f"{name}.running_var"),
            epsilon=eps,
        )

    def _vector(
        self, values: Array | str, name: str, *, shape: Sequence[int] | None = None, factor: float = 1.0
    ) -> gs.Constant:
        """Values by channel, or the parameter of that key, as a constant."""
        if isinstance(values, str):
            return self.weight(values, shape, factor=factor)
        return self.constant(values.reshape(shape or values.shape) * factor, name)

    def resize_nearest(self, x: gs.Tensor, size: tuple[int, int] | None) -> gs.Variable:
        """Nearest-neighbour resize of a map of height and width ``size`` (None: dynamic) to those of the site.

        Index rule: source = floor(target * in / out), as torch's ``interpolate(mode="nearest")``.
        """
        return nearest_resize.resize(self, x, size)
