from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, numpy_helper

import graphsurgery
from graphsurgery.errors import ModelError, SiteError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.sites import Site, SiteFinder
from tests import models
from tests.models import node, value


def find(made: models.ModelProto, *selectors: str) -> list[Site]:
    return SiteFinder(ModelFile.load(made)).find(selectors)


def site(made: models.ModelProto, selector: str) -> Site:
    (found,) = find(made, selector)
    return found


def refused(made: models.ModelProto, selector: str) -> str:
    with pytest.raises(SiteError) as error:
        find(made, selector)
    sentence, shown, mark = str(error.value).split("\n")
    assert shown.strip() == selector
    assert mark.strip() == "^" * len(mark.strip())
    return sentence


# ---------------------------------------------------------------------- what a site is


def test_everything_about_a_site() -> None:
    assert site(models.detector(), "/model.2") == Site(
        tensor="/model.2/act/Mul_output_0",
        shape=(1, 16, 8, 8),
        dtype="float32",
        path="/model.2",
        type=None,
        stride=4,
        consumers=("/model.3/m/MaxPool", "/model.3/Concat"),
        graph_output=False,
        warnings=(),
    )


def test_what_the_block_is_told() -> None:
    found = site(models.detector(image=("N", 3, 32, 32)), "/model.2")
    assert found.shape == ("N", 16, 8, 8)
    assert found.feature == FeatureMap(16, 8, 8, "float32", None, "model.2")
    assert found.label == "model.2"
    assert site(models.detector(), "tensor:images").label == "the tensor images"


def test_json_is_plain() -> None:
    found = site(models.detector(style="dynamo"), "model.2")
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert found.to_json()["shape"] == [1, 16, 8, 8]
    assert found.type == "Model"


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_types(dtype: str) -> None:
    assert site(models.detector(dtype=np.dtype(dtype)), "/model.2").dtype == dtype


def test_a_path_is_found_for_a_tensor_and_a_node() -> None:
    made = models.detector()
    for selector in ("tensor:/model.2/act/Mul_output_0", "node:/model.2/act/Mul"):
        assert site(made, selector).path == "/model.2"
    assert site(made, "tensor:/model.2/act/Sigmoid_output_0").path == "/model.2/act"
    assert site(made, "tensor:images").path is None


@pytest.mark.parametrize("opset", [9, 13, 18, 26])
def test_shapes_are_inferred_where_the_model_has_none(opset: int) -> None:
    made = models.detector(opset=opset, ir_version=3 if opset == 9 else 8)
    assert not made.graph.value_info
    assert site(made, "/model.3").shape == (1, 16, 8, 8)


def test_inference_works_without_the_weights() -> None:
    """A table of more than a kilobyte has no data in the structure; it must not stop what stands before and behind."""
    table = numpy_helper.from_array(np.arange(600, dtype=np.int64) % 4, "table")
    made = models.model(
        [
            node("Gather", ["x", "table"], ["a"], "/m.0/Gather", axis=1),
            node("Reshape", ["a", "shape"], ["b"], "/m.1/Reshape"),
            node("Relu", ["b"], ["y"], "/m.2/Relu"),
        ],
        [value("x")],
        [value("y", None)],
        [table, numpy_helper.from_array(np.array([0, 300, 16, 8], np.int64), "shape")],
    )
    assert site(made, "/m.1").shape == (1, 300, 16, 8)


def test_shapes_computed_from_constants() -> None:
    """As an export that nobody simplified computes a target shape; with external weights in the model besides."""
    made = models.model(
        [
            node("Concat", ["a", "b"], ["shape"], "/m.0/Concat", axis=0),
            node("Reshape", ["x", "shape"], ["r"], "/m.0/Reshape"),
            node("Relu", ["r"], ["y"], "/m.1/Relu"),
        ],
        [value("x")],
        [value("y", None)],
        [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("a", [1, 8]), ("b", [4, 8]))],
    )
    assert site(made, "/m.0").shape == (1, 8, 4, 8)
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], "none", 0, 16)
    made.graph.initializer[0].ClearField("raw_data")
    assert "could not be inferred" in refused(made, "/m.0") or "not fixed" in refused(made, "/m.0")


