"""The parser of the installed TensorRT. It cannot be had from the package index, so that its API is acted out here.

The stand-in has the names and results that the documents of 8.6, 10 and 11 give, and no more.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from graphsurgery.errors import EnvironmentLacks, MissingDependency
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.parser import ParserError, verdict
from tests.models import chain

INSTALLED = importlib.util.find_spec("tensorrt") is not None


class Error:
    """What 8.6 tells of an error."""

    def desc(self) -> str:
        return "no importer"

    def node(self) -> int:
        return 1


class NamedError(Error):
    """What 9.1 and later tell."""

    def node_name(self) -> str:
        return "n1"

    def node_operator(self) -> str:
        return "Det"


class Parser:
    """What every version has; the second of three nodes is not taken.

    The parts of the model are those that nothing is wrong with, and none of them is flagged as supported unless the
    whole model is.
    """

    error: Any = NamedError
    num_errors = 1
    seen: tuple[Any, ...] = ()

    def __init__(self, network: Any, logger: Any) -> None:
        assert network is not None

    def get_error(self, index: int) -> Any:
        return self.error()


class Parser8(Parser):
    error = Error

    def supports_model(self, model: bytes, path: str | None = None) -> tuple[bool, list[tuple[list[int], bool]]]:
        Parser.seen = (model, path)
        return False, [([0], False), ([2], False)]


class Parser10(Parser):
    num_subgraphs = 2

    def supports_model_v2(self, model: bytes, path: str | None = None) -> bool:
        Parser.seen = (model, path)
        return False

    def is_subgraph_supported(self, index: int) -> bool:
        return False

    def get_subgraph_nodes(self, index: int) -> list[int]:
        return [2 * index]


class ParserWithoutErrors(Parser10):
    """What 10.x says where it can parse the whole model: the second node is one that it leaves to others."""

    num_errors = 0


def install(monkeypatch: pytest.MonkeyPatch, version: str, parser: type[Parser], *, gpu: bool = True) -> list[int]:
    """Put the stand-in in place; returns the list of the flags that networks will be created with."""
    flags: list[int] = []

    class Builder:
        def __init__(self, logger: Any) -> None:
            if not gpu:
                raise RuntimeError("CUDA initialization failure with error: 35")

        def create_network(self, given: int) -> object:
            flags.append(given)
            return object()

    kinds = {"EXPLICIT_BATCH": 0} if version.startswith("8") else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    module = SimpleNamespace(
        __version__=version,
        Logger=logger,
        Builder=Builder,
        OnnxParser=parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(**kinds),
        init_libnvinfer_plugins=lambda logger, namespace: True,
    )
    monkeypatch.setitem(sys.modules, "tensorrt", module)  # type: ignore[arg-type]
    return flags


@pytest.mark.skipif(INSTALLED, reason="TensorRT is installed")
def test_without_tensorrt_there_is_no_verdict() -> None:
    model = ModelFile.load(chain("Relu"))
    assert verdict(model) is None
    with pytest.raises(MissingDependency, match="TensorRT for Python is not installed"):
        verdict(model, required=True)


def test_without_a_gpu_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.9.0", Parser10, gpu=False)
    model = ModelFile.load(chain("Relu"))
    assert verdict(model) is None
    with pytest.raises(EnvironmentLacks, match=r"TensorRT 10\.9\.0 finds no GPU .*error: 35"):
        verdict(model, required=True)


@pytest.mark.parametrize(
    ("version", "parser", "operator", "flag"),
    [("8.6.1", Parser8, None, 1), ("10.9.0", Parser10, "Det", 0), ("11.1.0", Parser10, "Det", 0)],
)
def test_a_refusal(
    monkeypatch: pytest.MonkeyPatch, version: str, parser: type[Parser], operator: str | None, flag: int
) -> None:
    flags = install(monkeypatch, version, parser)
    model = ModelFile.load(chain("Relu", "Det", "Relu"))
    found = verdict(model)
    assert found is not None
    assert (found.version, found.supported, found.unsupported_nodes) == (version, False, ["n1"])
    assert found.errors == [ParserError("n1", operator, "no importer")]
    assert flags == [flag]
    assert Parser.seen == (model.to_bytes(), None)


def test_nodes_that_are_parsed_and_left_to_others_are_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.9.0", ParserWithoutErrors)
    proto = chain("Relu", "Relu", "Relu")
    proto.graph.node[1].op_type = "NonZero"
    found = verdict(ModelFile.load(proto))
    assert found is not None
    assert (found.supported, found.unsupported_nodes) == (True, [])
    proto.graph.node[1].op_type = "Det"
    found = verdict(ModelFile.load(proto))
    assert found is not None
    assert (found.supported, found.unsupported_nodes) == (False, ["n1"])


def test_the_path_is_told_where_weights_lie_beside_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.9.0", Parser10)
    from tests.models import detector

    onnx.save(detector(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    verdict(ModelFile.load(tmp_path / "m.onnx"))
    assert Parser.seen[1] == str(tmp_path / "m.onnx")
