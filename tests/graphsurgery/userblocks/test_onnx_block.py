"""Blocks from ONNX files of the user's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery.api import carry_out
from graphsurgery.errors import BlockError, GraphSurgeryError, InsertionError, WeightsError
from graphsurgery.modelfile.fields import NODE, Edit
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from graphsurgery.userblocks.inserted import weights_of
from graphsurgery.verification import verify
from tests import models

Array = np.ndarray[Any, Any]
C, H, W, R = 16, 8, 8, 4
SITE = (1, C, H, W)


def weights(dtype: Any = np.float32) -> dict[str, Array]:
    shapes = {"fc1.weight": (R, C, 1, 1), "fc1.bias": (R,), "fc2.weight": (C, R, 1, 1), "onnx::Mul_7": (1, C, 1, 1)}
    return {name: numpy_helper.to_array(models.weight(name, shape, dtype)) for name, shape in shapes.items()}


def gate(opset: int = 17) -> list[NodeProto]:
    """x * sigmoid(fc2(relu(fc1(mean x)))) * scale, unlike any block of the catalogue."""
    if opset >= 18:
        mean = helper.make_node("ReduceMean", ["in", "axes"], ["mean"], "pool")
    else:
        mean = helper.make_node("ReduceMean", ["in"], ["mean"], "pool", axes=[2, 3])
    return [
        mean,
        helper.make_node("Conv", ["mean", "fc1.weight", "fc1.bias"], ["h"], "fc1", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("Conv", ["r", "fc2.weight"], ["z"], "fc2", kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["z"], ["g"], "gate"),
        helper.make_node("Mul", ["g", "onnx::Mul_7"], ["s"], "scale"),
        helper.make_node("Mul", ["in", "s"], ["out"], "times"),
    ]


def block(
    nodes: Sequence[NodeProto] | None = None,
    shape: models.Shape = SITE,
    *,
    opset: int = 17,
    dtype: Any = np.float32,
    extra: Sequence[TensorProto] = (),
) -> ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = [numpy_helper.from_array(values, name) for name, values in weights(dtype).items()]
    if opset >= 18 and nodes is None:
        constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    x, y = (models.value(name, shape, kind) for name in ("in", "out"))
    return models.model(nodes or gate(opset), [x], [y], [*constants, *extra], opset=opset)


def saved(model: ModelProto, path: Path) -> str:
    onnx.save(model, path)
    return str(path)


def put(path: str, made: Any = None, **arguments: Any) -> tuple[ModelFile, tuple[str, ...]]:
    request = Request(path, ("/model.2",), **arguments)
    edited, (done,) = carry_out(ModelFile.load(made if made is not None else models.detector()), [request])
    return edited, done.warnings


def refused(path: str, made: Any = None, **arguments: Any) -> str:
    with pytest.raises(GraphSurgeryError) as error:
        put(path, made, **arguments)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


def run(model: ModelProto | bytes, feeds: dict[str, Array]) -> list[Array]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, feeds)]


def is_the_file(edited: ModelFile, user: ModelProto, *, rtol: float = 1e-6) -> None:
    """In the model, the block gives what the user's own file gives for what arrives there."""
    insertion = edited.insertions()[0]
    kind = helper.np_dtype_to_tensor_dtype(insertion.feature.numpy_dtype)
    tensors = [(insertion.site.tensor, kind), (insertion.output_tensor, kind)]
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(insertion.feature.numpy_dtype)
    x, y = run(edited.with_outputs(tensors).to_bytes(), {"images": image})
    own = helper.tensor_dtype_to_np_dtype(user.graph.input[0].type.tensor_type.elem_type)
    (expected,) = run(user, {"in": x.astype(own)})
    assert np.allclose(y.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=rtol)
    assert not np.allclose(y.astype(np.float64), x.astype(np.float64), rtol=1e-2)


# ---------------------------------------------------------------------- it is the user's file


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_every_opset_into_every_other(tmp_path: Path, opset: int) -> None:
    for own in (13, 17, 18):
        user = block(opset=own)
        edited, _ = put(
            saved(user, tmp_path / "b.onnx"), models.detector(opset=opset, ir_version=8 if opset < 21 else 10)
        )
        models.valid(edited.to_bytes())
        assert edited.opset == opset
        is_the_file(edited, user)


