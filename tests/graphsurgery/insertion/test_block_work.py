"""What blocks take alone is counted once for those of one form, and never shared between different ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.api import carry_out
from graphsurgery.graph.work import Work
from graphsurgery.insertion import block_work
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request


def two_maps(second: tuple[int, int, int]) -> onnx.ModelProto:
    """A model of two maps side by side: [1, 256, 8, 8], and another one of these sizes."""
    sizes = {"a": (256, 8, 8), "b": second}
    infos = {name: [1, *each] for name, each in sizes.items()}
    nodes = [helper.make_node("Relu", [name], [f"{name}_map"], f"/{name}/Relu") for name in sizes]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in infos.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_map", TensorProto.FLOAT, shape) for name, shape in infos.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("module", ["simam", "se", "mhsa"])
@pytest.mark.parametrize(("second", "counts"), [((256, 8, 8), 1), ((256, 4, 8), 2), ((128, 8, 8), 2)])
def test_each_form_is_counted_once(
    module: str, second: tuple[int, int, int], counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, of = list[Work](), Work.of

    def kept(model: ModelFile) -> Work:
        made.append(of(model))
        return made[-1]

    monkeypatch.setattr(Work, "of", kept)
    model = ModelFile.load(two_maps(second))
    places = ("tensor:a_map", "tensor:b_map")
    _, done = carry_out(model, [Request(module=module, after=places)])
    found = [(each.work.macs(), each.work.largest()) for each in done]
    assert len(made) == counts
    for place, totals in zip(places, found, strict=True):
        _, (alone,) = carry_out(model, [Request(module=module, after=(place,))])
        assert (alone.work.macs(), alone.work.largest()) == totals


def test_what_shapes_follow_from_belongs_to_the_form() -> None:
    def form(shape: list[int], weight: float, width: int) -> bytes | None:
        weights = np.full((width, 64), weight, np.float32)
        nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["z"])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xz"]
        held = [numpy_helper.from_array(np.array(shape), "shape"), numpy_helper.from_array(weights, "w")]
        return block_work._form(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held)))

    assert form([2, 4], 1, 4) == form([2, 4], 2, 4)
    assert form([2, 4], 1, 4) != form([1, 8], 1, 4)
    assert form([2, 4], 1, 4) != form([2, 4], 1, 8)
