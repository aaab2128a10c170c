"""A second opinion: what the parser of the installed TensorRT says of a model. Imports tensorrt when called."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import EnvironmentLacks, MissingDependency
from ..modelfile.model import ModelFile
from .support import Version

_LEFT_OUT = frozenset({"NonMaxSuppression", "NonZero", "RoiAlign"})
"""operators that are parsed, and that the parser leaves out of its parts so that others run them: they are slow"""
_INSTALL = "install the tensorrt package of NVIDIA's index, or use its container"


@dataclass(frozen=True)
class ParserError:
    """One error of the parser."""

    node: str | None
    """name of the node, or its position; None where the parser does not tell"""
    operator: str | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What the parser says."""

    version: str
    """of the installed TensorRT"""
    supported: bool
    errors: Sequence[ParserError]
    unsupported_nodes: Sequence[str]
    """names of the nodes that the parser would not take"""

    def refuses(self, version: Version) -> bool:
        """Whether it says that a version refuses the model: it speaks for those of its own generation."""
        return not self.supported and self.version.partition(".")[0] == str(version.major)

    def lines(self) -> Iterator[str]:
        """The verdict as text."""
        yield f"the parser of TensorRT {self.version} {'takes' if self.supported else 'refuses'} the model"
        for error in self.errors:
            where = " ".join(part for part in (error.operator, error.node) if part)
            yield f"  {where or 'the model'}: {error.sentence}"


def tensorrt() -> Any:
    """The tensorrt package. MissingDependency where it is not installed, or cannot be loaded."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        raise MissingDependency(f"TensorRT for Python {reason}; {_INSTALL}") from None


def builder(trt: Any) -> tuple[Any, Any]:
    """(logger, builder), plugins loaded. EnvironmentLacks where there is no GPU, or no driver of its version."""
    logger, no_gpu = trt.Logger(trt.Logger.ERROR), f"TensorRT {trt.__version__} finds no GPU that it can use here"
    try:
        ready = trt.Builder(logger)
    except Exception as error:  # pybind11 turns a failed CUDA start into one of several exceptions
        raise EnvironmentLacks(f"{no_gpu}: {error}") from None
    if not ready:
        raise EnvironmentLacks(no_gpu)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    return logger, ready


def network(trt: Any, ready: Any, *, strongly_typed: bool = False) -> Any:
    """An empty network: explicit batch in 8.x, where it is a flag; strongly typed from 10 on if asked for."""
    flags, known = 0, trt.NetworkDefinitionCreationFlag
    if major(trt) < 10:
        flags |= 1 << int(known.EXPLICIT_BATCH)
    elif strongly_typed and major(trt) == 10:
        flags |= 1 << int(known.STRONGLY_TYPED)
    return ready.create_network(flags)


def major(trt: Any) -> int:
    """The major version of the installed TensorRT."""
    return int(str(trt.__version__).split(".")[0])


def verdict(model: ModelFile, *, required: bool = False) -> Verdict | None:
    """What the installed parser says; None where there is no TensorRT or no GPU, unless it is ``required``.

    Raises EnvironmentLacks (MissingDependency) then.
    """
    try:
        trt = tensorrt()
        logger, ready = builder(trt)
    except EnvironmentLacks:
        if required:
            raise
        return None
    definition = network(trt, ready)
    parser = trt.OnnxParser(definition, logger)
    arguments: list[Any] = [model.to_bytes()]
    if model.external_data and model.folder is not None:
        arguments.append(str(model.folder / model.name))
    nodes = model.structure.graph.node
    supported, parts = _supported(parser, arguments)
    names = [node.name or f"{node.op_type}#{i}" for i, node in enumerate(nodes)]
    found = [parser.get_error(i) for i in range(parser.num_errors)]
    wrong = {int(error.node()) for error in found}
    refused = wrong.intersection(range(len(nodes)))
    if parts is not None:
        apart = {i for i, node in enumerate(nodes) if node.op_type in _LEFT_OUT}
        refused |= set(range(len(nodes))) - parts - apart
    unsupported = [names[i] for i in sorted(refused)]
    taken = supported or (parts is not None and not found and not refused)
    return Verdict(str(trt.__version__), taken, [_error(each, names) for each in found], unsupported)


def _supported(parser: Any, arguments: Sequence[Any]) -> tuple[bool, set[int] | None]:
    """Whether the model is taken, and the positions of the nodes in the parts that the parser finds nothing wrong with,
    whatever their flags say: a node that it refuses is in none of them. Each version has its own way to ask.
    """
    if hasattr(parser, "supports_model_v2"):
        supported = bool(parser.supports_model_v2(*arguments))
        count = parser.num_subgraphs() if callable(parser.num_subgraphs) else parser.num_subgraphs
        return supported, {int(n) for i in range(count) for n in parser.get_subgraph_nodes(i)}
    if hasattr(parser, "supports_model"):
        supported, subgraphs = parser.supports_model(*arguments)
        return bool(supported), {int(n) for nodes, _ in subgraphs for n in nodes}
    return bool(parser.parse(*arguments)), None


def _error(error: Any, names: Sequence[str]) -> ParserError:
    """``node_name`` and ``node_operator`` came with 9.1; before, there is the position alone."""
    if hasattr(error, "node_name"):
        return ParserError(error.node_name() or None, error.node_operator() or None, error.desc())
    position = int(error.node())
    return ParserError(names[position] if 0 <= position < len(names) else None, None, error.desc())