@pytest.mark.parametrize("shape", [SITE, (1, C, None, None), ("n", C, "h", "w"), (None, None, None, None)])
def test_static_and_dynamic_files(tmp_path: Path, shape: models.Shape) -> None:
    user = block(shape=shape)
    edited, warnings = put(saved(user, tmp_path / "my block-2.onnx"))
    insertion = edited.insertions()[0]
    assert (insertion.id, insertion.module) == ("model.2.my_block_2", "my block-2.onnx")
    assert warnings == ()
    assert insertion.parameters == sum(values.size for values in weights().values())
    assert not any("data" in stored for stored in insertion.stored.values())
    is_the_file(edited, user)
    assert verify(edited).passed


@pytest.mark.parametrize("site", ["float16", "float32"])
@pytest.mark.parametrize("own", ["float16", "float32"])
def test_element_types(tmp_path: Path, site: str, own: str) -> None:
    user = block(dtype=np.dtype(own))
    edited, warnings = put(saved(user, tmp_path / "b.onnx"), models.detector(dtype=np.dtype(site)))
    models.valid(edited.to_bytes())
    converted = f"b.onnx is {own}; it was converted to {site}, that of the site"
    assert warnings == ((converted,) if own != site else ())
    is_the_file(edited, user, rtol=1e-5 if site == own == "float32" else 1e-2)
    assert verify(edited).passed


def test_a_type_that_an_operator_lacks(tmp_path: Path) -> None:
    nodes = [helper.make_node("HardSwish", ["in"], ["out"])]
    path = saved(block(nodes), tmp_path / "b.onnx")
    made = models.detector(dtype=ml_dtypes.bfloat16)
    assert refused(path, made) == (
        "the site is bfloat16, b.onnx is float32, and ONNX has no HardSwish for bfloat16 at opset 17"
    )


def test_removal_and_listing_need_no_file(tmp_path: Path) -> None:
    made = models.detector()
    edited, _ = put(saved(block(), tmp_path / "b.onnx"), made, gate="residual")
    (tmp_path / "b.onnx").unlink()
    again = ModelFile.load(edited.to_bytes())
    assert [each.module for each in again.insertions()] == ["b.onnx"]
    report = verify(again)
    assert report.passed
    assert any(row.gate_opened for row in report.insertions[0].rows)
    assert graphsurgery.remove(again).to_bytes() == made.SerializeToString()


def test_the_same_request_gives_the_same_bytes_wherever_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first, second = (put(saved(block(), tmp_path / place / "b.onnx"))[0].to_bytes() for place in ("", "a"))
    assert first == second
    assert str(tmp_path).encode() not in first


def test_twice_at_one_site_and_beside_names_that_are_taken(tmp_path: Path) -> None:
    path = saved(block(), tmp_path / "b.onnx")
    edited, done = carry_out(ModelFile.load(models.detector()), [Request(path, ("/model.2",))] * 2)
    models.valid(edited.to_bytes())
    assert [each.insertion.id for each in done] == ["model.2.b", "model.2.b_1"]
    assert verify(edited).passed


def test_a_changed_block_fails(tmp_path: Path) -> None:
    """The referee is the graph of the file, not that of the model."""
    edited, _ = put(saved(block(), tmp_path / "b.onnx"))
    graph = edited.structure.graph
    (place,) = [i for i, node in enumerate(graph.node) if node.name == "/model.2/b/Sigmoid"]
    node = NodeProto.FromString(edited.content(NODE, place))
    node.op_type = "HardSigmoid"
    changed = edited.edited(Edit(replaced={(NODE, place): node.SerializeToString()}))
    assert not verify(changed).passed


def test_other_weights(tmp_path: Path) -> None:
    other = {name: values * 2 for name, values in weights().items()}
    np.savez(tmp_path / "w.npz", **other)  # type: ignore[arg-type]
    path = saved(block(), tmp_path / "b.onnx")
    edited, _ = put(path, weights=str(tmp_path / "w.npz"))
    found = weights_of(edited.insertions()[0], edited)
    assert all(np.array_equal(found[name], other[name]) for name in other)
    np.savez(tmp_path / "w.npz", a=np.ones(3))
    with pytest.raises(WeightsError, match="does not fit"):
        put(path, weights=str(tmp_path / "w.npz"))


def test_a_recipe_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(block(), tmp_path / "b.onnx")
    (tmp_path / "r.yaml").write_text("- {module: ./b.onnx, after: /model.2}\n")
    monkeypatch.chdir("/")
    edited = graphsurgery.Recipe.load(tmp_path / "r.yaml").apply(models.detector())
    is_the_file(edited, block())


# ---------------------------------------------------------------------- what is in the file


