"""BlockGraph: the graph of a block that a user brings, without its weights; it is recorded, copied, and run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import BlockError, ModelError
from ..feature_map import Array, FeatureMap, float_dtype
from ..graph import local_functions
from ..modelfile import external_data, limits, payload, soundness
from ..modelfile.model import ModelFile
from ..modelfile.operators import STANDARD
from ..modelfile.packed import pack, unpack
from ..modelfile.soundness import standard_opset


@dataclass(frozen=True)
class BlockGraph:
    """A model whose first input is x [N, C, H, W] and whose other inputs are the weights; one output, like x.

    Its initializers are the constants that say how to compute (axes, shapes, scalars); no functions, no subgraphs.
    """

    model: ModelProto
    label: str

    @property
    def x(self) -> onnx.ValueInfoProto:
        """The input that the feature map takes."""
        first: onnx.ValueInfoProto = self.model.graph.input[0]
        return first

    @property
    def dtype(self) -> str:
        """Element type of the feature map, as FeatureMap has it."""
        return float_dtype(self.x.type.tensor_type.elem_type) or ""

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the feature map that the graph does not leave open, called as FeatureMap calls them."""
        dimensions = zip(("batch", "channels", "height", "width"), self.x.type.tensor_type.shape.dim, strict=True)
        return {name: dimension.dim_value for name, dimension in dimensions if dimension.HasField("dim_value")}

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return standard_opset(self.model) or 1

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight by name."""
        weights = self.model.graph.input[1:]
        return {each.name: tuple(d.dim_value for d in each.type.tensor_type.shape.dim) for each in weights}

    @property
    def fixed_names(self) -> set[str]:
        """Tensors that an operator wants in one element type whatever that of the feature map (scales of a Resize)."""
        found = set()
        for node in self.model.graph.node:
            formal = onnx.defs.get_schema(node.op_type, self.opset, "").inputs
            for place, name in enumerate(node.input):
                if formal and formal[min(place, len(formal) - 1)].type_str == "tensor(float)":
                    found.add(name)
        return found

    def check(self, feature: FeatureMap) -> None:
        """BlockError where the graph was made for another feature map."""
        channels = self.sizes.get("channels", feature.channels)
        if channels != feature.channels:
            raise BlockError(f"{feature.label} has {feature.channels} channels; {self.label} is made for {channels}")
        for name, own in self.sizes.items():
            there = getattr(feature, name)
            if own != there:
                place = "is dynamic" if there is None else f"is {there}"
                raise BlockError(
                    f"{self.label} is made for the {name} {own}, and that of {feature.label} {place}; export it for "
                    "that size, or with dynamic axes"
                )

    def to_text(self) -> str:
        """As text for the record of an insertion."""
        return pack(self.model.SerializeToString(deterministic=True))

    @classmethod
    def from_text(cls, recorded: object, label: str) -> BlockGraph:
        """From such a text. BlockError if it is damaged."""
        try:
            model = ModelProto.FromString(unpack(str(recorded), limits.RECORDED_GRAPH_BYTES))
            block = cls(model, label)
            _check_recorded(block)
        except Exception as error:  # of base64, zlib and whichever protobuf implementation is installed
            raise BlockError(f"the graph of {label} in the record of its insertion is damaged") from error
        return block


def load(path: Path) -> tuple[BlockGraph, dict[str, Array]]:
    """The block in an ONNX file, and its weights by name. BlockError if the file is no such block."""
    try:
        file = ModelFile.load(path)
        soundness.check_names(soundness.graphs(file.structure), file.name)
        external_data.check(file.external_data, file.folder)
        model = file.proto()
        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor.CopyFrom(numpy_helper.from_array(external_data.read(tensor, path.parent), tensor.name))
        return split(model, path.name)
    except ModelError as error:
        raise BlockError(f"the block cannot be read: {error}") from None


def split(model: ModelProto, label: str) -> tuple[BlockGraph, dict[str, Array]]:
    """A whole model as a graph and its weights: the floating-point constants that are not scalars. BlockError and
    ModelError if it is no block.
    """
    model = local_functions.written_out(model, label, limits.BLOCK_NODES)
    if len(model.graph.node) > limits.BLOCK_NODES:
        raise BlockError(f"{label} has {len(model.graph.node):,} nodes; a block has at most {limits.BLOCK_NODES:,}")
    plain = ModelProto(ir_version=model.ir_version, producer_name="graphsurgery")
    plain.opset_import.extend([entry for entry in model.opset_import if entry.domain in STANDARD][-1:])
    graph = plain.graph
    graph.name = "block"
    block = BlockGraph(plain, label)
    constants = _constants(model, label)
    inputs = [each for each in model.graph.input if each.name not in constants]
    x, y = _only(inputs, "input", label), _only(list(model.graph.output), "output", label)
    kind = x.type.tensor_type
    _check_input(x, label)
    nodes = [node for node in model.graph.node if not any(name in constants for name in node.output)]
    graph.node.extend(_bare(node) for node in sorted_nodes(nodes, {x.name, *constants}, label))
    _check_output(graph, x.name, y.name, label)
    _check_operators(block)
    fixed = block.fixed_names
    used = {name for node in graph.node for name in node.input}
    values = {name: payload.array(tensor) for name, tensor in constants.items() if name in used}
    weights = {
        name: value
        for name, value in values.items()
        if float_dtype(constants[name].data_type) and value.ndim and name not in fixed
    }
    graph.input.append(x)
    for name in values:
        tensor = constants[name]
        if name in weights:
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    graph.output.append(onnx.helper.make_tensor_value_info(y.name, kind.elem_type, None))
    for each in (*graph.input, *graph.output):
        each.doc_string = ""
        del each.metadata_props[:]
    return block, weights


def attributes(node: NodeProto) -> dict[str, Any]:
    """The values of a node's attributes by name."""
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def with_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> ModelProto:
    """A copy of a model with other nodes."""
    result = deepcopy(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def sorted_nodes(nodes: Iterable[NodeProto], known: set[str], label: str) -> Iterator[NodeProto]:
    """The nodes in topological order, otherwise in their own. BlockError if there is none."""
    waiting = list(nodes)
    known = {"", *known}
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                if twice := next((name for name in node.output if name and name in known), None):
                    raise BlockError(f"{label} is not a valid model: it makes the tensor {twice!r} twice")
                known.update(node.output)
                yield node
            else:
                later.append(node)
        if len(later) == len(waiting):
            missing = next(name for name in later[0].input if name not in known)
            raise BlockError(f"{label} is not a valid model: nothing makes {missing!r}, which a node of it reads")
        waiting = later


def _constants(model: ModelProto, label: str) -> dict[str, TensorProto]:
    """Initializers, and the values of Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            value = payload.of_constant(node)
            if value is None:
                raise BlockError(f"{label} has a Constant, {''.join(node.output)!r}, without a tensor as its value")
            value.name = node.output[0]
            found[value.name] = value
    return found


def _bare(node: NodeProto) -> NodeProto:
    """A node without the exporter's notes."""
    return NodeProto(
        op_type=node.op_type, domain=node.domain, input=node.input, output=node.output, attribute=node.attribute
    )


def _only(values: list[onnx.ValueInfoProto], what: str, label: str) -> onnx.ValueInfoProto:
    if len(values) != 1:
        named = ", ".join(each.name for each in values[:6]) or "none"
        raise BlockError(f"a block has one {what}; {label} has {len(values)}: {named}")
    return values[0]


def _check_recorded(block: BlockGraph) -> None:
    """BlockError or ModelError for a graph that :func:`split` cannot have made."""
    graph, label = block.model.graph, block.label
    soundness.check_names(soundness.graphs(block.model), label)
    soundness.check_versions(block.model, label)
    y = _only(list(graph.output), "output", label)
    if not graph.input or len(graph.node) > limits.BLOCK_NODES:
        raise BlockError(f"{label} is no block")
    _check_input(block.x, label)
    constants = {tensor.name: payload.array(tensor) for tensor in graph.initializer}
    list(sorted_nodes(graph.node, {*block.parameters, *constants, block.x.name}, label))
    _check_output(graph, block.x.name, y.name, label)
    _check_operators(block)


def _check_input(x: onnx.ValueInfoProto, label: str) -> None:
    if float_dtype(x.type.tensor_type.elem_type) is None or len(x.type.tensor_type.shape.dim) != 4:
        raise BlockError(f"the input {x.name} of {label} is no floating-point map [N, C, H, W]")


def _check_output(graph: onnx.GraphProto, x: str, y: str, label: str) -> None:
    if y not in {x, *(name for node in graph.node for name in node.output)}:
        raise BlockError(f"{label} is not a valid model: no node of it makes its output {y!r}")


def _check_operators(block: BlockGraph) -> None:
    """BlockError for a node that cannot be inserted, or that is not as its operator wants it."""
    label = block.label
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = block.model.ir_version, {"": block.opset}
    for node in block.model.graph.node:
        if node.domain not in STANDARD:
            raise BlockError(
                f"{label} uses {node.op_type} of {node.domain}; only the standard operators of ONNX can be inserted"
            )
        if any(each.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for each in node.attribute):
            raise BlockError(f"{label} has control flow ({node.op_type}), which cannot be inserted")
        if not onnx.defs.has(node.op_type, block.opset, ""):
            raise BlockError(f"{label} uses {node.op_type}, which opset {block.opset} of ONNX does not have")
        if any(each.ref_attr_name for each in node.attribute):
            raise BlockError(f"{label} is not a valid model: an attribute of its {node.op_type} refers to no function")
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            reason = str(error).splitlines()[0].rstrip(".")[:160]
            raise BlockError(f"{label} is not a valid model: {node.op_type}: {reason}") from None
