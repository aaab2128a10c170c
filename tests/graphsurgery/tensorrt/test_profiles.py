"""Sizes of dynamic inputs."""

from __future__ import annotations

import pytest

from graphsurgery.errors import RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.profiles import Profile, profiles
from tests.models import chain


def of(shape: tuple[int | str, ...], *given: str) -> list[Profile]:
    return profiles(ModelFile.load(chain("Relu", shape=shape)), given)


def test_a_static_input_needs_none() -> None:
    assert of((1, 3, 64, 64)) == []


def test_sizes_are_chosen_for_batches_and_images() -> None:
    assert of(("N", 3, 64, 64)) == [Profile("x", (1, 3, 64, 64), (1, 3, 64, 64), (8, 3, 64, 64))]
    assert of(("N", 3, "H", "W")) == [Profile("x", (1, 3, 320, 320), (1, 3, 640, 640), (8, 3, 1280, 1280))]
    assert of(("N", 7)) == [Profile("x", (1, 7), (1, 7), (8, 7))]


def test_sizes_are_taken_as_given() -> None:
    assert of(("N", 3, 64, 64), "x:2x3x64x64") == [Profile("x", *[(2, 3, 64, 64)] * 3)]
    given = of(("N", 3, "H", "W"), "x:1x3x64x32,2x3x64x64,4x3x96x64")
    assert given == [Profile("x", (1, 3, 64, 32), (2, 3, 64, 64), (4, 3, 96, 64))]


@pytest.mark.parametrize(
    ("shape", "given", "said"),
    [
        (("N", 3, 64, 64), "x:1x3x64", "does not fit the input x, whose shape is Nx3x64x64"),
        (("N", 3, 64, 64), "x:1x4x64x64", "1x4x64x64 does not fit"),
        (("N", 3, 64, 64), "y:1x3x64x64", "no input 'y'; it has x"),
        (("N", 3, 64, 64), "x:2x3x64x64,1x3x64x64,4x3x64x64", "have to grow"),
        (("N", 3, 64, 64), "x:1x3x64x64,2x3x64x64", "three such shapes"),
        (("N", 3, 64, 64), "1x3x64x64", "shapes= takes NAME"),
        (("N", 3, 64, 64), "x:ax3x64x64", "shapes= takes NAME"),
        (("N", 3, 64, 64), "x:0x3x64x64", "shapes= takes NAME"),
    ],
)
def test_sizes_that_do_not_do(shape: tuple[int | str, ...], given: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        of(shape, given)


@pytest.mark.parametrize("shape", [("N", "C", 64, 64), (1, "T"), (1, 2, "T")])
def test_sizes_that_cannot_be_chosen(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(RequestError, match="say which sizes it has: shapes='x:MIN,USUAL,MAX'"):
        of(shape)


def test_an_input_of_unknown_rank() -> None:
    proto = chain("Relu")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    model = ModelFile.load(proto)
    assert profiles(model, ["x:1x2,2x2,4x2"]) == [Profile("x", (1, 2), (2, 2), (4, 2))]
    with pytest.raises(RequestError, match="have to grow"):
        profiles(model, ["x:1x2,1x2,1x2x3"])
    with pytest.raises(RequestError, match="the shape unknown; say which sizes"):
        profiles(model)
