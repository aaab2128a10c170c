"""What inserted blocks take, each alone: counted when somebody asks, and once for those of the same form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import onnx

from ..feature_map import FeatureMap
from ..graph.work import Work
from ..modelfile.model import ModelFile
from ..modelfile.subgraphs import subgraphs
from ..template.subgraph import Subgraph

_WEIGHTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_FEW = 32
"""Bytes of a tensor of such numbers that may say what shape another one has: scales of a Resize."""


class BlockWork:
    """Counts what the blocks of a model take."""

    def __init__(self, model: ModelFile) -> None:
        self._versions = {"opset": model.opset, "ir_version": int(model.structure.ir_version)}
        self._counted = dict[bytes, Work]()

    def counter(self, subgraph: Subgraph, source: str, feature: FeatureMap) -> Callable[[], Work]:
        """Counts a block that reads the tensor ``source``: on one image where its map leaves the batch open."""
        one = replace(feature, batch=feature.batch or 1)
        return partial(self._work, partial(subgraph.as_model, source, one, **self._versions))

    def _work(self, alone: Callable[[], onnx.ModelProto]) -> Work:
        """``alone``: makes a model of a block."""
        form = _form(alone())
        if form is None:
            return Work.of(ModelFile.load(alone()))
        if form not in self._counted:
            self._counted[form] = Work.of(ModelFile.load(alone()))
        return self._counted[form]


def _form(model: onnx.ModelProto) -> bytes | None:
    """A block without its names and weights; None for one with graphs in its nodes, which have names of their own."""
    graph, numbers = model.graph, dict[str, str]()
    if any(map(subgraphs, graph.node)):
        return None

    def number(name: str) -> str:
        return numbers.setdefault(name, str(len(numbers))) if name else name

    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = number(named.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = map(number, node.input)
        node.output[:] = map(number, node.output)
    for tensor in graph.initializer:
        if tensor.data_type in _WEIGHTS and len(tensor.raw_data) > _FEW:
            tensor.raw_data = b""
    form: bytes = model.SerializeToString(deterministic=True)
    return form
