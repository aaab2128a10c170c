"""find: parts that are a block but for something are told by what that is, and none of them is rewritten."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery.errors import SiteError
from graphsurgery.find import Found, find
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.rewriting import rewrite


class Squeeze(nn.Module):
    """Squeeze-and-excitation up to its gate."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1, self.inner, self.fc2 = nn.Conv2d(64, 16, 1), inner or nn.Identity(), nn.Conv2d(16, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(self.inner(self.fc1(x.mean((2, 3), keepdim=True))).relu())
        return gate


class Gated(nn.Module):
    def __init__(self, inner: nn.Module | None = None, *, folded: bool = False) -> None:
        super().__init__()
        self.squeeze, self.folded = Squeeze(inner), folded

    def forward(self, x: Tensor) -> Tensor:
        gate = self.squeeze(x)
        return x * (torch.clamp(gate + 3, 0, 6) if self.folded else gate.sigmoid())


class Normed(nn.Module):
    """A gate that is normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.norm(x.mean((2, 3), keepdim=True)))


class LastChannels(nn.Module):
    """Squeeze-and-excitation in [N, H, W, C], between layers of that layout."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(64, 64), nn.Linear(64, 64)
        self.se = _LastGate()

    def forward(self, x: Tensor) -> Tensor:
        after: Tensor = self.after(self.se(self.before(x.permute(0, 2, 3, 1)).relu())).relu()
        return after.permute(0, 3, 1, 2)


class _LastGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 16), nn.Linear(16, 64)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(self.fc1(x.mean((1, 2), keepdim=True)).relu()).sigmoid()
        return x * gate


class IntoTokens(LastChannels):
    """The same gate over positions in a row, of which no map is made again."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.before(x.permute(0, 2, 3, 1)).relu().flatten(1, 2)
        gate = self.se.fc2(self.se.fc1(tokens.mean(1, keepdim=True)).relu()).sigmoid()
        return (self.after(tokens * gate)).permute(0, 2, 1).unflatten(2, (16, 16))


class Shared(nn.Module):
    """One gate for two maps, made of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.squeeze = nn.Conv2d(3, 64, 1), nn.Conv2d(3, 64, 1), Squeeze()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(image).relu()
        gate = self.squeeze(x).sigmoid()
        return x * gate, self.second(image).relu() * gate


class Around(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(3, 64, 1), block, nn.Conv2d(64, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        after: Tensor = self.last(self.block(self.first(image)))
        return after


def exported(net: nn.Module, *, training: bool = False) -> ModelFile:
    torch.manual_seed(0)
    data = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.rand(2, 3, 16, 16)
        torch.onnx.export(
            net.train(training),
            (image,),
            data,
            dynamo=False,
            opset_version=18,
            training=mode,
            do_constant_folding=not training,
        )
    return ModelFile.load(data.getvalue())


def only(model: ModelFile) -> tuple[Found, str]:
    """What is found in a model, and why `rewrite` leaves it."""
    (found,) = find(model)
    done = rewrite(model, force_form=True)
    (left,) = done.left
    assert done.model is model
    assert left.found.place == found.place
    return found, left.reason


def named(found: Found) -> str | None:
    return found.block.spelled if found.block else None


def test_dropout_that_was_left_in() -> None:
    found, reason = only(exported(Around(Gated(nn.Dropout(0.5))), training=True))
    assert (named(found), found.proven) == ("se", False)
    assert found.note == reason == "se with dropout that was left in; export it in evaluation mode"


def test_dropout_in_evaluation_is_no_matter() -> None:
    (found,) = find(exported(Around(Gated(nn.Dropout(0.5)))))
    assert found.proven


def test_a_norm_in_its_training_form_is_told_where_the_rest_is_no_block() -> None:
    found, reason = only(exported(Around(Normed()), training=True))
    assert (found.block, found.proven) == (None, False)
    assert reason == found.note
    assert found.note.endswith("Sigmoid, Mul; it has a BatchNorm that goes by the statistics of each batch")


def test_a_factor_that_went_into_the_next_convolution() -> None:
    found, reason = only(exported(Around(Gated(folded=True))))
    assert (named(found), found.proven) == ("se", False)
    assert found.block is not None
    assert found.block.values["gate"] == "hard-sigmoid"
    rest = "an optimiser can have put the rest into the weights of what follows"
    assert reason == found.note == f"se times 6; {rest}"


def test_each_of_several_alike_is_told() -> None:
    found = find(exported(Around(nn.Sequential(Gated(folded=True), nn.Conv2d(64, 64, 1), Gated(folded=True)))))
    assert [each.note.partition(";")[0] for each in found] == ["se times 6", "se times 6"]


def test_a_gate_that_two_maps_share() -> None:
    found, reason = only(exported(Shared()))
    assert (named(found), found.proven) == ("se", True)
    assert found.note == "what is computed in the middle of it is read by '/Mul_1', too"
    assert reason.startswith(f"{found.note}; it reads ")


def test_maps_with_their_channels_last() -> None:
    model = exported(Around(LastChannels()))
    found, reason = only(model)
    assert (named(found), found.proven, found.part.channels_last) == ("se", True, True)
    assert found.note == "its maps are [N, H, W, C]"
    assert reason == "it has maps that are [N, H, W, C], or may be, and blocks are written for [N, C, H, W]"
    with pytest.raises(SiteError, match=r"se has maps that are \[N, H, W, C\]"):
        gsx.insert(model, "eca", in_place_of=found.place)


def test_what_is_taken_out_may_have_its_channels_last() -> None:
    model = exported(Around(LastChannels()))
    (found,) = find(model)
    without = gsx.insert(model, "nothing", in_place_of=found.place)
    assert without.insertions()[0].site.shape == (2, 16, 16, 64)
    assert gsx.verify(without, providers="cpu").passed
    assert gsx.remove(without).to_bytes() == model.to_bytes()


def test_a_map_enters_and_its_positions_leave_in_a_row() -> None:
    model = exported(Around(IntoTokens()))
    found, reason = only(model)
    assert (named(found), found.proven, found.part.shape) == ("se", True, (2, 16, 16, 64))
    assert (found.part.gives_tokens, found.part.output_shape) == (True, (2, 256, 64))
    assert found.note == "a map [N, H, W, C] enters, and [N, H * W, C] leaves"
    assert reason.startswith("it has maps that are [N, H, W, C]")
    with pytest.raises(SiteError, match=r"gives \[N, H \* W, C\] for a map \[N, H, W, C\], so it cannot be left out"):
        gsx.insert(model, "nothing", in_place_of=found.place)
