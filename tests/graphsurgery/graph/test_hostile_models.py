"""Models of kilobytes that stand for more than any machine has: looked at without computing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery.errors import BlockError, ModelError, SiteError
from graphsurgery.graph import GraphIndex, local_functions
from graphsurgery.graph.inference import infer
from graphsurgery.graph.output_sizes import most_elements
from graphsurgery.graph.weight_channels import weight_channels
from graphsurgery.modelfile import limits
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import check
from tests import models

SECONDS = 5.0


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def aside(opset: int = 17) -> onnx.ModelProto:
    """A detector with an input of its own for what comes beside it."""
    made = models.detector(opset=opset)
    made.graph.input.append(models.value("aside", (1, 8, 16, 16)))
    return made


def bomb(depth: int = 25) -> onnx.ModelProto:
    """Functions that each call the one before twice, the last one called by a detector."""
    made = aside()
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for i in range(depth):
        name = f"F{i}"
        pairs = (("a", "t"), ("t", "b"))
        calls = [
            helper.make_node(f"F{i - 1}" if i else "Relu", [x], [y], domain="local" if i else "") for x, y in pairs
        ]
        made.functions.append(helper.make_function("local", name, ["a"], ["b"], calls, imports))
    made.opset_import.append(helper.make_opsetid("local", 1))
    made.graph.node.append(helper.make_node(f"F{depth - 1}", ["aside"], ["boom"], name="boom", domain="local"))
    made.graph.output.append(models.value("boom", None))
    return made


def long_vector() -> onnx.ModelProto:
    """An input of 1e9 elements that the inference would follow the values of."""
    made = aside()
    made.graph.input.append(models.value("long", (10**9,), TensorProto.INT64))
    made.graph.node.append(models.node("Cast", ["long"], ["also long"], to=TensorProto.INT64))
    made.graph.node.append(models.node("Reshape", ["also long", "also long"], ["open"]))
    made.graph.output.append(models.value("open", None, TensorProto.INT64))
    return made


def long_constant() -> onnx.ModelProto:
    """A length that is computed: what comes after it would be followed as well."""
    made = aside()
    made.graph.initializer.append(numpy_helper.from_array(np.array([10**5], np.int64), "n"))
    for op_type, inputs, output in (
        ("Mul", ["n", "n"], "nn"),
        ("ConstantOfShape", ["nn"], "v"),
        ("Add", ["v", "v"], "w"),
    ):
        made.graph.node.append(models.node(op_type, inputs, [output]))
    made.graph.output.append(models.value("w", None))
    return made


def doubled() -> onnx.ModelProto:
    made = aside()
    made.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.int64), "c0"))
    for i in range(40):
        made.graph.node.append(models.node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0))
    made.graph.node.append(models.node("Expand", ["aside", "c40"], ["far too large"]))
    made.graph.output.append(models.value("far too large", None))
    return made


def endless_split() -> onnx.ModelProto:
    made = aside(18)
    made.graph.node.append(models.node("Split", ["aside"], ["p", "q"], axis=1, num_outputs=10**9))
    made.graph.output.append(models.value("p", None))
    return made


@pytest.mark.parametrize("build", [bomb, long_vector, long_constant, doubled, endless_split])
def test_the_rest_of_the_model_is_seen_as_ever(build: Callable[[], onnx.ModelProto]) -> None:
    made = build()
    assert [site.path for site in graphsurgery.sites(made)] == [
        site.path for site in graphsurgery.sites(models.detector())
    ]
    check(made, "10")
    graphsurgery.insert(made, "simam", after="/model.2")


def test_functions_that_can_be_written_out_are() -> None:
    flat = local_functions.written_out(bomb(3), "it")
    assert len(flat.graph.node) == len(models.detector().graph.node) + 2**3
    with pytest.raises(ModelError, match="stand for"):
        local_functions.written_out(bomb(3), "it", most=2**3)


def test_large_constants_in_functions_count_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WRITTEN_OUT_BYTES", 100)
    with pytest.raises(ModelError, match="bytes"):
        local_functions.written_out(bomb(3), "it")


# ---------------------------------------------------------------------- inference


def test_values_are_followed_where_shapes_need_it() -> None:
    made = models.model(
        [
            models.node("Shape", ["x"], ["s"]),
            models.node("Gather", ["s", "i"], ["n"]),
            models.node("Concat", ["n", "m"], ["t"], axis=0),
            models.node("Reshape", ["x", "t"], ["y"]),
        ],
        [models.value("x", (2, 3, 4, 5))],
        [models.value("y", None)],
        [numpy_helper.from_array(np.array([each], np.int64), name) for name, each in (("i", 1), ("m", 40))],
    )
    (y,) = infer(made).graph.output
    assert [size.dim_value for size in y.type.tensor_type.shape.dim] == [3, 40]


def test_what_the_inference_was_given_stays_as_it_is() -> None:
    for made in (endless_split(), long_constant()):
        before = made.SerializeToString()
        operators = [node.op_type for node in infer(made).graph.node]
        assert made.SerializeToString() == before
        assert operators == [node.op_type for node in made.graph.node]


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("node", "inputs", "expected"),
    [
        (models.node("Range", "abc", "y"), {"a": 0, "b": 10**11, "c": 1}, 10**11),
        (models.node("Expand", "as", "y"), {"a": [1, 2], "s": [10**6, 1]}, 2 * 10**6),
        (models.node("Tile", "as", "y"), {"a": [1, 2], "s": [10**9]}, 2 * 10**9),
        (models.node("ConstantOfShape", "s", "y"), {"s": [2**40, 2]}, 2**41),
        (models.node("Concat", "aa", "y", axis=0), {"a": [1, 2, 3]}, 6),
        (models.node("Add", "ab", "y"), {"a": [[1], [2]], "b": [[1, 2, 3]]}, 6),
        (models.node("Transpose", "a", "y"), {"a": [[1, 2, 3]]}, 3),
        (models.node("Gather", "ai", "y"), {"a": [1, 2], "i": [0, 0, 1]}, 6),
        (models.node("NonZero", "a", "y"), {"a": [[1, 0, 1]]}, 6),
        (models.node("Pad", "ap", "y"), {"a": [1], "p": [0, 10**10]}, 10**10 + 1),
        (models.node("NoSuch", "a", "y"), {"a": [1]}, np.inf),
        (models.node("ConstantOfShape", "s", "y"), {"s": [0.5]}, np.inf),
    ],
    ids=lambda each: each.op_type if isinstance(each, onnx.NodeProto) else "",
)
def test_the_most_elements_of_an_output(node: onnx.NodeProto, inputs: dict[str, object], expected: float) -> None:
    arrays = {name: np.asarray(each) for name, each in inputs.items()}
    assert most_elements(node, arrays, [helper.make_opsetid("", 17)]) == expected


# ---------------------------------------------------------------------- declared sizes


def declared(channels: int, tensor: str = "/model.2/act/Mul_output_0") -> onnx.ModelProto:
    made = models.detector()
    del made.graph.value_info[:]
    made.graph.value_info.append(models.value(tensor, (1, channels, 8, 8)))
    return made


@pytest.mark.parametrize("channels", [17, 10**9, 2**62])
@pytest.mark.parametrize("block", ["nam", "simam", "se"])
def test_channels_that_the_weights_contradict(block: str, channels: int) -> None:
    with pytest.raises(
        SiteError, match=rf"{channels}, 8, 8\] as the model declares it, and the weights of .*Conv.* 16"
    ):
        graphsurgery.insert(declared(channels), block, after="/model.2")


def test_the_channels_that_weights_give() -> None:
    index = GraphIndex(ModelFile.load(models.detector()))
    assert weight_channels(index, "/model.2/act/Mul_output_0") == (16, "/model.2/conv/Conv")
    assert weight_channels(index, next(iter(index.inputs))) is None


@pytest.mark.parametrize(
    ("shape", "said"),
    [((1, 10**6, 8, 8), "at most 65,536 channels"), ((1, 8, 2**20, 2**20), "no runtime can hold")],
)
def test_maps_that_are_too_large_for_any_block(shape: tuple[int, ...], said: str) -> None:
    made = models.chain("Relu", "Neg", shape=shape)
    with pytest.raises(SiteError, match=said):
        graphsurgery.insert(made, "simam", after="tensor:t0")


def test_weights_that_are_too_many() -> None:
    made = models.chain("Relu", "Neg", shape=(1, limits.CHANNELS, 2, 2))
    with pytest.raises(BlockError, match=r"weights at .* with 65,536 channels; at most 67,108,864 are written"):
        graphsurgery.insert(made, "se", after="tensor:t0", settings={"reduction": 1})
