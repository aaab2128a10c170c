"""Keys that no port is known by, keys beside those of a host, and the way out that an error names."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery import weights
from graphsurgery.blocks.block import Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.cli.main import main
from graphsurgery.errors import BlockError, GraphSurgeryError, GraphSurgeryWarning, WeightsError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from graphsurgery.weights import key_alignment
from tests import models
from tests.graphsurgery.weights.test_weights import C, R, found, put, refused, save, se

Array = np.ndarray[Any, Any]
SITE = FeatureMap(C, 8, 8, label="the site")


def read(module: str, arrays: Mapping[str, Array], feature: FeatureMap = SITE, **settings: object) -> weights.Fitted:
    return weights.fitted(make_block(module, settings), feature, weights.Checkpoint("w.pt", arrays), settings)


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    """Positive, as variances have to be."""
    rng = np.random.default_rng(seed)
    return {key: rng.uniform(0.5, 1.5, shape).astype(np.float32) for key, shape in shapes.items()}


def of(module: str, feature: FeatureMap = SITE, **settings: object) -> dict[str, Array]:
    """Weights of a block under its own keys."""
    return drawn(make_block(module, settings).parameters(feature))


def moved(arrays: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    """With other names for the layers."""
    return {
        next((b + key[len(a) :] for a, b in names.items() if key.startswith(a)), key): v for key, v in arrays.items()
    }


def norm(name: str, channels: int = C) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


HOST = {"conv1.weight": (C, C, 3, 3), **norm("bn1"), "conv2.weight": (C, C, 3, 3), **norm("bn2")}
"""the layers of a residual block"""
CBAM = {"ca.fc.0.weight": (R, C, 1, 1), "ca.fc.2.weight": (C, R, 1, 1), "sa.conv1.weight": (1, 2, 7, 7)}

# ---------------------------------------------------------------------- read by their structure

SPELLINGS: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
    "Sequential": ("se", {"hidden": R}, {"fc1": "gate.2", "fc2": "gate.4"}),
    "words": ("se", {"hidden": R}, {"fc1": "squeeze_layer", "fc2": "excite_layer"}),
    "square, in a Sequential": ("se", {"hidden": C}, {"fc1": "gate.2", "fc2": "gate.4"}),
    "square, by words": ("se", {"hidden": C}, {"fc1": "z.reduce", "fc2": "a.expand"}),
    "cbam": (
        "cbam[timm]",
        {"hidden": R},
        {"channel.fc1": "c.mlp.0", "channel.fc2": "c.mlp.2", "spatial.conv.conv": "s.0", "spatial.conv.bn": "s.1"},
    ),
    "q, k and v": ("mhsa[yolo]", {}, {"query": "to_q", "key": "to_k", "value": "to_v"}),
    "positions": ("mhsa[yolo]", {"pos_emb": True}, {"rel_h_weight": "table.height", "rel_w_weight": "table.width"}),
    "relative positions": (
        "mhsa[botnet]",
        {},
        {"qkv": "in_proj", "pos_embed.height_rel": "bias_h", "pos_embed.width_rel": "bias_w"},
    ),
    "one unknown name": ("a2", {"c_m": 8, "c_n": 8}, {"conv_reconstruct": "proj"}),
    "lka": ("lka[unit]", {}, {"conv0": "dw.0", "conv_spatial": "dw.1", "conv1": "pw"}),
    "shsa": ("shsa[unit]", {"qk_dim": 4}, {"qkv.c": "qkv.0", "qkv.bn": "qkv.1", "proj.1.c": "p.c", "proj.1.bn": "p.n"}),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("sort", [False, True], ids=["in order", "sorted"])
def test_a_spelling_that_nobody_knows(name: str, sort: bool) -> None:
    """With its values, and with the hyper-parameters that follow; a warning says which layer is which."""
    module, settings, names = SPELLINGS[name]
    own = of(module, **settings)
    theirs = moved(own, names)
    result = read(module, dict(sorted(theirs.items())) if sort else theirs)
    assert result.arrays.keys() == own.keys()
    assert all(np.array_equal(result.arrays[key], values) for key, values in own.items())
    assert {name: result.block.values[name] for name in settings} == settings
    (told,) = (each for each in result.warnings if "no port that is known has the keys in w.pt" in each)
    first, second = next(iter(names.items()))
    assert f"{first} = {second}" in told


@pytest.mark.parametrize(
    ("module", "settings", "names", "one", "two"),
    [
        ("se", {"hidden": C}, {"fc1": "a", "fc2": "b"}, "a", "b"),
        ("mhsa[yolo]", {}, {"query": "a", "key": "b", "value": "c"}, "a", "b"),
        ("mhsa[yolo]", {}, {"query": "proj1", "key": "proj2", "value": "proj3"}, "proj1", "proj2"),
        ("lct", {}, {"w": "x", "b": "y"}, "x", "y"),
        ("triplet", {}, {"cw": "a", "hc": "b", "hw": "c"}, "a.conv.conv", "b.conv.conv"),
    ],
)
def test_layers_that_could_be_each_other_are_not_guessed(
    module: str, settings: dict[str, object], names: dict[str, str], one: str, two: str
) -> None:
    with pytest.raises(WeightsError) as raised:
        read(module, moved(of(module, **settings), names))
    assert f"{one} and {two} both fit" in raised.value.message
    assert "rename its keys to " in raised.value.message


def test_numbers_that_are_not_in_the_order_of_the_layers_say_nothing() -> None:
    """norm2 has a smaller number than linear2: then that norm1 has a smaller one than norm2 is no evidence."""
    names = {"self_attn": "l.0", "linear1": "l.1", "linear2": "l.5", "norm1": "l.2", "norm2": "l.3"}
    own = of("aifi[rtdetr]")
    parts = {key for key in own if key.startswith("self_attn.in")}
    kept = moved(own, names) | {key: own[key] for key in parts}
    for key in parts:
        kept.pop(f"l.0{key.removeprefix('self_attn')}")
    with pytest.raises(WeightsError, match=r"both fit norm1"):
        read("aifi[rtdetr]", kept)


def schemes(paths: list[str], rng: random.Random) -> Iterator[dict[str, str]]:
    """Names for layers that tell nothing; that tell their order; that tell a wrong one; and that are like their own."""
    mixed = rng.sample(range(len(paths)), len(paths))
    yield {path: f"z{chr(97 + at // 26)}{chr(97 + at % 26)}" for path, at in zip(paths, mixed, strict=True)}
    yield {path: f"layers.{at}" for at, path in enumerate(paths)}
    yield {path: f"layers.{at}" for path, at in zip(paths, mixed, strict=True)}
    yield {path: path.replace(".", "_") + "x" for path in paths}


def layer_of(key: str) -> str:
    path, _, leaf = key.rpartition(".")
    return path if leaf in ("weight", "bias", "running_mean", "running_var") else key


def variants() -> Iterator[Block]:
    for _, kind in sorted(all_blocks().items()):
        for variant in kind.variants or (None,):
            yield kind(variant)


@pytest.mark.parametrize("spelled", [each.spelled for each in variants() if each.has_weights])
def test_no_block_is_ever_read_wrong(spelled: str) -> None:
    """Every parameter of a block has values of its own: each is in its place, or nothing is read."""
    block, feature = make_block(spelled, {}), FeatureMap(128, 14, 14, label="the site")
    block.check(feature)
    own = {
        key: np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 1e9 * at
        for at, (key, shape) in enumerate(block.parameters(feature).items())
    }
    paths = list(dict.fromkeys(map(layer_of, own)))
    for names in schemes(paths, random.Random(1)):
        theirs = {names[layer_of(key)] + key[len(layer_of(key)) :]: values for key, values in own.items()}
        try:
            keys = key_alignment.align(block, feature, dict(sorted(theirs.items())), "w.pt")
        except GraphSurgeryError:
            continue
        assert keys is None or all(np.array_equal(theirs[keys[key]], values) for key, values in own.items())


# ---------------------------------------------------------------------- beside the keys of a host


def test_a_gate_in_two_parts_beside_its_host() -> None:
    result = read(
        "cbam[yolo-port]", drawn({**HOST, **CBAM, "downsample.0.weight": (C, C, 1, 1), **norm("downsample.1")})
    )
    assert sorted(result.arrays) == [
        "channel_attention.fc1.weight",
        "channel_attention.fc2.weight",
        "spatial_attention.conv1.weight",
    ]
    rest = "conv1, bn1, conv2, bn2, downsample.0, downsample.1"
    assert f"{rest} in w.pt are taken for layers of the module around the block" in result.warnings


def test_a_host_whose_layers_are_called_as_those_of_a_port() -> None:
    """conv1 and conv2 are names for the layers of SE, too; here they are 3x3 and fc1 and fc2 are there."""
    arrays = drawn(HOST) | se()
    assert np.array_equal(read("se", arrays).arrays["fc1.weight"], se()["fc1.weight"])


def test_a_variant_that_a_bare_name_is_not() -> None:
    feature = FeatureMap(64, 8, 8, label="the site")
    own = of("sk[official]", feature)
    host = drawn(
        {"conv1.weight": (64, 256, 1, 1), **norm("bn1", 64), "conv3.weight": (256, 64, 1, 1), **norm("bn3", 256)}
    )
    result = read("sk", {**host, **own}, feature)
    assert result.block.spelled == "sk[official]"
    assert all(np.array_equal(result.arrays[key], values) for key, values in own.items())


def test_what_keys_tell_they_tell_beside_a_host() -> None:
    gate = {"_se_reduce.weight": (R, C, 1, 1), "_se_reduce.bias": (R,), "_se_expand.weight": (C, R, 1, 1)}
    gate |= {"_se_expand.bias": (C,)}
    host = {
        "_depthwise_conv.weight": (C, 1, 3, 3),
        **norm("_bn1"),
        "_project_conv.weight": (C, C, 1, 1),
        **norm("_bn2"),
    }
    assert read("se", drawn({**gate, **host})).block.values["activation"] == "silu"


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("cbam[yolo-port]", norm("ca.bn")),  # in the module of the gate itself
        ("cbam[yolo-port]", {"conv1.weight": (C, C, 3, 3)}),  # a convolution without its BatchNorm
        ("cbam[yolo-port]", {**norm("bn1", 5), "conv1.weight": (C, C, 3, 3)}),  # of another width
        ("cbam[yolo-port]", {**HOST, "mlp.weight": (C, C)}),
        ("cbam[yolo-port]", {**HOST, "alpha": (1,)}),
    ],
)
def test_what_is_no_host_is_refused(module: str, extra: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(WeightsError, match="which the block does not"):
        read(module, drawn({**CBAM, **extra}))


def test_the_layers_of_a_host_are_no_block() -> None:
    """Its last BatchNorm is called as that of NAM is in some ports."""
    with pytest.raises(WeightsError, match=r"conv1\.weight, bn1\.weight"):
        read("nam[channel]", drawn(HOST))


# ---------------------------------------------------------------------- under any wrapper


@pytest.mark.parametrize("around", ["{}", "module.{}", "attn.{}", "model.8.attn.{}", "module.model.8.attn.{}"])
@pytest.mark.parametrize("entry", [None, "state_dict", "ema", "model"])
def test_a_file_with_one_block(tmp_path: Path, around: str, entry: str | None) -> None:
    arrays = drawn(CBAM)
    state = {around.format(key): torch.from_numpy(values) for key, values in arrays.items()}
    torch.save(state if entry is None else {"epoch": 3, entry: state}, tmp_path / "w.pt")
    stored = found(put(tmp_path / "w.pt", "cbam[yolo-port]"))
    assert np.array_equal(stored["channel_attention.fc2.weight"], arrays["ca.fc.2.weight"])


def test_a_file_with_more_is_not_searched(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pt", {f"model.8.attn.{key}": v for key, v in drawn(CBAM).items()} | drawn({"x.y": (3,)}))
    assert refused(path, "cbam[yolo-port]").endswith("; weights that look like cbam[yolo-port] lie under model.8.attn")
    beside = {f"layer1.0.{key}": values for key, values in drawn({**HOST, **CBAM}).items()}
    path = save(tmp_path / "host.pt", beside | drawn({"fc.weight": (10, C)}))
    assert refused(path, "cbam[yolo-port]").endswith("; weights that look like cbam[yolo-port] lie under layer1.0")


# ---------------------------------------------------------------------- the way out


def test_the_variant_that_has_such_keys() -> None:
    with pytest.raises(WeightsError) as raised:
        read("cbam[official]", drawn(CBAM))
    assert str(raised.value).endswith("; use module='cbam[yolo-port]'; its keys look like those of cbam[yolo-port]")
    assert raised.value.candidates == ("cbam[yolo-port]",)
    with pytest.raises(WeightsError) as raised:
        read("cbam[official]", drawn({**HOST, **CBAM}))
    assert str(raised.value).endswith("; module='cbam[yolo-port]' has its keys among these")


def test_the_variant_that_has_such_layers() -> None:
    own = of("cbam[timm]", hidden=R)
    names = {"channel.fc1": "c.a", "channel.fc2": "c.b", "spatial.conv.conv": "s.a", "spatial.conv.bn": "s.b"}
    with pytest.raises(WeightsError) as raised:
        read("cbam[yolo-port]", moved(own, names))
    assert str(raised.value).endswith("; module='cbam[timm]' has layers of these shapes")


def test_a_block_inside_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that it names does what it says."""
    save(tmp_path / "w.npz", {f"gate.{key}": values for key, values in se().items()})
    model = tmp_path / "m.onnx"
    model.write_bytes(models.detector().SerializeToString())
    start = ["insert", str(model), "-a", "/model.2", "--dry-run", "--no-verify"]
    assert main([*start, "-m", "nam", "--weights", str(tmp_path / "w.npz")]) == 2
    assert "; --module se with --weights w.npz:gate reads what lies under gate" in capsys.readouterr().err
    assert main([*start, "-m", "se", "--weights", f"{tmp_path / 'w.npz'}:gate"]) == 0


