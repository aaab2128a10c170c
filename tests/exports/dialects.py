"""How exporters that cannot be run here would write a model: changes of names and form on a real export.

`dialect("yolov8n", "paddle")` is that model in that dialect, from its export SOURCE. Every function takes a model and
returns a changed copy with what its tensors are called now. `shipped(...)` gives files that such an exporter did write.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import groupby
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper

from graphsurgery.graph.module_paths import from_name
from tests.exports import export, modules
from tests.exports.modulelist import Module
from tests.recognition.randomise import Renamed

SOURCE = "torchscript"
OPERATORS_OF_PADDLE = {"Conv": "conv2d", "Relu": "relu", "Concat": "concat", "MaxPool": "pool2d", "Resize": "nearest"}
"""What Paddle calls an operator's result; "tmp" where it is not named here."""
SAME_KIND = ("Mul", "Relu", "Sigmoid", "Concat", "MaxPool", "Split", "Resize")
"""Operators that make a feature map of feature maps."""


def shipped(name: str = "resnet50") -> Path:
    """Return a file that Caffe2 wrote (IR 3, opset 9): onnx installs a few, with constants instead of weights."""
    spec = importlib.util.find_spec("onnx.backend.test")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "light" / f"light_{name}.onnx"


def numbered(model: ModelProto) -> Renamed:
    """Return the model as torch before 1.13 wrote it: nodes are called Conv_12, activations 482; weights have names."""
    changed = _copy(model)
    _strip(changed, "pytorch", "1.12.1")
    inner = [name for node in changed.graph.node for name in node.output if name not in _ends(changed)]
    first = len(changed.graph.initializer) + 1
    tensors = _rename(changed, {name: str(first + count) for count, name in enumerate(inner)})
    for count, node in enumerate(changed.graph.node):
        node.name = f"{node.op_type}_{count}"
    return Renamed(changed, tensors)


def blank(model: ModelProto) -> Renamed:
    """Return the model as torch before 1.3 wrote it: activations are numbers, and nodes have no name at all."""
    changed, tensors = numbered(model)
    changed.producer_version = "1.1"
    for node in changed.graph.node:
        node.ClearField("name")
    return Renamed(changed, tensors)


def caffe2(model: ModelProto) -> Renamed:
    """Return the model as Caffe2 wrote it: IR 3, weights are inputs too, gpu_0/ before every tensor, sums by Sum.

    The operators are those of the source's opset; the real thing ends with opset 9 (`shipped`).
    """
    changed = _copy(model)
    _strip(changed, "onnx-caffe2", "")
    changed.ir_version = 3
    kinds: Counter[str] = Counter()
    names = {}
    weights = {tensor.name for tensor in changed.graph.initializer}
    maps: set[str] = set()
    for node in changed.graph.node:
        node.ClearField("name")
        if node.op_type == "Add" and maps.issuperset(node.input):
            node.op_type = "Sum"
        if node.op_type in ("Conv", "Sum") or (node.op_type in SAME_KIND and maps.intersection(node.input)):
            maps.update(node.output)
        for name in node.output:
            kinds[node.op_type] += 1
            names[name] = f"gpu_0/{node.op_type.lower()}{kinds[node.op_type]}_1"
    names |= {name: "gpu_0/" + name.replace(".", "_") + "_0" for name in weights}
    tensors = _rename(changed, {old: new for old, new in names.items() if old not in _ends(changed)})
    for tensor in changed.graph.initializer:
        changed.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return Renamed(changed, tensors)


def tf_scopes(model: ModelProto) -> Renamed:
    """Return the model as tf2onnx writes a Keras model: an NHWC image, a Transpose, scopes of StatefulPartitionedCall.

    Tensors end with :0, and no weight has the name of its layer's parameter.
    """
    changed = _copy(model)
    _strip(changed, "tf2onnx", "1.17.0")
    graph, root = changed.graph, "StatefulPartitionedCall/model"
    names = {}
    for node in graph.node:
        scope = node.name.strip("/").replace(".", "_") or node.op_type
        node.name = f"{root}/{scope}"
        names |= {name: f"{node.name}:{count}" for count, name in enumerate(node.output)}
    readers = {name: node.name for node in reversed(graph.node) for name in node.input}
    for tensor in graph.initializer:
        names[tensor.name] = f"{readers.get(tensor.name, root)}/ReadVariableOp_{len(names)}:0"
    names = {old: new for old, new in names.items() if old not in _ends(changed)}
    image = graph.input[0]
    names[image.name] = f"{root}/Transpose__1:0"
    tensors = _rename(changed, names)
    image.name = "images:0"
    transpose = helper.make_node(
        "Transpose", [image.name], [names[model.graph.input[0].name]], "Transpose__1", perm=[0, 3, 1, 2]
    )
    graph.node.insert(0, transpose)
    batch, channels, height, width = image.type.tensor_type.shape.dim
    sizes = [
        onnx.TensorShapeProto.Dimension.FromString(d.SerializeToString()) for d in (batch, height, width, channels)
    ]
    del image.type.tensor_type.shape.dim[:]
    image.type.tensor_type.shape.dim.extend(sizes)
    return Renamed(changed, tensors)


