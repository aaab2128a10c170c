"""find: real networks of torchvision, timm, Ultralytics and transformers, as exporters write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
import pytest

from benchmarks.find_networks import NETWORKS, VARIANTS, there
from graphsurgery.find import Found, find
from tests.exports import export
from tests.recognition.randomise import randomise

QUICK = (
    ("cbam-resnet18", "dynamo"),
    ("yolo11n", "simplified"),
    ("resnet18", "torchscript"),
)
OTHER_SIZE = {"skresnet18": {"layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"}}
"""Modules whose map leaves in another size: no places for a block."""


def cases() -> Iterator[object]:
    yield from QUICK
    for network in NETWORKS:
        for variant in VARIANTS:
            if (network, variant) not in QUICK:
                yield pytest.param(network, variant, marks=pytest.mark.long)


def modules(network: str) -> dict[str, str]:
    """Path -> block, of those that can be found."""
    return {path: block for path, block in there(network).items() if path not in OTHER_SIZE.get(network, ())}


def names(found: list[Found]) -> Counter[str]:
    assert all(each.proven and each.block is not None for each in found)
    return Counter(each.block.name for each in found if each.block is not None)


@pytest.mark.parametrize(("network", "variant"), [*cases()])
def test_what_is_there_is_proven_and_nothing_else_is_listed(network: str, variant: str) -> None:
    path = export(network, variant)
    wanted, found = modules(network), find(path)
    assert names(found) == Counter(wanted.values())
    for place in (each.place for each in found):  # the outermost module with just the nodes of the part
        moved = variant == "ort-extended" and place.startswith("tensor:")  # a Transpose without a path comes last
        assert moved or any(f"{module}.".startswith(f"{place}.") for module in wanted)
    assert names(find(randomise(onnx.load(path)).model)) == Counter(wanted.values())
