"""find: parts of exported files that are blocks of the catalogue, those that are alike, and those that are none."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import onnxslim
import pytest
import torch
from torch import Tensor, nn

from benchmarks.lib.published import published
from graphsurgery.blocks.registry import catalogue_block
from graphsurgery.cli.main import main
from graphsurgery.find import Found, find, finding
from tests.find.recovery import FEATURE, Net, exported, recovered, trained, variants
from tests.recognition.randomise import randomise

FEW = ("se", "eca[official]", "simam", "mlca", "swin[shifted]")


def written(block: nn.Module) -> bytes:
    """A net with a module of 64 channels, as the TorchScript exporter writes it."""
    return exported(block, "torchscript", FEATURE)


def found_in(block: nn.Module) -> list[Found]:
    return find(written(block))


class Gate(nn.Module):
    """x times a bounded number for each channel, with an activation of one's choice."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Conv2d(64, 4, 1), activation, nn.Conv2d(4, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate


@pytest.mark.parametrize("spelled", FEW)
def test_a_block_is_found_and_proven(spelled: str) -> None:
    outcome = recovered(catalogue_block(spelled), "torchscript")
    assert outcome.exact
    (one,) = outcome.found
    assert one.place == "block"
    assert one.block is not None
    assert one.block.values == outcome.block.values
    assert one.weights.keys() == outcome.block.parameters(FEATURE).keys()


@pytest.mark.parametrize("spelled", ["ema", "srm"])
def test_a_block_is_found_in_the_form_that_its_authors_wrote(spelled: str) -> None:
    """A product of matrices where our module has a sum, and one table where it has two columns."""
    (one,) = found_in(published(spelled, trained(catalogue_block(spelled), FEATURE)))
    assert one.proven
    assert one.block is not None
    assert one.block.spelled == spelled


def test_a_tool_may_have_sorted_the_nodes() -> None:
    """onnxslim mixes the branches of a BAM."""
    model = onnxslim.slim(onnx.load_from_string(written(trained(catalogue_block("bam"), FEATURE))))
    (one,) = find(model)
    assert one.proven
    assert one.block is not None
    assert one.block.spelled == "bam[official]"


def test_what_does_nothing_behind_a_block_is_no_part_of_it() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.se = trained(catalogue_block("se"), FEATURE)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(self.se(x), (0, 0, 0, 0))

    (one,) = found_in(Padded())
    assert one.proven
    assert one.place == "block.se"


def test_weights_are_those_of_the_module() -> None:
    module = trained(catalogue_block("se"), FEATURE)
    (one,) = found_in(module)
    state = module.state_dict()
    for key, values in one.weights.items():
        torch.testing.assert_close(torch.from_numpy(values).float(), state[key].reshape(values.shape))


@pytest.mark.parametrize(("name", "value"), [("activation", "silu"), ("reduction", 4)])
def test_settings_are_found(name: str, value: object) -> None:
    block = catalogue_block("se", {name: value})
    (one,) = found_in(trained(block, FEATURE))
    assert one.proven
    assert one.block is not None
    assert one.block.values == block.values


def test_biases_that_are_not_there_are_none() -> None:
    (one,) = found_in(trained(catalogue_block("se", {"bias": False}), FEATURE))
    assert one.proven
    assert one.block is not None
    assert one.block.values["bias"] is False
    assert one.weights.keys() == {"fc1.weight", "fc2.weight"}


def test_blocks_that_are_the_same_function_are_told() -> None:
    """Gather-excite over the whole map, in timm's form, is a squeeze-and-excitation."""
    (one,) = found_in(trained(catalogue_block("se"), FEATURE))
    assert one.block is not None
    assert (one.block.spelled, one.note) == ("se", "")
    assert "ge[timm]" in one.equals
    said = one.to_dict()["note"]
    assert said == "ge[timm] would be the same function here; se is asked for most"
    variant = replace(one, block=catalogue_block("gc[official]"), equals=("gc[timm-add]", "gc[timm]"), note="a note")
    others = "gc[timm-add] and gc[timm] would be the same function here"
    assert variant.said == f"a note; {others}; gc[official] comes first"


def test_parts_of_one_structure_have_the_same_note() -> None:
    gates = nn.Sequential(*(trained(catalogue_block("se"), FEATURE, seed) for seed in (0, 1)))
    first, second = found_in(gates)
    assert first.equals == second.equals == ("ge[timm]",)


