"""Blocks from PyTorch modules of the user's own."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphsurgery
from graphsurgery.errors import BlockError, GraphSurgeryError, MissingDependency
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.userblocks import Trust, inserted
from graphsurgery.verification import Report
from tests import models

C = 16
PACKAGE = """
import torch
from torch import nn

print_on_import = open(__file__ + ".imported", "a").write("x")


class Gate(nn.Module):
    def __init__(self, c1, c2, reduction=4, act="relu"):
        super().__init__()
        assert c1 == c2
        self.fc1 = nn.Conv2d(c1, c1 // reduction, 1, bias=False)
        self.norm = nn.BatchNorm2d(c1 // reduction, eps=1e-3)
        self.fc2 = nn.Linear(c1 // reduction, c1)
        self.act = nn.SiLU() if act == "silu" else nn.ReLU()
        self.register_buffer("order", torch.arange(c1).flip(0))

    def forward(self, x):
        b, c, h, w = x.shape
        z = self.act(self.norm(self.fc1(x.mean((2, 3), keepdim=True)))).flatten(1)
        return x * self.fc2(z)[:, self.order].sigmoid().view(b, c, 1, 1)


class Attention(nn.Module):
    def __init__(self, heads, dim, **options):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=options.get("bias", True))

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        split = lambda t: t.reshape(b, h * w, self.heads, c // self.heads).transpose(1, 2)
        a = (split(q) @ split(k).transpose(2, 3) / c ** 0.5).softmax(-1)
        return x + (a @ split(v)).transpose(1, 2).reshape(b, h * w, c).transpose(1, 2).reshape(b, c, h, w)


class Plain(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


class Pooled(nn.Module):
    def forward(self, x):  # the older exporter cannot say this where the height is not known, and prints what it knows
        return x + nn.functional.adaptive_avg_pool2d(x, (None, 1))


class Halves(Plain):
    def forward(self, x):
        return x[:, :, ::2]


class Fails(nn.Module):
    def __init__(self, first):
        super().__init__()
        raise ValueError("no such thing")


def a_function(c):
    return Plain()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module ``attention_of_mine``."""
    path = tmp_path / "attention_of_mine.py"
    path.write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("attention_of_mine", None)


def put(name: str, made: Any = None, **arguments: Any) -> ModelFile:
    return graphsurgery.insert(made or models.detector(), f"attention_of_mine:{name}", after="/model.2", **arguments)


def modules(edited: ModelFile) -> list[str]:
    return [insertion.module for insertion in edited.insertions()]


def verify(edited: ModelFile) -> Report:
    return graphsurgery.verify(edited, trust=modules(edited))


def module_of(edited: ModelFile) -> torch.nn.Module:
    (insertion,) = edited.insertions()
    return inserted.module_of(insertion, edited, Trust.in_modules(modules(edited)))


def refused(name: str, **arguments: Any) -> str:
    with pytest.raises(GraphSurgeryError) as error:
        put(name, **arguments)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "settings", "opset", "dtype"),
    [
        ("Gate", {}, 17, np.float32),
        ("Gate", {"reduction": "2", "act": "silu"}, 13, np.float16),
        ("Attention", {"heads": 4, "bias": "false"}, 18, np.float32),
        ("Plain", {}, 11, np.float16),
    ],
)
def test_parity_with_the_module(package: Path, name: str, settings: dict[str, Any], opset: int, dtype: Any) -> None:
    made = models.detector(dtype=dtype, opset=opset)
    edited = put(name, made, settings=settings)
    models.valid(edited.to_bytes())
    insertion = edited.insertions()[0]
    assert (insertion.id, insertion.module) == (f"model.2.{name.lower()}", f"attention_of_mine:{name}")
    assert verify(edited).passed
    assert not {"Shape", "Constant"} & {re.sub(r"_\d+$", "", node.rpartition("/")[2]) for node in insertion.nodes}
    module = module_of(edited)
    assert insertion.parameters == sum(v.numel() for v in module.state_dict().values() if v.is_floating_point())
    assert graphsurgery.remove(edited).to_bytes() == made.SerializeToString()


def test_dynamic_sizes(package: Path) -> None:
    edited = put("Gate", models.detector(image=("n", 3, "h", "w")))
    assert verify(edited).passed


@pytest.mark.long
def test_an_export_that_holds_for_one_size_only(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The older exporter refuses this module, the newer one writes down the size that it saw: parity finds it.

    Nothing is printed meanwhile, since standard output may be where the result goes.
    """
    edited = put("Pooled", models.detector(image=("n", 3, "h", "w")))
    models.valid(edited.to_bytes())
    assert capfd.readouterr().out == ""
    assert not verify(edited).passed
    edited = put("Pooled")
    assert verify(edited).passed


@pytest.mark.long
def test_an_opset_that_only_the_newer_exporter_writes(package: Path) -> None:
    for name, settings in (("Gate", {}), ("Attention", {"heads": 2})):
        edited = put(name, models.detector(opset=21, ir_version=10), settings=settings)
        models.valid(edited.to_bytes())
        assert verify(edited).passed


def test_arguments_of_the_constructor(package: Path) -> None:
    edited = put("Gate", settings={"reduction": 2})
    assert edited.insertions()[0].settings == {"reduction": 2}
    assert module_of(edited).get_parameter("fc1.weight").shape == (C // 2, C, 1, 1)
    assert module_of(edited).get_submodule("norm").eps == 1e-3
    assert refused("Gate", settings={"ratio": 2}) == (
        "attention_of_mine:Gate has no argument 'ratio'; it has c1, c2, reduction, act"
    )
    with pytest.raises(BlockError) as error:
        put("Gate", settings={"reductions": 2})
    assert error.value.candidates == ("reduction",)
    assert refused("Attention") == "attention_of_mine:Attention needs heads: use settings={'heads': VALUE}"
    assert "fails" in refused("Gate", settings={"reduction": 0})
    assert refused("Gate", settings={"c1": 8, "c2": 8}).startswith(
        "attention_of_mine:Gate fails on a map [1, 16, 8, 8]:"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "Halves",
            "a block keeps the shape of its input; attention_of_mine:Halves makes [1, 16, 4, 8] of [1, 16, 8, 8]",
        ),
        ("Fails", "attention_of_mine:Fails(first=16) fails: no such thing"),
        ("Nothing", "the module attention_of_mine has no Nothing"),
        ("a_function", "attention_of_mine:a_function is not a class of torch.nn.Module"),
        ("torch", "attention_of_mine:torch is not a class of torch.nn.Module"),
    ],
)
def test_modules_that_are_no_blocks(package: Path, name: str, words: str) -> None:
    assert refused(name) == words


def test_modules_that_are_not_there(package: Path) -> None:
    with pytest.raises(BlockError, match="no_such_package_here cannot be imported: ModuleNotFoundError"):
        graphsurgery.insert(models.detector(), "no_such_package_here:Gate", after="/model.2")


def test_seeds(package: Path) -> None:
    first, again, other = (put("Gate", seed=seed).to_bytes() for seed in (1, 1, 2))
    assert first == again != other
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    put("Gate", seed=3)
    assert torch.rand(1) == before


def test_trained_weights(package: Path, tmp_path: Path) -> None:
    import attention_of_mine  # type: ignore[import-not-found]

    torch.manual_seed(9)
    module = attention_of_mine.Gate(C, C)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    torch.save(
        {"model": {f"model.8.attn.{key}": value for key, value in module.state_dict().items()}}, tmp_path / "w.pt"
    )
    edited = put("Gate", weights=f"{tmp_path / 'w.pt'}:model.8.attn")
    x = torch.randn(1, C, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(
            module_of(edited)(x),
            module.double().eval()(x),
            rtol=1e-6,
        )
    assert verify(edited).passed
    assert not any("data" in stored for stored in edited.insertions()[0].stored.values())


def test_the_epsilon_of_a_checkpoint_of_ultralytics(package: Path, tmp_path: Path) -> None:
    """Ultralytics sets it behind the constructor's back, in every BatchNorm2d of a model."""
    import attention_of_mine

    stage = torch.nn.Module()
    stage.attn = attention_of_mine.Gate(C, C)
    stage.attn.norm.eps = 0.1
    stage.attn.norm.running_var.fill_(0.01)
    torch.save({"model": torch.nn.Sequential(stage), "ema": None}, tmp_path / "best.pt")
    edited = put("Gate", weights=f"{tmp_path / 'best.pt'}:0.attn")
    assert edited.insertions()[0].settings == {"bn_eps": 0.1}
    x = torch.randn(1, C, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(
            module_of(edited)(x),
            stage.double().eval().attn(x),
            rtol=1e-6,
        )
    assert verify(edited).passed


def test_the_residual_gate(package: Path) -> None:
    edited = put("Gate", gate="residual")
    assert verify(edited).passed
    assert "use gate='residual'" in refused("Gate", init="identity")


# ---------------------------------------------------------------------- a model file is no reason to run code


def test_a_record_alone_imports_nothing(package: Path) -> None:
    made = models.detector()
    data = put("Gate", made).to_bytes()
    sys.modules.pop("attention_of_mine")
    trace = Path(f"{package}.imported")
    trace.unlink()
    edited = ModelFile.load(data)
    with pytest.raises(MissingDependency, match="if it is yours, use trust='attention_of_mine:Gate'"):
        graphsurgery.verify(edited)
    assert modules(edited) == ["attention_of_mine:Gate"]
    assert graphsurgery.remove(edited).to_bytes() == made.SerializeToString()
    assert not trace.exists()
    assert graphsurgery.verify(edited, trust=["attention_of_mine:Gate"]).passed
    assert trace.exists()


def test_trust_ends_with_the_call(package: Path, tmp_path: Path) -> None:
    """Neither an insertion, nor a recipe, nor a verification before lets a later call import the module."""
    entry = "- {module: 'attention_of_mine:Gate', after: /model.2}"
    edited = graphsurgery.Recipe.from_text(entry).apply(models.detector())
    for _ in range(2):
        with pytest.raises(MissingDependency, match="importing it runs its code"):
            graphsurgery.verify(edited)
        assert graphsurgery.verify(edited, trust=["attention_of_mine:Gate"]).passed


def test_weights_of_a_file_do_not_import_the_module_that_it_names(package: Path, tmp_path: Path) -> None:
    """The weights of an insertion are read back by a call that names its module, and by no other."""
    put("Gate").save(tmp_path / "m.onnx")
    given = f"{tmp_path / 'm.onnx'}:model.2.gate"
    put("Gate", weights=given)
    trace = Path(f"{package}.imported")
    sys.modules.pop("attention_of_mine")
    trace.unlink()
    with pytest.raises(GraphSurgeryError, match=r"is attention_of_mine:Gate, not se"):
        graphsurgery.insert(models.detector(), "se", after="/model.2", weights=given)
    assert not trace.exists()


def test_trust_is_for_one_class(package: Path) -> None:
    edited = put("Gate")
    with pytest.raises(MissingDependency):
        graphsurgery.verify(edited, trust=["attention_of_mine:Plain"])
    with pytest.raises(BlockError, match="'attention_of_mine' does not name a PyTorch module"):
        graphsurgery.verify(edited, trust=["attention_of_mine"])


@pytest.mark.long
def test_the_command_line(package: Path, tmp_path: Path) -> None:
    """In processes of their own, from the folder of the module, and then from one where it is not."""
    (tmp_path / "m.onnx").write_bytes(models.detector().SerializeToString())
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str, folder: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("graphsurgery"))]
        return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)

    module = "attention_of_mine:Gate"
    ended = run(
        "insert", "m.onnx", "--module", module, "--after", "/model.2", "--set", "reduction=2", "-o", "o.onnx", "--json"
    )
    assert ended.returncode == 0, ended.stderr
    (insertion,) = json.loads(ended.stdout)["insertions"]
    assert insertion["settings"] == {"reduction": 2}
    assert insertion["parity"]["passed"]
    ended = run("verify", "o.onnx")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert f"--trust {module}" in ended.stderr
    assert run("verify", "o.onnx", "--trust", module).returncode == 0
    ended = run("verify", "../o.onnx", "--trust", module, folder=tmp_path / "elsewhere")
    assert ended.returncode == 3
    assert "No module named 'attention_of_mine'; it is needed to compare the block with it" in ended.stderr
    assert run("remove", "o.onnx", "--all", "-o", "back.onnx").returncode == 0
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
