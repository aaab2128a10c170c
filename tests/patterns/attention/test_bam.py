"""BAM: its operators, and what its variants differ in."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

SPATIAL = ["Conv", "Relu"]
END = ["Conv", "Add", "Mul", "Sigmoid", "Mul", "Add"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        feature = feature_map(12, height, batch=batch)
        built = build("bam", {"hidden": 2}, feature, opset=opset)
        expected = ["ReduceMean", "Conv", "Relu", "Conv", *SPATIAL * 3, *END]
        assert sorted(built.operators) == sorted(expected)
        summed = build("bam[paper]", {"hidden": 2}, feature, opset=opset).operators
        assert sorted(summed) == sorted(
            [*["Add" if op == "Mul" else op for op in expected[-4:-3]], *expected[:-4], *expected[-3:]]
        )


@pytest.mark.parametrize(
    ("spelled", "dilation", "count"), [("bam", 4, 2), ("bam[paper]", 4, 2), ("bam[cv-attention]", 2, 3)]
)
def test_dilated_convolutions_keep_the_size(spelled: str, dilation: int, count: int) -> None:
    """A port that pads them by 1 shrinks the map, and works on 7x7 maps only."""
    found = []
    for node in build(spelled, {"hidden": 2}, feature_map(12)).graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("kernel_shape") == [3, 3]:
            found.append((attributes["dilations"], attributes["pads"]))
    assert found == [([dilation] * 2, [dilation] * 4)] * count


def test_the_epsilon_is_that_of_the_spatial_part_only() -> None:
    """Ultralytics changes every BatchNorm2d, and the channel part has a BatchNorm1d."""
    feature = feature_map(12)
    given = random_weights(make_block("bam", {"hidden": 2}), feature)
    one, two = (build("bam", {"hidden": 2, "bn_eps": eps}, feature, weights=given) for eps in (1e-5, 0.5))
    for name, tensor in one.constants.items():
        same = np.array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(two.constants[name]))
        assert same is not any(part in name for part in ("conv_reduce0", "conv_di_")), name


def test_a_map_that_is_not_square() -> None:
    """The published code pools with a window of H x H; the mean here is over the whole map."""
    built = build("bam", {"hidden": 2}, feature_map(12, 5, 16))
    axes = [node for node in built.graph.node if node.op_type == "ReduceMean"]
    assert len(axes) == 1


def test_hidden_width() -> None:
    assert make_block("bam").parameters(feature_map(64))["channel_att.gate_c.gate_c_fc_0.weight"] == (4, 64)
    with pytest.raises(BlockError, match=r"/model\.8 has 8 channels; a reduction of 16 leaves no hidden channel"):
        build("bam", feature=feature_map(8))
    feature = feature_map(24)
    for spelled in ("bam", "bam[cv-attention]"):
        given = random_weights(make_block(spelled, {"hidden": 5}), feature)
        block, _ = fit(make_block(spelled), feature, given)
        assert block.values["hidden"] == 5
