"""A block goes to the NCHW map of a module, or is refused with that map's name: never to NHWC, whatever the sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import SelectorError, SiteError
from graphsurgery.selection.sites import SiteFinder
from tests.channels_last import TO_FIRST, TO_LAST, channels_last
from tests.models import detector, model, node, value, weight


def keras_like(
    channels: int = 64, stride: int = 8, *, size: int | None = 640, first: bool = False, last_output: bool = False
) -> onnx.ModelProto:
    """Conv, act in NCHW, scale in NHWC, Conv: with ``channels=64, stride=8`` the NHWC map is [1, 80, 80, 64]."""
    image = [1, 3, size, size] if first else [1, size, size, 3]
    start = [] if first else [node("Transpose", ["image"], ["t0"], "model/conv2d/Conv2D__6", perm=TO_FIRST)]
    ending = [node("Transpose", ["c1"], ["out"], "model/conv2d_1/Conv2D__10", perm=TO_LAST)] if last_output else []
    sizes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
    nodes = [
        *start,
        node("Conv", ["image" if first else "t0", "wa"], ["c0"], "model/conv2d/Conv2D", **sizes),
        node("Relu", ["c0"], ["r0"], "model/act/Relu"),
        node("Transpose", ["r0"], ["n0"], "model/act/Relu__8", perm=TO_LAST),
        node("Mul", ["n0", "sc"], ["n1"], "model/scale/mul"),
        node("Transpose", ["n1"], ["t1"], "model/conv2d_1/Conv2D__9", perm=TO_FIRST),
        node("Conv", ["t1", "wb"], ["c1" if last_output else "out"], "model/conv2d_1/Conv2D"),
        *ending,
    ]
    weights = [weight("wa", (channels, 3, 3, 3)), weight("wb", (6, channels, 1, 1)), weight("sc", (channels,))]
    return model(nodes, [value("image", image)], [value("out", [None] * 4)], weights)


_SIZES = {"rows": [-1, 64], "map": [1, 80, 80, 32]}
KINDS: dict[str, Callable[[], onnx.ModelProto]] = {
    "p3": keras_like,
    "p4": lambda: keras_like(128, 16),
    "p2": lambda: keras_like(32, 4),
    "nchw input": lambda: keras_like(first=True),
    "nhwc output": lambda: keras_like(last_output=True),
    "dynamic": lambda: keras_like(size=None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("module", "tensor"), [("model/act", "r0"), ("model/scale", "t1")])
def test_the_place_of_a_module_is_its_nchw_map(kind: str, module: str, tensor: str) -> None:
    (site,) = SiteFinder(_file(KINDS[kind]())).find([module])
    assert (site.tensor, site.label) == (tensor, module)
    assert site.shape[1] in (32, 64, 128)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("selector", "position", "named"),
    [
        ("tensor:n0", "after", "its NCHW map is tensor:r0"),
        ("tensor:n1", "after", "its NCHW map is tensor:t1"),
        ("node:model/scale/mul", "after", "its NCHW map is tensor:t1"),
        ("model/scale", "before", "its NCHW map is tensor:r0"),
        ("model/conv2d_1", "before", "its NCHW map is tensor:t1"),
    ],
)
def test_an_nhwc_tensor_is_refused_with_its_nchw_map(kind: str, selector: str, position: str, named: str) -> None:
    with pytest.raises(SiteError, match=f"is NHWC .*{named}") as caught:
        SiteFinder(_file(KINDS[kind]())).find([selector], position=position)
    (candidate,) = caught.value.candidates
    assert SiteFinder(_file(KINDS[kind]())).find([candidate])


def test_the_image_is_no_place_in_nhwc() -> None:
    with pytest.raises(SiteError, match="'image' is NHWC"):
        SiteFinder(_file(keras_like())).find(["tensor:image"])


def test_a_map_that_is_read_in_both_layouts_names_how_many_read_its_copy() -> None:
    both = keras_like()
    both.graph.node.insert(5, node("Sigmoid", ["n1"], ["aside"], "model/aside/Sigmoid"))
    both.graph.output.append(value("aside", [None] * 4))
    with pytest.raises(SiteError, match="its NCHW map for 1 of its 2 consumers is tensor:t1"):
        SiteFinder(_file(both)).find(["model/scale"])


def test_what_is_computed_on_from_the_nchw_map_in_the_module_is_not_its_result() -> None:
    inner = keras_like()
    inner.graph.node.insert(4, node("Sigmoid", ["r0"], ["s0"], "model/act/Sigmoid"))
    inner.graph.node.insert(5, node("Conv", ["s0", "wb"], ["aside"], "model/act/Conv"))
    inner.graph.output.append(value("aside", [None] * 4))
    with pytest.raises(SelectorError, match="2 tensors leave the module"):
        SiteFinder(_file(inner)).find(["model/act"])


def test_no_listed_place_is_nhwc() -> None:
    rows = gsx.outline(keras_like()).rows(None)
    assert {row.tensor for row in rows} == {"r0", "t1", "out"}
    assert all(row.site and row.stride == 8 for row in rows)


@pytest.mark.parametrize("module", ["model.0", "model.1", "model.2", "model.3"])
@pytest.mark.parametrize("operators", [{"Sigmoid", "Mul"}, {"Concat", "Add"}, set()], ids=["act", "join", "image"])
def test_a_block_computes_what_it_does_in_the_nchw_model(module: str, operators: set[str]) -> None:
    base = detector()
    turned = channels_last(base, operators)
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    expected = _run(gsx.insert(base, "simam", after=module).to_bytes(), "images", x)
    inserted = gsx.insert(turned, "simam", after=module)
    actual = _run(inserted.to_bytes(), "images_nhwc", np.ascontiguousarray(x.transpose(TO_LAST)))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert gsx.remove(inserted).to_bytes() == turned.SerializeToString()


def test_blocks_of_channels_are_said_to_be_that(tmp_path: Path) -> None:
    path = _optimised(detector(), tmp_path)
    nodes = onnx.load(path).graph.node
    blocked = [each.output[0] for each in nodes if each.domain == "com.microsoft.nchwc" and each.op_type == "Conv"]
    if not blocked:
        pytest.skip("this processor has no blocks of channels")
    with pytest.raises(SiteError, match=r"is NCHWc, .*insert into the model before it is optimised"):
        SiteFinder(_file(onnx.load(path))).find([f"tensor:{blocked[0]}"])
    assert all(row.objection is None or row.site is None for row in gsx.outline(path).rows(None))
    assert not {row.tensor for row in gsx.outline(path).rows(None) if row.site} & set(blocked)


@pytest.mark.parametrize(
    ("domain", "operator", "attributes"),
    [
        ("qonnx.custom_op.channels_last", "MaxPool", {}),
        ("com.ms.internal.nhwc", "MaxPool", {}),
        ("com.microsoft", "NhwcMaxPool", {}),
        ("lab", "MaxPool", {"data_format": "NHWC"}),
    ],
)
def test_a_pooling_with_the_channels_last_is_no_map(domain: str, operator: str, attributes: dict[str, str]) -> None:
    sizes = {"kernel_shape": [2, 2], "strides": [2, 2], **attributes}
    nodes = [
        node("Relu", ["x"], ["a"], "/m.0/Relu"),
        helper.make_node(operator, ["a"], ["p"], "/m.1/Pool", domain=domain, **sizes),
        node("Relu", ["p"], ["y"], "/m.2/Relu"),
    ]
    made = model(nodes, [value("x", [1, 64, 64, 32])], [value("y", [1, 32, 32, 32])])
    made.graph.value_info.append(value("p", [1, 32, 32, 32]))
    made.opset_import.add(domain=domain, version=1)
    for module in ("m.0", "m.1", "m.2"):
        with pytest.raises(SiteError, match="is NHWC"):
            SiteFinder(_file(made)).find([module])


@pytest.mark.parametrize("reader", ["Relu", "Conv"])
def test_an_operator_that_only_has_the_name_of_one_of_onnx_leaves_the_layout_open(reader: str) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], "/m.0/Conv"),
        helper.make_node("MaxPool", ["a"], ["p"], "/m.1/Pool", domain="lab", kernel_shape=[2, 2], strides=[1, 1]),
        node(reader, ["p", "w"][: 1 + (reader == "Conv")], ["y"], "/m.2/Last"),
    ]
    made = model(nodes, [value("x", [1, 8, 64, 64])], [value("y", [1, 8, 32, 32])], [weight("w", (8, 8, 1, 1))])
    made.graph.value_info.append(value("p", [1, 8, 32, 32]))
    made.opset_import.add(domain="lab", version=1)
    (site,) = SiteFinder(_file(made)).find(["m.1"])
    said = any("it comes from a MaxPool of the domain lab" in warning for warning in site.warnings)
    assert (said, site.stride) == (reader == "Relu", 2)
    assert SiteFinder(_file(made)).blocks.stride("p") == 2


@pytest.mark.parametrize("weights", ["initializers", "dequantised"])
def test_a_dense_layer_in_nhwc_is_no_place(weights: str) -> None:
    """As Keras writes it, between Reshapes: nothing behind tells the layout of what has the sizes of a map."""
    made = keras_like(last_output=True)
    made.graph.node.extend(
        [
            node("Reshape", ["n1", "rows"], ["flat"], "model/dense/Reshape"),
            node("MatMul", ["flat", "wd"], ["product"], "model/dense/MatMul"),
            node("Reshape", ["product", "map"], ["dense"], "model/dense/Reshape_1"),
            node("Relu", ["dense"], ["aside"], "model/dense_act/Relu"),
        ]
    )
    made.graph.output.append(value("aside", [1, 80, 80, 32]))
    made.graph.initializer.extend(numpy_helper.from_array(np.array(sizes), name) for name, sizes in _SIZES.items())
    if weights == "dequantised":
        made.graph.node.insert(0, node("DequantizeLinear", ["wi", "scale"], ["wd"], "model/dense/dequantised"))
        made.graph.initializer.append(numpy_helper.from_array(np.ones((64, 32), np.int8), "wi"))
        made.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    else:
        made.graph.initializer.append(weight("wd", (64, 32)))
    told = r"cannot be told that it is \[N, C, H, W\]: .* 'n1', which is NHWC"
    for selector in ("model/dense", "model/dense_act", "tensor:aside"):
        with pytest.raises(SiteError, match=told) as error:
            SiteFinder(_file(made)).find([selector])
        assert error.value.candidates == ("tensor:r0",)
    assert {row.tensor for row in gsx.outline(made).rows(None) if row.site} == {"r0", "c1"}


def _optimised(proto: onnx.ModelProto, folder: Path) -> Path:
    """A model as onnxruntime saves it when it has optimised it for this processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return folder / "optimised.onnx"


def _file(proto: onnx.ModelProto) -> gsx.ModelFile:
    return gsx.ModelFile.load(proto)


def _run(content: bytes, name: str, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: x}))
