"""What people pass a model through: onnxslim, onnxsim, onnxruntime's own optimisation."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

TOOLS = ("onnxslim", "onnxsim", "onnxruntime")
MOST = ("onnxslim", pytest.param("onnxsim", marks=pytest.mark.long), "onnxruntime")
"""where onnxsim, which takes two seconds to load, does no more than onnxslim"""


def optimised(tool: str, path: Path) -> onnx.ModelProto:
    """The model as the tool writes it; the test is skipped where it is not installed."""
    module = pytest.importorskip(tool)
    if tool == "onnxslim":
        return module.slim(onnx.load(path))
    if tool == "onnxsim":
        simplified, right = module.simplify(onnx.load(path))
        assert right
        return simplified
    options = module.SessionOptions()
    options.graph_optimization_level = module.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    module.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as tools leave it that keep no metadata, Polygraphy for one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.metadata_props[:]
    for node in copy.graph.node:
        del node.metadata_props[:]
    return copy
