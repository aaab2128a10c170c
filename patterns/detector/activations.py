"""Activations, in the forms in which exporters write them, as one operator or as the formula."""

from __future__ import annotations

from collections.abc import Set

from graphsurgery.recognition import Expression, OneOf, Op, View

_SIMPLE = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Clip"),
    *("HardSwish", "Swish", "Gelu", "Mish", "Tanh", "Softplus", "Softsign"),
)
_FORMULAS = (  # operators of which one is there -> what they compute; what decides is first
    ({"Erf", "Gelu", "Pow"}, "gelu"),
    ({"Softplus", "Log"}, "mish"),
    ({"Sigmoid", "Swish", "Exp"}, "silu"),
    ({"HardSigmoid", "Clip"}, "hardswish"),
    ({"Abs"}, "softsign"),
    ({"Tanh"}, "gelu"),
)


def activated(y: Expression) -> OneOf:
    """Any activation of ``y``. Factors and summands that are constant are no operands."""
    return OneOf(
        Op(_SIMPLE, y),
        *_rectified(y),
        *_softplus(y),
        Op("Mul", y, _sigmoid(y)),  # SiLU; HardSwish as torch writes it
        Op("Div", y, _logistic(y)),
        Op("Mul", y, _sigmoid(_times(y))),  # QuickGELU
        Op("Div", y, _logistic(_times(y))),
        Op("Div", y, Op("Add", Op("Abs", y))),  # Softsign
        Op("Mul", y, Op("Tanh", OneOf(Op("Softplus", y), *_softplus(y)))),  # Mish
        *_gated(y, Op("Clip", Op("Add", OneOf(y, _times(y))))),  # HardSwish: max(0, min(x + 3, 6))
        *_gated(y, Op("Add", _scaled(Op("Erf", OneOf(y, _times(y)))))),  # GELU: 1 + erf(x / sqrt 2)
        *_gated(y, Op("Add", _scaled(Op("Tanh", _cubic(y))))),  # its approximation
        Op("Mul", y, _sigmoid(_cubic(y))),
    )


def affine(y: Expression) -> Op:
    """``y`` times a number, plus a number: the learnable affine block of PP-HGNetV2 and PP-LCNetV3."""
    return Op("Add", Op("Mul", y, where=_is_number), where=_is_number)


def activation_name(view: View, nodes: Set[int]) -> str:
    """What nodes compute whose last ones match activated(), or affine() of it: an operator's name, or that of a
    formula, in lower case.
    """
    last = _last(view, nodes)
    if view.op(last) == "Add":  # no activation ends so: what is scaled and shifted is one
        nodes = nodes - {last, _last(view, nodes - {last})}
        last = _last(view, nodes)
    kinds = {view.op(node_index) for node_index in nodes}
    match view.op(last):
        case "Max":
            return "relu" if len(view.inputs(last)) == 1 else "leakyrelu"
        case "Min":
            return "clip"
        case "Where" | "Log":
            return "softplus"
        case "Mul" | "Div" | "Swish":
            steep = {"Softplus", "Log"} & kinds and "Tanh" not in kinds
            return "softplus" if steep else next(name for some, name in _FORMULAS if kinds & some)
        case op:
            return op.lower()


def _last(view: View, nodes: Set[int]) -> int:
    """The node whose output no other reads."""
    read = {name for node_index in nodes for name in view.inputs(node_index)}
    return next(node_index for node_index in nodes if read.isdisjoint(view.outputs(node_index)))


# ---------------------------------------------------------------------- constants


def _is_number(view: View, node_index: int) -> bool:
    """Whether what a node calculates with is one number, not one for each channel: that would be a layer's scale."""
    names = view.index.inputs_of[node_index]
    shapes = (view.constant_shape(name) for name in names if name)
    return all(shape is None or set(shape) <= {1} for shape in shapes)


def _times(x: Expression) -> Op:
    """``x`` times a number, or divided by it."""
    return Op(("Mul", "Div"), x, where=_is_number)


def _scaled(x: Expression) -> OneOf:
    """``x`` as it is, or times a number."""
    return OneOf(x, _times(x))


# ---------------------------------------------------------------------- formulas


def _gated(y: Expression, gate: Expression) -> tuple[Op, ...]:
    """``y`` times a gate of it, with a number on either or on the product."""
    return (
        Op("Mul", y, gate),  # the number is in the weights that follow
        Op("Mul", y, _times(gate)),
        Op("Mul", _times(y), gate),
        _times(Op("Mul", y, gate)),
    )


def _rectified(y: Expression) -> tuple[Op, ...]:
    """ReLU, ReLU6 and LeakyReLU of converters that have only Max and Min."""
    return Op("Max", y), Op("Min", OneOf(Op("Max", y), Op("Relu", y))), Op("Max", y, _times(y))


def _softplus(y: Expression) -> tuple[Op, ...]:
    """log(1 + exp(x)), with a steepness or without; torch takes x where that is large."""
    log = Op("Log", Op("Add", Op("Exp", _scaled(y))))
    steep = _times(OneOf(Op("Softplus", _times(y)), log))
    soft = OneOf(Op("Softplus", y), log, steep)
    return log, steep, Op("Where", Op(("Greater", "GreaterOrEqual"), _scaled(y)), y, soft)


def _logistic(x: Expression) -> Op:
    """1 + exp(-x)."""
    return Op("Add", Op("Exp", OneOf(Op("Neg", x), _times(x))))


def _sigmoid(x: Expression) -> OneOf:
    return OneOf(Op(("Sigmoid", "HardSigmoid"), x), Op(("Reciprocal", "Div"), _logistic(x)))


def _cubic(y: Expression) -> OneOf:
    """sqrt(2 / pi) * (x + 0.044715 * x^3), multiplied out or not."""
    square = OneOf(Op("Mul", y, y), Op("Mul", y, _times(y)), Op("Pow", y))
    cube = OneOf(Op("Mul", y, _scaled(square)), Op("Pow", y))
    return _scaled(
        OneOf(Op("Add", y, _scaled(cube)), Op("Mul", OneOf(y, _times(y)), Op("Add", _scaled(square)))),
    )