def test_weights_outside_the_file_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that lies in external data is unknown, even if there is a file of that name where the user stands."""
    made = models.model(
        [
            node("Identity", ["outside"], ["shape"], "/m.0/Identity"),
            node("Reshape", ["x", "shape"], ["r"], "/m.0/Reshape"),
            node("Relu", ["r"], ["y"], "/m.1/Relu"),
        ],
        [value("x")],
        [value("y", None)],
        [numpy_helper.from_array(np.array([1, 8, 4, 8]), "outside")],
    )
    assert site(made, "/m.0").shape == (1, 8, 4, 8)
    (tmp_path / "data").write_bytes(made.graph.initializer[0].raw_data)
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], "data", 0, 32)
    made.graph.initializer[0].ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    refused(made, "/m.0")


def test_what_the_model_declares_is_believed() -> None:
    made = models.detector(image=("N", 3, 32, 32))
    made.graph.value_info.append(value("/model.2/act/Mul_output_0", ["n", 16, "h", 8]))
    assert site(made, "/model.2").shape == ("n", 16, 8, 8)  # and what it leaves open is inferred
    made.graph.value_info[0].CopyFrom(value("/model.2/act/Mul_output_0", ["n", 16, 20, 20]))
    assert site(made, "/model.2").shape == ("n", 16, 20, 20)


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (("N", 3, "H", "W"), ("N", 16, None, None)),
        ((None, 3, None, None), (None, 16, None, None)),
        ((-1, 3, -1, -1), (None, 16, None, None)),  # Paddle's
        ((-1, 3, 32, 32), (None, 16, 8, 8)),
        ((1, 3, 64, 32), (1, 16, 16, 8)),
        ((1, 3, 33, 33), (1, 16, 9, 9)),  # 33 / 9 is no stride
    ],
)
def test_sizes_and_stride(image: models.Shape, shape: models.Shape) -> None:
    """The stride is seen from the sizes, or from the operators where those are dynamic or rounded."""
    found = site(models.detector(image=image), "/model.2")
    assert (found.shape, found.stride) == (shape, 4)


def test_unknown_sizes_do_not_turn_into_numbers() -> None:
    """-1 put through the formula of a convolution can come out as a number that looks like a size."""
    made = models.model(
        [node("Conv", ["x", "w"], ["a"], "/m.0/Conv", pads=[2, 2, 2, 2]), node("Relu", ["a"], ["y"], "/m.1/Relu")],
        [value("x", (-1, 3, -1, -1))],
        [value("y", None)],
        [models.weight("w", (4, 3, 1, 1))],
    )
    assert site(made, "/m.0").shape == (None, 4, None, None)


@pytest.mark.parametrize("use", ["Mul", "GlobalAveragePool"])
def test_stride_is_not_of_a_larger_mask(use: str) -> None:
    """An input that no convolution begins at is no image, however large it is."""
    mask = (1, 1, 128, 128)
    made = models.detector()
    made.graph.input.insert(0, models.value("mask", mask))
    if use == "Mul":
        made.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1 / 16, 1 / 16], np.float32), "scales"))
        made.graph.node.append(models.node("Resize", ["mask", "", "scales"], ["small"]))
        made.graph.node.append(models.node("Mul", ["boxes", "small"], ["masked"]))
    else:
        made.graph.node.append(models.node(use, ["mask"], ["masked"]))
    made.graph.output.append(models.value("masked", None))
    assert [site(made, path).stride for path in ("/model.0", "/model.2")] == [2, 4]


def test_stride_is_of_the_image() -> None:
    made = models.detector()
    made.graph.input.insert(0, value("scale", [1, 2]))
    assert site(made, "/model.0").stride == 2
    old = models.detector(opset=9, ir_version=3)
    old.graph.input.reverse()  # weights that are inputs come first then
    assert site(old, "/model.2").stride == 4


# ---------------------------------------------------------------------- no block can be put there


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TensorProto.INT64, "'a' holds int64 values; a block needs a float tensor"),
        (TensorProto.UINT8, "holds uint8 values"),
        (TensorProto.BOOL, "holds bool values"),
        (TensorProto.FLOAT8E4M3FN, "holds float8e4m3fn values"),
    ],
)
def test_types_that_blocks_do_not_take(kind: int, words: str) -> None:
    made = models.model(
        [node("Cast", ["x"], ["a"], to=kind), node("Identity", ["a"], ["y"])], [value("x")], [value("y")]
    )
    assert words in refused(made, "tensor:a")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 4), "'x' has the shape [1, 4]; a block needs [N, C, H, W]"),
        ((1, 4, 8, 8, 8), "has the shape [1, 4, 8, 8, 8]"),
        ((None, "n", 3), "has the shape [?, n, 3]"),
        ((), "has the shape []"),
        ((1, "c", 8, 8), "the number of channels of 'x' is not fixed in the model"),
        ((1, None, 8, 8), "the number of channels of 'x' is not fixed"),
        ((1, -1, 8, 8), "the number of channels of 'x' is not fixed"),
        (None, "the shape of 'x' is not in the model and could not be inferred"),
    ],
)
def test_shapes_that_blocks_do_not_take(shape: models.Shape | None, words: str) -> None:
    made = models.model([node("Relu", ["x"], ["y"])], [value("x", shape)], [value("y", shape)])
    assert words in refused(made, "tensor:x")


def test_a_module_is_named_in_the_message() -> None:
    made = models.detector()
    assert refused(made, "node:/model.4/Reshape").startswith("'scores' has the shape [1, 3, 64]; a block needs")
    made.graph.node[-1].name = "/model.5/Reshape"
    assert refused(made, "/model.5").startswith("'scores', which leaves model.5, has the shape [1, 3, 64];")


@pytest.mark.parametrize("selector", ["tensor:w", "tensor:table", "tensor:optional"])
def test_constants_are_no_activations(selector: str) -> None:
    assert "is a constant (a weight), not an activation" in refused(models.kitchen_sink(), selector)


def test_what_is_no_tensor_at_all() -> None:
    made = models.model([node("SequenceConstruct", ["x"], ["s"])], [value("x")], [value("x")])
    assert "'s'" in refused(made, "tensor:s")


def test_a_shape_that_cannot_be_inferred() -> None:
    made = models.model(
        [node("Odd", ["x"], ["a"], "/m.0/Odd", domain="custom"), node("Relu", ["a"], ["y"], "/m.1/Relu")],
        [value("x")],
        [value("y", None)],
    )
    made.opset_import.add(domain="custom", version=1)
    assert "could not be inferred" in refused(made, "/m.0")
    made.graph.value_info.append(value("a"))
    assert site(made, "/m.0").shape == (1, 4, 8, 8)


# ---------------------------------------------------------------------- between a convolution and its activation


def activated(*nodes: NodeProto, opset: int = 17) -> models.ModelProto:
    """x -> Conv -> c -> the nodes -> t -> Identity -> y, in modules /m.0/conv, /m.0/act and /m.1."""
    for i, proto in enumerate(nodes):
        proto.name = f"/m.0/act/{proto.op_type}_{i}"
    made = models.model(
        [node("Conv", ["x", "w"], ["c"], "/m.0/conv/Conv"), *nodes, node("Identity", ["t"], ["y"], "/m.1/Identity")],
        [value("x")],
        [value("y")],
        [
            models.weight("w", (4, 4, 1, 1)),
            *(numpy_helper.from_array(np.float32(v), f"c{v}") for v in (0, 1, 3, 6)),
            models.weight("slope", (4, 1, 1)),
        ],
        opset=opset,
    )
    models.valid(made.SerializeToString())
    return made


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Relu", ["c"], ["t"])],
        [node("LeakyRelu", ["c"], ["t"])],
        [node("PRelu", ["c", "slope"], ["t"])],
        [node("Clip", ["c", "c0", "c6"], ["t"])],
        [node("HardSwish", ["c"], ["t"])],
        [node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["t"])],
        [node("Sigmoid", ["c"], ["s"]), node("Mul", ["s", "c"], ["t"])],
        [node("HardSigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["t"])],
        [node("Softplus", ["c"], ["p"]), node("Tanh", ["p"], ["s"]), node("Mul", ["c", "s"], ["t"])],  # Mish
        [  # HardSwish as torch writes it before opset 14
            node("Add", ["c", "c3"], ["p"]),
            node("Clip", ["p", "c0", "c6"], ["q"]),
            node("Mul", ["c", "q"], ["r"]),
            node("Div", ["r", "c6"], ["t"]),
        ],
        [  # GELU
            node("Div", ["c", "c3"], ["p"]),
            node("Erf", ["p"], ["q"]),
            node("Add", ["q", "c1"], ["r"]),
            node("Mul", ["c", "r"], ["t"]),
        ],
    ],
    ids=lambda nodes: " ".join(n.op_type for n in nodes),
)
def test_between_a_convolution_and_its_activation(nodes: Sequence[NodeProto]) -> None:
    made = activated(*nodes)
    for selector in ("/m.0/conv", "tensor:c"):
        (warning,) = site(made, selector).warnings
        assert "between a convolution and its activation" in warning
        assert "use /m.0 to insert behind the activation" in warning, warning
    assert site(made, "/m.0").warnings == ()


def test_factors_do_not_belong_to_an_activation() -> None:
    made = activated(
        node("Sigmoid", ["c"], ["s"]),
        node("Mul", ["c", "s"], ["r"]),
        node("Mul", ["r", "c3"], ["q"]),
        node("Mul", ["q", "x"], ["t"]),
    )
    for proto in made.graph.node:
        proto.name = ""
    assert "use tensor:r to insert" in site(made, "tensor:c").warnings[0]


def test_a_sigmoid_that_is_the_activation() -> None:
    (warning,) = site(activated(node("Sigmoid", ["c"], ["t"])), "tensor:c").warnings
    assert "use tensor:t to insert behind the activation" in warning


def test_between_a_convolution_and_a_sum() -> None:
    (warning,) = site(activated(node("Add", ["c", "x"], ["t"])), "tensor:c").warnings
    assert "the sum that it goes into" in warning


def test_the_better_selector_works_without_paths_too() -> None:
    made = models.detector(style="none")
    (warning,) = site(made, "tensor:v0").warnings
    better = re.search(r"use (\S+) to insert", warning)
    assert better
    assert site(made, better[1]).warnings == ()
    assert site(made, better[1]).tensor == "v2"


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["r"]), node("Add", ["c", "r"], ["t"])],
        [node("GlobalAveragePool", ["c"], ["p"]), node("Sigmoid", ["p"], ["s"]), node("Mul", ["c", "s"], ["t"])],  # SE
        [node("Relu", ["c"], ["r"]), node("Neg", ["c"], ["n"]), node("Add", ["r", "n"], ["t"])],
        [node("MaxPool", ["c"], ["t"], kernel_shape=[1, 1])],
        [node("Mul", ["c", "c"], ["t"])],
        [node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "c"], ["m"]), node("Add", ["s", "m"], ["t"])],
    ],
    ids=lambda nodes: " ".join(n.op_type for n in nodes),
)
def test_where_nothing_is_torn_apart(nodes: Sequence[NodeProto]) -> None:
    assert site(activated(*nodes), "tensor:c").warnings == ()


def invalid(made: models.ModelProto) -> str:
    with pytest.raises(ModelError, match="no valid model, and no runtime can run it") as error:
        find(made, "tensor:c")
    return str(error.value)


def test_models_that_nothing_can_run_are_refused() -> None:
    """No insertion could give a valid model."""
    made = activated(node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["t"]))
    made.graph.node[2].output[0] = made.graph.node[1].input[0] = "c"
    made.graph.value_info.append(value("c"))
    assert invalid(made).endswith("'c' is made twice, by the node '/m.0/conv/Conv' and by the node '/m.0/act/Mul_1'")
    for position, missing in ((1, "the node '/m.0/act/Mul_1' reads the tensor 's'"), (2, "reads the tensor 't'")):
        made = activated(node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["t"]))
        made.graph.node[position].output[0] = "other"
        assert missing in invalid(made)
        del made.graph.node[position].output[:]
        with pytest.raises(ModelError, match="has no output and needs 1"):
            find(made, "tensor:c")
    made = activated(node("Add", ["c", "c"], ["s"]), node("Relu", ["s"], ["d"]), node("Relu", ["c"], ["t"]))
    made.graph.node[1].input[1] = "d"
    assert invalid(made).endswith("the nodes '/m.0/act/Relu_1', '/m.0/act/Add_0' go round in a circle")
    made.graph.node[1].input[1] = "s"
    assert invalid(made).endswith("the node '/m.0/act/Add_0' reads what it makes itself")


def test_a_convolution_that_is_an_output_has_no_activation() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node[0].CopyFrom(node("Conv", ["x", "w"], ["t0"], "/m.0/Conv"))
    made.graph.initializer.append(models.weight("w", (4, 4, 1, 1)))
    made.graph.node[1].op_type = "Relu"
    assert site(made, "tensor:t0").warnings
    made.graph.output.append(value("t0"))
    assert not site(made, "tensor:t0").warnings


def test_warnings_reach_the_user() -> None:
    from graphsurgery.api import carry_out
    from graphsurgery.request import Request

    _, done = carry_out(ModelFile.load(models.detector()), [Request("simam", ("/model.2/conv",))])
    assert "use /model.2 to insert behind the activation" in done[0].warnings[0]


# ---------------------------------------------------------------------- the listing


def test_the_listing_has_every_module_that_one_map_leaves() -> None:
    found = graphsurgery.sites(models.detector())
    assert [s.path for s in found] == [  # containers that no name spells as a step of its own: dotted
        *("model", "/model.0", "/model.0/conv", "/model.0/act", "/model.1", "/model.1/cv1", "/model.1/cv1/conv"),
        *(
            "/model.1/cv1/act",
            "model.1.m",
            "/model.1/m.0",
            "/model.1/m.0/cv1",
            "/model.1/m.0/cv1/conv",
            "/model.1/m.0/cv1/act",
        ),
        *("/model.1/cv2", "/model.1/cv2/conv", "/model.1/cv2/act", "/model.2", "/model.2/conv", "/model.2/act"),
        *("/model.3", "/model.3/m", "/model.3/cv2", "/model.3/cv2/conv", "/model.3/cv2/act"),
        *("/model.4", "/model.4/cv2", "/model.4/cv3"),
    ]


@pytest.mark.parametrize("style", ["torchscript", "dynamo", "namespace", "none"])
def test_everything_that_is_listed_can_be_used(style: str) -> None:
    made = models.detector(style=style)
    for listed in graphsurgery.sites(made):
        selector = listed.path or f"tensor:{listed.tensor}"
        assert site(made, selector) == listed


def test_without_paths_every_map_is_listed() -> None:
    found = graphsurgery.sites(models.detector(style="none"))
    assert [s.tensor for s in found] == [*(f"v{i}" for i in range(22)), "boxes", "v23"]
    assert {s.path for s in found} == {None}


def test_a_model_without_maps() -> None:
    made = models.chain("Relu", "Neg", shape=(1, 5))
    assert graphsurgery.sites(made) == []


def test_each_tensor_once() -> None:
    made = models.detector()
    assert len(find(made, "/model.2", "model.2.act", "tensor:/model.2/act/Mul_output_0")) == 1
    assert [s.path for s in find(made, "/model.2", "/model.0")] == ["/model.2", "/model.0"]


@pytest.mark.parametrize(
    ("shape", "is_map"),
    [
        ([1, 4, 2, 512], False),  # boxes or tokens: of the shape [1, 16, 4, 8400] in a head
        ([1, 32, 32, 4], False),
        ([1, 64, 8, 8], True),
        ([1, 128, 4, 8], True),
        ([1, 128, 1, 32], True),  # pooled along one side
        ([1, 512, 4, 2], True),
    ],
)
def test_a_tensor_that_is_no_map_of_the_image_is_refused(shape: list[int], is_map: bool) -> None:
    """Such as [1, 1, 4, 8400] in the head of a detector, whose second to last size happens to divide the image's."""
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["b"]), node("Identity", ["b"], ["y"])]
    weights = [models.weight("w", (4, 3, 1, 1)), numpy_helper.from_array(np.array(shape), "s")]
    made = models.model(nodes, [value("x", (1, 3, 32, 32))], [value("y", None)], weights)
    assert site(made, "tensor:a").stride == 1
    listed = [found.tensor for found in graphsurgery.sites(made)]
    if is_map:
        assert site(made, "tensor:b").shape == tuple(shape)
        assert listed == ["a", "b", "y"]
    else:
        assert refused(made, "tensor:b") == (
            f"'b' has the shape {shape}, which is no map of the image [1, 3, 32, 32]: it is an intermediate result of "
            "a head or of an attention; the nearest maps that it is made from are tensor:a [1, 4, 32, 32]"
        )
        assert listed == ["a"]


def test_what_is_no_image_names_the_maps_that_it_is_made_from() -> None:
    assert refused(models.detector(), "tensor:scores").endswith(
        "a block needs [N, C, H, W]; the nearest maps that it is made from are "
        "tensor:/model.4/cv3/Conv_output_0 [1, 3, 8, 8]"
    )
