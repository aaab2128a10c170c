"""The YAML way against attach: the table of docs/training.md, measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

TENSORS = {"yolov8n": 355, "yolo11n": 499, "yolo26n": 708, "rtdetr-l": 941}
PAGE = Path(__file__).parents[1] / "docs" / "training.md"


@pytest.mark.long
@pytest.mark.parametrize("name", TENSORS)
def test_attach_and_remap_lose_nothing(name: str) -> None:
    pytest.importorskip("ultralytics")
    from . import yaml_way

    found = list(yaml_way.ways(name))
    assert [way.place.partition(":")[0] for way in found] == ["early", "middle", "late", "inner"]
    for way in found:
        assert way.tensors == way.attached == TENSORS[name]
        assert way.remapped in (TENSORS[name], None)
    assert any(way.misplaced for way in found) is True
    page = PAGE.read_text(encoding="utf-8").splitlines()
    assert all(str(way) in page for way in found)
