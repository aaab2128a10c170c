"""find: what optimisers leave: onnxruntime's own operators, nodes without a path; and how many threads it takes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from graphsurgery.blocks.registry import catalogue_block
from graphsurgery.find import find
from graphsurgery.find import search as searching
from tests.find.recovery import FEATURE, exported, trained


def optimised(data: bytes, path: Path) -> onnx.ModelProto:
    """A model as onnxruntime saves it, with its own operators but none that only this processor has."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize(
    ("spelled", "operators"),
    [
        ("psablock[yolo11]", {"QuickGelu", "FusedMatMul"}),
        ("se", {"FusedConv"}),
    ],
)
def test_onnxruntimes_own_operators(spelled: str, operators: set[str], tmp_path: Path) -> None:
    block = catalogue_block(spelled)
    model = optimised(exported(trained(block, FEATURE), "torchscript", FEATURE), tmp_path / "optimised.onnx")
    assert operators <= {node.op_type for node in model.graph.node}
    (one,) = find(model)
    assert one.proven
    assert one.block is not None
    assert (one.block.spelled, one.block.values) == (spelled, block.values)


def test_a_node_without_a_path_leaves_the_module_its_place() -> None:
    model = onnx.load_from_string(exported(trained(catalogue_block("eca[official]"), FEATURE), "torchscript", FEATURE))
    pooling = next(node for node in model.graph.node if node.op_type in ("GlobalAveragePool", "ReduceMean"))
    assert [each.place for each in find(model)] == ["block"]
    pooling.name = "Pool_1"
    assert [each.place for each in find(model)] == ["block"]
    last = next(node for node in model.graph.node if node.op_type == "Mul")
    last.name = "Mul_1"  # what leaves is not what leaves the module
    assert [each.place for each in find(model)] == [f"tensor:{last.output[0]}"]


def test_pytorch_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before, taken = torch.get_num_threads(), set[int]()
    prove = searching.prove

    def watched(*given: object) -> object:
        taken.add(torch.get_num_threads())
        return prove(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(searching, "prove", watched)
    torch.set_num_threads(3)
    try:
        find(exported(trained(catalogue_block("se"), FEATURE), "torchscript", FEATURE))
        assert (taken, torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)
