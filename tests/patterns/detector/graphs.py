"""Small graphs written as ONNX text, for detector patterns."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

from graphsurgery.recognition import BlockTree
from tests.recognition.recovery import tree_of

HEAD = '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>'


def graph(body: str, *, channels: int = 8, size: int = 64, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """x [1, channels, size, size] -> body -> y, with initializers of these shapes."""
    text = f"{HEAD} g (float[1,{channels},{size},{size}] x) => (float[N,C,H,W] y) {{ {body} }}"
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return model


def blocks(body: str, *, channels: int = 8, size: int = 64, **weights: tuple[int, ...]) -> BlockTree:
    """What is recognised in such a graph."""
    return tree_of(graph(body, channels=channels, size=size, **weights))


def types(tree: BlockTree) -> list[str]:
    """The types of the outermost blocks, in order."""
    return [block.type for block in tree.blocks]
