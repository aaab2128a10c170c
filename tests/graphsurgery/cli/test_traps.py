"""Mistakes that people make with blocks: each is told with its reason, and where nothing sensible would come out of
it, nothing is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphsurgery.blocks.registry import all_blocks

NO_VERIFY = ("--no-verify", "-o", "out.onnx")
AT_LEAST_ONE = {"cbam[timm]", "gc[timm]", "gc[timm-add]", "gc[timm-both]", "coordatt[official]"}
"""their published code has a least number of hidden channels"""


def reducing() -> Iterator[str]:
    """Every block and variant with a reduction."""
    for name, block in all_blocks().items():
        for variant in block.variants or [None]:
            made = block(variant)
            if "reduction" in made.values:
                yield f"{name}[{variant}]" if variant else name


def warnings(cli: Any, *arguments: str) -> list[str]:
    """But for the one that all untrained blocks bear."""
    ended = cli("insert", *arguments, *NO_VERIFY, "--json")
    assert ended.code == 0, ended.err
    said = [text for each in json.loads(ended.out)["insertions"] for text in each["warnings"]]
    return [text for text in said if not text.startswith("no claim about accuracy")]


def test_the_channel_number_as_lambda_of_simam(cli: Any) -> None:
    (said,) = warnings(cli, "detector.onnx", "--module", "simam", "--set", "e_lambda=512", "--after", "/model.8")
    assert said.startswith("e_lambda=512 makes the gate a constant 0.62")
    assert "channel number" in said


@pytest.mark.parametrize("spelled", list(reducing()))
def test_a_reduction_that_leaves_no_channels(cli: Any, folder: Path, spelled: str) -> None:
    ended = cli(
        *("insert", "detector.onnx", "--module", spelled, "--set", "reduction=64", "--after", "/model.2"), *NO_VERIFY
    )
    if spelled in AT_LEAST_ONE:
        assert ended.code == 0
        return
    assert ended.sentence(2) == "model.2 has 8 channels; a reduction of 64 leaves no hidden channel"
    assert os.listdir(folder) == ["detector.onnx"]


@pytest.mark.parametrize(("spelled", "hint"), [("gam", True), ("gam[yolo-grouped]", False)])
def test_the_weights_of_gam_at_1024_channels(cli: Any, small_model: Any, spelled: str, hint: bool) -> None:
    small_model(shape=[1, 1024, 20, 20])
    said = warnings(cli, "small.onnx", "--module", spelled, "--after", "/a")
    # 25.7 million in the two 7x7 convolutions, half a million in the channel part
    text = "gam has 26.2 million parameters at 1024 channels; gam[yolo-grouped] has a quarter of it"
    assert (text in said) == hint


def test_gam_at_256_channels_is_no_trap(cli: Any, small_model: Any) -> None:
    small_model(shape=[1, 256, 20, 20])
    assert not warnings(cli, "small.onnx", "--module", "gam", "--after", "/a")


@pytest.mark.parametrize("setting", ["decay=0.9999", "momentum=0.1", "tau=2000"])
def test_an_ema_that_means_a_running_average(cli: Any, folder: Path, setting: str) -> None:
    ended = cli("insert", "detector.onnx", "--module", "ema", "--set", setting, "--after", "/model.8", *NO_VERIFY)
    said = ended.sentence(2)
    assert "Efficient Multi-scale Attention" in said
    assert "moving average of a training run's weights is no block" in said
    assert os.listdir(folder) == ["detector.onnx"]
