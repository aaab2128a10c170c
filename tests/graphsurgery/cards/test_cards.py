"""The table and the cards of the blocks, and docs/blocks.md, which is made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import pytest
import torch

from graphsurgery.blocks.block import Array, Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.cards import cards, known
from graphsurgery.cards.facts import Facts
from graphsurgery.cards.listing import short_paper
from graphsurgery.errors import BlockError, as_flag
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template
from graphsurgery.userblocks import make_block

ROOT = Path(__file__).parents[3]
FACTS = ROOT / "patterns" / "attention" / "facts.json"
DOCUMENT = ROOT / "docs" / "blocks.md"


class Demanding(Block):
    """Overflows float16, has no identity, works at static sizes only, and uses what no DLA has."""

    name, title, paper, reference = "demanding", "Demanding", "On demands, ABC 2020, arXiv:2001.00001", "none"
    formula, untrained = "y = x", "does nothing"

    def check(self, feature: FeatureMap) -> None:
        if not feature.static:
            raise BlockError("needs a static site")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return {"w": (feature.area, 3)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return {"w": np.ones((feature.area, 3))}

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        large = t.scalar(6e4, "large")
        return t.div(t.mul(t.op("Mod", t.x, t.scalar(1e4, "modulus"), fmod=1), large), large)

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        raise NotImplementedError


def test_facts_are_found_out() -> None:
    facts = Facts(Demanding())
    assert (facts.parameters, facts.nodes) == (1200, 3)
    assert (facts.identity, facts.static, facts.half) == (False, True, False)
    assert facts.tensorrt("10", "orin") is False
    facts = Facts(make_block("se"))
    assert (facts.parameters, facts.nodes) == (2 * 256 * 16 + 256 + 16, 6)
    assert (facts.identity, facts.static, facts.half) == (True, False, True)
    assert [facts.tensorrt(version) for version in ("8.6", "10", "11")] == [True, True, True]
    assert Facts(make_block("nam[channel+spatial]")).static


def test_rows_have_a_cell_for_each_header() -> None:
    (row,) = cards.table([type(make_block("se"))])
    assert dict(zip(cards.HEADERS, row, strict=True)) | {"DLA": ""} == {
        "block": "se",
        "paper": "arXiv:1709.01507",
        "parameters": "8,464",
        "MACs": "8.19k",
        "largest": "0.00102",
        "nodes": "6",
        "identity": "yes",
        "static": "no",
        "float16": "yes",
        "TensorRT 8.6": "yes",
        "10": "yes",
        "11": "yes",
        "DLA": "",
    }


@pytest.mark.parametrize(
    ("paper", "short"),
    [("A, B 2020, arXiv:2001.00001", "arXiv:2001.00001"), ("A: b, ICML 2021", "ICML 2021"), ("none", "none")],
)
def test_papers_in_short(paper: str, short: str) -> None:
    assert short_paper(paper) == short


def test_a_card_of_one_variant() -> None:
    card = cards.Card("ge[theta]")
    assert list(card.to_json()["facts"]) == ["ge[theta]"]
    assert "ge[theta] at 256 x 20 x 20" in list(card.lines())
    assert not any(line.startswith("ge[theta-plus] at") for line in card.lines())


def test_a_card_is_no_wider_than_a_page() -> None:
    lines = list(cards.Card("lsk").lines())
    start = next(i for i, line in enumerate(lines) if line.startswith("  formula    a = conv0(x), "))
    assert lines[start + 1].startswith("             channels of a'")
    assert lines[start + 2] == "             unit: y = x * conv(a' s0 + b' s1)"
    assert max(map(len, lines)) <= cards.WIDTH


def test_neighbouring_keys_of_one_shape_are_one_entry() -> None:
    weights = {"bn.weight": (4,), "bn.bias": (4,), "fc.weight": (4, 2), "fc.bias": (4,), "w": (4,), "b": (4,), "x": ()}
    assert list(cards.grouped(weights)) == [
        ("bn.{weight,bias}", (4,)),
        ("fc.weight", (4, 2)),
        ("fc.bias", (4,)),
        ("w, b", (4,)),
        ("x", ()),
    ]


def test_a_section_of_the_page() -> None:
    section = list(cards.Card("ge[theta-plus]").markdown())
    assert section[0] == "## ge: Gather-Excite"
    hidden = "- `--set hidden=` (whole number, at least 1, only theta-plus, timm, not set): hidden channels, else C/16"
    assert hidden in section
    assert "- Untrained: theta-minus: times sigmoid of the local mean; the others: halves its input." in section


def test_what_is_written_down_is_what_a_trial_gives() -> None:
    command = "python -m graphsurgery.cards patterns/attention/facts.json"
    assert known.document(FACTS.parent) == FACTS.read_text(encoding="utf-8"), f"run: {command}"


def test_a_block_that_is_not_written_down_is_tried() -> None:
    block = Demanding()
    assert known.facts(block) == Facts(block).to_json()


def test_the_page_of_the_blocks_is_current() -> None:
    text = "".join(f"{line}\n" for line in cards.document())
    assert text == DOCUMENT.read_text(encoding="utf-8"), "run: python -m graphsurgery.cards > docs/blocks.md"


def test_a_card_reads_well_in_a_shell_and_a_notebook() -> None:
    card = cards.block("ge")
    assert repr(card) == "<Card of ge: Gather-Excite>"
    assert "hyper-parameters, for settings=" in str(card).splitlines()
    assert "hyper-parameters, for --set" in list(card.lines(as_flag))
    assert card._repr_html_().count("<tr>") == 1 + len(card.to_json()["variants"])
    with pytest.raises(BlockError, match="no block"):
        cards.block("nonsense")


def test_every_block_has_a_card() -> None:
    assert {card.name for card in cards.blocks()} == set(all_blocks())
