"""Roles of detectors of other families: none is wrong, few are absent, with names and without, from every exporter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.recognition.roles import MODELS, VARIANTS, YAML, main, score

MUST = (
    *("retinaface", "yunet", "nanodet-plus", "rtmdet", "ppocr-det", "ultraface"),
    *("damoyolo", "yolov7-tiny", "centernet", "yolof"),
)
"""compared in every run: each has a habit that no other has"""
UNCLEAR = {"fastestdet": "n4", "yolof": "p5, n5"}
"""roles of small models that their structure leaves open: more than the tenth that may be absent"""


@pytest.mark.parametrize(
    "name", [name if name in MUST else pytest.param(name, marks=pytest.mark.long) for name in MODELS]
)
@pytest.mark.parametrize("randomised", [False, True], ids=["named", "nameless"])
def test_no_role_is_wrong_and_few_are_absent(name: str, randomised: bool) -> None:
    result = score(name, randomised=randomised)
    print(result.line)
    assert not result.wrong, result.line
    allowed = UNCLEAR.get(name, "").split(", ") if name in UNCLEAR else []
    assert len(set(result.absent).difference(allowed)) * 10 <= len(result.right), result.line


@pytest.mark.long
@pytest.mark.parametrize("name", YAML)
def test_of_models_of_a_yaml_file(name: str) -> None:
    """In a process of its own: the package is AGPL, and what it exports is kept nowhere."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.recognition.roles", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert not done.returncode, done.stdout + done.stderr[-2000:]


@pytest.mark.long
@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "torchscript"])
@pytest.mark.parametrize("name", ["yolov7", "yolov7-tiny", "damoyolo", "damoyolo-csp", "fastestdet", "centernet"])
def test_of_other_exporters_and_simplifiers(name: str, variant: str) -> None:
    result = score(name, randomised=True, variant=variant)
    print(result.line)
    assert not result.wrong, result.line
    assert result.absent == score(name, randomised=True).absent, result.line


def test_a_wrong_role_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that gives every role the image must not pass."""
    from graphsurgery.recognition.networks import Networks

    monkeypatch.setattr(Networks, "role", lambda *_: ["images"])
    assert "wrong p3" in score("yunet", randomised=False).line
    assert main(["yunet"]) == 1
