"""Every block as it is written for a DLA: the same function, and on it as far as its sizes allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphsurgery.blocks.registry import all_blocks
from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import findings
from graphsurgery.tensorrt.fallback import to_the_gpu
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Evaluator, Stepwise, evaluators
from tests.patterns.attention.harness import (
    BLOCKS,
    LATER,
    Built,
    Named,
    build,
    feature_map,
    few_inputs,
    is_heavy,
    label,
    possible,
)
from tests.patterns.attention.test_precision import one_of_each
from tests.patterns.attention.verdicts import assert_agrees, assert_types, assert_valid

DOCUMENT = Path(__file__).parents[3] / "docs" / "tensorrt.md"


def fallen(built: Built) -> list[str]:
    """The operators that go to the GPU, by the check."""
    found = findings(ModelFile.load(built.model), "10", dla="orin", precision="fp16")
    return list(dict.fromkeys(str(f.operator) for f in found if f.rule.startswith("dla-")))


def check(block: Named, dtype: str, size: tuple[int, int], opset: int = 17) -> None:
    feature = feature_map(12, *size, dtype)
    if not possible(block, feature, opset):
        return
    # over large maps, sums of random weights times 20 lose more digits than the tolerance has, in whatever order
    tried = [case for case in few_inputs(feature) if feature.area < 1000 or case[0] != "magnitude 20"]
    for lowering in (None, *make_block(*block).lowerings(feature, opset)):
        built = build(*block, feature, opset=opset, target="dla", lowering=lowering)
        assert_types(built)
        assert_valid(built)
        half = dtype == "float16"
        runs: list[Evaluator] = [*evaluators(built), *([Stepwise(built.model)] if half else [])]
        for run in runs:
            assert_agrees(built, run, tried, rounded=half)
        if lowering is None and not fallen(built):
            assert not {"ReduceMean", "HardSigmoid", "Erf"} & set(built.operators)


@one_of_each
def test_numbers_and_validity(block: Named) -> None:
    check(block, "float32", (13, 20))
    check(block, "float16", (8, 12), 22)


@pytest.mark.long
@pytest.mark.parametrize("opset", [9, 13, 18, 22])
@pytest.mark.parametrize("size", [(20, 20), (80, 80), (13, 21), (38, 46), (1, 9), (5, 3)])
@pytest.mark.parametrize("block", [*BLOCKS, *LATER], ids=label)
def test_numbers_and_validity_everywhere(block: Named, size: tuple[int, int], opset: int) -> None:
    if size == (80, 80) and is_heavy(block):
        size = (40, 40)
    for dtype in ("float32", "float16", "float64"):
        check(block, dtype, size, opset)


@pytest.mark.parametrize("size", [(20, 20), (40, 40), (80, 80), (24, 40), (13, 21), (37, 38)])
@pytest.mark.parametrize(
    "spelled",
    ["se", "ese", "eca", "eca[timm-ceca]", "nam", "nam[channel+spatial]", "ge", "ge[theta]", "ge[theta-plus]",
     "coordatt", "coordatt[timm]", "simam"],
)  # fmt: skip
def test_all_of_it_stays_on_a_dla(spelled: str, size: tuple[int, int]) -> None:
    for dtype in ("float32", "float16"):
        assert fallen(build(spelled, {}, feature_map(64, *size, dtype), target="dla")) == []


@pytest.mark.parametrize("extent", [2, 4, 8])
@pytest.mark.parametrize("spelled", ["ge", "ge[theta]", "ge[theta-plus]"])
def test_a_resize_stays_where_its_factor_is_whole(spelled: str, extent: int) -> None:
    settings = {"extent": extent}
    for side in (40, 80):
        assert fallen(build(spelled, settings, feature_map(16, side, side), target="dla")) == []
    assert fallen(build(spelled, settings, feature_map(16, 23, 23), target="dla")) == ["Resize"]


@one_of_each
def test_the_sentence_names_what_falls_back(block: Named) -> None:
    feature = feature_map(12, 20, 20)
    built = build(*block, feature, target="dla")
    said = to_the_gpu(built.subgraph, "x", feature, opset=17, ir_version=8)
    operators = fallen(built)
    assert (said is None) == (operators == [])
    if said is not None:
        assert said.endswith(f"to the GPU, with a change of format each way: {', '.join(operators)}")


def test_dynamic_sizes_and_float32_fall_back_as_a_whole() -> None:
    dynamic = feature_map(64, 20, None)
    said = to_the_gpu(build("se", {}, dynamic, target="dla").subgraph, "x", dynamic, opset=17, ir_version=8)
    assert said == "the whole block falls back to the GPU: the site has dynamic sizes, with which nothing runs on a DLA"
    half = feature_map(64, 20, 20, "float16")
    subgraph = build("se", {}, half, target="dla", precision="fp32").subgraph
    said = to_the_gpu(subgraph, "x", half, opset=17, ir_version=8, float32=True)
    assert said == "the whole block falls back to the GPU: a DLA does not compute in float32"


def test_the_table_in_the_documentation() -> None:
    """Every block as it comes on 128 x 20 x 20."""
    feature, rows = FeatureMap(128, 20, 20, batch=1), dict[str, list[str]]()
    for name, kind in all_blocks().items():
        for variant in kind.variants or [None]:
            spelled = f"{name}[{variant}]" if variant else name
            built = build(spelled, {}, feature, target="dla", weights=make_block(spelled).initial(feature, _rng()))
            rows.setdefault(", ".join(sorted(fallen(built))) or "nothing", []).append(spelled)
    in_order = sorted(rows.items(), key=lambda row: (row[0] != "nothing", row[0]))
    table = "\n".join(f"| {operators} | {', '.join(blocks)} |" for operators, blocks in in_order)
    assert table in DOCUMENT.read_text(), table


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
