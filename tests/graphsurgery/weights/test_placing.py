"""One file of weights for blocks at several places, each with its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsurgery as gsx
from graphsurgery.blocks.registry import block_class
from graphsurgery.cli.main import main
from graphsurgery.errors import WeightsError
from graphsurgery.feature_map import FeatureMap
from tests import models

PLACES = ("model.0", "model.1", "model.2")


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    path = tmp_path / "detector.onnx"
    path.write_bytes(models.detector().SerializeToString())
    return path


def weights_of(channels: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    block = block_class("se")().with_values(reduction=4)
    feature = FeatureMap(channels, 8, 8)
    return dict(block.initial(feature, np.random.default_rng(seed)))


def channels(model: Path) -> dict[str, int]:
    found = gsx.sites(model, [f"/{path}" for path in PLACES])
    return {(site.path or "").lstrip("/"): int(site.shape[1] or 0) for site in found}


def stored(tmp_path: Path, model: Path, key: str = "{}.attn", places: tuple[str, ...] = PLACES) -> Path:
    """An archive with weights for SE at several places, other ones at each."""
    sizes = channels(model)
    arrays = {
        f"{key.format(path)}.{name}": values
        for seed, path in enumerate(places)
        for name, values in weights_of(sizes[path], seed).items()
    }
    np.savez(tmp_path / "se.npz", **arrays)
    return tmp_path / "se.npz"


def inserted(model: Path, weights: str) -> gsx.ModelFile:
    return gsx.insert(model, "se", after="/model.{0,1,2}", weights=weights)


def check(result: gsx.ModelFile, detector: Path, weights: Path, key: str) -> None:
    """Every place has its own weights: those that it gets where the prefix is written out."""
    seen = set()
    for path, insertion in zip(PLACES, result.insertions(), strict=True):
        alone = gsx.insert(detector, "se", after=f"/{path}", weights=f"{weights}:{key.format(path)}")
        (reference,) = alone.insertions()
        assert (insertion.id, insertion.initializers) == (reference.id, reference.initializers)
        values = [result.tensor(name).tobytes() for name in insertion.initializers]
        assert values == [alone.tensor(name).tobytes() for name in reference.initializers]
        seen.add(tuple(values))
    assert len(seen) == len(PLACES)


@pytest.mark.parametrize("prefix", [":{path}.attn", "", ":model.{path}.attn"])
def test_each_place_gets_its_own(tmp_path: Path, detector: Path, prefix: str) -> None:
    """With wrappers around the keys, too."""
    key = "model.{}.attn" if "model." in prefix else "{}.attn"
    path = stored(tmp_path, detector, key)
    check(inserted(detector, f"{path}{prefix}"), detector, path, key)


def test_the_block_has_a_placeholder_and_recipes_take_them(tmp_path: Path, detector: Path) -> None:
    path = stored(tmp_path, detector, "{}.se")
    (tmp_path / "r.yaml").write_text("- {module: se, after: '/model.{0,1,2}', weights: 'se.npz:{path}.{block}'}\n")
    check(gsx.apply(tmp_path / "r.yaml", detector), detector, path, "{}.se")


@pytest.mark.parametrize("prefix", [":{path}.attn", ""])
def test_it_says_which_it_took(tmp_path: Path, detector: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a line of each place, and as nothing that speaks against it."""
    path = stored(tmp_path, detector)
    command = ["insert", str(detector), "-m", "se", "-a", "/model.{0,1,2}", "--weights", f"{path}{prefix}"]
    command += ["--set", "activation=relu", "--set", "gate=sigmoid"]  # of the functions with such keys
    taken = [f"se.npz:{place}.attn" for place in PLACES]
    assert main([*command, "--dry-run", "--no-verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "se.npz" in line] == [f"  weights: {each}" for each in taken]
    assert main([*command, "--dry-run", "--no-verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["insertions"]
    assert [(each["weights"], each["warnings"]) for each in found] == [(each, []) for each in taken]


@pytest.mark.parametrize("prefix", [":{path}.attn", ""])
def test_a_place_without_weights(tmp_path: Path, detector: Path, prefix: str) -> None:
    path = stored(tmp_path, detector, places=PLACES[:2])
    with pytest.raises(WeightsError) as raised:
        inserted(detector, f"{path}{prefix}")
    assert raised.value.message.endswith("weights that look like se lie under model.0.attn and model.1.attn")
    assert "\n" not in raised.value.message


def test_two_that_fit_a_place(tmp_path: Path, detector: Path) -> None:
    first = np.load(stored(tmp_path, detector, "{}.one"))
    arrays = dict(first) | {key.replace(".one", ".two"): first[key] for key in first.files}
    np.savez(tmp_path / "both.npz", **arrays)
    said = "both.npz has weights that look like se at model.0 under model.0.one and model.0.two; give one of these"
    with pytest.raises(WeightsError, match=f"^{re.escape(said)}"):
        inserted(detector, str(tmp_path / "both.npz"))


def test_placeholders_that_stand_for_nothing(tmp_path: Path, detector: Path) -> None:
    path = stored(tmp_path, detector)
    said = "'{paht}.se' has the placeholder {paht}: there are {path}, the module path of a place, and {block}, the name"
    with pytest.raises(WeightsError, match=f"^{re.escape(said)}"):
        inserted(detector, f"{path}:{{paht}}.se")
    nameless = models.detector(style="none")
    said = "has no module path to put for {path} in '{path}.attn'; give the prefix"
    with pytest.raises(WeightsError, match=re.escape(said)):
        gsx.insert(nameless, "se", after=f"tensor:{nameless.graph.node[4].output[0]}", weights=f"{path}:{{path}}.attn")


@pytest.mark.filterwarnings("error::graphsurgery.GraphSurgeryWarning")
def test_a_file_of_one_block_goes_to_every_place(tmp_path: Path, detector: Path) -> None:
    np.savez(tmp_path / "one.npz", **weights_of(channels(detector)["model.0"], 0))
    function = {"activation": "relu", "gate": "sigmoid"}
    places = ["/model.0", "/model.1"]
    result = gsx.insert(detector, "se", after=places, weights=tmp_path / "one.npz", settings=function)
    first, second = ([result.tensor(name).tobytes() for name in each.initializers] for each in result.insertions())
    assert first == second
