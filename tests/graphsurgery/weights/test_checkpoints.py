"""Weights out of what training leaves behind: whole checkpoints of trainers, and ONNX files."""

from __future__ import annotations

import argparse
import copy
import functools
import os
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import graphsurgery
from graphsurgery import weights
from graphsurgery.api import carry_out
from graphsurgery.errors import GraphSurgeryWarning, WeightsError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from graphsurgery.userblocks.inserted import module_of, weights_of
from tests import models

Array = np.ndarray[Any, Any]
C, EPS = 16, 1e-3


class Attended(torch.nn.Module):
    """A stage with attention in it, as a fork of a detector has it. Stands here so that it is pickled by reference."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attn = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.attn(x)
        return result


def nam(eps: float = 1e-5, seed: int = 0, channels: int = C) -> torch.nn.Module:
    from graphsurgery.patterns.modules.nam import NAM

    torch.manual_seed(seed)
    module = NAM(channels, bn_eps=eps)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    return module


def se(seed: int = 0) -> torch.nn.Module:
    from graphsurgery.patterns.modules.se import SqueezeExcite

    torch.manual_seed(seed)
    return SqueezeExcite(C, 4)


def detector(*attention: torch.nn.Module) -> torch.nn.Module:
    """What Ultralytics' trainers pickle: modules under ``model.N``."""
    module = torch.nn.Module()
    module.model = torch.nn.Sequential(*(Attended(each) for each in attention))
    return module


def put(file: str | Path, module: str = "nam", **arguments: Any) -> tuple[ModelFile, tuple[str, ...]]:
    """The model with the block in it, and the warnings."""
    request = Request(module, ("/model.2",), weights=str(file), **arguments)
    edited, (done,) = carry_out(ModelFile.load(models.detector()), [request])
    return edited, tuple(str(GraphSurgeryWarning(each)) for each in done.warnings)


