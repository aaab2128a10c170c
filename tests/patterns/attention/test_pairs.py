"""Every block with every opset, type, site, target, precision and form, in pairs: what CI runs of all of these.

The whole matrices, in which three and more of them meet, are those of test_templates.py, test_precision.py and
test_dla.py; `make test-all` runs them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import onnx
import pytest

from graphsurgery.request import PRECISIONS, TARGETS
from graphsurgery.userblocks import make_block
from tests.pairwise import Rule, combine
from tests.patterns.attention.evaluators import Evaluator, Stepwise, evaluators
from tests.patterns.attention.harness import (
    BLOCKS,
    DTYPES,
    DYNAMIC,
    DYNAMIC_BATCH,
    HALVES,
    LATER,
    OPSETS,
    STATIC,
    Array,
    Built,
    build,
    feature_map,
    few_inputs,
    label,
    opsets_of,
    possible,
)
from tests.patterns.attention.verdicts import assert_agrees, assert_tensorrt_friendly, assert_types, assert_valid

EVERY = {label(block): block for block in [*BLOCKS, *LATER]}
SITES = {
    "12x13x21": STATIC,
    "3 images": feature_map(16, 20, 20, batch=3),
    "33 channels": feature_map(33, 13, 21),
    "38x46": feature_map(12, 38, 46),
    "point": feature_map(12, 1, 1),
    "row": feature_map(12, 1, 9),
    "column": feature_map(12, 7, 1),
    "2x2": feature_map(12, 2, 2),
    "5x3": feature_map(12, 5, 3),
    "any batch": DYNAMIC_BATCH,
    "any height": feature_map(12, None, 21),
    "any width": feature_map(12, 13, None),
    "any size": DYNAMIC,
}
MOST_FORMS = 6
"""The largest number of lowerings that a block has at one site."""
CHOSEN = "chosen"
FORMS = (CHOSEN, *range(MOST_FORMS))
"""The lowering that is chosen for the target, or the one of that number, counted round where there are fewer."""


@cache
def can_stand(block: str, site: str, opset: int) -> bool:
    return possible(EVERY[block], SITES[site], opset)


RULES = (
    Rule(("dtype", "opset"), lambda dtype, opset: opset in opsets_of(dtype)),
    Rule(("block", "site", "opset"), can_stand),
    Rule(("block", "site"), lambda block, site: can_stand(block, site, OPSETS[-1])),
)
CASES = combine(
    {
        "block": list(EVERY),
        "opset": OPSETS,
        "site": list(SITES),
        "form": FORMS,
        "dtype": DTYPES,
        "precision": PRECISIONS,
        "target": TARGETS,
    },
    RULES,
)


def placed(case: dict[str, object]) -> Built:
    """The block of a case, built."""
    block, opset, dtype = EVERY[case["block"]], case["opset"], case["dtype"]
    feature = replace(SITES[case["site"]], dtype=dtype)
    lowering = None
    if case["form"] != CHOSEN:
        lowerings = make_block(*block).lowerings(feature, opset)
        lowering = lowerings[case["form"] % len(lowerings)]
    return build(*block, feature, opset=opset, lowering=lowering, target=case["target"], precision=case["precision"])


def in_float32(run: Evaluator, x: Array) -> Array:
    return run(x.astype("float32"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_in_pairs(case: dict[str, object]) -> None:
    """Valid, of the right types, fit for TensorRT where it is written for it, and the function of the module."""
    built = placed(case)
    island = case["precision"] == "fp16" and built.feature.dtype == "float32"
    if not island:
        assert_types(built)
    if built.subgraph.warnings:
        assert built.feature.dtype == "bfloat16"
        with pytest.raises(onnx.shape_inference.InferenceError):
            assert_valid(built)
    else:
        assert_valid(built)
    if case["target"] == "tensorrt" and case["form"] == CHOSEN and built.feature.dtype != "float64":
        assert_tensorrt_friendly(built)
    runs = evaluators(built)
    if island:  # a block in float16 between two Casts: inputs and tolerances are those of float16
        built = replace(built, feature=replace(built.feature, dtype="float16"))
        runs = [partial(in_float32, run) for run in runs]
    # over large maps, sums of random weights times 20 lose more digits than the tolerance has, in whatever order
    large = built.feature.static and built.feature.area > 1000
    tried = [case for case in few_inputs(built.feature) if not (large and case[0] == "magnitude 20")]
    if built.feature.dtype in HALVES:
        assert_agrees(built, Stepwise(built.model), tried, rounded=True, what="rounded after every node:")
    for run in runs:
        assert_agrees(built, run, tried)


def test_no_block_has_more_forms() -> None:
    def forms(block: str, site: str, opset: int) -> int:
        return len(make_block(*EVERY[block]).lowerings(SITES[site], opset)) if can_stand(block, site, opset) else 0

    assert max(forms(block, site, opset) for block in EVERY for site in SITES for opset in OPSETS) == MOST_FORMS
