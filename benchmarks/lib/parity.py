"""The parity of one block on one provider, in a model of two convolutions and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.errors import GraphSurgeryError
from graphsurgery.feature_map import numpy_dtype
from graphsurgery.verification import Mode, Verdict

DTYPES = ("float32", "float16", "bfloat16")
CHANNELS, SIDE = 128, 40


def spelled_blocks() -> list[str]:
    """Every block with every variant, the way the command line spells them."""
    return [
        name if index == 0 else f"{name}[{variant}]"
        for name, kind in all_blocks().items()
        for index, variant in enumerate(kind.variants or {"": ""})
    ]


def host(dtype: str) -> onnx.ModelProto:
    """images [1, 3, 40, 40] -> convolution -> site [1, 128, 40, 40] -> convolution -> output, in one element type."""
    kind = helper.np_dtype_to_tensor_dtype(numpy_dtype(dtype))
    rng = np.random.default_rng(0)
    shapes = {"first": (CHANNELS, 3, 1, 1), "second": (CHANNELS, CHANNELS, 1, 1)}
    weights = [
        numpy_helper.from_array((0.2 * rng.standard_normal(shape)).astype(numpy_dtype(dtype)), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["site"], name="/host/first/Conv"),
        helper.make_node("Conv", ["site", "second"], ["output"], name="/host/second/Conv"),
    ]
    values = [
        helper.make_tensor_value_info(name, kind, [1, channels, SIDE, SIDE])
        for name, channels in (("images", 3), ("site", CHANNELS), ("output", CHANNELS))
    ]
    graph = helper.make_graph(nodes, "host", values[:1], values[2:], weights, value_info=values[1:2])
    opset, ir_version = (22, 10) if dtype == "bfloat16" else (17, 8)  # Conv takes bfloat16 from opset 22 on
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def parity(block: str, dtype: str, provider: str, seeds: int) -> dict[str, Any]:
    """{"block", "dtype", "verdict", "ratio": largest error / permitted error or null, "nodes": see Placement.to_json or
    null, "reason"} of a block on a provider.
    """
    try:
        report = gsx.verify(gsx.insert(host(dtype), block, after="tensor:site"), providers=[provider], seeds=seeds)
    except GraphSurgeryError as error:
        print(f"{block} {dtype}: {error}", flush=True)
        return {
            "block": block,
            "dtype": dtype,
            "verdict": "refused",
            "ratio": None,
            "nodes": None,
            "reason": str(error),
        }
    kinds = (Mode.OPTIMISED, Mode.AS_WRITTEN)
    rows = [row for row in report.insertions[0].rows if row.provider == provider and row.mode in kinds]
    failed = [row for row in rows if row.verdict is Verdict.FAILED]
    compared = [row for row in rows if row.worst]
    verdict = Verdict.FAILED if failed else Verdict.PASSED if compared else Verdict.NO_KERNEL
    placement = next((row.placement for row in rows if row.placement), None)
    print(f"{block} {dtype}: {verdict}{f', {placement}' if placement else ''}", flush=True)
    return {
        "block": block,
        "dtype": dtype,
        "verdict": str(verdict),
        "ratio": max((row.worst.ratio for row in compared if row.worst), default=None),
        "nodes": placement.to_json() if placement else None,
        "reason": next((row.reason for row in (*failed, *rows) if row.reason), ""),
    }
