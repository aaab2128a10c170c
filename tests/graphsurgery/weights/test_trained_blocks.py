"""TrainedBlocks: out of checkpoints, without running anything in them, and through files."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.errors import OutputError, WeightsError
from tests.graphsurgery.torch.conftest import quick  # noqa: F401 - it acts on every test
from tests.graphsurgery.torch.nets import entry, image, net

RECIPE = [
    entry("cbam", "c2f", settings={"reduction": 4}),
    {"module": "nam", "before": "out", "gate": "none"},
    entry("simam", "stage"),
]


def attached(model: nn.Module | None = None) -> nn.Module:
    model = model or net()
    gt.attach(model, RECIPE, image())  # type: ignore[arg-type]
    with torch.no_grad():
        for _, parameter in gt.block_parameters(model):
            parameter.normal_()
    return model.eval()


class Around(nn.Module):
    """A model as an attribute, as trainers and DataParallel keep it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.module = inner


class Detector(nn.Module):
    """A model in a model, as Ultralytics' model.model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = net()


def checkpoint(folder: Path, content: object) -> Path:
    path = folder / "best.pt"
    torch.save(content, path)
    return path


KINDS: dict[str, Callable[[nn.Module], object]] = {
    "the model": lambda model: model,
    "an average beside it": lambda model: {"model": net(), "ema": copy.deepcopy(model).half(), "epoch": 3},
    "wrapped": lambda model: {"state": 1, "model": Around(Around(model))},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_blocks_of_a_checkpoint(tmp_path: Path, kind: str) -> None:
    model = attached()
    expected = gt.save_blocks(copy.deepcopy(model), tmp_path / "live.safetensors")
    found = gsx.TrainedBlocks.load(checkpoint(tmp_path, KINDS[kind](model)))
    live = gsx.TrainedBlocks.load(expected)
    assert found.attachments == live.attachments
    assert found.arrays.keys() == live.arrays.keys()
    for key, values in live.arrays.items():
        assert found.arrays[key].shape == values.shape
        assert np.abs(found.arrays[key] - values).max() <= 2e-3 * np.abs(values).max()
    assert found.rest is not None
    assert live.rest is not None
    assert found.rest.modules.keys() == live.rest.modules.keys()
    assert not any(".cbam" in path or ".nam" in path for path in found.rest.modules)
    assert found.notes == (
        ("the averaged weights (EMA) of best.pt were taken, as its trainer's own loader does",) * ("average" in kind)
    )


def test_a_file_of_them_is_that_of_save_blocks(tmp_path: Path) -> None:
    model = attached()
    gt.save_blocks(model, tmp_path / "a.safetensors")
    gsx.TrainedBlocks.load(checkpoint(tmp_path, model)).save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    gt.load_blocks(attached(), tmp_path / "b.safetensors")
    with pytest.raises(OutputError, match="exists already"):
        gsx.TrainedBlocks.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")


def test_blocks_that_were_attached_to_a_part_have_the_paths_of_the_whole(tmp_path: Path) -> None:
    whole = Detector()
    attached(whole.model)
    for found in (
        gsx.TrainedBlocks.load(checkpoint(tmp_path, whole)),
        gsx.TrainedBlocks.load(gt.save_blocks(whole, tmp_path / "a.safetensors")),
    ):
        assert [(each.id, each.named) for each in found.attachments] == [
            ("model.c2f.cbam", "model.c2f"),
            ("model.stage.1.0.simam", "model.stage"),
            ("model.out.nam", "model.out"),
        ]
        assert found.rest is not None
        assert "model.c2f.cv1.conv" in found.rest.modules
    gt.load_blocks(whole, tmp_path / "a.safetensors")


class Executing(nn.Module):
    """Makes a folder when it is unpickled in the usual way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_nothing_of_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path, {"ema": attached(), "trainer": Executing()})
    assert len(gsx.TrainedBlocks.load(path).attachments) == len(RECIPE)
    assert not Path("executed").exists()
    torch.load(path, weights_only=False)
    assert Path("executed").exists()