def paddle(model: ModelProto) -> Renamed:
    """Return the model as Paddle2ONNX writes it: weights are Constant nodes, conv2d_77.w_0; the batch size is -1."""
    changed = _copy(model)
    _strip(changed, "PaddlePaddle", "")
    graph = changed.graph
    weights = {tensor.name for tensor in graph.initializer}
    kinds: Counter[str] = Counter()
    names: dict[str, str] = {}
    for count, node in enumerate(graph.node):
        node.name = f"p2o.{node.op_type}.{count}"
        kind = OPERATORS_OF_PADDLE.get(node.op_type, "tmp")
        for place, name in enumerate(name for name in node.input if name in weights and name not in names):
            names[name] = f"{kind}_{kinds[kind]}.{'wb'[place] if place < 2 else 'x'}_{max(0, place - 1)}"
        for place, name in enumerate(node.output):
            names[name] = f"{kind}_{kinds[kind]}.tmp_{place}"
        kinds[kind] += 1
    tensors = _rename(changed, {old: new for old, new in names.items() if old not in _ends(changed)})
    constants = [
        helper.make_node("Constant", [], [tensor.name], f"p2o.Constant.{count}", value=tensor)
        for count, tensor in enumerate(graph.initializer)
    ]
    nodes = [*constants, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    return Renamed(changed, tensors)


def functions(model: ModelProto, parts: Iterable[Module]) -> Renamed:
    """Return the model as torch 1.13 ... 2.5 wrote it with export_modules_as_functions: a call for every module.

    `parts` are the modules of the PyTorch model. A module becomes a local function of the domain of its class, called
    by the function of the module around it; weights are arguments. Those of torch.nn stay operators here.
    """
    changed = _copy(model)
    _strip(changed, "pytorch", "2.4.0")
    nodes = list(changed.graph.node)
    blocks = {part.path: part.kind for part in parts if part.path and not part.kind.startswith("torch.")}
    scopes = [from_name(node.name).split(".") for node in nodes]
    around = [[p for n in range(1, len(s) + 1) if (p := ".".join(s[:n])) in blocks] for s in scopes]
    readers: dict[str, set[int]] = {entry.name: {-1} for entry in changed.graph.output}
    for position, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, set()).add(position)
    for position, node in enumerate(nodes):  # constants have no scope: they belong where they are read
        if not around[position] and node.op_type == "Constant":
            around[position] = around[min(readers.get(node.output[0], {position}))]
    versions = list(changed.opset_import)

    def fold(positions: Iterable[int], depth: int) -> list[NodeProto]:
        folded: list[NodeProto] = []
        for path, run in groupby(positions, lambda p: around[p][depth] if depth < len(around[p]) else ""):
            inside = list(run)
            folded += call(path, inside, depth) if path else [nodes[p] for p in inside]
        return folded

    def call(path: str, inside: list[int], depth: int) -> list[NodeProto]:
        domain, _, kind = blocks[path].rpartition(".")
        body = fold(inside, depth + 1)
        made = [name for p in inside for name in nodes[p].output]
        reads = dict.fromkeys(name for p in inside for name in nodes[p].input if name and name not in made)
        leaves = [name for name in made if readers.get(name, set()) - set(inside)]
        name = f"{kind}.{len(changed.functions)}"
        used = [helper.make_opsetid(d, 1) for d in sorted({node.domain for node in body} - {""})]
        changed.functions.append(helper.make_function(domain, name, reads, leaves, body, [*versions, *used]))
        return [helper.make_node(name, list(reads), leaves, f"/{path}/{name}", domain=domain)]

    calls = fold(range(len(nodes)), 0)
    del changed.graph.node[:], changed.graph.value_info[:]
    changed.graph.node.extend(calls)
    changed.opset_import.extend(helper.make_opsetid(d, 1) for d in sorted({f.domain for f in changed.functions}))
    there = [*(name for node in calls for name in node.output), *_ends(changed)]
    return Renamed(changed, {name: name for name in there})


DIALECTS: dict[str, Callable[..., Renamed]] = {
    "numbered": numbered,
    "blank": blank,
    "caffe2": caffe2,
    "tf-scopes": tf_scopes,
    "paddle": paddle,
    "functions": functions,
}


@cache
def dialect(name: str, kind: str) -> Renamed:
    """Return model `name` in the dialect `kind`, one of DIALECTS. Callers must not change it: copy it first."""
    model = onnx.load(export(name, SOURCE))
    return DIALECTS[kind](model, *([modules(name)] if kind == "functions" else []))


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())


def _strip(model: ModelProto, producer: str, version: str) -> None:
    """Leave nothing that only the exporter of the source writes."""
    model.producer_name, model.producer_version = producer, version
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")


def _ends(model: ModelProto) -> set[str]:
    return {entry.name for entry in (*model.graph.input, *model.graph.output)}


def _rename(model: ModelProto, names: dict[str, str]) -> dict[str, str]:
    """Rename tensors and return what every tensor is called now. The model has no subgraphs."""
    graph = model.graph
    if len(set(names.values())) != len(names):
        raise ValueError("two tensors would have one name")
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for entry in (*graph.initializer, *graph.value_info):
        entry.name = names.get(entry.name, entry.name)
    made = {entry.name: entry.name for entry in (*graph.input, *graph.output)}
    return made | names
