"""Which public class weights are of: what a pickle says, what keys say, what is warned of, and at every door."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphsurgery
from graphsurgery import torch as gt
from graphsurgery import weights
from graphsurgery.errors import GraphSurgeryWarning, WeightsError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from tests import models
from tests.graphsurgery.weights.test_weights import C, put, refused, save

Array = np.ndarray[Any, Any]
SITE = FeatureMap(C, 8, 8, label="the site")


def said(file: Path, module: str, **arguments: Any) -> list[str]:
    """What an insertion warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GraphSurgeryWarning)
        put(file, module, **arguments)
    return [str(each.message) for each in caught]


@pytest.fixture
def pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Saves a whole module of a class of someone else's, which is gone when the file is read."""

    def make(qualified: str, parts: dict[str, Any], tensors: dict[str, Array], name: str = "model.pt") -> Path:
        package, _, kind = qualified.rpartition(".")
        owner = ModuleType(package)
        cls = type(kind, (nn.Module,), {"__module__": package})
        setattr(owner, kind, cls)
        parents = package.split(".")
        for depth in range(1, len(parents) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parents[:depth]), owner)
        module = cls()
        for key, value in parts.items():
            setattr(module, key, value)
        for key, values in tensors.items():
            *path, leaf = key.split(".")
            inner = module
            for step in path:
                if not hasattr(inner, step):
                    setattr(inner, step, nn.Module())
                inner = getattr(inner, step)
            inner.register_buffer(leaf, torch.from_numpy(values))
        torch.save({"model": nn.ModuleDict({"attn": module})}, tmp_path / name)
        monkeypatch.undo()
        return tmp_path / name

    return make


