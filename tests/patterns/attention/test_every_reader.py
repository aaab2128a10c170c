"""Every block in the hands of every program that reads ONNX files, and the table of docs/readers.md.

Every run takes the programs that are installed with the tests: all blocks in those that are fast, some in the others,
in the form for TensorRT. `make test-all` takes all blocks in the forms of both targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest

from tests.optimisers import optimised
from tests.patterns.attention.readers import READERS, TARGETS, Reader, host, image, table, variants

_STEP = 6
"""of the blocks that a slow reader takes in every run"""
by_name = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


def check(reader: Reader, target: str, blocks: Sequence[str]) -> None:
    """It reads these blocks, but for those that it is said not to read."""
    if not reader.installed:
        pytest.skip(
            f"{reader.package} {' or '.join(filter(None, reader.versions))} is not installed".replace("  ", " ")
        )
    x, left = image(), reader.expected(target)
    errors = {block: reader.error(host(block, target), x) for block in blocks}
    wrong = {block: error for block, error in errors.items() if not error <= reader.within}
    assert set(wrong) == set(left) & set(blocks), wrong


@by_name
def test_the_default_form(reader: Reader) -> None:
    first = READERS.index(reader) % _STEP
    check(reader, "tensorrt", variants()[first::_STEP] if reader.slow else variants())


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
@by_name
def test_every_form(reader: Reader, target: str) -> None:
    check(reader, target, variants())


@pytest.mark.parametrize("tool", ["onnxslim", "onnxsim"])
@pytest.mark.parametrize("block", ["cbam", "cbam[ultralytics]", "bam[paper]", "gc", "lsk", "mhsa"])
def test_optimisers_leave_what_opencv_needs(block: str, tool: str, tmp_path: Path) -> None:
    """They would take a bias that is apart into the convolution, and `verify` would miss the node."""
    made = host(block, "tensorrt")
    onnx.save(made, tmp_path / "made.onnx")
    after = optimised(tool, tmp_path / "made.onnx")
    assert {node.name for node in made.graph.node} <= {node.name for node in after.graph.node}
    opencv = READERS[0]
    assert not opencv.installed or opencv.error(after, image()) <= opencv.within


def test_what_is_not_read_is_a_block() -> None:
    assert {block for reader in READERS for target in TARGETS for block in reader.expected(target)} <= set(variants())


def test_the_table_in_the_documentation() -> None:
    document = Path(__file__).parents[3] / "docs" / "readers.md"
    assert table() in document.read_text(encoding="utf-8")
