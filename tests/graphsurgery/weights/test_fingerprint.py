"""Fingerprints: which BatchNorm is a layer's own, and what a bias or a parameter tells."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.weights import onnx_file
from graphsurgery.weights.checkpoint import Checkpoint
from graphsurgery.weights.rest import Comparison, Rest


class Wrapped(nn.Module):
    """A BatchNorm inside of a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, bias=False), nn.Sequential(nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(x))
        return normed


class Lists(nn.Module):
    """The convolutions in one list, and their BatchNorms in another."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(9))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(9))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return x


class Inner(nn.Module):
    """A convolution behind a BatchNorm that is not its own."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.conv = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.part(x))
        return out


class Outside(nn.Module):
    """The same, with its own BatchNorm behind the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = Inner(), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.inner(x))
        return normed


class Parameters(nn.Module):
    """A model with parameters that are no weight or bias of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale, self.place = (
            nn.Conv2d(4, 4, 1),
            nn.Parameter(torch.ones(4, 1, 1)),
            nn.Parameter(torch.ones(4, 8, 8)),
        )
        self.plain = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.plain(torch.sigmoid(self.conv(x) * self.scale + self.place))
        return out


def drawn(model: nn.Module) -> nn.Module:
    """The model with values, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + ("var" in key))
    return model.eval()


def flat() -> nn.Module:
    """Eleven layers of one width in a row."""
    layers = ([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()] for _ in range(11))
    return nn.Sequential(*(each for layer in layers for each in layer))


def exported(model: nn.Module) -> Checkpoint:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 4, 8, 8),), stream, dynamo=False)
    return onnx_file.of_model(ModelFile.load(stream.getvalue()), "base.onnx")


def compared(rest: Rest, file: Checkpoint) -> Comparison:
    return rest.compare(file.arrays, file.epsilons, unbiased=file.unbiased, spare=file.spare)


def rest_of(model: nn.Module) -> Rest:
    return Rest.of({key: value.numpy() for key, value in model.state_dict().items()}, {})


@pytest.mark.parametrize("make", [flat, Wrapped, Lists, Outside], ids=lambda make: make.__name__)
def test_the_batch_norm_that_is_folded_into_a_layer_is_found(make: Callable[[], nn.Module]) -> None:
    model = drawn(make())
    found = compared(rest_of(model), exported(model))
    assert found.differing == []
    assert found.share > 0.9
    with torch.no_grad():
        next(each for name, each in model.named_buffers() if "norm" in name or "mean" in name).add_(0.05)
    assert len(compared(rest_of(model), exported(drawn(make()))).differing) == 1


CHANGES: dict[str, Callable[[Parameters], object]] = {
    "scale": lambda model: model.scale.data.mul_(1.01),
    "place": lambda model: model.place.data[0, 0, 0].add_(1),
    "conv": lambda model: setattr(model.conv, "bias", None),
    "plain": lambda model: setattr(model.plain, "bias", nn.Parameter(torch.ones(4))),
}


@pytest.mark.parametrize("first", CHANGES)
def test_parameters_and_biases_tell_another_model(first: str) -> None:
    rest, other = rest_of(drawn(Parameters())), drawn(Parameters())
    same = compared(rest, exported(other))
    assert (same.differing, same.compared, same.modules) == ([], 4, 4)
    CHANGES[first](other)  # type: ignore[arg-type]
    assert compared(rest, exported(other)).differing == [first]


def test_a_bias_too_small_for_float16_is_no_difference() -> None:
    model = drawn(nn.Sequential(nn.Conv2d(4, 16, 1)))
    with torch.no_grad():
        model[0].bias.mul_(1e-6)  # type: ignore[index]
    file = exported(model)
    rest = rest_of(model.half())
    assert compared(rest, file).differing == []
    file = exported(drawn(nn.Sequential(nn.Conv2d(4, 16, 1))))
    assert compared(rest, file).differing == ["0"]


def test_a_layer_that_differs_is_not_excused_by_one_that_the_file_lacks() -> None:
    model = nn.ModuleDict({name: nn.Conv2d(4, 4, 1) for name in ("first", "second", "only_in_training")})
    arrays = {key: value.numpy() for key, value in model.state_dict().items() if not key.startswith("only")}
    arrays["first.weight"] = arrays["first.weight"] + np.float32(1)
    assert rest_of(model).compare(arrays, {}).differing == ["first"]


@pytest.mark.parametrize("shape", [(5,), (2, 2), ()])
def test_statistics_of_other_channels_are_no_batch_norm(shape: tuple[int, ...]) -> None:
    model = drawn(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    arrays["1.running_var"] = np.ones(shape, np.float32)
    rest = Rest.of(arrays, {})
    assert {path: each.kind for path, each in rest.modules.items()} == {
        "0": "layer",
        "1": "layer",
        "1.running_mean": "parameter",
        "1.running_var": "parameter",
    }
    assert rest.compare(arrays, {}).differing == []


def test_what_a_file_has_in_part_only_is_not_compared() -> None:
    model = drawn(nn.ModuleDict({"norm": nn.BatchNorm2d(4), "attention": nn.MultiheadAttention(4, 1)}))
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    rest = rest_of(model)
    del arrays["norm.weight"]  # quantised, say
    arrays["attention.weight"] = np.ones((4, 8), np.float32)  # of a product that an optimizer made
    del arrays["attention.in_proj_weight"]
    found = rest.compare(arrays, {})
    assert (found.differing, list(found.distances)) == ([], ["attention.out_proj"])


def test_the_weight_of_a_linear_layer_may_be_stored_the_other_way_round() -> None:
    model = drawn(nn.ModuleDict({"linear": nn.Linear(4, 6)}))
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    arrays["linear.weight"] = np.ascontiguousarray(arrays["linear.weight"].T)
    assert rest_of(model).compare(arrays, {}).distances == {"linear": 0.0}
    arrays["linear.weight"][0] += 1
    assert rest_of(model).compare(arrays, {}).differing == ["linear"]
