"""Strides: which tensors are feature maps, and at which stride, from the operators on the way and known shapes.

A tensor is *in* the plane if every position of it belongs to a place of the image (convolutions, pooling, resizing and
elementwise operators keep it there); it is *off* it on tokens, anchors or channels (Reshape, Transpose, MatMul, a mean
over all positions ...). A tensor off the plane comes back when a convolution, a pooling or a Resize reads it and all
that it was computed from had one stride, or when it is given the shape of a map (the end of a GroupNormalization).

The image is what the first convolution sees: what an input is resized to before that has stride 1 (images.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from ..graph.shapes import ShapeTable
from .graph_view import View
from .input_images import CONVOLUTIONS, POOLS, WHOLE, Images, Size, height_and_width
from .input_images import Stride as Stride

_OFF = frozenset(
    {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MatMul", "Gemm", "Einsum", "GatherElements"}
    | {"GatherND", "TopK", "NonMaxSuppression", "GridSample", "Attention", "MultiHeadAttention", "ArgMax", "ArgMin"}
    | {"NonZero", "Expand", "Tile", "If", "Loop", "Scan"}
)
_MEANS = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2"})
_ONE = Fraction(1)
_CHANNELS_FIRST = (0, 3, 1, 2)
_SWAPPED = (0, 2, 1, 3, 4)
"""[N, groups, C, H, W] with the groups and their channels swapped"""
_STRIDED = CONVOLUTIONS | POOLS | {"ConvTranspose"}
_POOLED = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})


class _Where(NamedTuple):
    """Where a tensor is: in the plane at a stride, or off it, computed from maps of these strides."""

    stride: Stride | None
    origins: frozenset[Stride]
    pooled: bool = False
    open: bool = False
    """in the plane at a stride that only what it joins shows: the result of a Resize to computed sizes"""
    raw: bool = False
    """computed from the image without any convolution or pooling: preparation"""

    @property
    def times(self) -> int | None:
        """Image height over the height here, a whole number and the same in width; None where it is neither."""
        if self.stride is None or self.open:
            return None
        tall, wide = self.stride
        return tall.numerator if tall.denominator == 1 and (tall is wide or tall == wide) else None


_NOWHERE = _Where(None, frozenset())


class Strides:
    """Strides of the tensors of one model."""

    def __init__(self, view: View, shapes: ShapeTable | None = None) -> None:
        self._view = view
        self._shapes = shapes
        self._where: dict[str, _Where] = {}
        self._images = Images(view, shapes)
        self._image = self._images.reference
        for name in view.index.free_inputs:
            self._where[name] = self._beginning(name)
        for node_index in view.order:
            self._where.update(dict.fromkeys(view.outputs(node_index), self._after(node_index)))
        if any(where.open for where in self._where.values()):
            for node_index in reversed(view.order):
                self._settle(node_index)

    def is_in(self, root: str) -> bool:
        """Whether a tensor is in the image plane."""
        found = self._where.get(root) or self._at(root)
        return found.stride is not None

    def stride(self, root: str) -> int | None:
        """Image height over the height of a map in the plane, the same in width; None where it is neither."""
        return self._at(root).times

    def origin(self, root: str) -> Stride | None:
        """The stride of a tensor in the plane; off it, the one that all maps have that it was computed from."""
        where = self._at(root)
        return where.stride or (next(iter(where.origins)) if len(where.origins) == 1 else None)

    def is_pooled(self, root: str) -> bool:
        """Whether a tensor was produced by a mean or maximum over a whole map."""
        where = self._at(root)
        return where.stride is None and where.pooled

    def is_image(self, root: str) -> bool:
        """Whether a tensor is an image, or was computed from one without any convolution or pooling."""
        return self._at(root).raw

    def _at(self, root: str) -> _Where:
        found = self._where.get(root)
        if found is None and self._is_large(root) and not self._view.layouts.foreign(root):
            found = self._where.get(self._view.root(root))  # a map that has been transposed back
        return found or _NOWHERE

    def _beginning(self, image: str) -> _Where:
        """Where an input is, or what one is resized to before the first convolution."""
        stride = self._images.stride(image)
        return _Where(stride, frozenset({stride or WHOLE}), raw=True)

    # ------------------------------------------------------------------ one node

    def _after(self, node_index: int) -> _Where:
        view, op = self._view, self._view.op(node_index)
        before = [self._where[name] for name in view.inputs(node_index) if name in self._where]
        origins = _origins(before)
        raw = bool(before) and all(where.raw for where in before)
        off = _Where(None, origins, pooled=any(where.pooled for where in before), raw=raw)
        if op in ("Reshape", "Transpose") and (there := self._restored(node_index, off)) is not None:
            return there
        if not before or op in _OFF or (off.pooled and not any(where.stride for where in before)):
            return off
        if op in _POOLED or (op in _MEANS and self._over_positions(node_index)):
            return _Where(None, origins, pooled=True)
        if op in _STRIDED:
            return self._strided(node_index, op, view.inputs(node_index)[0], off)
        if op == "Resize" and self._is_back(view.inputs(node_index)[0]):
            source = self._where[view.inputs(node_index)[0]]
            return self._beginning(view.outputs(node_index)[0]) if raw else self._resized(node_index, source)
        beside = op == "Concat" and view.axis(node_index, 1) in (1, -3) and self._all_maps(node_index)
        if beside:
            before = [self._where[name] for name in view.inputs(node_index)]
        maps = [where for where in before if where.stride is not None]
        if not maps:
            return off
        if ":" in op:  # of another domain, with a name that tells nothing
            return self._by_size(node_index, maps[0])
        if op == "Gather" and view.axis(node_index, 0) not in (1, -3):
            return off
        if op == "Slice":
            return self._sliced(node_index, maps[0])
        if op in ("SpaceToDepth", "DepthToSpace"):
            size = Fraction(view.integer(node_index, "blocksize", 1))
            return _moved(maps[0], (size, size) if op == "SpaceToDepth" else (1 / size, 1 / size))
        settled = next((where for where in maps if not where.open), maps[0])
        if any(where.stride != settled.stride and not where.open for where in maps):
            return off
        if op == "Concat" and not beside:
            return off
        return settled

    def _settle(self, node_index: int) -> None:
        """Have maps that were resized to computed sizes at the stride of what they are joined with further on."""
        view = self._view
        there = next((self._where[name] for name in view.outputs(node_index)), _NOWHERE)
        given = {name: self._where[name] for name in view.inputs(node_index) if name in self._where}
        unsettled = [name for name, where in given.items() if where.open and where.stride is not None]
        if there.stride is None or there.open or not unsettled or view.op(node_index) == "Resize":
            return
        if len(given) > 1:  # joined with something at this stride
            self._where.update(dict.fromkeys(unsettled, _there(_NOWHERE, there.stride)))
            return
        (name,) = unsettled
        was, became = given[name].stride, self._after(node_index).stride
        if was is not None and became is not None:
            factor = became[0] / was[0], became[1] / was[1]
            self._where[name] = _there(_NOWHERE, (there.stride[0] / factor[0], there.stride[1] / factor[1]))

    def _strided(self, node_index: int, op: str, root: str, off: _Where) -> _Where:
        view = self._view
        weight = view.weight_shape(node_index)
        kernel = view.integers(node_index, "kernel_shape") if op in POOLS else weight and weight[2:]
        steps = view.integers(node_index, "strides") or (1, 1)
        if len(steps) != 2 or (kernel is not None and len(kernel) != 2):
            return off
        if not self._is_back(root):
            return off
        if steps == (1, 1):
            return _moved(self._where[root], WHOLE)
        tall, wide = map(Fraction, steps)
        return _moved(self._where[root], (1 / tall, 1 / wide) if op == "ConvTranspose" else (tall, wide))

    def _is_back(self, root: str) -> bool:
        """Whether a tensor that an operator of the plane reads is in it; one that was off it is then back."""
        source = self._at(root)
        if source.stride is not None:
            return True
        if len(source.origins) != 1 or (source.pooled and not self._is_large(root)):
            return False
        (stride,) = source.origins
        there = stride if self._is_map(root, stride) else self._regular(root)
        if there is not None:
            self._where[root] = _there(source, there)
        return there is not None

    def _restored(self, node_index: int, off: _Where) -> _Where | None:
        """Where a tensor is that has left the plane and is given the shape of a map again; None if it is not."""
        view, node = self._view, self._view.index.nodes[node_index]
        source = self._where.get(view.inputs(node_index)[0]) if view.inputs(node_index) else None
        if source is None or source.stride is not None or len(off.origins) != 1:
            return None
        if (before := self._shuffled(node_index)) is not None:
            (stride,) = off.origins
            return self._at(before) if self._is_map(view.outputs(node_index)[0], stride) else None
        shape = view.producer(node.input[1]) if len(node.input) > 1 else None
        if shape is not None and view.op(shape) == "Shape":
            like = self._at(view.root(view.index.nodes[shape].input[0]))
            return like if like.stride is not None and not off.pooled else None
        producer = view.producer(view.inputs(node_index)[0])
        # the last part of a GroupNormalization
        normalises = producer is not None and view.op(producer) == "InstanceNormalization"
        if not normalises and view.integers(node_index, "perm") != _CHANNELS_FIRST:
            return None
        (stride,) = off.origins
        name = view.outputs(node_index)[0]
        return _there(off, stride) if self._is_large(name) and self._is_map(name, stride) else None

    def _shuffled(self, node_index: int) -> str | None:
        """The map whose channels a Reshape gives back in another order; None for anything else.

        A channel shuffle is Reshape to groups, Transpose of the groups with what is in them, and Reshape.
        """
        view, name = self._view, self._view.inputs(node_index)[0]
        swapped = view.producer(name)
        if view.op(node_index) != "Reshape" or swapped is None or view.integers(swapped, "perm") != _SWAPPED:
            return None
        parted = view.producer(view.inputs(swapped)[0])
        if parted is None or view.op(parted) != "Reshape" or not view.inputs(parted):
            return None
        return view.inputs(parted)[0] if self.is_in(view.inputs(parted)[0]) else None

    def _is_large(self, root: str) -> bool:
        """Whether a tensor's height and width are known, and more than one position."""
        size = self._size(root)
        return size is not None and self._image is not None and min(size) > 1

    def _all_maps(self, node_index: int) -> bool:
        """Whether all that a Concat joins is in the plane, or of the known size of a map."""
        return all(
            self._where[name].stride is not None or (self._is_large(name) and self._is_back(name))
            for name in self._view.inputs(node_index)
            if name in self._where
        )

    def _resized(self, node_index: int, source: _Where) -> _Where:
        view = self._view
        node = view.index.nodes[node_index]
        scales = view.channels_first(
            node.input[0], view.given(node_index, 1 if node.op_type == "Upsample" else 2, "scales")
        )
        if len(scales) == 4 and all(scales):
            height, width = (1 / Fraction(scale).limit_denominator(64) for scale in scales[2:])
            return _moved(source, (height, width))
        return self._by_size(node_index, source)

    def _by_size(self, node_index: int, source: _Where) -> _Where:
        """Where the output of a node is whose size alone tells its stride."""
        shape, size = self._size(self._view.outputs(node_index)[0]), self._image
        if shape and size and not size[0] % shape[0] and not size[1] % shape[1]:
            return _there(source, (Fraction(size[0], shape[0]), Fraction(size[1], shape[1])))
        return _Where(source.stride, source.origins, open=True)

    def _sliced(self, node_index: int, source: _Where) -> _Where:
        """A slice in steps thins the map out: the Focus of YOLOv5 and YOLOX."""
        axes, steps = self._view.axes(node_index, self._view.given(node_index, 3)), self._view.given(node_index, 4)
        if not axes or not steps:
            return source
        factor = {axis % 4: Fraction(step) for axis, step in zip(axes, steps, strict=False)}
        return _moved(source, (factor.get(2, _ONE), factor.get(3, _ONE)))

    def _over_positions(self, node_index: int) -> bool:
        """Whether a reduction goes over height and width."""
        axes = self._view.axes(node_index, self._view.given(node_index, 1, "axes"))
        return not axes or not {2, 3, -1, -2}.isdisjoint(axes)

    # ------------------------------------------------------------------ shapes, where they are known

    def _is_map(self, root: str, stride: Stride) -> bool:
        """Whether a tensor's known size is that of a map at this stride; true where it is not known."""
        size, image = self._size(root), self._image
        if size is None or image is None:
            return True
        return all(
            abs(whole / part - float(step)) <= 0.1 * float(step) or part == math.ceil(whole / step)
            for whole, part, step in zip(image, size, stride, strict=True)
        )

    def _regular(self, root: str) -> Stride | None:
        """The stride that a tensor's known size tells, where it is a power of two: a Focus by Reshape and Transpose."""
        size, image = self._size(root), self._image
        if size is None or image is None or min(size) < 2:
            return None
        stride = Fraction(image[0], size[0])
        power = stride.denominator == 1 and stride.numerator & (stride.numerator - 1) == 0
        return (stride, stride) if power and Fraction(image[1], size[1]) == stride else None

    def _size(self, root: str) -> Size | None:
        shape = self._shapes.lookup(root)[1] if self._shapes is not None else None
        return height_and_width(self._view.channels_first(root, shape)) if shape is not None else None


def _origins(before: Sequence[_Where]) -> frozenset[Stride]:
    """All strides that tensors come from; mostly they share one set, and fractions are slow to compare."""
    first = before[0].origins if before else frozenset()
    others = [where.origins for where in before if where.origins is not first]
    return first.union(*others) if others else first


def _moved(source: _Where, factor: Stride) -> _Where:
    stride = source.stride or WHOLE
    if factor == WHOLE:
        return _there(source, stride)
    return _there(source, (stride[0] * factor[0], stride[1] * factor[1]))


def _there(source: _Where, stride: Stride) -> _Where:
    if stride is source.stride and not source.raw and not source.pooled:
        return source
    if stride[0] == stride[1]:
        stride = stride[0], stride[0]
    return _Where(stride, frozenset({stride}), open=source.open)
