"""Where nodes ran, from profiles: real ones of the CPU, and some of several providers in the form of those."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from graphsurgery.runtime.placement import Kernel, Placement, by_provider, kernels
from graphsurgery.runtime.session import session

Nodes = list[tuple[str, str]]
BLOCK: Nodes = [("/b/ReduceMean", "ReduceMean"), ("/b/Mod", "Mod"), ("/b/Mul", "Mul")]


def executed(nodes: Nodes, *, kind: int = TensorProto.FLOAT, opset: int = 18, optimise: bool = False) -> Any:
    """What the CPU ran of a chain of nodes on x."""
    chain = [helper.make_node(op, [f"t{i}"], [f"t{i + 1}"], name=name) for i, (name, op) in enumerate(nodes)]
    ends = [helper.make_tensor_value_info(name, kind, [1, 2, 4, 4]) for name in ("t0", f"t{len(nodes)}")]
    graph = helper.make_graph(chain, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    ready = session(model.SerializeToString(), optimise=optimise, profiled=True)
    assert ready.executed == ()
    x = np.ones((1, 2, 4, 4), helper.tensor_dtype_to_np_dtype(kind))
    for _ in range(2):  # the profile ends with the first
        ready.run({"t0": x})
    return ready.executed


def event(name: str, op_type: str, provider: str, index: int = 0, category: str = "Node") -> dict[str, Any]:
    """As onnxruntime 1.31 writes one, its memory and thread figures left out."""
    details = {"op_name": op_type, "provider": f"{provider}ExecutionProvider", "node_index": str(index)}
    return {"cat": category, "pid": 1, "tid": 1, "dur": 9, "ts": index, "ph": "X", "name": name, "args": details}


def profile(*events: tuple[str, str, str]) -> str:
    session_event = {"cat": "Session", "ph": "X", "name": "model_run", "args": {}}
    made = [event(f"{name}_kernel_time", op, provider, i) for i, (name, op, provider) in enumerate(events)]
    return json.dumps([session_event, *made])


def test_a_real_profile_names_every_node() -> None:
    nodes = [("/b/Relu", "Relu"), ("/b/odd_kernel_time", "Sqrt"), ("/b/Identity", "Identity")]
    found = executed(nodes)
    assert found == tuple(Kernel(name, op, "cpu") for name, op in nodes)
    placement = Placement.of("cpu", nodes, found)
    assert str(placement) == "3 of 3 nodes on the CPU"
    assert placement.to_json() == {"total": 3, "on": {"cpu": 3}, "fell_back": []}
    assert not placement.fell_back


def test_optimisation_changes_the_nodes() -> None:
    """Why nodes are counted without it: the Identity is gone."""
    nodes = [("/b/Relu", "Relu"), ("/b/Identity", "Identity"), ("/b/Sqrt", "Sqrt")]
    assert by_provider(executed(nodes, optimise=True)) == {"cpu": 2}


def test_a_function_without_a_kernel_counts_where_its_body_ran() -> None:
    nodes = [("/b/Relu", "Relu"), ("/b/Mish", "Mish")]
    found = executed(nodes)
    assert "/b/Mish" not in {kernel.name for kernel in found}
    assert Placement.of("cpu", nodes, found).counts == {"cpu": 2}


def test_casts_that_the_cpu_needs_for_half_precision_are_no_kernels_of_the_model() -> None:
    found = executed([("/b/Sqrt", "Sqrt")], kind=TensorProto.FLOAT16)
    assert len(found) > 1
    assert by_provider(found) == {"cpu": 1}


def test_nodes_that_fell_back_are_named() -> None:
    text = profile(
        ("/b/ReduceMean", "ReduceMean", "CUDA"),
        ("Memcpy_token_1", "MemcpyToHost", "CUDA"),
        ("/b/Mod", "Mod", "CPU"),
        ("Memcpy_token_2", "MemcpyFromHost", "CUDA"),
        ("/b/Mul", "Mul", "CUDA"),
    )
    placement = Placement.of("cuda", BLOCK, kernels(text))
    assert str(placement) == "2 of 3 nodes on CUDA, 1 fell back to the CPU: Mod"
    assert placement.to_json()["fell_back"] == [{"node": "/b/Mod", "operator": "Mod", "provider": "cpu"}]
    assert by_provider(kernels(text)) == {"cuda": 2, "cpu": 1}


def test_tensorrt_runs_what_it_compiled_as_one_kernel() -> None:
    compiled = "TensorrtExecutionProvider_TRTKernel_graph_main_1234_0_0"
    whole = profile((compiled, "TRTKernel_graph_main_1234_0", "Tensorrt"))
    assert str(Placement.of("tensorrt", BLOCK, kernels(whole))) == "3 of 3 nodes on TensorRT"
    parts = profile(
        (compiled, "TRTKernel_graph_main_1234_0", "Tensorrt"),
        ("/b/Mod", "Mod", "CPU"),
        (compiled.replace("0_0", "1_1"), "TRTKernel_graph_main_1234_1", "Tensorrt"),
    )
    placement = Placement.of("tensorrt", BLOCK, kernels(parts))
    assert str(placement) == "2 of 3 nodes on TensorRT, 1 fell back to the CPU: Mod"
    behind = profile(("/b/ReduceMean", "ReduceMean", "CUDA"), ("/b/Mod", "Mod", "CPU"), ("/b/Mul", "Mul", "CUDA"))
    placement = Placement.of("tensorrt", BLOCK, kernels(behind))
    assert str(placement) == (
        "0 of 3 nodes on TensorRT, 2 fell back to CUDA: ReduceMean, Mul, 1 fell back to the CPU: Mod"
    )


def test_what_the_profile_does_not_tell_is_not_made_up() -> None:
    nothing = Placement.of("cuda", BLOCK, kernels(profile(("/b/Mod", "Mod", "CUDA"))))
    assert str(nothing) == "1 of 3 nodes on CUDA, 2 did not run by themselves: ReduceMean, Mul"
    assert nothing.counts == {"unknown": 2, "cuda": 1}
    bodies = profile(("Tanh_7", "Tanh", "CUDA"), ("Mul_8", "Mul", "CPU"), ("/b/Mod", "Mod", "CUDA"))
    assert Placement.of("cuda", BLOCK, kernels(bodies)).counts == {"unknown": 2, "cuda": 1}


@pytest.mark.parametrize(
    "other",
    [
        event("/b/Mul_fence_before", "Mul", "CUDA"),  # onnxruntime before 1.14
        event("/b/Mul_kernel_time", "Mul", "CUDA", category="Kernel"),  # the GPU's own part of a profile
        {"cat": "Node", "ph": "X", "name": "/b/Mul_kernel_time"},
    ],
)
def test_other_events_are_no_kernels(other: dict[str, Any]) -> None:
    assert kernels(json.dumps([other])) == ()


def test_a_kernel_that_ran_twice_is_one_and_two_of_one_name_are_two() -> None:
    events = [event("_kernel_time", "Relu", "CPU", 1), event("_kernel_time", "Relu", "CPU", 2)] * 2
    assert by_provider(kernels(json.dumps(events))) == {"cpu": 2}


def test_a_provider_without_a_short_name_keeps_its_own() -> None:
    assert by_provider(kernels(profile(("a", "Relu", "Azure")))) == {"AzureExecutionProvider": 1}
