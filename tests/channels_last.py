"""Models as TensorFlow's exporters write them: parts of what PyTorch computes in NCHW stand in NHWC."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import helper, numpy_helper

ELEMENTWISE = frozenset({"Add", "Clip", "Concat", "HardSigmoid", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Split", "Sub"})
"""operators that NHWC is kept for"""
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_AXES = {0: 0, 1: 3, 2: 1, 3: 2}
"""axis of NCHW -> the same in NHWC"""


def channels_last(model: onnx.ModelProto, operators: Collection[str] = ELEMENTWISE) -> onnx.ModelProto:
    """A model that computes the same, with its image, and what these operators compute, in NHWC.

    ``model`` is in NCHW and states the shapes of its tensors.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    (image,) = graph.input
    writer = _Writer(made, operators)
    sizes = [size.dim_value or size.dim_param for size in image.type.tensor_type.shape.dim]
    name, kind = f"{image.name}_nhwc", image.type.tensor_type.elem_type
    writer.last[image.name] = name
    image.CopyFrom(helper.make_tensor_value_info(name, kind, [sizes[axis] for axis in TO_LAST]))
    nodes = [new for node in model.graph.node for new in writer.written(node)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return made


class _Writer:
    def __init__(self, model: onnx.ModelProto, operators: Collection[str]) -> None:
        self._operators = operators
        self._graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self._rank = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.last: dict[str, str] = {}
        """tensor of four axes -> its NHWC copy"""
        self._first: set[str] = set()
        """tensors that there are in NCHW"""

    def written(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """A node with the Transposes in front of it and, where its result is NHWC, behind it."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        maps = [name for name in node.input if self._rank.get(name) == 4 and name not in self._weights]
        if node.op_type not in self._operators or not maps or any(self._rank.get(n) != 4 for n in node.output):
            for name in dict.fromkeys(maps):
                if name not in self._first:
                    yield self._transpose(self.last[name], name, TO_FIRST)
                    self._first.add(name)
            self._first.update(node.output)
            yield new
            return
        for name in dict.fromkeys(maps):
            if name not in self.last:
                yield self._transpose(name, f"{name}_nhwc", TO_LAST)
                self.last[name] = f"{name}_nhwc"
        for place, name in enumerate(node.input):
            new.input[place] = self.last.get(name, name)
            if name in self._weights and len(self._weights[name].dims) == 4:
                weight = numpy_helper.to_array(self._weights[name]).transpose(TO_LAST)
                new.input[place] = f"{name}_nhwc"
                if not any(each.name == new.input[place] for each in self._graph.initializer):
                    self._graph.initializer.append(numpy_helper.from_array(weight.copy(), new.input[place]))
        for attribute in new.attribute:
            if attribute.name == "axis":
                attribute.i = _AXES[attribute.i % 4]
        for place, name in enumerate(node.output):
            new.output[place] = self.last[name] = f"{name}_nhwc"
        yield new
        for name in node.output:
            if any(name == output.name for output in self._graph.output):
                yield self._transpose(self.last[name], name, TO_FIRST)
                self._first.add(name)

    def _transpose(self, source: str, target: str, order: tuple[int, ...]) -> onnx.NodeProto:
        return helper.make_node("Transpose", [source], [target], f"{target}__transposed", perm=order)
