"""Every block of a real model is found when all of its names are gone, and none is invented."""

from __future__ import annotations

import pytest

from tests.exports import DERIVED, MORE, NAMES, RAW, VARIANTS, ZOO, ZOO_VARIANTS
from tests.exports.dialects import DIALECTS
from tests.recognition.families.recovered import MODELS
from tests.recognition.recovery import family_recovery, recovery

MUST = (
    "yolov5n",
    "yolov8n",
    "yolo11n",
    "yolo12n",
    "yolo26n",
    "rtdetr-l",
    "rtdetr-r18",
    "yolox-tiny",
    "mobilenet_v3_large",
)
"""compared in every run; the rest in `make test-all`"""
OF_YOLOV8N = ("torchscript", "dynamo", "dynamo-raw", *DERIVED, *DIALECTS)
ALWAYS = [*((name, "simplified") for name in MUST), *(("yolov8n", variant) for variant in OF_YOLOV8N)]
EVERY = [
    *((name, variant) for name in (*NAMES, *MORE) for variant in (*VARIANTS, *RAW, *DERIVED, *DIALECTS)),
    *((name, variant) for name in ZOO for variant in (*ZOO_VARIANTS, *DERIVED)),
]
LONG = [pytest.param(*pair, marks=pytest.mark.long) for pair in EVERY if pair not in ALWAYS]
FAMILIES = ("mobilenet-v3-linear-gate", "hgnetv2-affine", "rtmdet-nano")
"""compared in every run: small ones, each with what no other has"""


@pytest.mark.parametrize(("name", "variant"), [*ALWAYS, *LONG])
def test_every_block_is_found_and_none_invented(name: str, variant: str) -> None:
    result = recovery(name, variant)
    print(result.line)
    assert result.true.total() > 0
    assert not result.missing, result.missing
    assert not result.invented, result.invented


def test_names_only_label_what_is_found() -> None:
    with_names, without = recovery("yolov8n", randomised=False), recovery("yolov8n")
    kinds = [sorted(kind for kind, _ in each.found.elements()) for each in (with_names, without)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    "name", [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.long) for name in MODELS]
)
def test_nine_of_ten_blocks_of_other_families_are_found_and_none_invented(name: str) -> None:
    result = family_recovery(name)
    print(result.line)
    assert len(result.missing) * 10 <= result.true.total(), result.missing
    assert not result.invented, result.invented