def damaged(change: Callable[[dict[str, Any]], object]) -> nn.Module:
    """A model whose first hook has other plain data."""
    model = attached()
    (hook,) = model.c2f._forward_hooks.values()  # type: ignore[union-attr,operator]
    change(hook.spec)
    return model


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: net(), r"^best.pt has no blocks of graphsurgery attached to its model \(.*nets\.Net\)$"),
        (lambda: attached().state_dict(), "^best.pt holds weights without the model that they are of, so nothing in"),
        (lambda: {"model": attached().state_dict()}, "^best.pt holds weights without the model"),
        (lambda: {"epoch": 1}, "^best.pt has no weights in it; its entries are epoch$"),
        (lambda: damaged(lambda spec: spec.update(format=99)), "^best.pt was written by a newer graphsurgery"),
        (lambda: damaged(lambda spec: spec.pop("gate")), "^the attachments in best.pt are damaged$"),
        (lambda: damaged(lambda spec: spec.update(gate="open")), "^the attachments in best.pt are damaged$"),
        (lambda: damaged(lambda spec: spec.update(channels="many")), "^the attachments in best.pt are damaged$"),
        (lambda: damaged(lambda spec: spec.update(size=[1, 2, 3])), "^the attachments in best.pt are damaged$"),
        (lambda: damaged(lambda spec: spec.update(module="./x.onnx")), "^the attachments in best.pt are damaged$"),
        *(
            (lambda change=change: damaged(change), "^the attachments in best.pt are damaged$")
            for change in (
                lambda spec: spec["entry"].update(x=spec["entry"]),
                lambda spec: spec["settings"].update(reduction={1, 2}),
                lambda spec: spec["entry"].update(x=torch.zeros(1)),
                lambda spec: spec["entry"].update(x="\ud800"),
                lambda spec: spec["entry"].update(before="down"),
                lambda spec: spec.update(position="before"),
                lambda spec: spec.update(init="trained"),
                lambda spec: spec.update(channels=-1),
                lambda spec: spec.update(size=[0, 8]),
                lambda spec: spec.update(format=float("nan")),
            )
        ),
        (lambda: damaged(lambda spec: spec.update(path="down")), "^the attachment down.cbam is on the module 'c2f'"),
    ],
)
def test_a_checkpoint_without_blocks_that_can_be_read(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        gsx.TrainedBlocks.load(checkpoint(tmp_path, content()))


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.yaml"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(WeightsError, match=f"{name} is no checkpoint of PyTorch: the trained blocks come out of"):
            gsx.TrainedBlocks.load(tmp_path / name)
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(WeightsError, match="there is no weights file"):
            gsx.TrainedBlocks.load(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.clear(), "has no attachments in it: it was not written by save_blocks, nor by"),
        (lambda header: header.update(format=99, rest="?"), "was written by a newer graphsurgery"),
        (lambda header: header.update(rest={}), "the attachments in a.safetensors are damaged"),
        (lambda header: header["rest"].update(modules=[["x", "layer", [1]]]), "are damaged"),
        (lambda header: header["rest"].update(rounding=float("nan")), "are damaged"),
        (lambda header: header["rest"].update(rounding=1.0), "are damaged"),
        (lambda header: header.update(format=float("nan")), "are damaged"),
        (lambda header: header["attachments"][0].update(named="*"), "are damaged"),
        (lambda header: header["attachments"][0].update(named="down"), "are damaged"),
        (lambda header: header["attachments"][0].update(module="x" * 5000), "are damaged"),
        (lambda header: header["rest"]["modules"][0].__setitem__(3, []), "are damaged"),
        (lambda header: header["rest"]["modules"][0][3][0][0].__setitem__(0, float("nan")), "are damaged"),
        (lambda header: header["rest"]["modules"][0].__setitem__(2, [1 << 30] * 99), "are damaged"),
        (lambda header: header.update(attachments=[]), "are damaged"),
        (lambda header: header["attachments"].extend([{}] * 5000), r"has 5,00\d blocks attached; more than 4,096 no"),
        (lambda header: header["attachments"].append(header["attachments"][0]), "are damaged"),
        (lambda header: header["attachments"].pop(0), r"has c2f\.cbam.*, which the attached blocks do not"),
    ],
)
def test_a_file_with_another_header(tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    from safetensors.torch import load_file, save_file

    path = gt.save_blocks(attached(), tmp_path / "a.safetensors")
    data = path.read_bytes()
    header = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["graphsurgery"])
    tensors = load_file(path)
    change(header)
    save_file(tensors, path, {"graphsurgery": json.dumps(header)} if header else {"other": "x"})
    with pytest.raises(WeightsError, match=message):
        gsx.TrainedBlocks.load(path)


def test_bfloat16_goes_through_a_file(tmp_path: Path) -> None:
    model = attached().bfloat16()
    found = gsx.TrainedBlocks.load(gt.save_blocks(model, tmp_path / "a.safetensors"))
    assert {str(values.dtype) for values in found.arrays.values()} == {"bfloat16", "int64"}
    gt.load_blocks(attached(), tmp_path / "a.safetensors")
