"""Every block that is installed, in every variant and at static sites: TensorRT has nothing to say against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from onnx import TensorProto

import graphsurgery as gsx
from graphsurgery.blocks.block import Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import findings
from graphsurgery.tensorrt.rule import NOTE
from tests.models import model, node, value

VERSIONS = ("8.6", "10", "11")
SITE = (1, 128, 20, 20)  # shuffle attention has 64 groups of two halves
BESIDE: dict[tuple[str, object], dict[str, object]] = {("scsa", "recombination"): {"window_size": 5}}
"""what a choice needs on a map of this size"""


def blocks() -> Iterator[Block]:
    """Each variant of each block as it comes, and with each value of a setting that has a choice of them."""
    for block in all_blocks().values():
        for variant in block.variants or [None]:
            made = block(variant)
            yield made
            for setting in made.settings:
                for choice in setting.choices or () if setting.name in made.values else ():
                    if choice != setting.default:
                        yield block(variant, **{setting.name: choice}, **BESIDE.get((block.name, choice), {}))


def label(block: Block) -> str:
    changed = {
        s.name: block.values[s.name]
        for s in block.settings
        if s.name in block.values and block.values[s.name] != s.default
    }
    return block.spelled + "".join(f" {name}={value}" for name, value in changed.items())


def works_anywhere(block: Block) -> bool:
    """Whether a block can stand where height and width are dynamic: some have a weight for each position."""
    try:
        block.check(FeatureMap(128, None, None))
    except BlockError:
        return False
    return True


BLOCKS = {label(block): block for block in blocks()}


def inserted(block: Block, dtype: str, opset: int, shape: Sequence[int | str] = SITE, **options: Any) -> ModelFile:
    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    nodes = [node("Relu", ["x"], ["t"], "/model.0/Relu"), node("Relu", ["t"], ["y"], "/model.1/Relu")]
    plain = model(nodes, [value("x", shape, kind)], [value("y", shape, kind)], opset=opset)
    settings = {name: v for name, v in block.values.items() if v is not None}
    return gsx.insert(plain, block.spelled, after="tensor:t", settings=settings, **options)


def said(edited: ModelFile, versions: Sequence[str] = VERSIONS) -> dict[str, list[str]]:
    """What is found for inserted nodes, by version; versions with nothing are left out."""
    found = {v: [f for f in findings(edited, v) if f.insertion and f.severity != NOTE] for v in versions}
    return {v: [f"{f.rule} {f.operator}: {f.sentence}" for f in each] for v, each in found.items() if each}


@pytest.mark.parametrize(("dtype", "opset"), [("float32", 13), ("float32", 17), ("float32", 20), ("float16", 17)])
@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_is_found_at_a_static_site(name: str, dtype: str, opset: int) -> None:
    assert said(inserted(BLOCKS[name], dtype, opset)) == {}


@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_is_found_in_bfloat16_where_there_is_any(name: str) -> None:
    assert said(inserted(BLOCKS[name], "bfloat16", 18), ("10", "11")) == {}


@pytest.mark.parametrize("name", [name for name, block in BLOCKS.items() if works_anywhere(block)])
def test_nothing_is_found_at_a_dynamic_site(name: str) -> None:
    assert said(inserted(BLOCKS[name], "float32", 17, ("N", 128, "H", "W"))) == {}


@pytest.mark.long
@pytest.mark.parametrize("name", BLOCKS)
def test_a_gated_block_is_as_good(name: str) -> None:
    assert said(inserted(BLOCKS[name], "float32", 17, gate="residual")) == {}
