"""The benchmarks: what is timed, and the one for a GPU, on a machine without one and with its provider left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gains
from benchmarks.lib import blocks
from benchmarks.lib.published import published
from benchmarks.sweep_agreement import compare
from graphsurgery.runtime.session import usable

PARTS = ("parity", "templates", "models")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(usable("coreml"), reason="the provider is there")
def test_without_the_provider_it_ends_with_a_sentence(tmp_path: Path) -> None:
    ended = run("--providers", "cpu,coreml", "--folder", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("gpu.py: the installed onnxruntime has no coreml provider")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_everything_but_the_provider_on_the_cpu(tmp_path: Path) -> None:
    ended = run("--providers", "cpu", "--quick", "--folder", str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    kept = {part: json.loads((tmp_path / f"gpu_cpu_{part}.json").read_text()) for part in PARTS}
    verdicts = {(row["dtype"], row["verdict"]) for row in kept["parity"]["parity"]}
    assert verdicts == {("float32", "passed"), ("float16", "passed"), ("bfloat16", "no kernel")}
    for row in kept["parity"]["parity"]:
        if row["dtype"] == "float32":
            assert row["nodes"]["on"] == {"cpu": row["nodes"]["total"]}
            assert 0 < row["ratio"] <= 1
    (table,) = kept["templates"]["templates"]
    assert set(table["table"]["simam"]["256x20x20"]["microseconds"]) >= {"template", "own torchscript", "control"}
    assert kept["models"]["models"][0]["providers"][0]["difference"]["verdict"]
    assert all(each["machine"]["processor"] for each in kept.values())


@pytest.mark.parametrize("configuration", range(len(blocks.CONFIGURATIONS)), ids=blocks.label)
def test_a_published_form_gives_what_the_module_gives(configuration: int) -> None:
    assert blocks.sizes_of(configuration, blocks.SIZES)
    size = blocks.sizes_of(configuration, [(64, 16, 16), *blocks.SIZES])[0]
    module = blocks.module(configuration, size)
    for form in blocks.forms(configuration):
        if form == "published":
            other = published(blocks.CONFIGURATIONS[configuration][0], module).eval()
            x = torch.from_numpy(np.random.default_rng(1).standard_normal((2, *size)).astype(np.float32))
            with torch.no_grad():
                torch.testing.assert_close(other(x), module(x), rtol=2e-3, atol=2e-4)


def test_forms_that_do_not_differ_are_timed_once() -> None:
    names = [name for name, _ in blocks.CONFIGURATIONS]
    assert [blocks.forms(names.index(name)) for name in ("lska", "sk[timm]")] == [("own",)] * 2
    assert blocks.forms(names.index("sk")) == ("published", "own")


def test_sweeps_agree_where_what_is_slower_stands_in_the_same_order() -> None:
    def report(**figures: tuple[float, str]) -> dict[str, Any]:
        timed = {
            name: {"low": middle - 0.1, "high": middle + 0.1, "verdict": verdict}
            for name, (middle, verdict) in figures.items()
        }
        return {"cells": [{"module": name, "place": "p", "latency": {"cpu": each}} for name, each in timed.items()]}

    first = report(se=(1.0, "slower"), eca=(2.0, "slower"), nam=(2.1, "slower"), gc=(0.0, "below noise"))
    assert compare(first, first) == (2, [])  # the intervals of eca and nam overlap
    turned = report(se=(3.0, "slower"), eca=(2.0, "slower"), nam=(-1.0, "faster"), gc=(9.0, "slower"))
    compared, wrong = compare(first, turned)
    assert compared == 2
    assert wrong == [
        "('nam', 'p', 'cpu') is slower and faster",
        "('se', 'p', 'cpu') and ('eca', 'p', 'cpu') change places",
        "('se', 'p', 'cpu') and ('nam', 'p', 'cpu') change places",
    ]


def test_what_rewriting_knows_is_what_was_measured() -> None:
    """After another run of latency.py, ``python benchmarks/gains.py`` brings the file beside the blocks up to date."""
    known = json.loads(gains.GAINS.read_text(encoding="utf-8"))
    table = gains.measured()
    measured: dict[str, list[dict[str, float]]] = {}
    for number, (name, _) in enumerate(blocks.CONFIGURATIONS):
        for form in blocks.forms(number) if blocks.label(number) in table else ():
            measured.setdefault(name, []).append(gains.of_form(table[blocks.label(number)], form))
    assert {name: [each["gains"] for each in forms] for name, forms in known.items()} == measured
