"""A fresh block is also compared with weights drawn at random, since its own hide most of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import graphsurgery as gsx
from graphsurgery.blocks.block import Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.userblocks.inserted import weights_of
from graphsurgery.verification import Report, Row, verify
from tests.graphsurgery.verification.test_insertions import detector
from tests.quantised import fork, quantised

SITE = FeatureMap(64, 12, 12, batch=1)
SETTINGS: dict[str, dict[str, Any]] = {"shuffle": {"groups": 8}}


def cases() -> Iterator[Any]:
    """Every block as it starts; where it can, as an identity (CI: one variant); and behind a closed gate."""
    for name, each in all_blocks().items():
        for i, variant in enumerate(each.variants or (None,)):
            block = each(variant, **SETTINGS.get(name, {}))
            yield pytest.param(block, {}, id=block.spelled)
            with suppress(BlockError):
                block.identity(SITE)
                marks = [pytest.mark.long] if i else []
                yield pytest.param(block, {"init": "identity"}, id=f"{block.spelled}-identity", marks=marks)
            yield pytest.param(block, {"gate": "residual"}, id=f"{block.spelled}-gate", marks=pytest.mark.long)


def made(module: str, dtype: str = "float32", **given: Any) -> ModelFile:
    settings = SETTINGS.get(module, {})
    return gsx.insert(detector(dtype, channels=64), module, after="/model.8", settings=settings, **given)


def drawn(report: Report) -> list[Row]:
    return [row for row in report.insertions[0].rows if row.weights_drawn]


@pytest.mark.parametrize(("block", "given"), list(cases()))
def test_every_block(block: Block, given: dict[str, str]) -> None:
    rows = drawn(verify(made(block.spelled, **given), providers=["cpu"]).require())
    assert bool(rows) is block.has_weights
    assert all(row.comparisons == 1 and row.worst is not None and row.worst.ratio < 0.5 for row in rows)


@pytest.mark.parametrize(
    ("module", "init", "step"),
    [
        ("se", "identity", "ReduceMean"),
        ("cbam", "identity", "Relu"),
        ("gam", "identity", "Relu"),
        ("gc", "default", "Relu"),
        ("srm", "default", "ReduceMean"),
        ("shuffle", "default", "ReduceMean"),
    ],
)
def test_what_fresh_weights_hide_is_seen(module: str, init: str, step: str) -> None:
    """One operator of the block in the file is another one."""
    proto = made(module, init=init).proto()
    (record,) = ModelFile.load(proto).insertions()
    first = next(node for node in proto.graph.node if node.name in record.nodes and node.op_type == step)
    first.op_type = {"ReduceMean": "ReduceMax", "Relu": "Abs"}[step]
    report = verify(ModelFile.load(proto), providers=["cpu"])
    assert not report.passed
    assert {row.verdict for row in drawn(report)} == {"failed"}
    fresh = [row for row in report.insertions[0].rows if not row.weights_drawn and not row.reaching]
    assert {row.verdict for row in fresh} == {"passed"}
    assert any(line.startswith("  cpu, with weights drawn at random: FAILED") for line in report.lines())


def test_a_constant_of_the_file_is_judged() -> None:
    """An epsilon in a branch that a last layer of zeros hides."""
    given = detector("float32", channels=64, opset=13)
    proto = gsx.insert(given, "swin", after="/model.8", init="identity").proto()
    (tensor,) = [each for each in proto.graph.initializer if each.name.endswith("ln_eps")]
    tensor.CopyFrom(numpy_helper.from_array(np.full([1] * 4, 0.1, np.float32), tensor.name))
    report = verify(ModelFile.load(proto), providers=["cpu"])
    assert {row.verdict for row in drawn(report)} == {"failed"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("module", ["se", "gc", "cbam", "nam", "ema"])
def test_other_element_types(module: str, dtype: str) -> None:
    rows = drawn(verify(made(module, dtype), providers=["cpu"]).require())
    assert rows
    assert any(row.comparisons for row in rows)


def test_every_shape_of_a_dynamic_site() -> None:
    model = gsx.insert(detector("float32", None), "gc", after="/model.8")
    assert {row.comparisons for row in drawn(verify(model, providers=["cpu"]).require())} == {3}


def test_a_pair_behind_the_block() -> None:
    """Its constants are none of the block's."""
    before = ModelFile.load(quantised(fork(), "uint8"))
    model = gsx.insert(before, "se", after="model.1", settings={"reduction": 2}, qdq="int8", init="identity")
    assert model.insertions()[0].qdq is not None
    assert drawn(verify(model, providers=["cpu"]).require())


def test_trained_weights_are_compared_as_they_are(tmp_path: Path) -> None:
    model = made("se")
    weights = weights_of(model.insertions()[0], model)
    np.savez(tmp_path / "trained.npz", **weights)
    trained = gsx.insert(detector("float32", channels=64), "se", after="/model.8", weights=tmp_path / "trained.npz")
    assert not drawn(verify(trained, providers=["cpu"]).require())


def test_json_tells_them_apart() -> None:
    rows = verify(made("se"), providers=["cpu"]).to_json()["insertions"][0]["rows"]
    assert [row["weights_drawn"] for row in rows] == [False, False, True, True, False]
