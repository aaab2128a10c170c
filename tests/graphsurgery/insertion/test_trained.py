"""Trained blocks in a file: the same as in the live model, in the same order, or one sentence."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.errors import (
    BaseDiffers,
    BlockError,
    GraphSurgeryError,
    InsertionError,
    MissingDependency,
    RequestError,
    WeightsError,
)
from tests.graphsurgery.torch.conftest import quick  # noqa: F401 - it acts on every test
from tests.graphsurgery.torch.nets import entry, image, net, run

SE = {"module": "se", "settings": {"reduction": 4}}
RECIPE = [{**SE, "after": "c2f"}]
Recipe = list[Mapping[str, Any]]


def exported(model: nn.Module) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image(),), stream, dynamo=False, input_names=["x"], opset_version=17)
    return stream.getvalue()


@pytest.fixture(scope="module")
def base() -> bytes:
    return exported(net())


def attached(recipe: Recipe = RECIPE) -> nn.Module:
    model = net()
    gt.attach(model, recipe, image())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in gt.block_parameters(model):
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    return model.eval()


def blocks_of(model: nn.Module, folder: Path) -> gsx.TrainedBlocks:
    return gsx.TrainedBlocks.load(gt.save_blocks(model, folder / "blocks.safetensors", force=True))


def output(file: gsx.ModelFile | bytes) -> np.ndarray[Any, Any]:
    data = file if isinstance(file, bytes) else file.proto().SerializeToString()
    found: np.ndarray[Any, Any] = onnxruntime.InferenceSession(data).run(None, {"x": image().numpy()})[0]
    return found


@pytest.mark.parametrize(
    "recipe",
    [
        [{**SE, "after": "c2f"}, {"module": "simam", "after": "c2f", "gate": "none"}],
        [{"module": "simam", "after": "c2f.cv2", "gate": "none"}, {**SE, "after": "c2f", "gate": "none"}],
        [{**SE, "after": "concat", "gate": "none"}, {"module": "simam", "before": "out", "gate": "none"}],
        [{**SE, "before": "stage", "gate": "none"}, {"module": "simam", "before": "stage.0", "gate": "none"}],
        [{**SE, "after": ["stage", "stage.0"]}, {"module": "eca", "after": "stage.1"}],
        [{**SE, "after": "c2f", "consumers": "concat", "gate": "none"}, {"module": "simam", "after": "c2f"}],
    ],
    ids=["chained", "inner first", "after, then before", "outer first", "containers", "one consumer"],
)
def test_the_file_computes_what_the_model_does(base: bytes, recipe: Recipe, tmp_path: Path) -> None:
    agrees(attached(recipe), base, tmp_path)


@pytest.mark.parametrize("gate", ["none", "residual"])
def test_calibrated_blocks(base: bytes, gate: str, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", image().numpy())
    given = {"init": "calibrated", "images": str(tmp_path), "gate": gate}
    agrees(attached([{**SE, "after": "c2f", **given}, {"module": "simam", "after": "down", **given}]), base, tmp_path)


def agrees(model: nn.Module, base: bytes, tmp_path: Path) -> None:
    """Put the blocks of a model into the export of its rest, and compare; take them out again."""
    blocks = blocks_of(model, tmp_path)
    file = gsx.apply(blocks, base)
    assert {each.id for each in file.insertions()} == {f"{each.named}.{each.name}" for each in gt.attachments(model)}
    assert {each.init for each in file.insertions()} == {"weights"}
    expected = run(model, image()).numpy()
    assert np.abs(output(file) - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(output(base) - expected).max() > 1e-3 * np.abs(expected).max()
    assert gsx.remove(file).proto().SerializeToString() == base


def test_half_weights_are_taken_in_float32(base: bytes, tmp_path: Path) -> None:
    model = attached()
    torch.save({"ema": copy.deepcopy(model).half()}, tmp_path / "best.pt")
    file = gsx.apply(tmp_path / "best.pt", base)
    stored = model.half().float()
    assert np.abs(output(file) - run(stored, image()).numpy()).max() < 2e-3  # whose rest is in float16 as well
    assert {each.module for each in file.insertions()} == {"se"}


# ---------------------------------------------------------------------- the wrong model


def test_a_model_that_is_not_the_rest_is_refused(tmp_path: Path) -> None:
    blocks, other = blocks_of(attached(), tmp_path), exported(net(1))
    said = (
        r"is not the rest of the model that the blocks of blocks\.safetensors were trained in: the weights of "
        r"stem\.conv are others \(away by .* of their length, where rounding explains 0\.002\), and so are those of "
        r"10 more of 11 modules compared; export the trained model with its blocks detached, or ignore_rest=True puts"
    )
    with pytest.raises(BaseDiffers, match=said) as caught:
        gsx.apply(blocks, other)
    assert caught.value.exit_code == 1
    assert len(gsx.apply(blocks, other, ignore_rest=True).insertions()) == 1


def test_a_model_that_nothing_is_known_of_is_refused(base: bytes, tmp_path: Path) -> None:
    blocks = blocks_of(attached(), tmp_path)
    with pytest.raises(BaseDiffers, match="does not say what the rest of the trained model is"):
        gsx.apply(replace(blocks, rest=None), base)
    nameless = gsx.ModelFile.load(base).proto()
    for node in nameless.graph.node:
        node.input[:] = [name.replace("::", "_") for name in node.input]
        if node.op_type == "Conv":
            node.name = ""
    for each in nameless.graph.initializer:
        each.name = each.name.replace("::", "_").replace("head.", "x")
    for node in nameless.graph.node:
        node.input[:] = [name.replace("head.", "x") for name in node.input]
    with pytest.raises(BaseDiffers, match=r"nothing tells whether .* are there by name, and these are .* of all"):
        gsx.apply(blocks, nameless)


def test_a_model_that_has_blocks_is_refused(base: bytes, tmp_path: Path) -> None:
    model = attached()
    blocks = blocks_of(model, tmp_path)
    with pytest.raises(InsertionError, match=r"has the block c2f\.se already; give the model without it"):
        gsx.apply(blocks, gsx.apply(blocks, base))
    with pytest.raises(InsertionError, match=r"has the block c2f\.se already, as its exporter wrote it; export"):
        gsx.apply(blocks, exported(model))
    other = gsx.insert(base, "eca", after="down", gate="residual")
    with pytest.raises(BaseDiffers, match=r"has insertions that the trained model has not \(down\.eca\)"):
        gsx.apply(blocks, other)
    assert len(gsx.apply(blocks, other, ignore_rest=True).insertions()) == 2


# ---------------------------------------------------------------------- the wrong weights


def changed(blocks: gsx.TrainedBlocks, key: str, values: object) -> gsx.TrainedBlocks:
    arrays = {**blocks.arrays, key: np.asarray(values, np.float32)}
    return replace(blocks, arrays={each: array for each, array in arrays.items() if array.size})


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("c2f.se.alpha", [np.nan], r"^c2f\.se: c2f\.se\.alpha in blocks\.safetensors has values that are not finite$"),
        ("c2f.se.alpha", [], r"^c2f\.se: blocks\.safetensors lacks c2f\.se\.alpha$"),
        ("c2f.se.alpha", [1, 2], r"c2f\.se\.alpha in blocks\.safetensors has the shape \[2\]; it has to be \[1\]$"),
        ("c2f.se.more", [1], r"^c2f\.se: blocks\.safetensors has more for c2f\.se, which se does not$"),
    ],
)
def test_weights_that_do_not_fit(base: bytes, tmp_path: Path, key: str, values: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        gsx.apply(changed(blocks_of(attached(), tmp_path), key, values), base)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"channels": 64}, WeightsError, r"c2f has 16 channels; the weights of c2f\.se in .* are made for 64"),
        ({"size": (8, 8)}, WeightsError, r"the map of .*c2f has the size .*; the weights .* are made for 8x8"),
        ({"init": "calibrated"}, WeightsError, r"^c2f\.se: blocks\.safetensors lacks c2f\.se\.block\.scale$"),
        ({"named": "c3f"}, RequestError, r"^c2f\.se: "),
        ({"module": "sea"}, BlockError, r"^c2f\.se: there is no block 'sea'"),
        ({"module": "mine.blocks:Attention", "settings": {}}, MissingDependency, "if it is yours, use trust="),
    ],
)
def test_attachments_that_do_not_fit(
    base: bytes, tmp_path: Path, change: dict[str, Any], kind: type[GraphSurgeryError], message: str
) -> None:
    blocks = blocks_of(attached(), tmp_path)
    other = replace(blocks, attachments=(replace(blocks.attachments[0], **change),))
    with pytest.raises(kind, match=message):
        gsx.apply(other, base)


def test_what_only_trained_blocks_have(base: bytes) -> None:
    recipe = gsx.Recipe.of([entry("simam", "c2f")])
    with pytest.raises(RequestError, match="ignore_rest= goes with trained blocks, not with a recipe"):
        gsx.apply(recipe, base, ignore_rest=True)
    with pytest.raises(RequestError, match="trust= goes with trained blocks"):
        gsx.apply(recipe, base, trust="a.b:C")
