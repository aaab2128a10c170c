"""What of a block that was written for a DLA goes to the GPU all the same, by the rules of the check."""

from __future__ import annotations

from ..feature_map import FeatureMap
from ..modelfile.model import ModelFile
from ..template.subgraph import Subgraph
from ..template.writer import HALVES
from .check import findings

DLA, VERSION = "orin", "10"
"""What blocks are written for. Tables of DLAs differ little; 10 is what Jetson Orin runs with JetPack 6."""


def to_the_gpu(
    emitted: Subgraph, x: str, feature: FeatureMap, *, opset: int, ir_version: int, float32: bool = False
) -> str | None:
    """One sentence that names the operators of a block behind the tensor ``x`` that no DLA runs; None for none.

    ``float32``: whether the block is to be computed in float32, whatever the type of its site.
    """
    model = ModelFile.load(emitted.as_model(x, feature, opset=opset, ir_version=ir_version))
    precision = "fp32" if float32 and feature.dtype in HALVES else "fp16"
    found = [f for f in findings(model, VERSION, dla=DLA, precision=precision) if f.rule.startswith("dla-")]
    for rule, reason in (
        ("dla-dynamic", "the site has dynamic sizes, with which nothing runs on a DLA"),
        ("dla-precision", "a DLA does not compute in float32"),
    ):
        if any(finding.rule == rule for finding in found):
            return f"the whole block falls back to the GPU: {reason}"
    operators = list(dict.fromkeys(f.operator for f in found if f.operator))
    if not operators:
        return None
    count = len({finding.node for finding in found})
    nodes = "1 node falls" if count == 1 else f"{count} nodes fall"
    return f"{nodes} back from the DLA to the GPU, with a change of format each way: {', '.join(operators)}"
