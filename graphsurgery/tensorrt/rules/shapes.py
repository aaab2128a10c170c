"""Ranks, static sizes, and shapes that depend on data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from onnx import TensorProto

from ...modelfile.subgraphs import reads
from ..options import Options
from ..rule import WARNING, node_rule
from ..support import TYPE_NAMES
from ..view import Origin, Visit

_HOST_TYPES = (TensorProto.INT32, TensorProto.INT64)

_SHAPE_SLOTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 4),
    "Tile": (1,),
    "TopK": (1,),
}


_MOST_AXES = 8
"""nvinfer1::Dims::MAX_DIMS"""


@node_rule(source="rtx-parser", instead="a Reshape that joins axes")
def most_axes(visit: Visit, options: Options) -> str | None:
    for name in (*visit.node.input, *visit.outputs()):
        shape = visit.shape(name)
        if shape is not None and len(shape) > _MOST_AXES:
            return f"{name} is of rank {len(shape)}; a tensor has at most {_MOST_AXES} axes"
    return None


@node_rule("Conv", "ConvTranspose", source="importer", instead="several convolutions over fewer axes")
def convolution_rank(visit: Visit, options: Options) -> str | None:
    rank = visit.rank()
    return f"its input is of rank {rank}; 3, 4 and 5 are taken" if rank not in (None, 3, 4, 5) else None


@node_rule("ArgMax", "ArgMin", source="rtx-parser", instead="an Unsqueeze in front of it, or TopK", since=(11, 0))
def arg_rank(visit: Visit, options: Options) -> str | None:
    return "its input is a vector; at least two axes are taken" if visit.rank() == 1 else None


@node_rule("GridSample", source="operators-10.0", instead="a 4-D input", since=(9, 0))
def gridsample_rank(visit: Visit, options: Options) -> str | None:
    rank, taken = visit.rank(), (4, 5) if options.support.measured else (4,)
    if rank is None or rank in taken:
        return None
    return f"its input is of rank {rank}; {' and '.join(map(str, taken))} are taken"


@node_rule("GridSample", source="rtx-parser", instead="a Cast of the grid to the type of the input", since=(11, 0))
def gridsample_types(visit: Visit, options: Options) -> str | None:
    kinds = {TYPE_NAMES.get(visit.type(visit.input(slot)), "") for slot in (0, 1)} - {""}
    return f"its input and its grid are {' and '.join(sorted(kinds))}; one type is taken" if len(kinds) > 1 else None


@node_rule("DeformConv", source="operators-10.0", instead="one or two spatial axes")
def deformconv_rank(visit: Visit, options: Options) -> str | None:
    rank = visit.rank()
    return f"its input is of rank {rank}; 3 and 4 are taken" if rank not in (None, 3, 4) else None


@node_rule("TensorScatter", source="operators-10.16", instead="4-D data, axis -2")
def tensorscatter_form(visit: Visit, options: Options) -> str | None:
    rank, axis = visit.rank(), visit.attribute("axis", -2)
    if rank not in (None, 4) or axis not in (-2, 2):
        return f"its data is of rank {rank or '?'} and its axis {axis}; only rank 4 and axis -2 are taken"
    return None


@node_rule("EyeLike", source="operators-10.0", instead="a constant matrix", since=(9, 0))
def eyelike_static(visit: Visit, options: Options) -> str | None:
    shape = visit.shape(visit.input(0))
    return None if shape and all(isinstance(d, int) for d in shape) else "its size is not known before the model runs"


@node_rule("Hardmax", source="operators-10.0", instead="ArgMax and Equal", since=(9, 0), before=(11, 0))
def hardmax_static(visit: Visit, options: Options) -> str | None:
    shape = visit.shape(visit.input(0))
    axis = visit.attribute("axis", -1)
    if shape and -len(shape) <= axis < len(shape) and isinstance(shape[axis], int):
        return None
    return "the size along its axis is not known before the model runs"


@node_rule("If", source="operators-10.0", instead="outputs of other names and equal ranks")
def if_outputs(visit: Visit, options: Options) -> str | None:
    then, other = visit.attribute("then_branch"), visit.attribute("else_branch")
    if then is None or other is None:
        return None
    for a, b in zip(then.output, other.output, strict=False):
        if a.name == b.name and not options.support.measured:
            return f"both of its branches call an output {a.name}"
        shapes = [v.type.tensor_type for v in (a, b)]
        ranks = {len(t.shape.dim) for t in shapes if t.HasField("shape")}
        if len(ranks) > 1 and options.version >= (9, 0):
            return f"its branches give outputs of the ranks {sorted(ranks)} in the same place"
    return None


@node_rule("Loop", source="operators-10.0", instead="a constant number of turns", since=(9, 0))
def loop_length(visit: Visit, options: Options) -> str | None:
    body = visit.attribute("body")
    carried = max(len(visit.node.input) - 2, 0)
    if body is None or len(visit.node.output) <= carried:
        return None
    turns = visit.input(0)
    if turns and visit.origin(turns) is not Origin.DATA:
        return None
    return "it collects outputs over a number of turns that is not known beforehand"


@node_rule(
    "NonZero",
    "NonMaxSuppression",
    source="dynamic-shapes",
    instead="TopK with a fixed number, or the same work behind the engine",
    severity=WARNING,
    when=lambda visit: visit.own_origin is Origin.DATA,
)
def data_dependent_shape(visit: Visit, options: Options) -> str | None:
    return "the size of its output depends on the data: slow, and the memory for it is not known beforehand"


def _sized_by(visit: Visit) -> Iterator[str]:
    """The inputs that the size of a node's output depends on, where they are computed from data."""
    names = (visit.input(slot) for slot in _SHAPE_SLOTS[visit.operator])
    return (name for name in names if name and visit.origin(name) is Origin.DATA)


def comes_from_data(visit: Visit, tensor: str) -> bool:
    """Whether a tensor of the main graph cannot be known on the host: it is computed from values that are no shapes and
    no integers that the model is given.
    """
    index, seen, pending = visit.view.index, set[str](), [tensor]
    while pending and visit.within is None:
        name = pending.pop()
        if name in seen or visit.origin(name) is not Origin.DATA:
            continue
        seen.add(name)
        if name in index.inputs and (visit.type(name) not in _HOST_TYPES or len(visit.shape(name) or ()) > 1):
            return True
        if name in index.producer:
            pending += reads(index.nodes[index.producer[name]])
    return False


_about_sizes = partial(
    node_rule, *_SHAPE_SLOTS, instead="a constant, or something computed from shapes", source="dynamic-shapes"
)


@_about_sizes(severity=WARNING)
def shape_from_data(visit: Visit, options: Options) -> str | None:
    for name in _sized_by(visit):
        if not (options.support.measured and comes_from_data(visit, name)):
            return f"its size comes from {name}, which is computed from data and not from shapes"
    return None


@_about_sizes(source="rtx-parser", since=(11, 0))
def shape_on_device(visit: Visit, options: Options) -> str | None:
    for name in _sized_by(visit):
        if comes_from_data(visit, name):
            return f"its size comes from {name}, which is computed from data, and sizes are computed on the host"
    return None
