"""What a DLA runs. The rest goes to the GPU, at the price of a change of format on the way there and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from ..options import Options
from ..rule import WARNING, file_rule, node_rule
from ..support import dla_support
from ..view import Origin, View, Visit

_GPU = "runs on the GPU instead"
_NO_LAYER = frozenset({"Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear"})
_LARGEST_BATCH, _LARGEST_SIZE = 4096, 8192
_RESIZES = {
    "nearest": (32, ("asymmetric and floor", "half_pixel and round_prefer_floor", "half_pixel and round_prefer_ceil")),
    "linear": (4, ("half_pixel", "pytorch_half_pixel")),
}
"""mode -> the largest factor, and how positions may be computed"""


def _runs(visit: Visit) -> bool:
    """Whether a node is left at all when the engine is built."""
    return visit.own_origin is Origin.DATA and visit.operator not in _NO_LAYER


_dla_rule = partial(node_rule, source="dla-limits", severity=WARNING, dla=True, when=_runs)


@file_rule(source="dla-availability", instead="TensorRT 8.6, 10.0 to 10.7, or 11.4.1", dla=True)
def dla_availability(view: View, options: Options) -> Iterable[str]:
    if not options.version.has_dla:
        yield f"TensorRT {options.version} cannot use a DLA; 10.7 was the last 10.x that could, and 11.4.1 can again"


@file_rule(source="dla-limits", instead="precision fp16 or int8", severity=WARNING, dla=True)
def dla_precision(view: View, options: Options) -> Iterable[str]:
    if options.precision == "fp32":
        yield "a DLA computes in FP16 and INT8 only"


@file_rule(source="dla-limits", instead="an export with fixed sizes", severity=WARNING, dla=True)
def dla_dynamic(view: View, options: Options) -> Iterable[str]:
    for name, value in view.index.inputs.items():
        free = any(d.dim_value <= 0 for d in value.type.tensor_type.shape.dim)
        if free and name not in view.index.initializers:
            yield f"the input {name} has dynamic sizes, with which nothing runs on a DLA"


@_dla_rule(source="dla-operators", instead="an operator that runs there")
def dla_operator(visit: Visit, options: Options) -> str | None:
    assert options.dla is not None
    how = dla_support(options.dla).get(visit.operator, "no") if visit.imported else "no"
    if how.startswith("native") and not (">=" in how and options.version < (9, 0)):
        return None
    if how.startswith("native"):
        return f"{visit.operator} {_GPU} before {how.partition('>= ')[2].rstrip(')')}"
    if how == "reconstruct":
        return f"{visit.operator} {_GPU} unless it is written with other operators"
    return f"{visit.operator} {_GPU}"


@_dla_rule(instead="smaller tensors")
def dla_sizes(visit: Visit, options: Options) -> str | None:
    for name in visit.outputs():
        sizes = [d if isinstance(d, int) else 0 for d in visit.shape(name) or ()]
        if sizes and (sizes[0] > _LARGEST_BATCH or max(sizes[1:], default=0) > _LARGEST_SIZE):
            return f"{name} is {sizes}: a batch up to 4096 and sizes up to 8192 fit, so that it {_GPU}"
    return None


def _outside(values: Sequence[int], low: int, high: int) -> bool:
    return any(not low <= value <= high for value in values)


@_dla_rule("Conv", instead="a smaller kernel, or two")
def dla_convolution(visit: Visit, options: Options) -> str | None:
    kernel = visit.attribute("kernel_shape") or (visit.shape(visit.input(1)) or ())[2:]
    kernel = [size for size in kernel if isinstance(size, int)]
    if len(kernel) != 2:
        return f"a convolution over {len(kernel)} axes {_GPU}"
    pads, strides = list(visit.attribute("pads", ())), list(visit.attribute("strides", ()))
    if _outside(kernel, 1, 32) or _outside(pads, 0, 31):
        return f"a kernel of {kernel} with pads of {pads} {_GPU}: up to 32, pads to 31"
    if _outside(strides, 1, 8):
        return f"strides of {strides} {_GPU}: up to 8 fit"
    return None


@_dla_rule("AveragePool", "MaxPool", instead="a chain of pools with windows up to 8 that tile the map exactly")
def dla_pool(visit: Visit, options: Options) -> str | None:
    window = visit.attribute("kernel_shape", ())
    if len(window) != 2 or _outside(window, 1, 8):
        return f"a window of {list(window)} {_GPU}: up to 8 x 8 fit"
    if _outside(visit.attribute("strides", ()), 1, 16) or _outside(visit.attribute("pads", ()), 0, 7):
        return f"a pool with strides above 16 or pads above 7 {_GPU}"
    return None


@_dla_rule("Concat", instead="Concat over channels")
def dla_concat(visit: Visit, options: Options) -> str | None:
    axis, rank = visit.attribute("axis", 1), visit.rank()
    return None if axis == 1 or (rank and axis % rank == 1) else f"Concat over axis {axis} {_GPU}: only channels fit"


@_dla_rule("Slice", "Split", instead="steps of 1 on a 4-D map")
def dla_slice(visit: Visit, options: Options) -> str | None:
    if visit.rank() not in (None, 4):
        return f"{visit.operator} of a tensor of rank {visit.rank()} {_GPU}"
    steps = visit.value(4) if visit.operator == "Slice" else None
    if steps is not None and (steps != 1).any():
        return f"a Slice with steps {_GPU}"
    axes = visit.value(3) if visit.operator == "Slice" else visit.attribute("axis", 0)
    if axes is not None and 0 in [int(a) for a in (axes if visit.operator == "Slice" else [axes])]:
        return f"{visit.operator} of the batch {_GPU}"
    return None


@_dla_rule("Resize", instead="nearest, asymmetric, floor, whole scales")
def dla_resize(visit: Visit, options: Options) -> str | None:
    mode = visit.attribute("mode", "nearest")
    scales = visit.value(2)
    if scales is None or scales.size != 4:
        return f"a Resize without four constant scales {_GPU}"
    most, forms = _RESIZES.get(mode, (0, ()))
    if any(scales[:2] != 1) or any(s != int(s) or not 1 <= s <= most for s in scales[2:].tolist()):
        return f"a Resize ({mode}) by {scales.tolist()} {_GPU}: whole factors up to {most} for height and width fit"
    how = visit.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        how += f" and {visit.attribute('nearest_mode', 'round_prefer_floor')}"
    return None if how in forms else f"a Resize ({mode}) with {how} {_GPU}"


@_dla_rule("Softmax", instead="a shorter axis")
def dla_softmax(visit: Visit, options: Options) -> str | None:
    shape, axis = visit.shape(visit.input(0)) or (), visit.attribute("axis", -1)
    if not shape or not -len(shape) <= axis < len(shape):
        return None
    size, others = shape[axis], [d for i, d in enumerate(shape[1:], 1) if i != axis % len(shape)]
    limit = 8192 if all(d == 1 for d in others) else 1024
    return f"a Softmax over {size} values {_GPU}: up to {limit} fit" if isinstance(size, int) and size > limit else None


@_dla_rule("MatMul", "Gemm", source="dla-operators", instead="a 1x1 convolution")
def dla_product(visit: Visit, options: Options) -> str | None:
    if visit.origin(visit.input(1)) is not Origin.CONSTANT:
        return f"a product of two computed tensors {_GPU}"
    return None
