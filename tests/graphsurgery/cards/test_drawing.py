"""The drawings of the blocks: every operator is a box, every connection a line, and nothing lies on anything else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter

import pytest

import graphsurgery as gsx
from graphsurgery.blocks.registry import catalogue_block
from graphsurgery.cards.facts import Facts
from graphsurgery.cards.listing import in_order_of_demand
from tests.pictures import SVG

NAMES = [kind.name for kind in in_order_of_demand() if kind.__module__.startswith("graphsurgery.patterns.")]


def boxes(picture: str) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The title of each box, and its corners."""
    found = []
    for group in ET.fromstring(picture).iter(f"{SVG}g"):
        rectangle, title = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        assert rectangle is not None
        assert title is not None
        x, y, wide, high = (float(rectangle.attrib[key]) for key in ("x", "y", "width", "height"))
        found.append((title.text or "", (x, y, x + wide, y + high)))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_is_a_box_of_its_own(name: str) -> None:
    graph = Facts(catalogue_block(name)).model.graph
    drawn = boxes(gsx.block(name).as_svg())
    assert Counter(title for title, _ in drawn) == Counter([*(node.op_type for node in graph.node), "x", "y"])
    places = [place for _, place in drawn]
    for i, (left, top, right, bottom) in enumerate(places):
        assert all(
            x1 <= left or right <= x0 or y1 <= top or bottom <= y0
            for j, (x0, y0, x1, y1) in enumerate(places)
            if i != j
        )


@pytest.mark.parametrize("name", ["se", "cbam", "ema", "shsa"])
def test_every_connection_is_a_line(name: str) -> None:
    graph = Facts(catalogue_block(name)).model.graph
    made = {"x", *(output for node in graph.node for output in node.output)}
    connections = sum(len(set(node.input) & made) for node in graph.node) + 1
    assert len(ET.fromstring(gsx.block(name).as_svg()).findall(f"{SVG}path")) == connections


def test_boxes_say_what_they_compute_with_and_what_they_give() -> None:
    picture = ET.fromstring(gsx.block("se").as_svg())
    texts = [[text.text for text in group.iter(f"{SVG}text")] for group in picture.iter(f"{SVG}g")]
    assert ["ReduceMean", "over H, W", "256×1×1"] in texts
    assert ["Conv", "1×1", "fc1", "16×1×1"] in texts


def test_a_variant_is_drawn_as_it_is() -> None:
    assert boxes(gsx.block("ge[theta]").as_svg()) != boxes(gsx.block("ge").as_svg())