def cbam(kernel: int = 7) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    shapes = {"ca.se.0.weight": (4, C, 1, 1), "ca.se.2.weight": (C, 4, 1, 1), "sa.conv.bias": (1,)}
    shapes |= {"sa.conv.weight": (1, 2, kernel, kernel)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def se() -> dict[str, Array]:
    rng = np.random.default_rng(5)
    shapes = {"fc1.weight": (4, C, 1, 1), "fc1.bias": (4,), "fc2.weight": (C, 4, 1, 1), "fc2.bias": (C,)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


# ---------------------------------------------------------------------- what nothing tells


def test_keys_of_several_functions_are_said_in_one_line(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pt", cbam())
    (line,) = said(path, "cbam[cv-attention]")
    assert line == (
        "model.2.cbam: the keys in w.pt are also those of External-Attention's CBAMBlock, which adds x: "
        "module='cbam[external-attention]'; they are read as cbam[cv-attention]"
    )
    assert said(path, "cbam[external-attention]") == []


def test_a_setting_silences_what_it_decides(tmp_path: Path) -> None:
    """The activation tells EfficientNet's, the gate MobileNetV3's; both together leave nothing to say."""
    path = save(tmp_path / "w.pt", se())
    (line,) = said(path, "se")
    assert "SiLU" in line
    assert "hard sigmoid" in line
    (line,) = said(path, "se", settings={"gate": "sigmoid"})
    assert "SiLU" in line
    assert "MobileNetV3" not in line
    assert said(path, "se", settings={"gate": "sigmoid", "activation": "relu"}) == []
    assert said(path, "se", settings={"gate": "hard-sigmoid", "activation": "relu"}) == []
    (line,) = said(path, "se", settings={"hidden": 4})
    assert "SiLU" in line


def test_a_variant_silences_where_it_was_a_choice(tmp_path: Path) -> None:
    """eca reads its keys by the bare name, so eca[official] is meant; only cbam[cv-attention] read those of its own."""
    path = save(tmp_path / "w.pt", {"conv.weight": np.ones((1, 1, 3), np.float32)})
    (line,) = said(path, "eca")
    assert "module='eca[timm-ceca]'" in line
    assert said(path, "eca[official]") == []
    assert said(path, "eca[timm-ceca]") == []


def test_functions_that_agree_at_the_site_are_no_matter(tmp_path: Path) -> None:
    """timm's Gather-Excite pads a convolution over the whole map; that of an extent is the same as the authors'."""
    norm = {f"gather.norm1.{p}": np.ones(C, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    extent = save(tmp_path / "e.pt", {"gather.conv1.weight": np.ones((C, 1, 3, 3), np.float32)} | norm)
    whole = save(tmp_path / "w.pt", {"gather.conv1.weight": np.ones((C, 1, 8, 8), np.float32)} | norm)
    assert said(extent, "ge[theta]", settings={"extent": 2}) == []
    (line,) = said(whole, "ge[theta]")
    assert "timm's GatherExcite, which pads a convolution over the whole map: module='ge[timm]'" in line
    assert said(whole, "ge[timm]") == []


def test_what_no_block_is_has_no_way_out(tmp_path: Path) -> None:
    block = make_block("a2", {"c_m": 8, "c_n": 8})
    path = save(tmp_path / "w.pt", block.initial(SITE, np.random.default_rng(0)))
    (line,) = said(path, "a2")
    assert "DoubleAttention of External-Attention and cv-attention, which has its softmaxes over the batch" in line
    assert "(no block is that)" in line


def test_keys_that_only_one_source_has_decide(tmp_path: Path) -> None:
    """EfficientNet-PyTorch alone has _se_reduce, and means SiLU; whoever says otherwise is heard."""
    named = {key.replace("fc1", "_se_reduce").replace("fc2", "_se_expand"): values for key, values in se().items()}
    path = save(tmp_path / "w.pt", named)
    (line,) = said(path, "se")
    assert "the keys in w.pt are those of MBConvBlock, which has SiLU and a sigmoid: read as" in line
    assert put(path, "se").insertions()[0].settings["activation"] == "silu"
    assert put(path, "se", settings={"activation": "relu"}).insertions()[0].settings.get("activation", "relu") == "relu"


def test_keys_beside_those_of_a_host(tmp_path: Path) -> None:
    host = {"conv1.weight": np.ones((C, C, 1, 1), np.float32)}
    host |= {f"bn1.{p}": np.ones(C, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    lines = said(save(tmp_path / "w.pt", se() | host), "se")
    assert any("are also those of" in line for line in lines)


# ---------------------------------------------------------------------- what a pickle tells


def test_the_class_of_a_pickled_module(pickled: Any) -> None:
    path = pickled("model.attention.CBAM.CBAMBlock", {}, cbam())
    lines = said(f"{path}:attn", "cbam")
    assert lines == [
        "model.2.cbam: model.pt:attn holds External-Attention's CBAMBlock (its class is "
        "model.attention.CBAM.CBAMBlock), which adds x: read as module='cbam[external-attention]'"
    ]
    assert put(f"{path}:attn", "cbam").insertions()[0].module == "cbam[external-attention]"
    assert said(f"{path}:attn", "cbam[external-attention]") == []
    message = refused(f"{path}:attn", "cbam[cv-attention]")
    assert message.startswith("model.pt:attn holds External-Attention's CBAMBlock")
    assert "and is not cbam[cv-attention]: module='cbam[external-attention]' reads it" in message


def test_the_modules_in_a_pickled_module(pickled: Any) -> None:
    """Whatever the class is called: torchvision's SE is three functions by what it was made with."""
    for parts, activation, gate in (
        ({"activation": nn.ReLU(), "scale_activation": nn.Sigmoid()}, "relu", "sigmoid"),
        ({"activation": nn.SiLU(), "scale_activation": nn.Sigmoid()}, "silu", "sigmoid"),
        ({"activation": nn.ReLU(), "scale_activation": nn.Hardsigmoid()}, "relu", "hard-sigmoid"),
    ):
        path = pickled("my.blocks.Squeeze", parts, se())
        checkpoint = weights.read(path).under("attn")
        fitted = weights.fitted(make_block("se"), SITE, checkpoint, {})
        assert (fitted.block.values["activation"], fitted.block.values["gate"]) == (activation, gate)
        assert len(fitted.warnings) == ((activation, gate) != ("relu", "sigmoid"))
        with pytest.raises(WeightsError, match="was asked for: leave it out, or give"):
            weights.fitted(make_block("se", {"gate": _other(gate)}), SITE, checkpoint, {"gate": _other(gate)})


def _other(gate: str) -> str:
    return "sigmoid" if gate == "hard-sigmoid" else "hard-sigmoid"


def test_a_class_that_no_block_is(pickled: Any) -> None:
    block = make_block("a2", {"c_m": 8, "c_n": 8})
    arrays = {key: np.asarray(values) for key, values in block.initial(SITE, np.random.default_rng(0)).items()}
    path = pickled("model.attention.A2Atttention.DoubleAttention", {}, arrays)
    message = refused(f"{path}:attn", "a2")
    assert "which has its softmaxes over the batch" in message
    way = "module='model.attention.A2Atttention:DoubleAttention'"
    assert message.endswith(f"no block is that function; insert the class itself: {way}")


def test_a_block_without_weights_that_the_file_knows_better(pickled: Any) -> None:
    """ge is ge[theta-minus], which has none; timm's has those of an MLP by default."""
    path = pickled(
        "timm.layers.gather_excite.GatherExcite", {"add_maxpool": False}, {f"mlp.{k}": v for k, v in se().items()}
    )
    assert put(f"{path}:attn", "ge").insertions()[0].module == "ge[timm]"


def test_ones_own_module_is_what_it_says(tmp_path: Path) -> None:
    """A module of graphsurgery, saved whole, is no other source's, whatever its keys."""
    torch.save(make_block("se", {"hidden": 4}).module(SITE), tmp_path / "w.pt")
    assert said(tmp_path / "w.pt", "se") == []
    model = put(tmp_path / "w.pt", "se")
    model.save(tmp_path / "m.onnx")
    assert said(f"{tmp_path / 'm.onnx'}:model.2.se", "se") == []


def test_values_of_any_size_are_read_without_being_written_out(pickled: Any) -> None:
    path = pickled("my.blocks.Odd", {"huge": 1 << 20000, "text": "x" * 5000, "nested": [[[]]]}, se())
    assert said(f"{path}:attn", "se")


# ---------------------------------------------------------------------- every door


def test_a_recipe(tmp_path: Path) -> None:
    save(tmp_path / "w.pt", se())
    (tmp_path / "r.yaml").write_text("insertions:\n  - {module: se, after: /model.2, weights: w.pt}\n")
    with pytest.warns(GraphSurgeryWarning, match="are also those of"):
        graphsurgery.Recipe.load(tmp_path / "r.yaml").apply(models.detector())


def test_a_live_model(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pt", se())
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.Conv2d(C, 4, 1))
    with pytest.warns(GraphSurgeryWarning, match="are also those of"):
        gt.attach(model, [{"module": "se", "after": "0", "weights": str(path)}], torch.zeros(1, 3, 8, 8))


def test_an_exported_graph_tells_activations(tmp_path: Path) -> None:
    """By the operators of the modules in it: what torch calls SiLU is a Sigmoid and a Mul."""
    for settings in ({}, {"activation": "silu"}, {"gate": "hard-sigmoid"}):
        module = nn.Sequential(nn.Identity(), make_block("se", {"hidden": 4, **settings}).module(SITE).eval())
        file = tmp_path / "m.onnx"
        torch.onnx.export(module, (torch.zeros(1, C, 8, 8),), file, dynamo=False, verbose=False)
        fitted = weights.fitted(make_block("se"), SITE, weights.read(file).under("1"), {})
        assert {name: fitted.block.values[name] for name in settings} == settings
        assert not any("are also those of" in line for line in fitted.warnings)


def test_names_that_mean_the_same_function_at_the_site(pickled: Any) -> None:
    """timm's Gather-Excite of an extent without MLP is ge[theta], and may be called so."""
    norm = {f"gather.norm1.{p}": np.ones(C, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    path = pickled(
        "timm.layers.gather_excite.GatherExcite", {}, {"gather.conv1.weight": np.ones((C, 1, 3, 3), np.float32)} | norm
    )
    assert put(f"{path}:attn", "ge[theta]", settings={"extent": 2}).insertions()[0].module == "ge[theta]"


def test_keys_that_only_one_variant_has_are_read_by_the_bare_name(tmp_path: Path) -> None:
    """As recipes of before say it, when sk was what is sk[official] now; a variant that is named is kept to."""
    block = make_block("sk[official]", {"groups": 4})
    path = save(tmp_path / "w.pt", block.initial(SITE, np.random.default_rng(0)))
    (line,) = said(path, "sk", settings={"groups": 4})
    assert line.endswith("the keys in w.pt are those of SKConv of PytorchInsight: read as module='sk[official]'")
    assert "use module='sk[official]'" in refused(path, "sk[paper]")
