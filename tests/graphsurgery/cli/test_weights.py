"""`graphsurgery weights`, and `graphsurgery apply` with what it wrote."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import graphsurgery as gsx
from graphsurgery import torch as gt
from tests.graphsurgery.torch.nets import image, net

RECIPE = "- {module: se, after: c2f, settings: {reduction: 4}}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with blocks, an export without, and one of another training."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "recipe.yaml").write_text(RECIPE)
    model = net()
    for name, each in (("base", model), ("other", net(1))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(each, (image(),), folder / f"{name}.onnx", dynamo=False, opset_version=17)
    gt.attach(model, folder / "recipe.yaml", image())
    torch.save({"model": model.half()}, folder / "best.pt")
    torch.save(model.state_dict(), folder / "state.pt")
    return folder


@pytest.fixture
def inputs(folder: Path, made: Path) -> Path:
    """These files in the folder of the test."""
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_from_the_checkpoint_to_the_file(cli: Any, inputs: Path) -> None:
    ended = cli("weights", "best.pt", "-o", "blocks.safetensors")
    assert ended.code == 0
    lines = ended.text.splitlines()
    assert lines[1].split() == ["c2f.se", "se", "after", "c2f", "residual", "16", "149"]
    assert lines[-2:] == ["rest: known by the weights of 22 modules", "written to blocks.safetensors"]
    ended = cli("apply", "blocks.safetensors", "base.onnx", "-o", "out.onnx", "--json")
    assert ended.code == 0
    data = json.loads(ended.out)
    (insertion,) = data["insertions"]
    assert (insertion["id"], insertion["parity"]["passed"], insertion["warnings"]) == ("c2f.se", True, [])
    base = data["base"]
    assert (base["modules"], base["compared"]) == (22, 20)
    assert 0 < base["worst"] < base["tolerance"] == 2.0**-9
    assert 0.8 < base["share"] < 1
    text = cli("apply", "best.pt", "base.onnx", "--dry-run", "--no-verify").text
    assert "the model is the one that the blocks were trained in: 20 of 22 modules compared (" in text
    assert "no claim about accuracy" not in text
    written = gsx.ModelFile.load(inputs / "out.onnx")
    assert written.to_bytes() == gsx.apply(inputs / "blocks.safetensors", inputs / "base.onnx").to_bytes()


def test_the_list_as_json(cli: Any, inputs: Path, unchanged: Any) -> None:
    with unchanged():
        data = json.loads(cli("weights", "best.pt", "--json").out)
    (attachment,) = data.pop("attachments")
    assert data == {"checkpoint": "best.pt", "output": None, "rest": 22}
    assert attachment.pop("settings")["reduction"] == 4
    assert attachment == {
        "id": "c2f.se",
        "module": "se",
        "path": "c2f",
        "named": "c2f",
        "position": "after",
        "gate": "residual",
        "init": "default",
        "channels": 16,
        "size": None,
        "parameters": 149,
    }


def test_another_training_is_refused(cli: Any, inputs: Path, unchanged: Any) -> None:
    with unchanged():
        said = cli("apply", "best.pt", "other.onnx", "-o", "out.onnx").sentence(1)
    assert said.startswith(
        "other.onnx is not the rest of the model that the blocks of best.pt were trained in: the wei"
    )
    assert said.endswith(
        "export the trained model with its blocks detached, or --ignore-rest puts the blocks in all the same"
    )
    ended = cli("apply", "best.pt", "other.onnx", "-o", "out.onnx", "--ignore-rest", "--no-verify", "--json")
    assert "base" not in json.loads(ended.out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "apply base.onnx b.safetensors -o o.onnx",
            "the blocks come first: graphsurgery apply b.safetensors base.onnx ...",
        ),
        (
            "apply base.onnx recipe.yaml -o o.onnx",
            "the recipe comes first: graphsurgery apply recipe.yaml base.onnx ...",
        ),
        (
            "apply b.safetensors recipe.yaml -o o.onnx",
            "b.safetensors has its recipe in it: give the model that it is for, and not recipe.yaml",
        ),
        (
            "apply recipe.yaml base.onnx -o o.onnx --ignore-rest",
            "--ignore-rest goes with trained blocks, not with a recipe",
        ),
        ("apply recipe.yaml base.onnx -o o.onnx --trust a.b:C", "--trust goes with trained blocks, not with a recipe"),
        (
            "weights recipe.yaml",
            "recipe.yaml is no checkpoint of PyTorch: the trained blocks come out of a .pt or .pth",
        ),
        (
            "weights state.pt",
            "state.pt holds weights without the model that they are of, so nothing in it says what is",
        ),
        *(
            (f"{words} -o {read} --force", f"{read} is what is read here; give the result another name")
            for words, read in (
                ("apply best.pt base.onnx", "best.pt"),
                ("apply recipe.yaml base.onnx", "recipe.yaml"),
                ("adopt base.onnx --recipe recipe.yaml", "./recipe.yaml"),
                ("insert base.onnx --module se --after /c2f --weights best.pt:c2f.se.block", "best.pt"),
            )
        ),
        ("weights best.pt -o best.pt", "the blocks go to a .safetensors, which best.pt is not"),
        ("weights best.pt -o b.safetensors", "b.safetensors exists already; use --force to replace it"),
        ("weights b.safetensors", "b.safetensors is not a readable safetensors file: "),
        ("weights none.pt", "there is no weights file none.pt"),
    ],
)
def test_wrong_words(cli: Any, inputs: Path, unchanged: Any, words: str, said: str) -> None:
    (inputs / "b.safetensors").write_bytes(b"no such file")
    with unchanged():
        assert cli(*words.split()).sentence(2).startswith(said)
