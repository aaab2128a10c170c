"""save_blocks and load_blocks: the weights of blocks apart from the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from graphsurgery import torch as gt
from graphsurgery.errors import OutputError, WeightsError

from .nets import entry, image, net, open_gates, run

RECIPE = [entry("cbam", "c2f", settings={"reduction": 4}), {"module": "nam", "before": "out", "gate": "none"}]


def attached(recipe: object = RECIPE, seed: int = 0) -> nn.Module:
    model = net()
    torch.manual_seed(seed)
    gt.attach(model, recipe, image())  # type: ignore[arg-type]
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Blocks with weights of their own."""
    model = attached()
    with torch.no_grad():
        for _, parameter in gt.block_parameters(model):
            parameter.normal_()
    model.train()
    model(torch.cat([image(), image(2)]))  # other statistics
    return gt.save_blocks(model, tmp_path / "blocks.safetensors")


def test_the_blocks_go_to_another_model_and_nothing_else_does(saved: Path) -> None:
    first, second = attached(), attached()
    gt.load_blocks(first, saved)
    gt.load_blocks(second, str(saved))
    tensors = load_file(saved)
    own = {key: value for key, value in first.state_dict().items() if ".cbam." in key or ".nam." in key}
    assert own.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[key]) for key, value in own.items())
    assert float(tensors["out.nam.Channel_Att.bn2.num_batches_tracked"]) == 1
    open_gates(first)
    open_gates(second)
    assert torch.equal(run(first, image()), run(second, image()))
    gt.detach(first)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), net().parameters(), strict=True))


def test_the_header_says_what_is_attached_where(saved: Path) -> None:
    data = saved.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    attachments = json.loads(metadata["graphsurgery"])["attachments"]
    assert [(each["path"], each["name"], each["channels"]) for each in attachments] == [
        ("c2f", "cbam", 16),
        ("out", "nam", 32),
    ]
    assert attachments[0]["entry"] == RECIPE[0]


def test_insert_takes_the_weights_of_a_file(saved: Path) -> None:
    model = net()
    (block,) = gt.attach(model, [entry("cbam", "c2f", weights=f"{saved}:c2f.cbam", gate="residual")], image())
    assert block.init == "weights"
    tensors = load_file(saved)
    assert torch.equal(model.c2f.cbam.alpha, tensors["c2f.cbam.alpha"])
    key = "block.SpatialGate.spatial.conv.weight"
    assert torch.equal(model.c2f.cbam.state_dict()[key], tensors[f"c2f.cbam.{key}"])


def test_a_file_is_not_replaced_unless_it_is_said(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(OutputError, match="exists already; use force=True"):
        gt.save_blocks(attached(), saved)
    assert saved.read_bytes() == before
    gt.save_blocks(attached(), saved, force=True)
    assert saved.read_bytes() != before


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor], Any], object]) -> None:
    """Change the tensors and the header of a file."""
    tensors, data = load_file(path), path.read_bytes()
    header = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["graphsurgery"])
    change(tensors, header)
    save_file(tensors, path, {"graphsurgery": json.dumps(header)} if header else {"other": "x"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, h: t.pop("c2f.cbam.alpha"), r"blocks\.safetensors lacks c2f\.cbam\.alpha"),
        (lambda t, h: t.update(more=torch.zeros(1)), "has more, which the attached blocks do not"),
        (lambda t, h: t["c2f.cbam.alpha"].fill_(float("nan")), r"c2f\.cbam\.alpha in .* not finite"),
        (lambda t, h: t["c2f.cbam.alpha"].fill_(float("-inf")), r"c2f\.cbam\.alpha in .* not finite"),
        (lambda t, h: t.update({"c2f.cbam.alpha": torch.zeros(2)}), r"has the shape \[2\]; the block needs \[1\]"),
        (
            lambda t, h: t.update({"c2f.cbam.alpha": torch.full((1,), 1e300, dtype=torch.float64)}),
            "alpha in .* more than",
        ),
        (
            lambda t, h: t.update({"c2f.cbam.alpha": torch.full((1,), float("nan")).to(torch.float8_e4m3fn)}),
            "alpha in .* not finite",
        ),
        *(
            (
                lambda t, h, kind=kind: t.update({"c2f.cbam.alpha": torch.ones(1, dtype=kind)}),
                f"is of {name}; the block has",
            )
            for kind, name in ((torch.int64, "int64"), (torch.bool, "bool"), (torch.complex64, "complex64"))
        ),
        (lambda t, h: h.update(format=99), "was written by a newer graphsurgery"),
        (lambda t, h: h["attachments"][0].update(format=99), "was written by a newer graphsurgery"),
        (lambda t, h: h.pop("attachments"), "the attachments in .* are damaged"),
        (lambda t, h: h["attachments"][0].pop("gate"), "the attachments in .* are damaged"),
        (lambda t, h: h.clear(), "has no attachments in it: it was not written by save_blocks"),
        (
            lambda t, h: h["attachments"][0].update(channels=64),
            r"c2f has 16 channels; the weights of c2f\.cbam in .* are made for 64",
        ),
        (lambda t, h: h["attachments"].pop(), r"of another recipe: it has nothing for out\.nam"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(saved: Path, change: Any, message: str) -> None:
    rewritten(saved, change)
    model = attached()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        gt.load_blocks(model, saved)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([*RECIPE, entry("simam", "down")], r"nothing for down\.simam, but c2f\.cbam, out\.nam"),
        (RECIPE[:1], r"it has out\.nam, which is not attached to the model"),
        ([{**RECIPE[0], "settings": {"reduction": 2}}, RECIPE[1]], r"the settings of c2f\.cbam there is"),
        (
            [{**RECIPE[0], "gate": "none"}, RECIPE[1]],
            r"the gate of c2f\.cbam there is 'residual', and in",
        ),
        ([RECIPE[0], entry("nam", "out", gate="none")], r"out has 16 channels; the weights of out\.nam in .* for 32"),
    ],
)
def test_a_file_of_another_recipe(saved: Path, recipe: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        gt.load_blocks(attached(recipe), saved)


def test_what_is_no_file_of_blocks(tmp_path: Path) -> None:
    model = attached()
    for name, content in (("a.safetensors", b"x"), ("best.pt", b"PK"), ("b.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=f"{name} is not a readable safetensors file"):
            gt.load_blocks(model, tmp_path / name)
    with pytest.raises(WeightsError, match="there is no weights file"):
        gt.load_blocks(model, tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        gt.load_blocks(model, tmp_path)