def test_a_block_without_weights_whose_variants_have_such_keys() -> None:
    """Dropping the weights would put a gate without parameters in the place of a trained one."""
    arrays = {f"mlp.{key}": values for key, values in se().items()}
    error = weights.without_weights(make_block("ge", {}), SITE, weights.Checkpoint("w.pt", arrays))
    assert isinstance(error, BlockError)
    assert str(error).endswith("use module='ge[timm]'; its keys look like those of ge[timm]")
    assert "drop" not in str(error)
    part = weights.Checkpoint("w.pt", {"gather.conv1.weight": np.zeros((C, 1, 3, 3))})
    error = weights.without_weights(make_block("ge", {}), SITE, part)
    assert "has such keys" in str(error)
    assert "drop" not in str(error)
    simam = weights.without_weights(make_block("simam", {}), SITE, weights.Checkpoint("w.pt", se()))
    assert str(simam).startswith("simam has no weights; drop weights=")


def test_a_setting_is_no_contradiction_where_keys_are_not_known() -> None:
    """pos_emb may be what the keys that are left over are."""
    own = of("mhsa[yolo]")
    with pytest.raises(WeightsError, match=r"it lacks rel_h_weight, rel_w_weight and has table, which"):
        read("mhsa[yolo]", own | drawn({"table": (3,)}), pos_emb=True)
    with pytest.raises(WeightsError, match="pos_emb=true was asked for"):
        read("mhsa[yolo]", own, pos_emb=True)


def test_a_setting_that_the_keys_variant_does_not_have() -> None:
    keys = {"to_qkv.weight": (3 * C, C, 1, 1), "pos_emb.rel_height": (15, 4), "pos_emb.rel_width": (15, 4)}
    with pytest.raises(WeightsError, match=r"reads them, which has no scale_pos_embed"):
        read("mhsa", drawn(keys), scale_pos_embed=True)


def test_what_is_known_is_read_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphSurgeryWarning)
        assert read("cbam[yolo-port]", drawn(CBAM)).warnings == ()
