"""The edit that graphsurgery is compared with: SimAM behind some tensors, by a script on onnx-graphsurgeon.

usage: graphsurgeon_insert.py IN.onnx OUT.onnx HEIGHT WIDTH TENSOR [TENSOR ...]
"""

from __future__ import annotations

import os
import sys

import numpy as np
import onnx
import onnx_graphsurgeon as gs


def insert(graph: gs.Graph, x: gs.Tensor, channels: int, size: int, number: int) -> None:
    """SimAM in its shortest form (InstanceNormalization, square, add, sigmoid, product) behind the tensor ``x``."""
    k = (size - 1) / size
    readers = list(x.outputs)

    def op(kind: str, *inputs: gs.Tensor, **attributes: object) -> gs.Variable:
        output = gs.Variable(f"simam{number}_{kind}_{len(graph.nodes)}", dtype=np.float32)
        graph.nodes.append(gs.Node(kind, output.name, attrs=attributes, inputs=list(inputs), outputs=[output]))
        return output

    scale = gs.Constant(f"simam{number}_scale", np.full(channels, np.sqrt(k) / 2, np.float32))
    bias = gs.Constant(f"simam{number}_bias", np.zeros(channels, np.float32))
    half = gs.Constant(f"simam{number}_half", np.full((1, 1, 1, 1), 0.5, np.float32))
    normal = op("InstanceNormalization", x, scale, bias, epsilon=1e-4 * k)
    y = op("Mul", x, op("Sigmoid", op("Add", op("Mul", normal, normal), half)))
    for reader in readers:
        reader.inputs = [y if tensor is x else tensor for tensor in reader.inputs]


def main() -> None:
    source, target, height, width, *names = sys.argv[1:]
    graph = gs.import_onnx(onnx.load(source))
    tensors = graph.tensors()
    for number, name in enumerate(names):
        x = tensors[name]
        producer = x.inputs[0]
        while producer.op != "Conv":  # exports without value_info: the weight of the convolution before tells it
            producer = producer.inputs[0].inputs[0]
        insert(graph, x, producer.inputs[1].shape[0], int(height) * int(width), number)
    graph.cleanup().toposort()
    with open(target, "wb") as file:
        onnx.save(gs.export_onnx(graph), file)
        file.flush()
        os.fsync(file.fileno())  # as graphsurgery does, so that the file survives a power cut


if __name__ == "__main__":
    main()
