"""Restrictions on attributes and on the outputs that may be asked for."""

from __future__ import annotations

import re
from functools import partial

from onnx import TensorProto

from ..options import Options
from ..rule import NOTE, WARNING, node_rule
from ..support import TYPE_NAMES
from ..view import Visit

_POOLS = ("AveragePool", "MaxPool", "LpPool")


@node_rule(*_POOLS, source="operators-10.0", instead="a window over two or three axes")
def pool_window(visit: Visit, options: Options) -> str | None:
    window = visit.attribute("kernel_shape", ())
    # a window over one axis is widened to two by the importer
    return f"the window has {len(window)} axes; two or three are taken" if len(window) > 3 else None


@node_rule(*_POOLS, source="operators-10.0", instead="a pool without dilations")
def pool_dilations(visit: Visit, options: Options) -> str | None:
    dilations = visit.attribute("dilations", ())
    return f"the dilations are {list(dilations)}; only 1 is taken" if any(d != 1 for d in dilations) else None


@node_rule("LpPool", "LpNormalization", source="importer", instead="p 1 or 2, or Pow and sums by hand")
def lp_norm(visit: Visit, options: Options) -> str | None:
    p = visit.attribute("p", 2)
    return f"p is {p}; only 1 and 2 are taken" if p not in (1, 2) else None


@node_rule("MaxPool", source="operators-8.6", instead="MaxPool without its second output")
def maxpool_indices(visit: Visit, options: Options) -> str | None:
    return "the indices are asked for, and only the maxima are given" if len(visit.outputs()) > 1 else None


@node_rule("BatchNormalization", source="importer", instead="export in evaluation mode")
def batchnorm_training(visit: Visit, options: Options) -> str | None:
    return "training_mode is 1, which is refused" if visit.attribute("training_mode", 0) else None


@node_rule("LayerNormalization", source="operators-10.0", instead="ReduceMean and the rest by hand")
def layernorm_outputs(visit: Visit, options: Options) -> str | None:
    return "Mean or InvStdDev is asked for, and only Y is given" if len(visit.outputs()) > 1 else None


@node_rule("LayerNormalization", source="importer", instead="a bias of zeros in the type of the input", severity=NOTE)
def layernorm_bias(visit: Visit, options: Options) -> str | None:
    return None if visit.input(2) else "it has no bias, and the importer fills one in"


@node_rule("LayerNormalization", source="rtx-parser", instead="scale and bias in the type of the input", since=(11, 0))
def layernorm_types(visit: Visit, options: Options) -> str | None:
    kinds = {visit.type(name) for name in visit.node.input if name} - {0}
    return "its input, scale and bias are not of one type" if len(kinds) > 1 else None


@node_rule("GroupNormalization", source="changelog", instead="opset 20 or earlier", before=(10, 9))
def groupnorm_opset(visit: Visit, options: Options) -> str | None:
    opset = visit.view.model.standard_opset or 0
    return f"at opset {opset} its scale is per channel, which is read from 10.9 on" if opset >= 21 else None


@node_rule("TopK", source="importer", instead="nothing, unless the order matters", severity=NOTE)
def topk_sorted(visit: Visit, options: Options) -> str | None:
    return None if visit.attribute("sorted", 1) == 1 else "sorted is 0, and TensorRT sorts all the same"


@node_rule("ScatterND", source="operators-10.0", instead="reduction none")
def scatternd_reduction(visit: Visit, options: Options) -> str | None:
    mode = visit.attribute("reduction", "none")
    return None if mode == "none" else f"the reduction is {mode}; only none is taken"


@node_rule("ScatterElements", source="importer", instead="reduction none", before=(9, 0))
def scatterelements_ignored(visit: Visit, options: Options) -> str | None:
    mode = visit.attribute("reduction", "none")
    return None if mode == "none" else f"the reduction is {mode}, which TensorRT 8 does not look at"


@node_rule(
    "ScatterElements", source="rtx-parser", instead="reduction none, or ScatterElements of each part", since=(11, 0)
)
def scatterelements_reduction(visit: Visit, options: Options) -> str | None:
    mode = visit.attribute("reduction", "none")
    return None if mode == "none" else f"the reduction is {mode}; only none is taken"


@node_rule("Mod", source="importer", instead="fmod 1, or a Cast to integers around it")
def mod_floats(visit: Visit, options: Options) -> str | None:
    kind = TYPE_NAMES.get(visit.type(visit.input(0)), "")
    floats = kind.startswith(("FP", "BF"))
    return (
        "fmod is 0, which takes integers alone, and its input is float"
        if floats and not visit.attribute("fmod", 0)
        else None
    )


@node_rule(
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", source="importer", instead="float32"
)
def random_type(visit: Visit, options: Options) -> str | None:
    like = visit.type(visit.input(0)) if visit.operator.endswith("Like") else TensorProto.FLOAT
    kind = TYPE_NAMES.get(visit.attribute("dtype", like), "another type")
    return None if kind in ("FP32", "FP16") else f"its numbers are asked for in {kind}; FP32 and FP16 are given"


