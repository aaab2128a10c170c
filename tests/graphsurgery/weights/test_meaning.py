"""Weights that mean something: other hyper-parameters than were asked for, other sources' keys, another variant."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphsurgery import weights
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from tests.graphsurgery.weights.test_weights import C, R, found, put, refused, save, se

Array = np.ndarray[Any, Any]

# ---------------------------------------------------------------------- hyper-parameters


@pytest.mark.parametrize(
    ("module", "settings", "told"),
    [
        ("se", {"hidden": 8}, "hidden=8 was asked for, and the weights in w.npz have hidden=4; leave hidden out"),
        ("se", {"bias": False}, "bias=false was asked for, and the weights in w.npz have bias=true; leave bias out"),
        ("se", {"reduction": 2}, "reduction=2 was asked for, and the weights in w.npz have hidden=4"),
        ("eca", {"kernel": 3}, "kernel=3 was asked for, and the weights in w.npz have kernel=5; leave kernel out"),
        ("ema", {"factor": 4}, "factor=4 was asked for, and the weights in w.npz have group_channels=2"),
    ],
)
def test_settings_that_the_weights_contradict(
    tmp_path: Path, module: str, settings: dict[str, object], told: str
) -> None:
    kernel = np.ones((1, 1, 5), np.float32)
    ema = {"conv1x1": np.ones((2, 2, 1, 1)), "conv3x3": np.ones((2, 2, 3, 3)), "gn": np.ones(2)}
    arrays = {
        "se": se(),
        "eca": {"conv.weight": kernel},
        "ema": {f"{k}.{p}": v if p == "weight" else np.ones(2) for k, v in ema.items() for p in ("weight", "bias")},
    }
    path = save(tmp_path / "w.npz", arrays[module])
    assert told in refused(path, module, settings=settings)
    put(path, module)


def test_settings_that_the_weights_agree_with(tmp_path: Path) -> None:
    path = save(tmp_path / "w.npz", se())
    for settings in ({"hidden": R}, {"reduction": 4}, {"bias": "yes"}, {"hidden": R, "reduction": 16}):
        made = put(path, settings=settings).insertions()[0].settings
        assert made["hidden"] == R, settings
    message = refused(save(tmp_path / "o.npz", se(512, 32)), settings={"reduction": 16})
    assert message == "model.2 has 16 channels; fc1.weight is made for 512"


# ---------------------------------------------------------------------- keys of other sources


def test_names_of_srm(tmp_path: Path) -> None:
    """A grouped Conv1d over mean and deviation, [C, 1, 2]."""
    kernel = np.arange(2 * C, dtype=np.float32).reshape(C, 1, 2)
    norm = {f"bn.{p}": np.full(C, 0.5, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    edited = put(save(tmp_path / "w.npz", {"cfc.weight": kernel} | norm), "srm")
    assert np.array_equal(found(edited)["cfc"], kernel[:, 0])
    message = refused(save(tmp_path / "o.npz", {"cfc.weight": kernel[:, :, :1]} | norm), "srm")
    assert "it lacks cfc and has cfc.weight, which the block does not" in message


def test_a_bias_in_front_of_the_batch_norm_of_ge(tmp_path: Path) -> None:
    """As in SRM's repository: the mean is as much smaller without the bias."""
    arrays = {"conv.0.weight": np.ones((C, 1, 8, 8), np.float32), "conv.0.bias": np.full(C, 0.25, np.float32)}
    arrays |= {f"conv.1.{p}": np.full(C, 0.5, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    edited = put(save(tmp_path / "w.npz", arrays), "ge[theta]")
    assert np.array_equal(found(edited)["gather.norm1.running_mean"], np.full(C, 0.25))
    assert np.array_equal(found(edited)["gather.norm1.bias"], np.full(C, 0.5))


def test_a_bias_in_front_of_a_batch_norm(tmp_path: Path) -> None:
    """A port whose convolutions have one computes the same with a smaller mean; one of no layer is refused."""
    arrays: dict[str, Array] = {}
    for place, gate in enumerate(("cw", "hc", "hw")):
        parts = ("weight", "bias", "running_mean", "running_var")
        arrays |= {f"{gate}.conv.bn.{part}": np.full(1, 0.5, np.float32) for part in parts}
        arrays[f"{gate}.conv.conv.weight"] = np.full((1, 2, 7, 7), place, np.float32)
    biases = {f"{gate}.conv.conv.bias": np.full(1, 0.25, np.float32) for gate in ("cw", "hc", "hw")}
    edited = put(save(tmp_path / "w.npz", arrays | biases), "triplet")
    assert np.array_equal(found(edited)["cw.conv.bn.running_mean"], np.full(1, 0.25))
    assert np.array_equal(found(edited)["hw.conv.bn.bias"], np.full(1, 0.5))
    message = refused(save(tmp_path / "o.npz", arrays | {"cw.conv.bias": np.ones(1, np.float32)}), "triplet")
    assert "has cw.conv.bias, which the block does not" in message


def aifi(names: tuple[str, str, str]) -> dict[str, Array]:
    attention, first, second = names
    rng = np.random.default_rng(2)
    shapes = {f"{attention}.in_proj_weight": (3 * C, C), f"{attention}.in_proj_bias": (3 * C,)}
    shapes |= {f"{attention}.out_proj.weight": (C, C), f"{attention}.out_proj.bias": (C,)}
    shapes |= {f"{first}.weight": (32, C), f"{first}.bias": (32,), f"{second}.weight": (C, 32), f"{second}.bias": (C,)}
    shapes |= {f"{norm}.{part}": (C,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("names", "own", "other"),
    [
        (("ma", "fc1", "fc2"), "aifi[ultralytics]", "aifi[rtdetr]"),
        (("self_attn", "linear1", "linear2"), "aifi[rtdetr]", "aifi[ultralytics]"),
    ],
)
def test_the_keys_of_another_variant(tmp_path: Path, names: tuple[str, str, str], own: str, other: str) -> None:
    """They fit, and mean another function where the map is no square: that is said."""
    checkpoint = weights.read(save(tmp_path / "w.npz", aifi(names)))
    wide, square = FeatureMap(C, 6, 10), FeatureMap(C, 8, 8)
    for given in ({"activation": "gelu"}, {"activation": "gelu", "heads": 4}):
        for feature, spelled, told in ((wide, other, 1), (wide, own, 0), (square, other, 0)):
            made = weights.fitted(make_block(spelled, given), feature, checkpoint.under(""), given)
            assert len(made.warnings) == told
            assert not told or (f"the keys in w.npz are those of {own}" in made.warnings[0])


def test_the_block_that_adds_its_input(tmp_path: Path) -> None:
    """CBAM of External-Attention and of cv-attention have the same keys; only the size of the kernel differs."""
    arrays = {
        "ca.se.0.weight": np.ones((4, C, 1, 1)),
        "ca.se.2.weight": np.ones((C, 4, 1, 1)),
        "sa.conv.bias": np.ones(1),
    }
    for kernel in (7, 49):
        path = save(tmp_path / "w.npz", arrays | {"sa.conv.weight": np.ones((1, 2, kernel, kernel))})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            put(path, "cbam[cv-attention]")
        assert any("adds its input to the result" in str(each.message) for each in caught) == (kernel == 49)
