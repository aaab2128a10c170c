"""A block from an ONNX file: its nodes are copied, its weights are parameters, and its reference is the file itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from ..blocks.block import Array, Block
from ..blocks.reference import Reference
from ..errors import BlockError
from ..feature_map import FeatureMap, float_dtype
from ..template.template import Template
from .block_graph import BlockGraph, attributes, load
from .fit_to_site import fitted
from .shape_check import infer

if TYPE_CHECKING:
    import torch

_GRAPH = "graph"


class UserBlock(Block):
    """What the blocks of a user's own have in common: they are called as the user names them, and have no variants."""

    paper = "none: a block of the user's own"
    redrawn = False
    variant = None

    @property
    def spelled(self) -> str:
        return self.reference


class OnnxBlock(UserBlock):
    """The record holds the graph without its weights; those are in the model, as for every block, and in its file."""

    formula = "what the ONNX file computes"
    untrained = "does what its file says"

    def __init__(self, graph: BlockGraph, weights: Mapping[str, Array]) -> None:
        self.title = self.reference = graph.label
        self.name = re.sub(r"\W+", "_", Path(graph.label).stem).strip("_").lower() or "block"
        self.values: dict[str, Any] = {_GRAPH: graph.to_text()}
        self._graph = graph
        self._weights = dict(weights)

    @property
    def has_weights(self) -> bool:
        return bool(self._graph.parameters)

    def with_values(self, **values: object) -> Block:
        """The block itself, since a graph has no hyper-parameters; the graph of a record does not replace its own."""
        _check_settings(values, self._graph.label)
        return self

    def example(self) -> FeatureMap:
        own: dict[str, Any] = {name: size for name, size in self._graph.sizes.items() if size}
        return replace(super().example(), dtype=self._graph.dtype, **own)

    def check(self, feature: FeatureMap) -> None:
        self._graph.check(feature)

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self._graph.dtype == feature.dtype:
            return []
        return [f"{self.spelled} is {self._graph.dtype}; it was converted to {feature.dtype}, that of the site"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return self._graph.parameters

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return dict(self._weights)

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        return write_graph(t, self._graph, t.weight)

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from .onnx_reference import OnnxReference  # imports torch

        return OnnxReference(self._graph, self.compared_with(feature).dtype)

    def compared_with(self, feature: FeatureMap) -> Reference:
        what = f"{self.spelled} itself in onnxruntime"
        return Reference(what, what, "onnxruntime", "float64" if feature.dtype == "float64" else "float32")


def onnx_block(spelled: str, settings: Mapping[str, object]) -> Block:
    """The block in the file ``spelled``, or, with the graph in ``settings``, that of a record. Raises BlockError."""
    file = Path(spelled).name
    _check_settings(settings, file)
    if _GRAPH in settings:
        return OnnxBlock(BlockGraph.from_text(settings[_GRAPH], file), {})
    return OnnxBlock(*load(Path(spelled)))


def _check_settings(names: Iterable[str], file: str) -> None:
    if extra := [name for name in names if name != _GRAPH]:
        raise BlockError(f"{file} is an ONNX file and has no hyper-parameter {extra[0]!r}", option="settings")


def write_graph(t: Template, graph: BlockGraph, weight: Callable[[str], gs.Tensor]) -> gs.Variable:
    """Write a graph, fitted to the site, after ``t.x`` and return its output; ``weight(name)`` gives a weight's tensor.

    BlockError if the graph has no form that fits.
    """
    graph = fitted(graph, t.feature, t.opset)
    proto = infer(graph.model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*proto.value_info, *proto.output)}
    tensors: dict[str, gs.Tensor] = {"": gs.Variable.empty(), graph.x.name: t.x}
    fixed = graph.fixed_names
    constants = {tensor.name: tensor for tensor in proto.initializer}

    def tensor(name: str) -> gs.Tensor:
        if name not in tensors and name not in constants:
            tensors[name] = weight(name)
        elif name not in tensors:
            stored = constants[name]
            own = float_dtype(stored.data_type) is None or name in fixed
            tensors[name] = (t.own if own else t.constant)(numpy_helper.to_array(stored), name)
        return tensors[name]

    for node in proto.node:
        types = [kinds.get(name) or t.feature.onnx_type for name in node.output]
        outputs = t.node(node.op_type, [tensor(name) for name in node.input], types, **attributes(node))
        tensors |= {name: output for name, output in zip(node.output, outputs, strict=True) if name}
    output = tensors[proto.output[0].name]
    assert isinstance(output, gs.Variable)
    return t.op("Identity", output) if output is t.x else output
