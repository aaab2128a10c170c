"""What is cut out of a model."""

from __future__ import annotations

import graphsurgery as gsx
from graphsurgery.verification.cutout import cut_out, pair_of
from tests.quantised import fork, quantised


def test_a_block_is_cut_out_without_the_pair_after_it() -> None:
    model = gsx.insert(quantised(fork(), "int8"), "simam", after="/model.1", qdq="int8")
    (insertion,) = model.insertions()
    block, pair = cut_out(model, insertion), pair_of(model, insertion)
    assert [node.op_type for node in pair.model.graph.node] == ["QuantizeLinear", "DequantizeLinear"]
    assert (pair.input, pair.output) == (block.output, insertion.output_tensor)
    names = [node.name for part in (block, pair) for node in part.model.graph.node]
    assert sorted(names) == sorted(insertion.nodes)
