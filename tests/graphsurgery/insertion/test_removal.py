"""What removal takes out, what it leaves because something else needs it, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, StringStringEntryProto, helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import InsertionError
from graphsurgery.modelfile.record import KEY
from tests import models
from tests.models import node, value
from tests.optimisers import MOST, optimised

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
HALF = "model.4.simam.half"
"""a constant that both blocks of ``two`` have"""


def two(**arguments: Any) -> ModelProto:
    return gsx.insert(DETECTOR, "simam", after="/model.{4,8}", **arguments).proto()


def merged() -> ModelProto:
    """The second block reads a constant of the first, as optimisers write it."""
    model = two()
    for each in model.graph.node:
        for i, name in enumerate(each.input):
            each.input[i] = HALF if name == "model.8.simam.half" else name
    (unread,) = (tensor for tensor in model.graph.initializer if tensor.name == "model.8.simam.half")
    model.graph.initializer.remove(unread)
    return model


def initializers(model: Any) -> set[str]:
    return {tensor.name for tensor in gsx.ModelFile.load(model).structure.graph.initializer}


def with_record(model: ModelProto, name: str, change: Callable[[dict[str, Any]], None]) -> ModelProto:
    (entry,) = (each for each in model.metadata_props if each.key == KEY + name)
    data = json.loads(entry.value)
    change(data)
    entry.value = json.dumps(data)
    return model


# ---------------------------------------------------------------------- what something else needs


@pytest.mark.parametrize("order", [("model.4.simam", "model.8.simam"), ("model.8.simam", "model.4.simam")])
@pytest.mark.parametrize("tool", ["", *MOST])
def test_blocks_that_share_a_constant(tool: str, order: tuple[str, str], tmp_path: Path) -> None:
    onnx.save(two(), tmp_path / "two.onnx")
    shared = optimised(tool, tmp_path / "two.onnx") if tool else merged()
    model: Any = shared
    for name in order:
        assert HALF in initializers(model)
        model = gsx.remove(model, name)
        models.valid(model.to_bytes())
    assert not any("simam" in name for name in initializers(model))
    assert not any("simam" in declared.name for declared in model.structure.graph.value_info)
    assert model.to_bytes() == gsx.remove(shared).to_bytes()


def test_blocks_that_share_a_constant_node() -> None:
    """Up to IR version 3, constants are nodes."""
    made = models.detector(opset=9, ir_version=3)
    edited = gsx.insert(made, "simam", after=["/model.0", "/model.2"]).proto()
    first, second = (
        [each for each in edited.graph.node if each.name.startswith(f"/model.{n}/simam/Constant")] for n in (0, 2)
    )
    same = next((a, b) for a in first for b in second if a.attribute[0].t.raw_data == b.attribute[0].t.raw_data)
    for each in edited.graph.node:
        for i, name in enumerate(each.input):
            each.input[i] = same[0].output[0] if name == same[1].output[0] else name
    one = gsx.remove(edited, "model.0.simam")
    models.valid(one.to_bytes())
    assert any(each.name == same[0].name for each in one.structure.graph.node)
    none = gsx.remove(one, "model.2.simam")
    assert none.to_bytes() == made.SerializeToString()


def _as_output(model: ModelProto) -> None:
    model.graph.output.append(value(HALF, [1] * 4))


def _in_a_branch(model: ModelProto) -> None:
    branch = helper.make_graph([node("Neg", [HALF], ["negated"])], "branch", [], [value("negated", None)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    model.graph.node.append(node("If", ["flag"], ["unused"], "if", then_branch=branch, else_branch=branch))


def _as_a_scale(model: ModelProto) -> None:
    annotation = model.graph.quantization_annotation.add(tensor_name="images")
    annotation.quant_parameter_tensor_names.append(StringStringEntryProto(key="SCALE_TENSOR", value=HALF))


def _by_the_model(model: ModelProto) -> None:
    model.graph.node.append(node("Neg", [HALF], ["peek"], "peek"))


def _in_training(model: ModelProto) -> None:
    training = model.training_info.add()
    training.update_binding.append(StringStringEntryProto(key=HALF, value="next"))


@pytest.mark.parametrize("need", [_as_output, _in_a_branch, _as_a_scale, _by_the_model, _in_training])
def test_a_constant_that_is_needed_stays(need: Callable[[ModelProto], None]) -> None:
    model = two()
    need(model)
    removed = gsx.remove(model)
    onnx.checker.check_model(removed.proto()) if need is not _as_a_scale else None
    assert initializers(removed) == initializers(DETECTOR) | {HALF} | ({"flag"} if need is _in_a_branch else set())
    assert not removed.insertions()


def test_a_weight_of_the_model_that_a_record_names_stays() -> None:
    model = with_record(two(), "model.4.simam", lambda data: data["initializers"].append("model.0.conv.weight"))
    assert gsx.remove(model).to_bytes() == DETECTOR.read_bytes()


def test_shapes_of_the_model_that_a_record_names_stay() -> None:
    declared = onnx.shape_inference.infer_shapes(onnx.load(DETECTOR))
    names = [each.name for each in declared.graph.value_info]
    edited = gsx.insert(declared, "simam", after=["/model.4", "/model.8"]).proto()
    model = with_record(edited, "model.4.simam", lambda data: data["value_info"].extend(names[1::2]))
    removed = gsx.remove(model).proto()
    missing = set(names) - {each.name for each in removed.graph.value_info}
    assert missing <= {"/model.4/cv2/act/Mul_output_0"}  # what the block reads may have been declared for it


# ---------------------------------------------------------------------- what is refused


def _name_a_node_of_the_model(data: dict[str, Any]) -> None:
    data["nodes"].append("/model.5/conv/Conv")


def _leave_a_node_out(data: dict[str, Any]) -> None:
    data["nodes"].pop()


def _name_other_nodes(data: dict[str, Any]) -> None:
    data["nodes"] = ["/model.4/cv2/act/Sigmoid", "/model.4/cv2/act/Mul"]


def _name_the_other_block(data: dict[str, Any]) -> None:
    data["nodes"] = [name.replace("model.4", "model.8") for name in data["nodes"]] + data["nodes"]


def _be_of_the_other_block(data: dict[str, Any]) -> None:
    """Everything that it says is true of a block of the same kind, at another place."""
    data["nodes"] = [name.replace("model.4", "model.8") for name in data["nodes"]]


@pytest.mark.parametrize(
    "change",
    [_name_a_node_of_the_model, _leave_a_node_out, _name_other_nodes, _name_the_other_block, _be_of_the_other_block],
)
def test_a_record_that_is_not_of_the_block(change: Callable[[dict[str, Any]], None]) -> None:
    model = with_record(two(), "model.4.simam", change)
    with pytest.raises(InsertionError, match=r"^model\.4\.simam cannot be taken out: another tool has changed"):
        gsx.remove(model)


def test_two_records_of_one_block() -> None:
    model = two()
    model.metadata_props.append(model.metadata_props[-1])
    with pytest.raises(InsertionError, match=r"several records of model\.8\.simam"):
        gsx.remove(model, "model.4.simam")


def test_a_block_whose_inside_is_an_output() -> None:
    model = two()
    model.graph.output.append(value("/model.4/simam/Sigmoid_output_0", None))
    with pytest.raises(InsertionError, match=r"it gives '/model.4/simam/Mul_1_output_0', '/model.4/simam/Sigmoid"):
        gsx.remove(model, "model.4.simam")
    assert [each.id for each in gsx.remove(model, "model.8.simam").insertions()] == ["model.4.simam"]


def test_a_block_in_front_of_an_output_whose_site_became_one_too() -> None:
    """Both names are given to whoever runs the model, and without the block one tensor is left."""
    made = models.chain("Relu", "Neg")
    edited = gsx.insert(made, "simam", after="tensor:y").proto()
    edited.graph.output.append(value("y_before"))
    with pytest.raises(InsertionError, match="nothing makes its output 'y_before'"):
        gsx.remove(edited)


def test_another_type_than_the_site_has() -> None:
    """A converter made a Cast of the block's last node: without it, what follows would get another type."""
    edited = gsx.insert(models.chain("Relu", "Neg"), "simam", after="tensor:t0").proto()
    last = next(each for each in edited.graph.node if each.output[0] == "/simam/Mul_1_output_0")
    last.CopyFrom(node("Cast", last.input[:1], last.output, last.name, to=onnx.TensorProto.FLOAT16))
    for declared in (*edited.graph.value_info, *edited.graph.output):
        declared.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(InsertionError, match="'/simam/Mul_1_output_0' has another type or shape than 't0'"):
        gsx.remove(edited)


def test_a_model_that_was_out_of_order_stays_so() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node.insert(0, made.graph.node.pop())
    edited = gsx.insert(made, "simam", after="tensor:t0")
    assert gsx.remove(edited).to_bytes() == made.SerializeToString()
    other = edited.proto()
    other.doc_string = "changed since"
    assert gsx.remove(other).insertions() == []
