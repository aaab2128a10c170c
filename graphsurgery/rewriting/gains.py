"""Whether a block's template gains anything over the form that an exporter gave it.

onnxruntime: how much faster the template is was measured for each block, in each of the forms that its module is
published in and written by exporters, at several sizes of map, on one core of a CPU (gains.json beside the blocks,
which benchmarks/gains.py writes from the measurements in benchmarks/results). The nearest form and size count.

TensorRT and a DLA fuse what they can, so that there only a form with fewer operators, or without something that is
known to be bad, is a gain.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, cast

from ..blocks.block import Block
from ..feature_map import FeatureMap

LEAST = 1.03
"""times as fast: less is not told from noise"""
_FILE = "gains.json"
_OF_A_DLA = "[dla"
"""what the findings of the rules for a DLA begin with"""


def nothing_gained(
    block: Block, feature: FeatureMap, target: str, before: Sequence[str], after: Sequence[str], findings: Sequence[str]
) -> str:
    """Why a part is better left as it is, as a sentence without a capital; "" where the template gains something.

    Parameters
    ----------
    block, feature:
        The block, and the map that it is put on.
    target:
        The runtime that it is written for.
    before, after:
        The operators of the part, and of the template.
    findings:
        What is bad about the part's form.
    """
    if sorted(before) == sorted(after) and not findings:
        return "it has the same operators as the template"
    if target == "onnxruntime" and (measured := measured_gain(block, feature, before)) is not None:
        size, times = measured
        return (
            "" if times >= LEAST else f"the template is no faster there: {times:.2f} times as fast, measured at {size}"
        )
    if findings or len(after) < len(before):
        return ""
    return f"the template has {len(after)} operators, and the part has {len(before)}, with nothing bad in its form"


def bad_for(target: str, findings: Sequence[str]) -> list[str]:
    """Those of the findings about a form that count for a target: what falls back from a DLA does so only there."""
    return [each for each in findings if target == "dla" or not each.startswith(_OF_A_DLA)]


def measured_gain(block: Block, feature: FeatureMap, operators: Sequence[str]) -> tuple[str, float] | None:
    """(size, how many times as fast the template is), measured for the form of the block that has these operators, or
    the nearest to them, and the size nearest to a map; of a dynamic map, the smallest gain of all. None where the block
    was not measured.
    """
    forms = _written(type(block).__module__.rpartition(".")[0]).get(block.spelled)
    if not forms:
        return None
    counts = Counter(operators)
    gains = min(forms, key=lambda each: _differing(counts, Counter(each["operators"])))["gains"]
    if feature.height is None or feature.width is None:
        size = min(gains, key=gains.__getitem__)
    else:
        area = feature.height * feature.width
        size = min(gains, key=lambda each: _apart(each, feature.channels, area))
    return size, gains[size]


def _differing(some: Counter[str], others: Counter[str]) -> int:
    """How many operators one has and the other has not."""
    return ((some - others) + (others - some)).total()


def _apart(size: str, channels: int, area: int) -> float:
    """How far a size, ``64x80x80``, is from a map, in orders of magnitude."""
    depth, height, width = map(int, size.split("x"))
    return abs(math.log(channels / depth)) + abs(math.log(area / (height * width)))


@cache
def _written(package: str) -> dict[str, list[dict[str, Any]]]:
    file = files(package).joinpath(_FILE) if package else None
    if file is None or not file.is_file():
        return {}
    return cast(dict[str, list[dict[str, Any]]], json.loads(file.read_text(encoding="utf-8")))
