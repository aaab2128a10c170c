"""Small real ONNX models for the tests of the engine, and the tools to look at them byte by byte.

The wire format is read and written here by code of its own: what the engine does to a file is judged by something else
than the engine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
SHAPE = (1, 4, 8, 8)
Shape = Sequence[int | str | None]
Array = np.ndarray[Any, Any]

# ---------------------------------------------------------------------- building


def value(name: str, shape: Shape | None = SHAPE, kind: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op_type: str, inputs: Iterable[str], outputs: Iterable[str], name: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, list(inputs), list(outputs), name=name or None, **attributes)


def weight(name: str, shape: Sequence[int], dtype: Any = np.float32) -> TensorProto:
    """Random numbers that follow from the name and the shape alone."""
    rng = np.random.default_rng([*name.encode(), *shape])
    return numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(dtype), name)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
    value_info: Sequence[ValueInfoProto] = (),
) -> ModelProto:
    if ir_version < 4:  # there, every initializer is an input as well
        inputs = [*inputs, *(value(t.name, t.dims, t.data_type) for t in initializers)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers, value_info=value_info)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def chain(*ops: str, shape: Shape = SHAPE, opset: int = 17, ir_version: int = 8) -> ModelProto:
    """x -> ops[0] -> t0 -> ops[1] -> t1 ... -> y, nodes called n0, n1 ..."""
    tensors = ["x", *(f"t{i}" for i in range(len(ops) - 1)), "y"]
    nodes = [node(op, [tensors[i]], [tensors[i + 1]], f"n{i}") for i, op in enumerate(ops)]
    return model(nodes, [value("x", shape)], [value("y", shape)], opset=opset, ir_version=ir_version)


class _Layers:
    """Writes the nodes of a module tree; names and metadata as the exporter of that style would."""

    def __init__(self, style: str, dtype: Any) -> None:
        self.style, self.dtype = style, dtype
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def op(self, scope: str, op_type: str, *inputs: str, **attributes: Any) -> str:
        tokens = scope.split("/")
        name = f"/{scope}/{op_type}"
        made = node(op_type, inputs, [f"{name}_output_0"], name, **attributes)
        # the exporters' scopes: modules inside a ModuleList (model.8) are one step, those of a module are relative
        full = [".".join(tokens[: i + 1]) for i in range(len(tokens))]
        if self.style == "none":
            made.name, made.output[0] = "", f"v{len(self.nodes)}"
        elif self.style == "dynamo":
            made.name, made.output[0] = f"node_{op_type.lower()}_{len(self.nodes)}", f"val_{len(self.nodes)}"
            made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(["", *full, op_type.lower()]))
            classes = ["demo.Detector", *("demo.nn." + t.split(".")[0].title() for t in tokens), f"aten.{op_type}"]
            made.metadata_props.add(key="pkg.torch.onnx.class_hierarchy", value=str(classes))
        elif self.style == "namespace":
            made.name, made.output[0] = f"node_{len(self.nodes)}", f"val_{len(self.nodes)}"
            parts = [
                ": demo.Detector",
                *(f"{f}: demo.nn.{t.split('.')[0].title()}" for f, t in zip(full, tokens, strict=True)),
            ]
            made.metadata_props.add(key="namespace", value="/".join([*parts, f"{op_type.lower()}: aten.{op_type}"]))
        self.nodes.append(made)
        return made.output[0]

    def conv(self, scope: str, x: str, channels: int, out: int, kernel: int = 1, stride: int = 1) -> str:
        w = weight(scope.replace("/", ".") + ".weight", (out, channels, kernel, kernel), self.dtype)
        b = weight(scope.replace("/", ".") + ".bias", (out,), self.dtype)
        self.weights += [w, b]
        pad = [kernel // 2] * 4
        return self.op(scope, "Conv", x, w.name, b.name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pad)

    def conv_silu(self, scope: str, x: str, channels: int, out: int, kernel: int = 1, stride: int = 1) -> str:
        y = self.conv(f"{scope}/conv", x, channels, out, kernel, stride)
        return self.op(f"{scope}/act", "Mul", y, self.op(f"{scope}/act", "Sigmoid", y))


def detector(
    *,
    opset: int = 17,
    ir_version: int = 8,
    style: str = "torchscript",
    dtype: Any = np.float32,
    image: Shape = (1, 3, 32, 32),
) -> ModelProto:
    """A detector in the small: Conv-SiLU stages model.0 and model.2, a C2f-like model.1, pooling model.3, head model.4.

    Strides 2, 2, 4, 4. Outputs: "boxes", a map, and "scores", flattened. No value_info, like Ultralytics' exports.
    ``style``: who is to have exported it: torchscript, dynamo, namespace (dynamo, older), none.
    """
    layers = _Layers(style, dtype)
    x = layers.conv_silu("model.0", "images", 3, 8, 3, 2)
    split = layers.conv_silu("model.1/cv1", x, 8, 8)
    inner = layers.conv_silu("model.1/m.0/cv1", split, 8, 8, 3)
    inner = layers.op("model.1/m.0", "Add", inner, split)
    x = layers.op("model.1", "Concat", split, inner, axis=1)
    x = layers.conv_silu("model.1/cv2", x, 16, 8)
    x = layers.conv_silu("model.2", x, 8, 16, 3, 2)
    pooled = layers.op("model.3/m", "MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    x = layers.op("model.3", "Concat", x, pooled, axis=1)
    x = layers.conv_silu("model.3/cv2", x, 32, 16)
    boxes = layers.conv("model.4/cv2", x, 16, 4)
    scores = layers.conv("model.4/cv3", x, 16, 3)
    layers.weights.append(numpy_helper.from_array(np.array([0, 3, -1], np.int64), "flat"))
    scores = layers.op("model.4", "Reshape", scores, "flat")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    batch, _, height, width = image
    static = isinstance(height, int) and height > 0 and isinstance(width, int) and width > 0
    outputs = [
        value("boxes", (batch, 4, height // 4, width // 4) if static else (batch, 4, None, None), kind),  # type: ignore[operator]
        value("scores", (batch, 3, None), kind),
    ]
    for made in layers.nodes:
        made.output[0] = {boxes: "boxes", scores: "scores"}.get(made.output[0], made.output[0])
    return model(
        layers.nodes, [value("images", image, kind)], outputs, layers.weights, opset=opset, ir_version=ir_version
    )


def with_if(*, shadowed: bool = False) -> ModelProto:
    """x -> Relu -> site -> If -> y, where the branches capture ``site``; in one of them a nested If does.

    ``shadowed``: a Loop of its own beside it has a body that gives the name ``site`` to a tensor of its own.
    """
    deep = helper.make_graph([node("Neg", ["site"], ["d"])], "deep", [], [value("d")])
    other = helper.make_graph([node("Abs", ["site"], ["e"])], "other", [], [value("e")])
    nested = node("If", ["flag"], ["n"], "nested", then_branch=deep, else_branch=other)
    then = helper.make_graph([nested, node("Add", ["n", "site"], ["p"])], "then", [], [value("p")])
    orelse = helper.make_graph([node("Exp", ["site"], ["q"])], "else", [], [value("q")])
    nodes = [
        node("Relu", ["x"], ["site"], "relu"),
        node("If", ["flag"], ["r"], "branch", then_branch=then, else_branch=orelse),
    ]
    initializers = [numpy_helper.from_array(np.array(True), "flag")]
    last = "r"
    if shadowed:
        body = helper.make_graph(
            [node("Identity", ["go"], ["go_on"]), node("Neg", ["site"], ["next"])],
            "body",
            [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("site")],
            [value("go_on", [], TensorProto.BOOL), value("next")],
        )
        nodes.append(node("Loop", ["trips", "", "r"], ["s"], "loop", body=body))
        initializers.append(numpy_helper.from_array(np.array(3), "trips"))
        last = "s"
    nodes.append(node("Identity", [last], ["y"], "last"))
    return model(nodes, [value("x")], [value("y")], initializers)


# ---------------------------------------------------------------------- the kitchen sink


def unknown(message: Any, text: bytes = b"kept?") -> None:
    """Give a message the unknown field 2000, as a later version of ONNX might."""
    message.MergeFromString(field(2000, 2, text))


def kitchen_sink(*, runnable: bool = False) -> ModelProto:
    """Everything that tools lose, in one model that onnx's checker accepts: x -> Conv -> site -> ... -> y, z.

    ``runnable``: without the two nodes of one name, which onnxruntime does not take.
    """
    shape = (1, 4, 6, 6)
    captured = helper.make_graph([node("Neg", ["site"], ["b0"])], "deep", [], [value("b0", shape)])
    other = helper.make_graph([node("Abs", ["site"], ["b1"])], "deep_else", [], [value("b1", shape)])
    nested = node("If", ["flag"], ["b2"], "inner", then_branch=captured, else_branch=other)
    then = helper.make_graph([nested, node("Add", ["b2", "site"], ["b3"])], "then", [], [value("b3", shape)])
    orelse = helper.make_graph([node("Mul", ["site", "half"], ["b4"])], "else", [], [value("b4", shape)])
    body = helper.make_graph(
        [node("Identity", ["c_in"], ["c_out"]), node("Add", ["v_in", "site"], ["v_out"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c_in", [], TensorProto.BOOL), value("v_in", shape)],
        [value("c_out", [], TensorProto.BOOL), value("v_out", shape)],
    )
    for inner in (captured, then, body):
        inner.doc_string = "a subgraph"
        inner.metadata_props.add(key="inside", value="a subgraph")
    constant = node("Constant", [], ["table"], "table_node", value=weight("", (600,)))
    constant.attribute[0].doc_string = "how the table came about"
    nodes = [
        constant,
        node("Conv", ["x", "w", "b"], ["site"], "/model.0/Conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("If", ["flag"], ["t1"], "same", then_branch=then, else_branch=orelse),
        node("Loop", ["trips", "", "t1"], ["t2"], "other" if runnable else "same", body=body),
        node("Twice", ["t2"], ["t3"], domain="local", overload="plain"),
        node("Twice", ["t3"], ["t4"], domain="local", overload="scaled"),
        node("Add", ["t4", "typed"], ["t5"]),
        node("Add", ["t5", "optional"], ["t6"]),
        node("Clip", ["t6", "", "ceiling"], ["y"], "clip"),
        node("Mul", ["site", "site"], ["z"], "/model.1/Mul"),
    ]
    nodes[1].doc_string = "a convolution"
    nodes[1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'model.0', 'conv2d']")
    configured = nodes[4].device_configurations.add(configuration_id="two")
    configured.sharding_spec.add(tensor_name="t2", device=[0, 1])
    unknown(nodes[9])
    functions = []
    for overload, ops in (("plain", ["Identity"]), ("scaled", ["Relu"])):
        function = helper.make_function(
            "local",
            "Twice",
            ["a"],
            ["b"],
            [node(ops[0], ["a"], ["b"])],
            [helper.make_opsetid("", 21)],
        )
        function.overload = overload
        function.doc_string = f"the {overload} one"
        function.metadata_props.add(key="overload", value=overload)
        function.value_info.append(value("b", shape))
        functions.append(function)
    graph = helper.make_graph(
        nodes,
        "kitchen sink",
        [value("x", (1, 3, 6, 6)), value("optional", shape)],
        [value("y", shape), value("z", shape)],
        _odd_initializers(shape),
        doc_string="a graph",
        value_info=[value("site", shape), value("t3", shape), value("nothing", None)],
    )
    graph.input[0].doc_string = "an image"
    graph.input[0].type.denotation = "IMAGE"
    for i, name in enumerate(("BATCH", "CHANNEL", "HEIGHT", "WIDTH")):
        graph.input[0].type.tensor_type.shape.dim[i].denotation = f"DATA_{name}"
    graph.output[0].metadata_props.add(key="unit", value="pixels")
    graph.metadata_props.add(key="level", value="graph")
    annotation = graph.quantization_annotation.add(tensor_name="site")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="half")
    sparse = graph.sparse_initializer.add(dims=[100])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([3, 70], np.int64), "sparse_at"))
    unknown(graph)
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("local", 1)],
        functions=functions,
        ir_version=11,
        producer_name="tests",
        producer_version="1",
        domain="example.org",
        model_version=7,
        doc_string="a model",
    )
    for key, text in (("stride", "32"), ("names", "{0: 'person'}"), ("author", "Łukasz")):
        made.metadata_props.add(key=key, value=text)
    made.configuration.add(name="two", num_devices=2, device=["a", "b"])
    training = made.training_info.add()
    training.algorithm.CopyFrom(
        helper.make_graph([node("Identity", ["w"], ["w_new"])], "step", [], [value("w_new", (4, 3, 3, 3))])
    )
    training.update_binding.add(key="w", value="w_new")
    unknown(made)
    return made


def _odd_initializers(shape: Sequence[int]) -> list[TensorProto]:
    count = int(np.prod(shape))
    typed = TensorProto(name="typed", data_type=FLOAT, dims=shape)
    typed.float_data.extend(float(i) / count for i in range(count))
    optional = weight("optional", shape)  # also an input: an input with a default
    optional.doc_string = "a default"
    optional.metadata_props.add(key="level", value="initializer")
    ints = TensorProto(name="int32_data", data_type=TensorProto.INT32, dims=[400], int32_data=range(400))
    longs = TensorProto(name="int64_data", data_type=TensorProto.INT64, dims=[400], int64_data=range(400))
    doubles = TensorProto(name="double_data", data_type=TensorProto.DOUBLE, dims=[200], double_data=range(200))
    unsigned = TensorProto(name="uint64_data", data_type=TensorProto.UINT64, dims=[200], uint64_data=range(200))
    halves = TensorProto(name="halves", data_type=TensorProto.FLOAT16, dims=[3], int32_data=[0x3C00, 0, 0x7BFF])
    strings = TensorProto(name="strings", data_type=TensorProto.STRING, dims=[2], string_data=[b"a" * 2000, b"\xff"])
    raw = np.arange(64)
    return [
        weight("w", (4, 3, 3, 3)),
        weight("b", (4,)),
        numpy_helper.from_array(np.array(True), "flag"),
        numpy_helper.from_array(np.array(2, np.int64), "trips"),
        numpy_helper.from_array(np.float32(0.5), "half"),
        numpy_helper.from_array(np.float32(6), "ceiling"),
        typed,
        optional,
        ints,
        longs,
        doubles,
        unsigned,
        halves,
        strings,
        numpy_helper.from_array(raw.astype(ml_dtypes.bfloat16), "bf16"),
        numpy_helper.from_array(raw.astype(ml_dtypes.float8_e4m3fn), "fp8"),
        numpy_helper.from_array((raw % 8).astype(ml_dtypes.int4), "int4"),
        weight("unused", (700,)),
    ]


# ---------------------------------------------------------------------- the wire format


class Part(NamedTuple):
    """One field of a message; ``content`` is without the length for kind 2 and the raw number otherwise."""

    number: int
    kind: int
    content: bytes


def varint(number: int, pad: int = 0) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    if pad:
        out[-1] |= 0x80
        out += b"\x80" * (pad - 1) + b"\x00"
    return bytes(out)


def field(number: int, kind: int, content: bytes, pad: int = 0) -> bytes:
    return varint(number << 3 | kind) + (varint(len(content), pad) if kind == 2 else b"") + content


def parts(data: bytes) -> Iterator[Part]:
    """The fields of a message, in order."""
    place = 0

    def number() -> int:
        nonlocal place
        total = shift = 0
        while True:
            byte = data[place]
            place += 1
            total |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return total

    while place < len(data):
        tag = number()
        start = place
        if tag & 7 == 2:
            length = number()
            start, place = place, place + length
        elif tag & 7 == 0:
            number()
        else:
            place += {1: 8, 5: 4}[tag & 7]
        yield Part(tag >> 3, tag & 7, data[start:place])
    assert place == len(data)


def of(data: bytes, number: int) -> list[bytes]:
    """The contents of all fields of that number."""
    return [part.content for part in parts(data) if part.number == number]


def relaid(data: bytes, seed: int, descriptor: Any = ModelProto.DESCRIPTOR) -> bytes:
    """The same message as no exporter would lay it out: fields shuffled, lengths and numbers padded, unknown fields.

    Fields of the same number keep their order, so the meaning stays.
    """
    rng = random.Random(seed)
    told = list(parts(data))
    slots = [part.number for part in told]
    rng.shuffle(slots)
    queues: dict[int, list[Part]] = {}
    for part in told:
        queues.setdefault(part.number, []).append(part)
    out = []
    for number in slots:
        part = queues[number].pop(0)
        known = descriptor.fields_by_number.get(number)
        content = part.content
        if part.kind == 2 and known is not None and known.message_type is not None:
            content = relaid(content, rng.randrange(2**32), known.message_type)
        if part.kind == 0 and len(content) < 3:
            content = content[:-1] + bytes([content[-1] | 0x80, 0x00])
        out.append(field(number, part.kind, content, pad=rng.randrange(3) if len(content) < 2**21 else 0))
        if not rng.randrange(6):
            out.append(field(2001 + rng.randrange(9), 2, rng.randbytes(5)))
        if not rng.randrange(12):
            out.append(field(2011, 5, rng.randbytes(4)))
    return b"".join(out)


def graph_of(data: bytes) -> bytes:
    return of(data, ModelProto.DESCRIPTOR.fields_by_name["graph"].number)[0]


def nodes_of(data: bytes) -> list[bytes]:
    """The nodes of the main graph, each as it stands in the file."""
    return of(graph_of(data), GraphProto.DESCRIPTOR.fields_by_name["node"].number)


# ---------------------------------------------------------------------- large files


def sparse_file(path: Path, payload: int, *, before: int = 0) -> Path:
    """A model x -> Conv -> t -> Relu -> y whose weight "huge" has ``payload`` bytes, none of them on the disk."""
    nodes = [
        node("Conv", ["x", "w"], ["t"], "/model.0/Conv"),
        node("Relu", ["t"], ["u"], "/model.1/Relu"),
        node("Identity", ["u"], ["y"], "/model.2/Identity"),
    ]
    made = model(nodes, [value("x")], [value("y")], [weight("w", (4, 4, 1, 1))])
    head = b"".join(field(*p) for p in parts(made.SerializeToString()) if p.number != 7)
    tensor = TensorProto(name="huge", data_type=TensorProto.UINT8, dims=[payload]).SerializeToString()
    raw = varint(9 << 3 | 2) + varint(payload)  # raw_data
    tensor_head = varint(5 << 3 | 2) + varint(len(tensor) + len(raw) + payload) + tensor + raw
    graph = graph_of(made.SerializeToString())
    filler = b"".join(field(2000, 2, bytes(1000)) for _ in range(before))
    start = head + varint(7 << 3 | 2) + varint(len(filler) + len(graph) + len(tensor_head) + payload)
    start += filler + graph + tensor_head
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(len(start) + payload)
    return path


def external(folder: Path, location: str = "model.onnx.data", *, payload: int | None = None, **entries: Any) -> Path:
    """The detector with its convolutions' weights in ``location``, behind a hole of ``payload`` bytes."""
    made = detector()
    data = folder / location
    data.parent.mkdir(parents=True, exist_ok=True)
    with data.open("wb") as stream:
        if payload:
            stream.seek(payload)
        for tensor in made.graph.initializer:
            if tensor.name.endswith(".weight"):
                offset, raw = stream.tell(), tensor.raw_data
                stream.write(raw)
                onnx.external_data_helper.set_external_data(tensor, location, offset, len(raw), **entries)
                tensor.ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


# ---------------------------------------------------------------------- judging


def valid(data: bytes) -> None:
    """The model is one that onnx accepts, types and shapes included."""
    onnx.checker.check_model(data, full_check=True)


def run(data: bytes | Path, *, seed: int = 0, size: int = 8) -> list[Array]:
    """The outputs of a model in onnxruntime without optimisation, for random inputs that follow from ``seed``."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(data) if isinstance(data, Path) else data
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {}
    for given in session.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else size for d in given.shape]
        dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}[given.type]
        feeds[given.name] = rng.standard_normal(shape).astype(dtype)
    return [np.asarray(result) for result in session.run(None, feeds)]


def captured_graphs(proto: NodeProto) -> list[GraphProto]:
    return [a.g for a in proto.attribute if a.type == AttributeProto.GRAPH]
