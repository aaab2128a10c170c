"""Layout: the layers of a model as a YAML in Ultralytics' form lists them, from the file or from a checkpoint.

A layer is a row ``[from, repeats, module, arguments]``. The modules need not be there: only their order is looked at,
and how many channels they give.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import WeightsError
from ..messages import brief
from ..modelfile import limits, yaml_text

Argument: TypeAlias = "int | float | bool | str | tuple[Argument, ...] | None"

IMAGE = -1
"""what the first layer reads"""
HEAD_SETTINGS = ("nc", "reg_max", "kpt_shape", "end2end")
"""keys that the head is made with, beside its arguments"""
_SCALE = re.compile(r"yolo(?:e-)?v?\d+([nslmx])")
"""how Ultralytics finds the scale in the name of the file"""
_SCALED = frozenset(
    {"A2C2f", "AConv", "ADown", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2PSA", "C2f", "C2fAttn", "C2fCIB"}
    | {
        "C2fPSA",
        "C3",
        "C3Ghost",
        "C3TR",
        "C3k2",
        "C3x",
        "Conv",
        "ConvTranspose",
        "DWConv",
        "DWConvTranspose2d",
        "ELAN1",
    }
    | {"Focus", "GhostBottleneck", "GhostConv", "PSA", "RepC3", "RepNCSPELAN4", "SCDown", "SPP", "SPPELAN", "SPPF"}
    | {"nn.ConvTranspose2d"}
)
"""modules whose first argument is the number of channels that they give, before it is scaled"""
_MULTIPLE = 8
_MOST_MULTIPLE = 1000
_DEEPEST = 4


@dataclass(frozen=True)
class Layer:
    """One row."""

    sources: tuple[int, ...]
    """the layers that it reads, or IMAGE"""
    repeats: int
    module: str
    arguments: tuple[Argument, ...]

    @property
    def made_of(self) -> tuple[object, ...]:
        """All of it but where it stands: equal for a layer and the same one in an edited file."""
        kinds = tuple(type(each).__name__ for each in self.arguments)  # 1 is not True
        return self.repeats, self.module, self.arguments, kinds

    def __str__(self) -> str:
        return f"{self.module} [{', '.join(map(str, self.arguments))}]" + (f" x{self.repeats}" * (self.repeats > 1))


@dataclass(frozen=True)
class Layout:
    """The layers of a model, in order."""

    name: str
    """of the file"""
    layers: tuple[Layer, ...]
    scale: str
    """``n``, ``s`` ... ; "" where the file has none"""
    multiples: tuple[float, float, float]
    """of depth and width, and the most channels before they are scaled"""
    head: Mapping[str, object]
    """the settings of HEAD_SETTINGS that it gives"""

    @classmethod
    def load(cls, path: Path) -> Layout:
        """From a YAML file. WeightsError for one that lists no layers."""
        try:
            if path.stat().st_size > limits.RECIPE_BYTES:
                raise WeightsError(
                    f"{path.name} is larger than {limits.RECIPE_BYTES >> 20} MB, which no model's YAML is"
                )
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise WeightsError(f"there is no file {path}") from None
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise WeightsError(f"{path.name} is not a text file in UTF-8, so it is no YAML of a model") from None
        document = yaml_text.parse(text, path.name, "model", WeightsError)
        found = _SCALE.search(path.stem)
        return cls.of(document, path.name, scale=found.group(1) if found else "")

    @classmethod
    def of(cls, document: object, name: str, *, scale: str | None = None) -> Layout:
        """From what such a file holds; ``scale`` None: as it says itself."""
        if not isinstance(document, Mapping) or not all(isinstance(document.get(key), list) for key in _PARTS):
            raise WeightsError(f"{name} lists no layers: it has to have the lists 'backbone' and 'head'")
        _check_amount([document[key] for key in (*_PARTS, *HEAD_SETTINGS) if key in document], name)
        rows = [row for part in _PARTS for row in document[part]]
        if not 0 < len(rows) <= limits.LAYERS:
            raise WeightsError(f"{name} lists {len(rows):,} layers; from 1 to {limits.LAYERS} are read")
        stated = document.get("scale") if scale is None else scale
        layers = tuple(_layer(row, index, name) for index, row in enumerate(rows))
        scale, multiples = _multiples(document, stated if isinstance(stated, str) else "", name)
        head = {key: _plain(document[key], name) for key in HEAD_SETTINGS if document.get(key) is not None}
        return cls(name, layers, scale, multiples, head)

    def channels(self, layer: Layer, given: Sequence[int | None]) -> int | None:
        """How many channels a layer gives for those that it reads; None where that cannot be told.

        A module that is not known gives as many as it reads, as Ultralytics takes it to.
        """
        first = layer.arguments[0] if layer.arguments else None
        if layer.module in _SCALED and isinstance(first, int) and abs(first) <= limits.CHANNELS:
            _, width, most = self.multiples
            return _rounded(min(first, most) * width)
        if layer.module in ("HGStem", "HGBlock") and len(layer.arguments) > 1 and isinstance(layer.arguments[1], int):
            return layer.arguments[1]
        if layer.module == "Concat":
            return None if None in given else sum(size for size in given if size is not None)
        return given[0] if len(given) == 1 else None


_PARTS = ("backbone", "head")


def _rounded(channels: float) -> int:
    """The next multiple of eight."""
    return int(-(-channels // _MULTIPLE)) * _MULTIPLE


def _multiples(document: Mapping[str, Any], scale: str, name: str) -> tuple[str, tuple[float, float, float]]:
    """The scale of a model, and what it multiplies with: the first that the file lists, if none is asked for."""
    scales = document.get("scales")
    values: Any
    if not scales:
        values = [document.get("depth_multiple", 1.0), document.get("width_multiple", 1.0), float("inf")]
    else:
        scale = scale or str(next(iter(scales))) if isinstance(scales, Mapping) else scale
        values = scales.get(scale) if isinstance(scales, Mapping) else None
        if not isinstance(values, list | tuple):
            raise WeightsError(f"{name} has no scale {scale!r}")
    if len(values) != 3 or not all(isinstance(each, int | float) for each in values):
        raise WeightsError(f"{name} has the multiples {brief(values)}, which are no depth, width and most channels")
    if not all(0 < each < _MOST_MULTIPLE for each in values[:2]) or not values[2] > 0:
        raise WeightsError(f"{name} has the multiples {brief(values)}, with which no model can be made")
    return scale, (values[0], values[1], values[2])


def _check_amount(values: list[object], name: str) -> None:
    """WeightsError for lists that stand for more than a model has: a pickle can hold one in another many times over."""
    count, pending = 0, list(values)
    while pending:
        each = pending.pop()
        count += 1
        if isinstance(each, list | tuple):
            pending += each[: limits.RECIPE_VALUES]
        if count + len(pending) > limits.RECIPE_VALUES:
            raise WeightsError(f"{name} stands for more than {limits.RECIPE_VALUES:,} values, which no model does")


def _layer(row: object, index: int, name: str) -> Layer:
    where = f"layer {index} of {name}"
    if not isinstance(row, list | tuple) or len(row) != 4:
        raise WeightsError(f"{where} is {brief(row)}; a layer is a list [from, repeats, module, arguments]")
    sources, repeats, module, arguments = row
    if not isinstance(module, str) or isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise WeightsError(f"{where} is {brief(row)}; a layer is a list [from, repeats, module, arguments]")
    if not isinstance(arguments, list | tuple):
        raise WeightsError(f"{where} has the arguments {brief(arguments)}, which are no list")
    listed = sources if isinstance(sources, list | tuple) else [sources]
    plain = tuple(_plain(each, where) for each in arguments)
    return Layer(tuple(_sources(listed, index, where)), repeats, module, plain)


def _sources(listed: Iterable[object], index: int, where: str) -> Iterable[int]:
    for each in listed:
        if isinstance(each, bool) or not isinstance(each, int) or not -max(index, 1) <= each < max(index, 0):
            raise WeightsError(f"{where} reads layer {brief(each)}, and there are only those before it")
        yield each if each >= 0 else index + each if index else IMAGE


def _plain(value: object, where: str, depth: int = 0) -> Argument:
    """An argument as Ultralytics reads it: text that spells a value is that value."""
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return tuple(_plain(each, where, depth + 1) for each in value)
    if isinstance(value, str) and len(value) <= limits.TEXT:
        try:
            spelled = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
        return spelled if spelled is None or isinstance(spelled, int | float) else value
    if value is None or isinstance(value, int | float):
        return value
    raise WeightsError(f"{where} has the argument {brief(value)}, which is no number, text or list of them")