@node_rule("Split", source="importer", instead="parts of equal size, or split as an input", since=(9, 0))
def split_parts(visit: Visit, options: Options) -> str | None:
    parts, shape = visit.attribute("num_outputs"), visit.shape(visit.input(0))
    axis = visit.attribute("axis", 0)
    if not parts or parts < 1 or shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    if not isinstance(size, int) or size >= -(-size // parts) * (parts - 1):
        return None
    return f"{size} elements in {parts} parts of {-(-size // parts)} leave less than nothing for the last one"


@node_rule("TensorScatter", source="rtx-parser", instead="mode linear")
def tensorscatter_mode(visit: Visit, options: Options) -> str | None:
    mode = visit.attribute("mode", "linear")
    return None if mode == "linear" else f"the mode is {mode}; only linear is taken"


@node_rule("LSTM", "GRU", "RNN", source="operators-8.6", instead="the same activations both ways")
def rnn_activations(visit: Visit, options: Options) -> str | None:
    names = list(visit.attribute("activations", ()))
    half = len(names) // 2
    if visit.attribute("direction", "forward") == "bidirectional" and names[:half] != names[half:]:
        return "its activations differ between the two directions"
    return None


@node_rule("LSTM", source="operators-10.0", instead="input_forget 0")
def lstm_form(visit: Visit, options: Options) -> str | None:
    return "input_forget is 1; only 0 is taken" if visit.attribute("input_forget", 0) else None


@node_rule("LSTM", source="operators-10.0", instead="layout 0", since=(9, 0), before=(11, 0))
def lstm_layout(visit: Visit, options: Options) -> str | None:
    return "layout is 1; only 0 is taken before 11" if visit.attribute("layout", 0) else None


@node_rule("Constant", source="operators-10.0", instead="a dense tensor of numbers")
def constant_form(visit: Visit, options: Options) -> str | None:
    names = {attribute.name for attribute in visit.node.attribute}
    refused = names & {"sparse_value", "value_string", "value_strings"}
    return f"it holds a {min(refused)}, which is refused" if refused else None


@node_rule("Dropout", source="operators-10.0", instead="export in evaluation mode")
def dropout_training(visit: Visit, options: Options) -> str | None:
    if not visit.input(2):
        return None
    training = visit.value(2)
    return None if training is not None and not training.any() else "training_mode is not a constant False"


@node_rule("DeformConv", source="operators-10.0", instead="pads that are equal on both sides")
def deformconv_pads(visit: Visit, options: Options) -> str | None:
    pads = list(visit.attribute("pads", ()))
    half = len(pads) // 2
    return f"the pads {pads} differ between the sides of an axis" if pads[:half] != pads[half:] else None


def _equation(visit: Visit) -> str | None:
    """What an Einsum asks for that the older importers do not give."""
    equation = str(visit.attribute("equation", "")).replace(" ", "")
    if "..." in equation:
        return "the equation has an ellipsis"
    terms = re.split(r",", equation.partition("->")[0])
    if any(len(set(term)) < len(term) for term in terms):
        return "the equation takes a diagonal"
    sizes: dict[str, set[int]] = {}
    for slot, term in enumerate(terms):
        for letter, size in zip(term, visit.shape(visit.input(slot)) or (), strict=False):
            if isinstance(size, int):
                sizes.setdefault(letter, set()).add(size)
    return "operands are broadcast" if any(len(found) > 1 for found in sizes.values()) else None


def _einsum_form(visit: Visit, options: Options) -> str | None:
    found = _equation(visit)
    return f"{found}, which is known to be taken from 10.12 on" if found else None


_about_einsum = partial(node_rule, "Einsum", source="changelog", instead="MatMul, Transpose and Mul")
einsum_before_10 = _about_einsum(before=(9, 0))(_einsum_form)
einsum_before_10_12 = _about_einsum(severity=WARNING, since=(9, 0), before=(10, 12))(_einsum_form)


@node_rule("Pow", source="changelog", instead="an exponent in the type of the base", before=(10, 8))
def pow_exponent(visit: Visit, options: Options) -> str | None:
    kind = TYPE_NAMES.get(visit.type(visit.input(1)), "")
    base = TYPE_NAMES.get(visit.type(visit.input(0)), "")
    return "its exponent is an integer" if kind.startswith("INT") and not base.startswith("INT") else None


@node_rule("InstanceNormalization", source="importer", instead="scale and bias in the type of the input")
def instancenorm_types(visit: Visit, options: Options) -> str | None:
    kinds = {visit.type(name) for name in visit.node.input if name} - {0}
    if len(kinds) > 1:
        return "its input, scale and bias are not of one type"
    rank = visit.rank()
    if rank is not None and (rank < 3 or (options.version < (9, 0) and rank > 5)):
        return f"its input is of rank {rank}; 3 {'to 5 are' if options.version < (9, 0) else 'and more are'} taken"
    return None


@node_rule(
    "InstanceNormalization",
    source="importer",
    instead="nothing; or --nativeInstanceNorm of trtexec",
    severity=NOTE,
    before=(9, 0),
)
def instancenorm_plugin(visit: Visit, options: Options) -> str | None:
    return "TensorRT 8 runs it as a plugin on cuDNN unless it is told otherwise"