def test_what_is_random_stays(tmp_path: Path) -> None:
    """Folded, it would be the same for every image; only a Dropout that cannot be set to training does nothing."""
    nodes = [
        helper.make_node("RandomUniform", [], ["noise"], shape=[1, C, H, W], seed=1.0),
        helper.make_node("Add", ["in", "noise"], ["a"]),
        helper.make_node("Dropout", ["a", "ratio", "training"], ["b"]),
        helper.make_node("Dropout", ["b", "ratio"], ["c"]),
        helper.make_node("Relu", ["c"], ["out"]),
    ]
    switches = [
        numpy_helper.from_array(np.array(0.5, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "training"),
    ]
    edited, _ = put(saved(block(nodes, extra=switches), tmp_path / "b.onnx"))
    names = [name.rpartition("/")[2] for name in edited.insertions()[0].nodes]
    assert names == ["RandomUniform", "Add", "Dropout", "Relu"]


def test_what_follows_from_the_sizes_is_computed(tmp_path: Path) -> None:
    """A chain of shapes, as an exporter writes it for dynamic axes, leaves nothing behind at a static site."""
    nodes = [
        helper.make_node("Shape", ["in"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["batch"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["batch", "one", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["in", "flat"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=-1),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d"]),
        helper.make_node("Reshape", ["d", "shape"], ["out"]),
    ]
    user = block(nodes, shape=("n", C, "h", "w"))
    edited, _ = put(saved(user, tmp_path / "b.onnx"))
    made = [name.rpartition("/")[2] for name in edited.insertions()[0].nodes]
    assert made == ["Reshape", "Softmax", "Reshape_1"]
    is_the_file(edited, user)
    dynamic = models.detector(image=("n", 3, "h", "w"))
    edited, _ = put(saved(user, tmp_path / "b.onnx"), dynamic)
    assert len(edited.insertions()[0].nodes) > 3
    is_the_file(edited, user)
    assert verify(edited).passed


def test_operators_with_several_outputs_and_empty_inputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["in"], ["a", "b"], axis=1),
        helper.make_node("Constant", [], ["scales"], value_floats=[1.0, 1.0, 2.0, 2.0]),
        helper.make_node("Resize", ["a", "", "scales"], ["big"], mode="nearest"),
        helper.make_node("MaxPool", ["big"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Clip", ["b", "", "most"], ["clipped"]),
        helper.make_node("Concat", ["clipped", "small"], ["out"], axis=1),
    ]
    user = block(nodes, extra=[numpy_helper.from_array(np.float32(0.1), "most")])
    for dtype in (np.float32, np.float16):
        edited, _ = put(saved(user, tmp_path / "b.onnx"), models.detector(dtype=dtype))
        models.valid(edited.to_bytes())
        is_the_file(edited, user, rtol=1e-6 if dtype is np.float32 else 1e-3)
        assert verify(edited).passed


def test_functions_are_written_out(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine",
        "Gate",
        ["a"],
        ["b"],
        [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    user = block([helper.make_node("Gate", ["in"], ["out"], domain="mine")])
    user.functions.append(function)
    user.opset_import.append(helper.make_opsetid("mine", 1))
    edited, _ = put(saved(user, tmp_path / "b.onnx"))
    assert [name.rpartition("/")[2] for name in edited.insertions()[0].nodes] == ["Sigmoid", "Mul"]
    is_the_file(edited, user)


def test_external_data_is_read_in(tmp_path: Path) -> None:
    user = block()
    path = tmp_path / "b.onnx"
    onnx.save(block(), path, save_as_external_data=True, location="b.data", size_threshold=0)
    assert (tmp_path / "b.data").exists()
    edited, _ = put(str(path))
    assert edited.external_data == ()
    is_the_file(edited, user)
    (tmp_path / "b.data").unlink()
    assert "'b.data' is missing" in refused(str(path))


def test_nodes_in_another_order_and_weights_as_inputs(tmp_path: Path) -> None:
    user = block()
    nodes = list(user.graph.node)
    shuffled = block(nodes[::-1])
    shuffled.graph.input.extend(models.value(t.name, t.dims, t.data_type) for t in shuffled.graph.initializer)
    edited, _ = put(saved(shuffled, tmp_path / "b.onnx"))
    models.valid(edited.to_bytes())
    is_the_file(edited, user)


def test_a_block_that_passes_its_input_on(tmp_path: Path) -> None:
    made = models.detector()
    edited, _ = put(saved(block([helper.make_node("Identity", ["in"], ["out"])]), tmp_path / "b.onnx"), made)
    models.valid(edited.to_bytes())
    assert verify(edited).passed


# ---------------------------------------------------------------------- what cannot be inserted


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 32, H, W), "model.2 has 16 channels; b.onnx is made for 32"),
        ((1, C, 20, W), "b.onnx is made for the height 20, and that of model.2 is 8; export it for that size, or with"),
        ((1, C, H, 20), "b.onnx is made for the width 20"),
        ((4, C, H, W), "b.onnx is made for the batch 4, and that of model.2 is 1"),
        ((C, H, W), "the input in of b.onnx is no floating-point map [N, C, H, W]"),
    ],
)
def test_files_for_other_maps(tmp_path: Path, shape: models.Shape, words: str) -> None:
    path = saved(block([helper.make_node("Relu", ["in"], ["out"])], shape), tmp_path / "b.onnx")
    assert words in refused(path)


def test_a_static_batch_at_a_dynamic_site(tmp_path: Path) -> None:
    path = saved(block(), tmp_path / "b.onnx")
    assert "made for the batch 1, and that of model.2 is dynamic" in refused(
        path, models.detector(image=("n", 3, 32, 32))
    )


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [helper.make_node("MaxPool", ["in"], ["out"], kernel_shape=[2, 2])],
            "a block keeps the shape of its input; b.onnx makes [1, 16, 7, 7] of [1, 16, 8, 8]",
        ),
        (
            [helper.make_node("FusedGelu", ["in"], ["out"], domain="com.microsoft")],
            "b.onnx uses FusedGelu of com.microsoft; only the standard operators",
        ),
        ([helper.make_node("Sigmoidd", ["in"], ["out"])], "b.onnx uses Sigmoidd, which opset 17 of ONNX does not have"),
        ([helper.make_node("Add", ["in", "other"], ["out"])], "b.onnx is not a valid model: nothing makes 'other'"),
        (
            [helper.make_node("Relu", ["out"], ["a"]), helper.make_node("Relu", ["a"], ["out"])],
            "b.onnx is not a valid model",
        ),
    ],
)
def test_files_that_cannot_be_inserted(tmp_path: Path, nodes: list[NodeProto], words: str) -> None:
    user = block(nodes)
    user.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert words in refused(saved(user, tmp_path / "b.onnx"))


