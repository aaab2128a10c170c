"""Whole models with every block of the catalogue where people put blocks: behind a stage of the backbone, in the neck,
and inside of a Bottleneck or HGBlock.

Every run puts each variant of each block into one yolov8n. `make test-all` does so in each of three models, compares
all of them, and takes each block by itself at each place.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pytest

from graphsurgery.api import carry_out
from graphsurgery.errors import BlockError
from graphsurgery.request import Request
from graphsurgery.selection.sites import SiteFinder
from tests.test_every_site import advisable, catalogue, check, fits, original

PLACES = {
    "yolov8n": ("role:p5", "C2f[-1]", "Bottleneck[-1].cv2"),
    "yolo11n": ("role:p5", "C3k2[-1]", "Bottleneck[-1].cv2"),
    "rtdetr-l": ("role:p5", "RepC3[-1]", "HGBlock[-1].ec"),
}
SMALL_MAPS = (
    *("/model.5", "/model.6", "/model.7", "/model.8", "/model.9"),
    *("/model.12", "/model.16", "/model.18", "/model.19", "/model.21"),
    *("C2f[2].m.0.cv2", "C2f[2].m.1.cv2", "C2f[3].m.0.cv2", "C2f[4].m.0.cv2", "C2f[6].m.0.cv2", "C2f[7].m.0.cv2"),
)
"""of yolov8n: stages of the backbone, modules of the neck, residual branches; 20 x 20 and 40 x 40 in turn"""


LIGHTER: dict[str, dict[str, object]] = {
    "gam[listing]": {"reduction": 16},
    "gam[cv-attention]": {"reduction": 16},
    "sk[external-attention]": {"groups": 32},
}
"""What would have more than 100 million weights at the 2048 channels of rtdetr-l."""

LARGEST = 400 * 256
"""values of a map; larger ones cost more time than they can show here"""


def settings_of(block: str, name: str) -> dict[str, object]:
    return LIGHTER.get(block, {}) if name == "rtdetr-l" else {}


def small_maps(name: str) -> Sequence[str]:
    """As many places as yolov8n has here, spread over the advisable ones of small size."""
    if name == "yolov8n":
        return SMALL_MAPS
    maps = [(site.tensor, site.feature) for site in advisable(name)]
    tensors = [tensor for tensor, map_ in maps if map_.area * map_.channels <= LARGEST]
    return [f"tensor:{tensors[index * len(tensors) // len(SMALL_MAPS)]}" for index in range(len(SMALL_MAPS))]


def every_block(name: str) -> list[Request]:
    """Neighbours of the catalogue at different places, so that no signal passes a row of blocks of one kind."""
    finder = SiteFinder(original(name))
    sites = {place: finder.find([place])[0] for place in small_maps(name)}
    places = cycle(sites)
    requests = [
        Request(block, (next(place for place in places if fits(block, sites[place])),), settings_of(block, name))
        for block in catalogue()
    ]
    assert len({place for request in requests for place in request.after}) == len(sites)
    return requests


@pytest.mark.parametrize(
    ("name", "parity"), [("yolov8n", False), *(pytest.param(name, True, marks=pytest.mark.long) for name in PLACES)]
)
def test_every_block_in_one_model(name: str, parity: bool, tmp_path: Path) -> None:
    check(name, every_block(name), tmp_path, parity=parity)


@pytest.mark.long
@pytest.mark.parametrize("block", catalogue())
@pytest.mark.parametrize(("name", "place"), [(name, place) for name, places in PLACES.items() for place in places])
def test_each_block_by_itself(name: str, place: str, block: str, tmp_path: Path) -> None:
    request = Request(block, (place,), settings_of(block, name))
    if fits(block, SiteFinder(original(name)).find([place])[0]):
        check(name, [request], tmp_path)
        return
    with pytest.raises(BlockError):  # shuffle's 64 groups of two halves at 64 channels
        carry_out(original(name), [request])
