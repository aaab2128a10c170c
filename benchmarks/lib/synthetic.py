"""A chain of nodes, a fifth of them convolutions with weights, in stages of 200: 20,000 in 100 stages.

usage: synthetic.py OUT.onnx [STAGES]
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES, BLOCKS, CHANNELS, SIDE = 100, 40, 16, 32


def main() -> None:
    stages = int(sys.argv[2]) if len(sys.argv) > 2 else STAGES
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "images"
    for stage in range(stages):
        for block in range(BLOCKS):
            name, weight = f"/stage.{stage}/{block}", f"stage.{stage}.{block}.weight"
            values = rng.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
            weights.append(numpy_helper.from_array(values, weight))
            for op, inputs in (
                ("Conv", [last, weight]),
                ("Sigmoid", [f"{name}/Conv_output_0"]),
                ("Mul", [f"{name}/Conv_output_0", f"{name}/Sigmoid_output_0"]),
                ("Relu", [f"{name}/Mul_output_0"]),
                ("Add", [f"{name}/Relu_output_0", last]),
            ):
                nodes.append(helper.make_node(op, inputs, [f"{name}/{op}_output_0"], name=f"{name}/{op}"))
            last = f"{name}/Add_output_0"
    shape = [1, CHANNELS, SIDE, SIDE]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", last))
    graph = helper.make_graph(nodes, "synthetic", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])


if __name__ == "__main__":
    main()