def agree(edited: ModelFile, module: torch.nn.Module) -> None:
    """The inserted weights are the module's, and so is the function."""
    insertion = edited.insertions()[0]
    state = module.state_dict()
    found = weights_of(insertion, edited)
    assert {key for key in state if "num_batches" not in key} == set(found)
    for key, values in found.items():
        assert np.allclose(values, state[key].double().numpy(), rtol=1e-6), key
    x = torch.randn(2, C, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(
            module_of(insertion, edited)(x),
            copy.deepcopy(module).double().eval()(x),
            rtol=1e-5,
        )


def refused(file: str | Path, module: str = "nam", **arguments: Any) -> str:
    with pytest.raises(WeightsError) as error:
        put(file, module, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------- Ultralytics


def test_a_checkpoint_of_ultralytics(tmp_path: Path) -> None:
    """Pickled modules, half precision, the average preferred, the epsilon read off the BatchNorm."""
    raw, averaged = detector(se(1), nam(EPS, 1)), detector(se(2), nam(EPS, 2))
    checkpoint = {
        "epoch": -1,
        "model": raw.half(),
        "ema": copy.deepcopy(averaged).half(),
        "updates": 7,
        "optimizer": None,
        "train_args": {"epochs": 1},
        "path": Path("runs"),
    }
    torch.save(checkpoint, tmp_path / "best.pt")
    edited, warnings = put(f"{tmp_path / 'best.pt'}:model.1.attn")
    half = detector(averaged.model[0].attn, averaged.model[1].attn).half().float()
    agree(edited, half.model[1].attn)
    assert edited.insertions()[0].settings["bn_eps"] == EPS
    assert "bn_eps is 0.001, read from best.pt:model.1.attn" in warnings
    assert "the averaged weights (EMA) of best.pt were taken, as its trainer's own loader does" in warnings
    given, warnings = put(f"{tmp_path / 'best.pt'}:model.1.attn", settings={"bn_eps": 1e-5})
    assert given.insertions()[0].settings["bn_eps"] == 1e-5
    assert any("the BatchNorms in best.pt:model.1.attn have 0.001" in each for each in warnings)


def test_a_checkpoint_without_an_average(tmp_path: Path) -> None:
    raw = detector(nam(EPS, 1))
    torch.save({"model": raw, "ema": None}, tmp_path / "last.pt")
    edited, warnings = put(f"{tmp_path / 'last.pt'}:model.0.attn")
    agree(edited, raw.model[0].attn)
    assert not any("EMA" in each for each in warnings)


@pytest.mark.long
def test_a_checkpoint_that_ultralytics_itself_wrote(tmp_path: Path) -> None:
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.torch_utils import initialize_weights

    model = DetectionModel("yolov8n.yaml", verbose=False)
    model.model[8].attn = nam(channels=256)
    initialize_weights(model)
    wrapped = YOLO("yolov8n.yaml")
    wrapped.model = model
    wrapped.save(tmp_path / "best.pt")
    checkpoint = weights.read(tmp_path / "best.pt")
    assert checkpoint.ultralytics
    state = model.half().float().state_dict()
    assert set(checkpoint.arrays) == set(state)
    for key, values in checkpoint.arrays.items():
        assert np.allclose(values, state[key].numpy()), key
    assert checkpoint.epsilons["model.8.attn.Channel_Att.bn2"] == EPS


def test_a_plain_state_dict_does_not_tell_the_epsilon(tmp_path: Path) -> None:
    module = nam(EPS)
    state = {f"model.1.attn.{key}": value for key, value in module.state_dict().items()}
    torch.save(state | {"model.0.bn.running_var": torch.ones(3)}, tmp_path / "w.pt")
    edited, (warning,) = put(f"{tmp_path / 'w.pt'}:model.1.attn")
    assert edited.insertions()[0].settings["bn_eps"] == 1e-5
    assert warning == (
        "bn_eps is 1e-05, the default, since w.pt:model.1.attn does not tell; models built by Ultralytics have 0.001: "
        "settings={'bn_eps': 0.001}"
    )
    edited, none = put(f"{tmp_path / 'w.pt'}:model.1.attn", settings={"bn_eps": EPS})
    assert none == ()
    agree(edited, module)
    torch.save({f"attn.{key}": value for key, value in module.state_dict().items()}, tmp_path / "other.pt")
    assert put(f"{tmp_path / 'other.pt'}:attn")[1] == ()


def test_epsilons_that_differ(tmp_path: Path) -> None:
    from graphsurgery.patterns.modules.nam import NAM

    module = NAM(C, variant="channel+spatial", size=(8, 8))
    module.Channel_Att.bn2.eps = EPS
    torch.save({"model": detector(module)}, tmp_path / "w.pt")
    message = refused(f"{tmp_path / 'w.pt'}:model.0.attn", "nam[channel+spatial]")
    assert message == (
        "the BatchNorms in w.pt:model.0.attn have the epsilons 1e-05, 0.001; use settings={'bn_eps': VALUE}"
    )


# ---------------------------------------------------------------------- other trainers


@pytest.mark.parametrize(
    ("wrap", "averaged"),
    [
        (lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema, "args": argparse.Namespace(lr=1)}, True),  # timm
        (lambda raw, ema: {"model": raw, "ema": {"module": ema, "updates": 3}}, True),  # RT-DETR
        (lambda raw, ema: {"state_dict": raw, "hyper_parameters": types.SimpleNamespace(a=1)}, False),  # Lightning
        (lambda raw, ema: {"meta": {"time": 1}, "state_dict": OrderedDict(raw)}, False),  # MMDetection
        (lambda raw, ema: OrderedDict(raw), False),
        (lambda raw, ema: {"params": raw, "params_ema": ema}, True),  # BasicSR
        (lambda raw, ema: {"params_ema": ema}, True),
        (lambda raw, ema: {"net": raw, "acc": 0.9, "epoch": 3}, False),
        (lambda raw, ema: {"model": {"state_dict": raw}, "step": torch.ones(())}, False),
        (lambda raw, ema: {"student": {"weights": raw}, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}, False),
    ],
)
@pytest.mark.parametrize("around", ["", "module.", "model.", "_orig_mod.", "model.module."])
def test_checkpoints_of_trainers(tmp_path: Path, wrap: Any, averaged: bool, around: str) -> None:
    raw, ema = se(1), se(2)
    states = [{f"{around}layer1.0.se.{key}": v for key, v in each.state_dict().items()} for each in (raw, ema)]
    content = wrap(*states)
    torch.save(content, tmp_path / "w.pth.tar")
    edited, warnings = put(f"{tmp_path / 'w.pth.tar'}:layer1.0.se", "se")
    agree(edited, ema if averaged else raw)
    assert any("EMA" in each for each in warnings) == (averaged and len(content) > 1)


def test_several_state_dicts_without_a_known_name(tmp_path: Path) -> None:
    """All can be reached, each under its own name."""
    student, teacher = se(1), se(2)
    states = {"student": {"epoch": 3, "weights": student.state_dict()}, "teacher": teacher.state_dict()}
    torch.save(states, tmp_path / "w.pt")
    agree(put(f"{tmp_path / 'w.pt'}:student", "se")[0], student)
    agree(put(f"{tmp_path / 'w.pt'}:teacher", "se")[0], teacher)
    message = refused(tmp_path / "w.pt", "se")
    assert message.endswith("; weights that look like se lie under student and teacher")


@pytest.mark.parametrize("around", ["module.", "_orig_mod."])
def test_a_block_of_its_own_behind_a_wrapper(tmp_path: Path, around: str) -> None:
    module = se()
    torch.save({f"{around}{key}": value for key, value in module.state_dict().items()}, tmp_path / "w.pt")
    agree(put(tmp_path / "w.pt", "se")[0], module)


def test_what_does_not_belong_to_a_state_dict_is_left_out(tmp_path: Path) -> None:
    module = se()
    module.register_buffer("scratch", torch.ones(3), persistent=False)
    torch.save({"model": detector(module)}, tmp_path / "w.pt")
    agree(put(f"{tmp_path / 'w.pt'}:model.0.attn", "se")[0], se())


# ---------------------------------------------------------------------- nothing in a file is executed


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Built:
    """Pickles as an object of another class whose state is set."""

    def __init__(self, kind: type, state: object) -> None:
        self.kind, self.state = kind, state

    def __reduce__(self) -> Any:
        return functools.partial, (self.kind,), self.state


@pytest.mark.parametrize(
    "harm",
    [
        lambda trace: Calls(os.mkdir, trace),
        lambda trace: Calls(eval, f"__import__('os').mkdir({trace!r})"),
        lambda trace: Calls(exec, f"import os; os.mkdir({trace!r})"),
        lambda trace: Calls(getattr, Calls(__import__, "os"), "mkdir"),
        lambda trace: Calls(functools.partial(os.mkdir, trace)),
        lambda trace: Calls(map, os.mkdir, [trace]),
        lambda trace: Calls(torch.load, trace),
        lambda trace: Calls(torch.hub.load_state_dict_from_url, f"file://{trace}"),
        lambda trace: {Calls(os.mkdir, trace): 1},
        lambda trace: Built(dict, (os.mkdir, (trace,), {}, None)),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_pickle_runs_anything(tmp_path: Path, harm: Any, protocol: int) -> None:
    trace = tmp_path / "trace"
    content = {"model": detector(se()), "harm": harm(str(trace))}
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol)
    edited, _ = put(f"{tmp_path / 'w.pt'}:model.0.attn", "se")
    agree(edited, se())
    assert not trace.exists()


def test_the_harm_above_is_real(tmp_path: Path) -> None:
    """Loaded in the usual way, such a file does run what it names."""
    torch.save({"harm": Calls(os.mkdir, str(tmp_path / "trace"))}, tmp_path / "w.pt")
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


def test_modules_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that is not installed here is no obstacle, and one that is is not looked for."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_trainer.py").write_text("class Args: pass\n")
    import their_trainer  # type: ignore[import-not-found]

    torch.save({"model": detector(se()), "args": their_trainer.Args()}, tmp_path / "w.pt")
    monkeypatch.delitem(__import__("sys").modules, "their_trainer")
    (tmp_path / "their_trainer.py").write_text("raise RuntimeError('imported')\n")
    agree(put(f"{tmp_path / 'w.pt'}:model.0.attn", "se")[0], se())


def test_what_the_process_lets_torch_build_is_not_built(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), path)
    expected = weights.read(path).arrays
    with torch.serialization.safe_globals([torch.nn.Sequential, torch.nn.Conv2d]):
        assert isinstance(torch.load(path, weights_only=True), torch.nn.Sequential)
        found = weights.read(path).arrays
    assert found.keys() == expected.keys() == {"0.weight", "0.bias"}
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_programs_are_refused(tmp_path: Path) -> None:
    torch.jit.trace(se(), torch.ones(1, C, 8, 8)).save(tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt", "se") == (
        "w.pt is a TorchScript archive, which is a program; save the state_dict() of the module instead"
    )