def test_control_flow(tmp_path: Path) -> None:
    inner = helper.make_graph([helper.make_node("Relu", ["in"], ["z"])], "b", [], [models.value("z", None)])
    nodes = [helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)]
    user = block(nodes, extra=[numpy_helper.from_array(np.array(True), "yes")])
    assert refused(saved(user, tmp_path / "b.onnx")) == "b.onnx has control flow (If), which cannot be inserted"


def test_inputs_and_outputs(tmp_path: Path) -> None:
    user = block()
    user.graph.input.append(models.value("second", SITE))
    assert refused(saved(user, tmp_path / "b.onnx")) == "a block has one input; b.onnx has 2: in, second"
    user = block()
    user.graph.output.append(models.value("g", None))
    assert refused(saved(user, tmp_path / "b.onnx")) == "a block has one output; b.onnx has 2: out, g"


def test_an_opset_that_cannot_be_reached(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gelu", ["in"], ["out"])]
    message = refused(saved(block(nodes, opset=20), tmp_path / "b.onnx"))
    assert message == (
        "b.onnx is in opset 20 and the model in 17, and its Gelu cannot be said there (ONNX has it from opset 20 on); "
        "export it with opset 17"
    )


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_text("hello")
    assert refused(str(tmp_path / "b.onnx")) == "the block cannot be read: b.onnx is a text file, not an ONNX model"
    assert "there is no file" in refused(str(tmp_path / "none.onnx"))
    path = saved(block(), tmp_path / "b.onnx")
    assert refused(path, settings={"reduction": 4}) == "b.onnx is an ONNX file and has no hyper-parameter 'reduction'"
    assert "use gate='residual'" in refused(path, init="identity")


def test_a_damaged_record(tmp_path: Path) -> None:
    edited, _ = put(saved(block(), tmp_path / "b.onnx"))
    key, value = edited.insertions()[0].to_entry()
    data = json.loads(value)
    data["settings"]["graph"] = "AAAA"
    damaged = edited.edited(Edit(metadata={key: json.dumps(data)}))
    assert graphsurgery.remove(damaged).to_bytes() == models.detector().SerializeToString()
    with pytest.raises((BlockError, InsertionError), match=r"the graph of b\.onnx in the record of its insertion"):
        verify(damaged)
