"""Activations, in the forms in which exporters write them."""

from __future__ import annotations

from graphsurgery.recognition.pattern import Expression, OneOf, Op

_SIMPLE = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Clip"),
    *("HardSwish", "Swish", "Gelu", "Mish", "Tanh"),
)


def activated(y: Expression) -> OneOf:
    """``y`` behind any activation. Factors and summands that are constant are no operands."""
    erf = Op("Add", Op("Erf", Op(("Div", "Mul"), y)))
    tanh = Op("Tanh", OneOf(Op("Softplus", y), Op("Log", Op("Add", Op("Exp", y)))))
    six = Op("Clip", Op("Add", y))
    return OneOf(
        Op(_SIMPLE, y),
        Op("Mul", y, Op(("Sigmoid", "HardSigmoid"), y)),  # SiLU; HardSwish as torch writes it
        Op("Mul", y, tanh),  # Mish
        Op("Mul", y, OneOf(Op(("Mul", "Div"), six), six)),  # HardSwish, its sixth on the gate
        Op(("Mul", "Div"), Op("Mul", y, six)),  # ... or on the product
        Op("Mul", Op("Mul", y, erf)),  # GELU, its half on the product
        Op("Mul", y, Op("Mul", erf)),  # ... on the gate
        Op("Mul", Op("Mul", y), erf),  # ... on the input
        Op("Mul", y, erf),  # ... in the weights that follow
    )
