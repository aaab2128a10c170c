"""Blocks of other packages, found through the entry-point group."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from graphsurgery import block, catalogue
from graphsurgery.errors import BlockError

BLOCK = """
from graphsurgery.block import Block

class Half(Block):
    name, title, paper, reference, formula, untrained = "{name}", "Half", "none", "none", "y = x / 2", "halves"

    def emit(self, t, lowering):
        return t.mul(t.x, t.scalar(0.5, "half"))

    def module(self, feature):
        raise NotImplementedError
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Install a package next to the catalogue, as far as the registry can see."""
    found = list(catalogue.entry_points(group=block.ENTRY_POINTS))
    monkeypatch.syspath_prepend(tmp_path)
    block.all_blocks.cache_clear()
    block.block_class.cache_clear()

    def add(package: str, text: str) -> None:
        (tmp_path / f"{package}.py").write_text(text)
        found.append(EntryPoint(package, package, block.ENTRY_POINTS))
        monkeypatch.setattr(catalogue, "entry_points", lambda group: found)

    yield add
    block.all_blocks.cache_clear()
    block.block_class.cache_clear()


def test_a_block_of_another_package_is_found(install) -> None:  # type: ignore[no-untyped-def]
    install("their_blocks", BLOCK.format(name="half"))
    assert block.make_block("half").spelled == "half"
    assert set(block.all_blocks()) >= {"ge", "half", "nam", "se", "simam"}


def test_a_package_that_cannot_be_loaded_is_named(install) -> None:  # type: ignore[no-untyped-def]
    install("their_broken_blocks", "import a_package_that_is_not_there")
    with pytest.raises(BlockError, match="'their_broken_blocks' cannot be loaded: No module named 'a_package"):
        block.make_block("simam")


def test_two_blocks_of_one_name_are_an_error(install) -> None:  # type: ignore[no-untyped-def]
    install("their_other_blocks", BLOCK.format(name="se"))
    with pytest.raises(BlockError, match="two installed packages bring a block called 'se'"):
        block.all_blocks()


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("sinam", "simam or nam"),
        ("SimAM", "simam"),
        ("CBAM", "cbam"),
        ("ca", "coordatt"),
        ("CoordinateAttention", "coordatt"),
        ("SELayer", "se"),
        ("ContextBlock", "caa or gc"),
        ("psa", "polarized or psablock"),
        ("SANet", "shuffle"),
        ("BoTNet", "mhsa"),
        ("double_attention", "a2"),
    ],
)
def test_the_nearest_names_by_name_title_and_initials(asked: str, near: str) -> None:
    with pytest.raises(BlockError) as raised:
        block.make_block(asked)
    assert str(raised.value) == f"there is no block {asked!r}; did you mean {near}?"


def test_a_name_like_none_gets_all_names() -> None:
    with pytest.raises(BlockError, match=f"there are {', '.join(block.all_blocks())}"):
        block.make_block("xyz")
