"""Operators of other domains are not taken for those of ONNX that are called the same."""

from __future__ import annotations

import pytest
from onnx import helper

from graphsurgery.modelfile.operators import operator


@pytest.mark.parametrize(
    ("domain", "name", "meant"),
    [
        ("", "Conv", "Conv"),
        ("ai.onnx", "Conv", "Conv"),
        ("com.microsoft.nchwc", "Conv", "com.microsoft.nchwc:Conv"),
        ("qonnx.custom_op.channels_last", "MaxPool", "qonnx.custom_op.channels_last:MaxPool"),
        ("lab", "Constant", "lab:Constant"),
        ("com.microsoft", "Conv", "com.microsoft:Conv"),
        ("com.microsoft", "QuantizeLinear", "QuantizeLinear"),
        ("com.microsoft", "BiasGelu", "BiasGelu"),
        ("TRT", "EfficientNMS_TRT", "EfficientNMS_TRT"),
    ],
)
def test_which_operator_a_node_is(domain: str, name: str, meant: str) -> None:
    assert operator(helper.make_node(name, ["x"], ["y"], domain=domain)) == meant