def test_old_pickles_of_modules_are_refused(tmp_path: Path) -> None:
    torch.save({"model": detector(se())}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert "it would execute code when loaded" in refused(f"{tmp_path / 'w.pt'}:model.0.attn", "se")


def test_pickles_that_make_no_sense(tmp_path: Path) -> None:
    """Opcodes that no pickler writes: an error in one sentence, whatever they do."""
    for tail in (
        b"(cos\nsystem\nR.",
        b"cbuiltins\nlist\n}b.",
        b"N.",
        b"cos\nsystem\n)\x81}b.",
        b"\x8c\x02os\x8c\x04mkdi\x93)R.",
    ):
        torch.save({"a": Calls(os.getcwd)}, tmp_path / "w.pt")
        with zipfile.ZipFile(tmp_path / "w.pt") as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            for name, data in content.items():
                archive.writestr(name, b"\x80\x02" + tail if name.endswith("data.pkl") else data)
        refused(tmp_path / "w.pt", "se")


# ---------------------------------------------------------------------- what fits instead


def test_prefixes_that_fit_are_named(tmp_path: Path) -> None:
    torch.save({"model": detector(nam(), se(), nam(seed=1))}, tmp_path / "w.pt")
    message = refused(f"{tmp_path / 'w.pt'}:model.9.attn")
    assert message.endswith("; weights that look like nam[channel] lie under model.0.attn and model.2.attn")
    message = refused(tmp_path / "w.pt", "se")
    assert message.endswith("; weights that look like se lie under model.1.attn")
    torch.save({"model": detector(nam(), nam(), nam(), nam())}, tmp_path / "w.pt")
    assert "and 4 more, which the block does not" in refused(tmp_path / "w.pt", "se")


def test_what_fits_instead_is_a_candidate(tmp_path: Path) -> None:
    torch.save({"model": detector(nam(), se(), nam(seed=1))}, tmp_path / "w.pt")
    torch.save(nam().state_dict(), tmp_path / "nam.pt")
    torch.save({"backbone.attn.scale": torch.ones(1)}, tmp_path / "other.pt")
    for file, module, candidates in (
        ("w.pt:model.9.attn", "nam", ("model.0.attn", "model.2.attn")),
        ("w.pt", "se", ("model.1.attn",)),
        ("nam.pt", "se", ("nam[channel]",)),
        ("other.pt:backbone.atn", "se", ("backbone.attn",)),
    ):
        with pytest.raises(WeightsError) as error:
            put(tmp_path / file, module)
        assert error.value.candidates == candidates


def test_the_weights_of_another_block(tmp_path: Path) -> None:
    torch.save(nam().state_dict(), tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt", "se").endswith("; its keys look like those of nam[channel]")
    torch.save(se().state_dict(), tmp_path / "w.pt")
    assert "its keys look like those of" in (message := refused(tmp_path / "w.pt", "nam"))
    assert "se" in message.rpartition("those of")[2]


# ---------------------------------------------------------------------- ONNX


def test_an_insertion_in_another_file(tmp_path: Path) -> None:
    """With its hyper-parameters, and with the BatchNorms that it folded."""
    theta = {"extent": 4, "bn_eps": EPS}
    first = graphsurgery.insert(models.detector(), "ge[theta-plus]", after="/model.2", settings=theta, seed=5)
    first.save(tmp_path / "a.onnx")
    edited, warnings = put(f"{tmp_path / 'a.onnx'}:model.2.ge", "ge[theta-plus]")
    assert warnings == ()
    assert edited.insertions()[0].settings == first.insertions()[0].settings | {"hidden": 1}
    old, new = (weights_of(each.insertions()[0], each) for each in (first, edited))
    assert all(np.allclose(old[key], new[key], rtol=1e-6) for key in old)
    assert refused(f"{tmp_path / 'a.onnx'}:model.2.ge", "se") == "a.onnx:model.2.ge is ge[theta-plus], not se"
    message = refused(f"{tmp_path / 'a.onnx'}:model.2.gee", "ge[theta-plus]")
    assert "weights that look like ge[theta-plus] lie under model.2.ge" in message


def test_the_gate_of_an_insertion(tmp_path: Path) -> None:
    graphsurgery.insert(models.detector(), "se", after="/model.2", gate="residual").save(tmp_path / "a.onnx")
    edited, _ = put(f"{tmp_path / 'a.onnx'}:model.2.se", "se", gate="residual")
    assert weights_of(edited.insertions()[0], edited)["alpha"].tolist() == [0]


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("make", [nam, se])
def test_a_module_as_an_exporter_wrote_it(tmp_path: Path, dynamo: bool, make: Callable[..., torch.nn.Module]) -> None:
    module = make()
    if make is nam:
        module.Channel_Att.bn2.eps = EPS
    torch.onnx.export(
        detector(module).eval().model, (torch.ones(1, C, 8, 8),), tmp_path / "a.onnx", dynamo=dynamo, verbose=False
    )
    edited, warnings = put(f"{tmp_path / 'a.onnx'}:0.attn", "nam" if make is nam else "se")
    agree(edited, module)
    assert warnings == (("bn_eps is 0.001, read from a.onnx:0.attn",) if make is nam else ())


def test_weights_that_an_exporter_renamed(tmp_path: Path) -> None:
    """Named onnx::Conv_12 and the like: found by the module path of the node that reads them."""
    weight = {key: value.numpy() for key, value in se().state_dict().items()}
    nodes = [
        helper.make_node("Gemm", ["x", "onnx::Gemm_1", "onnx::Gemm_2"], ["a"], "/model.8/attn/fc1/Gemm", transB=1),
        helper.make_node("MatMul", ["a", "onnx::MatMul_3"], ["b"], "/model.8/attn/fc2/MatMul"),
        helper.make_node("Add", ["model.8.attn.fc2.bias", "b"], ["y"], "/model.8/attn/fc2/Add"),
    ]
    tensors = {
        "onnx::Gemm_1": weight["fc1.weight"].reshape(4, C),
        "onnx::Gemm_2": weight["fc1.bias"],
        "onnx::MatMul_3": weight["fc2.weight"].reshape(C, 4).T,
        "model.8.attn.fc2.bias": weight["fc2.bias"],
    }
    values = [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()]
    made = models.model(nodes, [models.value("x", (1, C))], [models.value("y", (1, C))], values)
    onnx.save(made, tmp_path / "a.onnx")
    agree(put(f"{tmp_path / 'a.onnx'}:model.8.attn", "se")[0], se())


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("hello")
    assert refused(f"{tmp_path / 'a.onnx'}:x") == "a.onnx is a text file, not an ONNX model"
