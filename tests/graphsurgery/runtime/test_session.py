from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.errors import CannotRun, GraphSurgeryError, MissingDependency, MissingProvider, NoKernel, RequestError
from graphsurgery.process import leftovers
from graphsurgery.runtime.providers import preload
from graphsurgery.runtime.session import available_providers, require, session, short_name, usable

Make = Callable[..., onnx.ModelProto]


def one_node(kind: int = TensorProto.FLOAT, op_type: str = "Identity", opset: int = 13) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "one", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_])
def test_a_session_runs_a_model_in_memory(kind: Any, optimise: bool) -> None:
    model = one_node(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    x = np.array([[0, 1, 2]], kind)
    ready = session(model.SerializeToString(), "cpu", optimise=optimise)
    (y,) = ready.run({"x": x})
    assert y.dtype == kind
    assert np.array_equal(y, x)
    assert ready.outputs == ["y"]


def test_bfloat16_goes_in_and_comes_out() -> None:
    x = (np.arange(6).reshape(2, 3) / 3).astype(ml_dtypes.bfloat16)
    for view in (x, x[:, ::-1]):  # one contiguous, one not
        (y,) = session(one_node(TensorProto.BFLOAT16).SerializeToString()).run({"x": view})
        assert y.dtype == ml_dtypes.bfloat16
        assert np.array_equal(y, view)


def test_bfloat16_beside_other_types() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), helper.make_node("Identity", ["i"], ["j"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [2]), helper.make_tensor_value_info("i", 7, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]), helper.make_tensor_value_info("j", 7, [1])]
    graph = helper.make_graph(nodes, "two", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    y, j = session(model.SerializeToString()).run({"x": np.array([1, 2], ml_dtypes.bfloat16), "i": np.array([7])})
    assert y.tolist() == [1.0, 2.0]
    assert y.dtype == np.float32
    assert j.tolist() == [7]


def test_optimisation_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(source: Any, options: Any, **more: Any) -> Any:
        seen.append(options.graph_optimization_level)
        return real(source, options, **more)

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    for optimise in (True, False):
        session(one_node().SerializeToString(), optimise=optimise)
    level = onnxruntime.GraphOptimizationLevel
    assert seen == [level.ORT_ENABLE_ALL, level.ORT_DISABLE_ALL]


@pytest.mark.parametrize("in_memory", [True, False])
def test_external_data_is_found(tmp_path: Path, in_memory: bool) -> None:
    weight = np.arange(3, dtype=np.float32)
    model = one_node()
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["x", "weight"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    ready = session(path.read_bytes(), folder=tmp_path) if in_memory else session(path)
    (y,) = ready.run({"x": np.ones((1, 3), np.float32)})
    assert y.tolist() == [[1.0, 2.0, 3.0]]


def test_a_missing_kernel_is_told_from_a_model_that_is_wrong() -> None:
    with pytest.raises(NoKernel, match="Sigmoid"):
        session(one_node(TensorProto.BFLOAT16, "Sigmoid").SerializeToString())
    with pytest.raises(CannotRun, match="NoSuchOperator") as caught:
        session(one_node(op_type="NoSuchOperator").SerializeToString())
    assert not isinstance(caught.value, NoKernel)
    assert "ONNXRuntimeError" not in str(caught.value)


@pytest.mark.parametrize(("ir_version", "opset"), [(8, 1000), (1000, 13)])
def test_a_model_too_new_for_this_onnxruntime_is_no_kernel(ir_version: int, opset: int) -> None:
    model = one_node(opset=opset)
    model.ir_version = ir_version
    with pytest.raises(NoKernel) as caught:
        session(model.SerializeToString())
    assert "/onnxruntime" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_input_is_a_sentence() -> None:
    ready = session(one_node().SerializeToString())
    with pytest.raises(CannotRun, match="invalid dimensions"):
        ready.run({"x": np.zeros((1, 4), np.float32)})


def test_names_of_providers() -> None:
    assert short_name("CUDA") == short_name("CUDAExecutionProvider") == "cuda"
    assert short_name("cpu") == "cpu"
    with pytest.raises(RequestError, match=r"'tpu'.*cpu, cuda, tensorrt"):
        short_name("tpu")
    assert "cpu" in available_providers()
    assert usable("cpu")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    usable.cache_clear()
    yield
    usable.cache_clear()


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize("ask", [require, lambda name: session(one_node().SerializeToString(), name)])
def test_a_missing_provider_is_named_with_the_remedy(ask: Callable[[str], object]) -> None:
    with pytest.raises(MissingProvider, match=r"no cuda provider.*it has: cpu.*graphsurgery\[gpu\]") as caught:
        ask("cuda")
    assert caught.value.exit_code == 3
    assert not usable("cuda")


class StandIn:
    """A session of onnxruntime that came up on other providers than it was asked for."""

    def __init__(self, *providers: str) -> None:
        self.providers = providers

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs


@pytest.fixture
def cuda_is_built_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    def use(make: Callable[..., Any]) -> None:
        names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("cannot load libcudnn"), raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", make)
        preload.cache_clear()

    return use


def test_a_provider_that_falls_back_silently_is_missing(cuda_is_built_in: Any) -> None:
    cuda_is_built_in(lambda *_, **__: StandIn("CPUExecutionProvider"))
    with pytest.raises(MissingProvider, match="cuda provider is installed but cannot start") as caught:
        session(b"", "cuda")
    assert caught.value.exit_code == 3


def test_cuda_runs_without_tf32_and_nothing_is_printed(
    cuda_is_built_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def make(source: Any, options: Any, providers: Any, enable_fallback: int) -> StandIn:
        asked.append((providers, enable_fallback))
        return StandIn("CUDAExecutionProvider", "CPUExecutionProvider")

    cuda_is_built_in(make)
    session(b"", "cuda")
    (asked_for, enable_fallback), *more = asked
    assert not more
    assert asked_for == [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]
    assert enable_fallback == 0
    assert capsys.readouterr().out == ""


def test_tensorrt_gets_what_it_needs_to_know(cuda_is_built_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values are words: its options take no 0 and 1 from Python."""
    asked: list[Any] = []

    def make(source: Any, options: Any, providers: Any, enable_fallback: int) -> StandIn:
        asked.append(dict(providers))
        return StandIn("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")

    cuda_is_built_in(make)
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    session(b"", "tensorrt", exact=False)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    session(b"", "tensorrt", types={"fp16"})
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    usual, exact = asked
    assert list(exact) == names
    assert exact["CUDAExecutionProvider"] == {"use_tf32": "0"}
    assert usual["CUDAExecutionProvider"] == {}
    assert exact["TensorrtExecutionProvider"] == {
        "trt_engine_cache_enable": "False",
        "trt_timing_cache_enable": "False",
        "trt_max_workspace_size": "1073741824",
        "trt_fp16_enable": "True",
        "trt_builder_optimization_level": "0",
    }
    assert not {"trt_fp16_enable", "trt_builder_optimization_level"} & usual["TensorrtExecutionProvider"].keys()


def test_a_provider_that_refuses_everything_is_missing(cuda_is_built_in: Any) -> None:
    """TensorRT's libraries are not there: onnxruntime 1.31 raises, where it falls back without CUDA's."""

    def make(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Please install TensorRT libraries as mentioned in the GPU requirements page")

    cuda_is_built_in(make)
    with pytest.raises(MissingProvider, match="cuda provider is installed but cannot start"):
        require("cuda")
    with pytest.raises(CannotRun, match="Please install"):
        session(b"", "cuda")


def test_what_a_provider_logs_when_it_does_not_start_is_not_shown(
    cuda_is_built_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", levels.append)

    def make(*_: Any, **__: Any) -> StandIn:
        levels.append(-1)
        return StandIn("CPUExecutionProvider")

    cuda_is_built_in(make)
    with pytest.raises(MissingProvider):
        session(b"", "cuda")
    assert levels == [4, -1, 2]


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_bound_model_runs_again_and_again(kind: Any) -> None:
    before = set(leftovers._registered)
    ready = session(one_node(helper.np_dtype_to_tensor_dtype(np.dtype(kind))).SerializeToString(), profiled=True)
    assert len(set(leftovers._registered) - before) == 1  # the folder of the profile
    run = ready.bound({"x": np.ones((2, 3), kind)})
    assert set(leftovers._registered) == before
    assert [kernel.provider for kernel in ready.executed] == ["cpu"]
    for _ in range(3):
        run()


def test_a_bound_model_that_does_not_run_is_a_sentence() -> None:
    with pytest.raises(CannotRun, match="invalid dimensions"):
        session(one_node().SerializeToString()).bound({"x": np.zeros((1, 4), np.float32)})


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"graphsurgery\[cpu\]") as caught:
        session(b"", "cpu")
    assert isinstance(caught.value, GraphSurgeryError)
    assert caught.value.exit_code == 3
