"""Insertions for a DLA and in each precision: what is recorded, what is said, and that it can be undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import graphsurgery as gsx
from graphsurgery.api import carry_out
from graphsurgery.errors import BlockError, RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from graphsurgery.tensorrt import findings
from graphsurgery.tensorrt.precision import inserted_types
from tests.graphsurgery.tensorrt.test_blocks import BLOCKS, inserted, works_anywhere
from tests.models import detector, model, node, value

STATISTICS = {
    "Exp",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "ReduceL2",
    "ReduceSum",
    "ReduceSumSquare",
    "Softmax",
    "Sqrt",
}


def plain(shape: tuple[int | str, ...] = (1, 64, 20, 20), kind: int = TensorProto.FLOAT) -> ModelFile:
    nodes = [node("Relu", ["x"], ["t"], "/model.0/Relu"), node("Relu", ["t"], ["y"], "/model.1/Relu")]
    return ModelFile.load(model(nodes, [value("x", shape, kind)], [value("y", shape, kind)], opset=17))


def for_dla(module: str, before: ModelFile, **options: Any) -> tuple[ModelFile, list[str]]:
    """The model, and what was said of it that has to do with a DLA."""
    after, (done,) = carry_out(before, [Request(module, ("tensor:t",), target="dla", **options)])
    return after, [warning for warning in done.warnings if "GPU" in warning]


def test_what_stays_is_recorded_verified_and_taken_out_again() -> None:
    before = plain()
    after, warnings = for_dla("simam", before)
    assert warnings == []
    (insertion,) = after.insertions()
    assert (insertion.target, insertion.lowering, insertion.precision) == ("dla", "scaled-mean", "safe")
    found = findings(after, "10", dla="orin", precision="fp16")
    assert [f for f in found if f.insertion] == []
    assert gsx.verify(after, providers=["cpu"], seeds=1).passed
    assert gsx.remove(after).to_bytes() == before.to_bytes()


def test_what_falls_back_is_said_once() -> None:
    after, warnings = for_dla("srm", plain())
    assert warnings == ["1 node falls back from the DLA to the GPU, with a change of format each way: Sqrt"]
    found = findings(after, "10", dla="orin", precision="fp16")
    assert [f.operator for f in found if f.insertion] == ["Sqrt"]


def test_a_dynamic_batch_keeps_all_of_it_away() -> None:
    _, warnings = for_dla("se", plain(("N", 64, 20, 20)))
    reason = "the site has dynamic sizes, with which nothing runs on a DLA"
    assert warnings == [f"the whole block falls back to the GPU: {reason}"]


def test_float32_keeps_all_of_it_away_where_it_was_asked_for() -> None:
    half = plain(kind=TensorProto.FLOAT16)
    assert for_dla("se", half, precision="fp32")[1] == [
        "the whole block falls back to the GPU: a DLA does not compute in float32"
    ]
    assert for_dla("se", half)[1] == for_dla("se", plain(), precision="fp32")[1] == []


def test_other_targets_say_nothing_of_it() -> None:
    _, (done,) = carry_out(plain(), [Request("srm", ("tensor:t",))])
    assert not any("DLA" in warning for warning in done.warnings)


# ---------------------------------------------------------------------- precision


def test_an_unknown_precision_or_target_is_refused() -> None:
    with pytest.raises(RequestError, match="there is no precision 'int4'; it is one of safe, site, fp32, fp16"):
        gsx.insert(detector(), "se", after="/model.2", precision="int4")
    with pytest.raises(BlockError, match="there is no target 'npu'; it is one of tensorrt, onnxruntime, dla"):
        gsx.insert(detector(), "simam", after="/model.2", target="npu")


@pytest.mark.parametrize("precision", ["safe", "site", "fp32"])
def test_in_half_precision_it_is_verified_and_taken_out_again(precision: str) -> None:
    before = ModelFile.load(detector(dtype=np.float16))
    after = gsx.insert(before, "simam", after="/model.1", precision=precision)
    assert after.insertions()[0].precision == precision
    assert gsx.verify(after, providers=["cpu"], seeds=1).passed
    assert gsx.remove(after).to_bytes() == before.to_bytes()


def test_a_recipe_says_it_too() -> None:
    recipe = gsx.Recipe.from_text("- {module: simam, after: /model.1, precision: fp32, target: dla}")
    (insertion,) = recipe.apply(detector(dtype=np.float16)).insertions()
    assert (insertion.precision, insertion.target) == ("fp32", "dla")


def test_records_from_before_there_was_a_choice_are_read() -> None:
    proto = gsx.insert(detector(), "simam", after="/model.1").proto()
    for entry in proto.metadata_props:
        entry.value = entry.value.replace(',"precision":"safe"', "")
    assert ModelFile.load(proto).insertions()[0].precision == "site"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", BLOCKS)
def test_statistics_run_in_float32_by_default(name: str, dtype: str) -> None:
    """And `tensorrt precision` lists them; outside of the islands nothing is a statistic that has to be kept."""
    types = inserted_types(inserted(BLOCKS[name], dtype, 22))
    narrow = {each.operator for each in types if each.runs_in == dtype}
    assert not narrow & STATISTICS
    assert {each.runs_in for each in types} <= {dtype, "float32", "int64"}
    wide = [each for each in types if each.runs_in == "float32" and each.operator != "Cast"]
    assert all(each.float32 for each in wide)


@pytest.mark.parametrize("name", ["simam", "sge", "srm", "gc[official]", "lct"])
def test_all_of_a_block_in_float32_is_listed(name: str) -> None:
    types = inserted_types(inserted(BLOCKS[name], "float16", 17, precision="fp32"))
    assert [each.operator for each in types if not each.float32] == ["Cast", "Cast"]
    assert [(types[0].runs_in, types[0].gives), (types[-1].runs_in, types[-1].gives)] == [
        ("float16", "float32"),
        ("float32", "float16"),
    ]


@pytest.mark.long
@pytest.mark.parametrize("precision", ["site", "fp32"])
@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_is_found_in_the_other_precisions(name: str, precision: str) -> None:
    for version in ("8.6", "10", "11"):
        edited = inserted(BLOCKS[name], "float16", 17, precision=precision)
        assert [f.sentence for f in findings(edited, version) if f.insertion and f.severity == "error"] == []


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, block in BLOCKS.items() if works_anywhere(block)])
def test_a_dla_template_at_a_dynamic_site_is_taken(name: str) -> None:
    edited = inserted(BLOCKS[name], "float32", 17, ("N", 128, "H", "W"), target="dla")
    assert [f.sentence for f in findings(edited, "10") if f.insertion and f.severity == "error"] == []
