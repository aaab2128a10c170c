"""Every variant and dialect holds what it is made for, runs, and gives what its source gives; the truth is true."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto

from tests.exports import DERIVED, MORE, RAW, ZOO, ZOO_VARIANTS, dialects, export, modules
from tests.exports.dialects import DIALECTS, SOURCE, dialect
from tests.exports.modulelist import image
from tests.exports.test_exports import image as noise
from tests.exports.test_exports import run as run_export
from tests.recognition.randomise import randomise
from tests.recognition.truth import truth

MARKS = {  # operators that only this way of writing a model has
    "qdq": ("DequantizeLinear", "QuantizeLinear"),
    "qoperator": ("QLinearConv", "QLinearConcat", "QLinearMul"),
    "dynamic-int8": ("ConvInteger", "DynamicQuantizeLinear"),
    "ort-extended": ("QuickGelu",),
    "dynamo-raw": ("SplitToSequence", "SequenceAt"),
}
WITHIN = {"half": 0.02, "half-converted": 0.02, "qdq": 0.2, "dynamic-int8": 0.2}
"""Standard deviations by which the mean and the deviation of a tensor may be off; 1e-3 elsewhere. Through all
layers float16 adds up to 0.0086 in yolo11n and 0.014 in rtdetr-l, eight bits to 0.18 in yolo11n.
"""
QUICK = [("yolov8n", kind) for kind in ("simplified", "dynamo", *DERIVED, *RAW, *DIALECTS) if kind != "qoperator"]
LONG = [
    *((name, kind) for name in ("yolo11n", "rtdetr-l") for kind in ("simplified", "dynamo", "half", "qdq", *DIALECTS)),
    *((name, kind) for name in MORE for kind in ("simplified", "dynamo")),
    *((name, kind) for name in ZOO for kind in ZOO_VARIANTS),
]
COUNTS = {  # from the tables of layers that the models' authors publish
    "yolov8n": {"C2f": 8, "SPPF": 1, "Upsample": 2, "Concat": 4},
    "yolov5n": {"C3": 8, "SPPF": 1},
    "yolov10n": {"C2f": 7, "C2fCIB": 1, "SCDown": 3, "PSA": 1, "SPPF": 1},
    "yolo11n": {"C3k2": 8, "SPPF": 1, "C2PSA": 1},
    "yolo12n": {"C3k2": 3, "A2C2f": 5},
    "yolo26n": {"C3k2": 8, "SPPF": 1, "C2PSA": 1},
    "rtdetr-l": {"HGStem": 1, "HGBlock": 6, "AIFI": 1, "RepC3": 4},
    "rtdetr-r18": {"BasicBlock": 8, "AIFI": 1, "RepC3": 4},
    "yolox-tiny": {"Focus": 1, "CSPLayer": 8, "SPP": 1},
    "ppyoloe": {"CSPResStage": 4, "CSPStage": 5, "ESE": 4, "SPP": 1},
    "rtmdet": {"CSPLayer": 8, "ChannelAttention": 4, "SPP": 1},
    "mobilenet_v3_large": {"InvertedResidual": 15, "SE": 8},
    "resnet50": {"BottleneckBlock": 16},
}


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ModelProto) -> dict[str, np.ndarray]:
    """Run a model on the image that the truth was measured on, as the model wants it."""
    ready = session(model)
    given = ready.get_inputs()[0]
    channels_last = given.shape[3] == 3
    picture = image(given.shape[1 + (not channels_last)])
    feed = picture.transpose(0, 2, 3, 1) if channels_last else picture
    feed = feed.astype(np.float16 if given.type == "tensor(float16)" else np.float32)
    return dict(zip((output.name for output in ready.get_outputs()), ready.run(None, {given.name: feed}), strict=True))


def model_of(name: str, kind: str) -> ModelProto:
    """A copy of an export or dialect, to be changed."""
    if kind in DIALECTS:
        return ModelProto.FromString(dialect(name, kind).model.SerializeToString())
    return onnx.load(export(name, kind))


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def cases(quick: list[tuple[str, str]], long: list[tuple[str, str]]) -> list[object]:
    return [*quick, *(pytest.param(*case, marks=pytest.mark.long) for case in long)]


@pytest.mark.parametrize(("name", "kind"), cases(QUICK, LONG))
def test_truth_names_the_tensors_that_pytorch_computed(name: str, kind: str) -> None:
    """Each tensor has the mean and the deviation of what left the module in PyTorch, on the same image."""
    known = {module.path: module.values for module in modules(name)}
    wanted = [(block, known[block.path]) for block in truth(name, kind) if known[block.path]]
    assert len(wanted) > 7
    model = model_of(name, kind)
    made = {tensor for node in model.graph.node for tensor in node.output}
    names = {block.tensor: f"{block.tensor}_DequantizeLinear_Output" for block, _ in wanted}
    names = {tensor: behind if behind in made else tensor for tensor, behind in names.items()}  # 8 bits do the ReLU
    more = set(names.values()) - {entry.name for entry in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in sorted(more))
    values = run(model)
    for block, (mean, deviation) in wanted:
        value = values[names[block.tensor]].astype(np.float64)
        allowed = WITHIN.get(kind, 1e-3) * deviation + 1e-6
        assert abs(value.mean() - mean) < allowed, block
        assert abs(value.std(ddof=1) - deviation) < allowed, block


@pytest.mark.parametrize(
    "name",
    ["yolov8n", *(pytest.param(name, marks=pytest.mark.long) for name in COUNTS if name != "yolov8n")],
)
def test_truth_counts_what_the_tables_of_layers_say(name: str) -> None:
    found = Counter(block.type for block in truth(name, "simplified"))
    assert {kind: found[kind] for kind in COUNTS[name]} == COUNTS[name]


def test_truth_of_8_bit_tensors_follows_them() -> None:
    produced = {name for node in model_of("yolov8n", "qoperator").graph.node for name in node.output}
    blocks = truth("yolov8n", "qoperator")
    assert [block[:2] for block in blocks] == [block[:2] for block in truth("yolov8n", "simplified")]
    assert {block.tensor for block in blocks} <= produced


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(
        [("yolov8n", kind) for kind in (*DERIVED, *RAW)],
        [(name, kind) for name in ("yolo11n", "rtdetr-l") for kind in (*DERIVED, *RAW)],
    ),
)
def test_a_variant_has_its_marks_and_gives_what_its_source_gives(name: str, kind: str) -> None:
    model = onnx.load(export(name, kind))
    marks = ("FusedConv",) if (name, kind) == ("rtdetr-l", "ort-extended") else MARKS.get(kind, ())
    for mark in marks:
        assert operators(model)[mark] > 0
        assert operators(onnx.load(export(name, DERIVED.get(kind, "dynamo"))))[mark] == 0 or mark == "QuantizeLinear"
    given = run_export(export(name, kind), noise(640))[0]
    expected = run_export(export(name, DERIVED.get(kind, "dynamo")), noise(640))[0]
    assert given.shape == expected.shape
    assert np.isfinite(given).all()
    if kind in ("qdq", "qoperator", "dynamic-int8"):
        assert np.corrcoef(given.ravel(), expected.ravel())[0, 1] > 0.5
    else:
        np.testing.assert_allclose(given, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["yolov8n", pytest.param("yolo11n", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", DIALECTS)
def test_a_dialect_computes_the_same(name: str, kind: str) -> None:
    said = dialect(name, kind)
    if kind not in ("caffe2", "paddle"):  # versions and sizes that the checker does not expect, as in real files
        onnx.checker.check_model(said.model)
    source = onnx.load(export(name, SOURCE))
    (expected,), (given,) = run(source).values(), run(said.model).values()
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-3)
    assert source.SerializeToString() == onnx.load(export(name, SOURCE)).SerializeToString()


def nodes(kind: str) -> list[NodeProto]:
    return list(dialect("yolov8n", kind).model.graph.node)


def test_dialects_are_written_as_their_tools_write() -> None:
    convolutions = {kind: [node for node in nodes(kind) if node.op_type == "Conv"] for kind in DIALECTS}
    assert all(re.fullmatch(r"Conv_\d+", node.name) for node in convolutions["numbered"])
    assert all(node.output[0].isdigit() for node in convolutions["numbered"])
    assert not any(node.name for node in nodes("blank"))
    assert all(node.output[0].startswith("gpu_0/") for node in convolutions["caffe2"])
    caffe2 = dialect("yolov8n", "caffe2").model
    assert caffe2.ir_version == 3
    assert {tensor.name for tensor in caffe2.graph.initializer} < {value.name for value in caffe2.graph.input}
    assert operators(caffe2)["Sum"] == 6
    assert all(node.name.startswith("StatefulPartitionedCall/") for node in convolutions["tf-scopes"])
    assert nodes("tf-scopes")[0].op_type == "Transpose"
    assert [node.input[1] for node in convolutions["paddle"]][:2] == ["conv2d_0.w_0", "conv2d_1.w_0"]
    assert not dialect("yolov8n", "paddle").model.graph.initializer
    called = [function.name.partition(".")[0] for function in dialect("yolov8n", "functions").model.functions]
    assert Counter(called)["C2f"] == 8
    assert not convolutions["functions"]


def test_the_file_that_caffe2_wrote_runs() -> None:
    model = onnx.load(dialects.shipped())
    assert (model.ir_version, operators(model)["Sum"]) == (3, 16)
    assert session(model).get_inputs()[0].shape == [1, 3, 224, 224]


@pytest.mark.parametrize("kind", ["simplified", "dynamo", "qdq", "functions"])
def test_a_randomised_model_has_no_name_left_and_computes_the_same(kind: str) -> None:
    model = model_of("yolov8n", kind)
    before = model.SerializeToString()
    renamed, tensors = randomise(model, 1)
    onnx.checker.check_model(renamed)
    assert model.SerializeToString() == before
    assert randomise(model, 1).model.SerializeToString() == renamed.SerializeToString()
    assert randomise(model, 2).model.SerializeToString() != renamed.SerializeToString()
    (expected,), (given,) = run(model).values(), run(renamed).values()
    np.testing.assert_array_equal(given, expected)
    text = str(renamed.graph.node) + str(renamed.functions) + str(renamed.metadata_props)
    for word in ("model", "images", "output0", "silu", "conv2d", "C2f", "ultralytics", "stack_trace"):
        assert word not in text
    made = {name for node in model.graph.node for name in node.output if name}
    assert made <= set(tensors)
    produced = {name for node in renamed.graph.node for name in node.output}
    assert {tensors[name] for name in made} == produced - {""}