def test_names_are_not_needed() -> None:
    model, _ = randomise(onnx.load_from_string(written(trained(catalogue_block("se"), FEATURE))))
    (one,) = find(model)
    assert one.proven
    assert one.place == f"tensor:{one.part.output}"


def test_half_precision_is_looked_at_in_single() -> None:
    net = Net(trained(catalogue_block("simam"), FEATURE), 64).half().eval()
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.rand(1, 3, 16, 16).half(),), data, dynamo=False, opset_version=17)
    (one,) = find(data.getvalue())
    assert one.proven
    assert one.block is not None
    assert one.block.spelled == "simam"
    assert one.part.feature.dtype == "float16"


def test_another_function_is_only_alike() -> None:
    (one,) = found_in(Gate(nn.LeakyReLU(0.5)))
    assert not one.proven
    assert one.max_error is None
    assert one.block is not None
    assert one.note.startswith("a gate like se, with ")
    assert "LeakyRelu" in one.note


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.Hardtanh(-50, 50)], ids=["relu6", "clip"])
def test_bounds_that_small_numbers_never_reach_count(activation: nn.Module) -> None:
    (one,) = found_in(Gate(activation if isinstance(activation, nn.ReLU6) else nn.Sequential(nn.ReLU(), activation)))
    assert not one.proven
    assert "Clip" in one.note


def test_a_gate_without_the_bounds_of_a_hard_sigmoid_is_another() -> None:
    class Linear(Gate):
        def forward(self, x: Tensor) -> Tensor:
            gate: Tensor = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))) / 6 + 0.5
            return x * gate

    assert not any(each.proven for each in found_in(Linear(nn.ReLU())))


def test_a_gate_of_its_own_kind_has_its_operators_named() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.tanh(x.amax((2, 3), keepdim=True))

    (one,) = found_in(Own())
    assert (one.block, one.proven) == (None, False)
    assert one.note == "a gate of its own kind: ReduceMax, Tanh, Mul"


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Hardswish(), nn.GELU()], ids=["silu", "hardswish", "gelu"])
def test_an_activation_is_no_attention(activation: nn.Module) -> None:
    assert found_in(nn.Sequential(activation, nn.Conv2d(64, 64, 3, padding=1), activation)) == []


def test_a_gate_that_something_else_reads_is_left_out() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = Gate(nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            gate = self.gate.fc2(self.gate.act(self.gate.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
            return x * gate + gate

    assert found_in(Shared()) == []


def test_without_a_runtime_nothing_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "find_spec", lambda name: None if name == "onnxruntime" else object())
    (one,) = found_in(trained(catalogue_block("se"), FEATURE))
    assert not one.proven
    assert one.block is not None
    assert one.block.spelled == "se"
    assert one.note.endswith("not proven, because onnxruntime is not installed here")


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(written(trained(catalogue_block("se"), FEATURE)))
    assert main(["find", str(path), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["found"]
    assert one.keys() == {"place", "module", "settings", "proven", "max_error", "nodes", "findings", "note"}
    assert (one["place"], one["module"], one["proven"]) == ("block", "se", True)
    assert one["max_error"] < 1e-4


def test_findings_stand_below_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(written(trained(catalogue_block("simam"), FEATURE)))
    assert main(["find", str(path)]) == 0
    table, findings = capsys.readouterr().out.split("\n\n")
    assert table.split("\n")[1].split()[:4] == ["block", "simam", "e_lambda=0.0001", "yes"]
    first, *others = findings.rstrip().split("\n")
    assert first == "block:"
    assert others
    assert others == [f"  {finding}" for finding in find(path)[0].findings]


def test_nothing_found_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(written(nn.ReLU()))
    assert main(["find", str(path)]) == 0
    assert capsys.readouterr().out == "no attention was found in net.onnx\n"


@pytest.mark.long
@pytest.mark.parametrize("way", ["torchscript", "dynamo"])
def test_the_catalogue_is_found(way: str) -> None:
    outcomes = [recovered(block, way) for block in variants()]
    missed = [f"{each.block.spelled}: {each.error or 'nothing proven'}" for each in outcomes if not each.proven]
    assert not missed
