"""The sizes that an engine is built for: smallest, usual and largest shape of each dynamic input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import RequestError, concerning, option
from ..feature_map import Dimension
from ..graph.index import GraphIndex
from ..graph.shapes import tensor_type
from ..messages import closest
from ..modelfile.model import ModelFile

Shape: TypeAlias = tuple[int, ...]
Declared: TypeAlias = tuple[Dimension, ...] | None
"""of an input; None for an unknown rank"""
_BATCH = (1, 1, 8)
_SIDE = (320, 640, 1280)


@dataclass(frozen=True)
class Profile:
    """One dynamic input and the shapes it may have."""

    name: str
    smallest: Shape
    usual: Shape
    largest: Shape


@concerning("shapes")
def profiles(model: ModelFile, given: Sequence[str] = ()) -> list[Profile]:
    """The profile of each dynamic input: as ``given`` (``images:1x3x640x640`` or ``images:MIN,USUAL,MAX``), or chosen.

    Chosen are batches of 1 to 8 (usual: 1), and 320 to 1280 pixels (usual: 640) for height and width of an image.
    RequestError for a shape that cannot be read or does not fit, and where nothing can be chosen.
    """
    index = GraphIndex(model)
    shapes = {n: tensor_type(v.type)[1] for n, v in index.inputs.items() if n not in index.initializers}
    wanted = {profile.name: profile for profile in (_read(each, shapes) for each in given)}
    free = {n for n, shape in shapes.items() if shape is None or not all(isinstance(size, int) for size in shape)}
    return [wanted.get(n) or _chosen(n, shape) for n, shape in shapes.items() if n in free or n in wanted]


def text(shape: Declared) -> str:
    """``1x3x640x640``."""
    return "unknown" if shape is None else "x".join(str(size or "?") for size in shape)


def _read(given: str, shapes: Mapping[str, Declared]) -> Profile:
    name, colon, sizes = given.rpartition(":")
    parts = sizes.split(",")
    try:
        read = [tuple(int(size) for size in part.split("x")) for part in parts]
    except ValueError:
        read = []
    if not colon or len(read) not in (1, 3) or any(size < 1 for shape in read for size in shape):
        raise RequestError(
            f"{option('shapes')} takes NAME:1x3x640x640, or NAME:MIN,USUAL,MAX with three such shapes, not {given!r}"
        )
    if name not in shapes:
        raise RequestError(
            f"the model has no input {name!r}; it has {', '.join(shapes)}", candidates=closest(name, shapes)
        )
    smallest, usual, largest = read if len(read) == 3 else read * 3
    _check(name, shapes[name], (smallest, usual, largest))
    return Profile(name, smallest, usual, largest)


def _check(name: str, declared: Declared, shapes: tuple[Shape, Shape, Shape]) -> None:
    for shape in shapes:
        fits = declared is None or (
            len(shape) == len(declared)
            and all(not isinstance(d, int) or d == size for d, size in zip(declared, shape, strict=True))
        )
        if not fits:
            raise RequestError(f"{text(shape)} does not fit the input {name}, whose shape is {text(declared)}")
    ranks = {len(shape) for shape in shapes}
    if len(ranks) > 1 or not all(a <= b <= c for a, b, c in zip(*shapes, strict=False)):
        raise RequestError(f"the shapes of {name} have to grow from the smallest to the largest")


def _chosen(name: str, shape: Declared) -> Profile:
    free = [i for i, size in enumerate(shape or ()) if not isinstance(size, int)]
    image = shape is not None and len(shape) == 4
    if shape is None or not set(free) <= ({0, 2, 3} if image else {0}):
        raise RequestError(
            f"the input {name} has the shape {text(shape)}; say which sizes it has: "
            f"{option('shapes', f'{name}:MIN,USUAL,MAX')}"
        )
    smallest, usual, largest = (
        tuple(size if isinstance(size, int) else (_BATCH if i == 0 else _SIDE)[k] for i, size in enumerate(shape))
        for k in range(3)
    )
    return Profile(name, smallest, usual, largest)
