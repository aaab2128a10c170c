"""Blocks at every advisable site of real detectors, one at a time and all at once.

Every run takes the sites of yolov8n on maps of moderate size, each with the next block of the catalogue. `make
test-all` takes all sites of all models, and the four blocks that are asked for most at each of them, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graphsurgery as gsx
from graphsurgery.api import carry_out
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.errors import BlockError, SiteError
from graphsurgery.request import Request
from graphsurgery.selection.sites import Site, SiteFinder
from graphsurgery.userblocks import make_block
from tests.exports import export
from tests.recognition.test_recovery import MUST

VARIANT = "simplified"
ASKED_FOR_MOST: dict[str, dict[str, object]] = {"simam": {}, "se": {"reduction": 4}, "ge": {}, "nam": {}}
"""With settings that leave hidden channels where there are eight."""
MOST_POSITIONS = 1600
"""attention between all positions of a larger map needs gigabytes"""
PAIRWISE = ("mhsa", "aifi", "psablock", "swin")


@cache
def original(name: str) -> gsx.ModelFile:
    return gsx.ModelFile.load(export(name, VARIANT))


@cache
def advisable(name: str) -> tuple[Site, ...]:
    """Every place that `graphsurgery sites --all` calls advisable, those inside of blocks included."""
    finder = SiteFinder(original(name))
    tensors = dict.fromkeys(block.output for block in finder.blocks.everything() if block.role != "head")
    good = [tensor for tensor in tensors if finder.adviser.advice(tensor) is None]
    return tuple(site for tensor in good for site in finder.find([f"tensor:{tensor}"]))


@cache
def catalogue() -> tuple[str, ...]:
    """Every block in each of its variants."""
    return tuple(f"{name}[{v}]" if v else name for name, block in all_blocks().items() for v in block.variants or [""])


def fits(spelled: str, site: Site) -> bool:
    if spelled.partition("[")[0] in PAIRWISE and site.feature.static and site.feature.area > MOST_POSITIONS:
        return False
    try:
        make_block(spelled).check(site.feature)
    except BlockError:
        return False
    return True


def round_robin(name: str) -> Iterator[Request]:
    """Every site with a block, the next one of the catalogue that can stand there."""
    blocks = cycle(catalogue())
    for site in advisable(name):
        spelled = next(block for block in blocks if fits(block, site))
        yield Request(spelled, (f"tensor:{site.tensor}",))


def check(name: str, requests: list[Request], folder: Path, *, parity: bool = True) -> None:
    """Inserted: valid, runs, agrees with PyTorch; taken out: the bytes of the original.

    ``parity``: whether every block is compared, which takes seconds each.
    """
    before = original(name)
    edited, done = carry_out(before, requests)
    assert len(done) == len(requests)
    path = edited.save(folder / "edited.onnx", force=True)
    onnx.checker.check_model(path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    found = session.run(None, {image.name: np.random.default_rng(3).random(image.shape).astype(np.float32)})
    assert [list(output.shape) for output in found] == [output.shape for output in session.get_outputs()]
    assert all(np.isfinite(output).all() for output in found)
    if parity:
        gsx.verify(edited, seeds=1).require()
    assert gsx.remove(edited).to_bytes() == export(name, VARIANT).read_bytes()


@pytest.mark.parametrize("name", MUST)
def test_there_are_advisable_sites(name: str) -> None:
    tensors = [site.tensor for site in advisable(name)]
    assert len(tensors) == len(set(tensors)) > 15


def small(name: str) -> list[Request]:
    """Those on maps of moderate size: a comparison of large ones takes a minute each on two cores."""
    moderate = {f"tensor:{site.tensor}" for site in advisable(name) if site.feature.area <= MOST_POSITIONS}
    return [request for request in round_robin(name) if moderate.issuperset(request.after)]


@pytest.mark.parametrize("parity", [False, pytest.param(True, marks=pytest.mark.long)])
def test_all_moderate_sites_at_once(parity: bool, tmp_path: Path) -> None:
    check("yolov8n", small("yolov8n"), tmp_path, parity=parity)


@pytest.mark.parametrize("place", range(0, 40, 4))
def test_one_at_a_time(place: int, tmp_path: Path) -> None:
    requests = small("yolov8n")
    check("yolov8n", [requests[place % len(requests)]], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", MUST)
def test_all_sites_at_once(name: str, tmp_path: Path) -> None:
    check(name, list(round_robin(name)), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("block", ASKED_FOR_MOST)
@pytest.mark.parametrize("name", MUST)
def test_each_at_every_site(name: str, block: str, tmp_path: Path) -> None:
    failed = []
    for site in advisable(name):
        try:
            check(name, [Request(block, (f"tensor:{site.tensor}",), settings=ASKED_FOR_MOST[block])], tmp_path)
        except (AssertionError, gsx.errors.GraphSurgeryError) as error:
            failed.append(f"{site.label}: {error}")
    assert not failed, "\n".join(failed)


def test_what_is_not_advisable_is_still_possible_with_a_warning() -> None:
    finder = SiteFinder(original("yolov8n"))
    conv = finder.blocks.of_type("Conv")[0]
    inside = next(name for p in conv.nodes for name in finder.index.nodes[p].output if name != conv.output)
    (site,) = finder.find([f"tensor:{inside}"])
    assert site.warnings
    assert finder.adviser.advice(inside) is not None


def test_the_decoding_arithmetic_is_no_site() -> None:
    finder = SiteFinder(original("yolov8n"))
    output = next(iter(finder.index.outputs))
    with pytest.raises(SiteError):
        finder.find([f"tensor:{output}"])
