"""Roles of detectors that are not YOLO-like: none is wrong, with names and without."""

from __future__ import annotations

import pytest

from tests.recognition.roles import MODELS, score

MUST = ("retinaface", "yunet", "nanodet-plus", "rtmdet", "ppocr-det", "ultraface")
"""compared in every run: each has a habit that no other has"""


@pytest.mark.parametrize(
    "name", [name if name in MUST else pytest.param(name, marks=pytest.mark.long) for name in MODELS]
)
@pytest.mark.parametrize("randomised", [False, True], ids=["named", "nameless"])
def test_no_role_is_wrong_and_few_are_absent(name: str, randomised: bool) -> None:
    result = score(name, randomised=randomised)
    print(result.line)
    assert not result.wrong, result.line
    assert len(result.absent) * 10 <= len(result.right), result.line
