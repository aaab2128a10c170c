"""The channels that the weights upstream of a tensor give it, whatever the model declares."""

from __future__ import annotations

from .index import GraphIndex

_WEIGHT = {"BatchNormalization": 1, "Conv": 1, "InstanceNormalization": 1, "QLinearConv": 3}
"""operator -> the input whose first size is the channels of its output"""
_KEEPING = frozenset(
    {"AveragePool", "Cast", "Clip", "DequantizeLinear", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "MaxPool", "Mish", "Mul", "PRelu", "QuantizeLinear", "Relu", "Selu", "Sigmoid"}
    | {"Softplus", "Tanh"}
)
"""operators whose output has the channels of the first input, unless that has one"""


def weight_channels(index: GraphIndex, tensor: str) -> tuple[int, str] | None:
    """The channels of a tensor, and the node whose weights tell them; None where no weight nearby does."""
    seen = set[int]()
    while (node_index := index.producer.get(tensor)) is not None and node_index not in seen:
        seen.add(node_index)
        inputs, kind = index.inputs_of[node_index], index.operators[node_index]
        if kind in _KEEPING and inputs:
            tensor = inputs[0]
            continue
        place = _WEIGHT.get(kind)
        channels = index.first_sizes.get(inputs[place], 0) if place is not None else 0
        return (channels, index.label(node_index)) if channels > 1 else None
    return None
