"""What the ONNX parser of each TensorRT version takes: the table of support.json, and the versions it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from onnx import TensorProto

from ..errors import RequestError

VERSIONS = ("8.6", "10", "11")
"""The lines of TensorRT that are known; 10.9 or 11.1, say, may be asked for as well."""
DLAS = ("orin",)

_ONNX_NAMES = {"FP64": "DOUBLE", "FP32": "FLOAT", "FP16": "FLOAT16", "BF16": "BFLOAT16"}
_ONNX_NAMES |= {"FP8": "FLOAT8E4M3FN", "FP4": "FLOAT4E2M1"}
TYPE_NAMES: dict[int, str] = {
    TensorProto.DataType.Value(_ONNX_NAMES.get(name, name)): name
    for name in (*_ONNX_NAMES, "INT8", "INT32", "INT64", "UINT8", "BOOL", "INT4")
}
"""ONNX element types as the table calls them; FP64 and, up to 8.6, INT64 are converted before anything else."""


def one_of(kind: str, value: str, known: Sequence[str], option: str | None = None) -> str:
    """The value itself. RequestError, for ``option`` (by default of that kind), if it is not among those known."""
    if value not in known:
        raise RequestError(
            f"there is no {kind} {value!r}; it is one of {', '.join(known)}", option=option or kind, candidates=known
        )
    return value


class Version(NamedTuple):
    """A version of TensorRT, as far as the table tells them apart. ``10`` means what every 10.x takes."""

    major: int
    minor: int

    @classmethod
    def of(cls, text: str | float | Version) -> Version:
        """``8.6``, ``10``, ``11`` or a minor version of the last two. RequestError for anything else."""
        if isinstance(text, Version):
            return text
        parts = str(text).strip().split(".")
        if all(part.isdecimal() for part in parts) and 1 <= len(parts) <= 4:
            major, minor = int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
            if major in (10, 11) or (major, minor) == (8, 6):
                return cls(major, minor)
        sentence = f"there is no table for TensorRT {text}; known are {', '.join(VERSIONS)}, and 10.9, say"
        raise RequestError(sentence, option="version", candidates=VERSIONS)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}" if self.minor else str(self.major)

    @property
    def strongly_typed(self) -> bool:
        """Whether the types of the file decide in which types the engine runs."""
        return self.major >= 11

    @property
    def has_dla(self) -> bool:
        """Whether engines may run on a DLA: 10.7 was the last 10.x that could, and 11.4.1 can again."""
        return not (10, 7) < self < (11, 4)


class Support:
    """The table for one version."""

    def __init__(self, version: Version) -> None:
        self.version = version
        versions = table()["versions"]
        first, last = versions[_latest(versions, version)]["opset"]
        self.opsets = range(first, last + 1)
        """the operator sets that the version's table is stated for"""
        self._documented: str = versions[_latest(versions, version)]["source"]
        self._operators: Mapping[str, Any] = table()["operators"]
        self._corrections: Mapping[str, Any] = table()["corrections"]

    def types(self, operator: str) -> frozenset[str] | None:
        """The element types that an operator is taken in, as TYPE_NAMES has them; None if it is not taken at all.

        Those of the documentation, as the importer's source or the parser itself correct them.
        """
        rows = self._operators.get(operator, {})
        key = _latest(rows, self.version)
        if key is None or rows[key] is None:
            return None
        correction = self._correction(operator)
        types = {*rows[key]["types"].split(), *correction.get("adds", "").split()}
        return frozenset(types.difference(correction.get("drops", "").split()))

    def source_of_types(self, operator: str) -> str:
        """Where the types of an operator are known from: key of the table's sources."""
        return str(self._correction(operator).get("source", self._documented))

    @property
    def tensor_types(self) -> frozenset[str]:
        """The element types that inputs, outputs and weights of a model may have."""
        rows = table()["tensor_types"]
        return frozenset(rows[_latest(rows, self.version)].split())

    @property
    def measured(self) -> bool:
        """Whether the parser itself has been asked about operators and types."""
        return self.version >= (11, 0)

    def asserts_types(self, operator: str) -> bool:
        """Whether the parser refuses other types whatever the node computes, constants and shapes among it."""
        rows = table()["asserted"]
        return self.measured or operator in rows[_latest(rows, self.version)].split()

    def _correction(self, operator: str) -> Mapping[str, Any]:
        rows = self._corrections.get(operator, {})
        return rows.get(_latest(rows, self.version), {})  # type: ignore[no-any-return]

    def is_importer(self, operator: str) -> bool:
        """Whether the parser has an importer of its own for an operator that ONNX does not have."""
        return operator in _names("importers", self.version)

    def is_plugin(self, operator: str) -> bool:
        """Whether TensorRT's own plugin library has a plugin of this name."""
        return operator in _names("library", self.version)

    def first_version(self, operator: str) -> str | None:
        """The first later version that takes an operator, if one does."""
        rows = self._operators.get(operator, {})
        later = [key for key, row in rows.items() if row is not None and _read(key) > self.version]
        return min(later, key=_read) if later else None

    def type_name(self, onnx_type: int) -> str | None:
        """The column that an element type is looked up under: FP64 as FP32, and INT64 as INT32 in 8.6."""
        name = TYPE_NAMES.get(onnx_type)
        if name == "FP64":
            return "FP32"
        return "INT32" if name == "INT64" and self.version < (9, 0) else name


def source(key: str) -> str:
    """What a source is called, and at which commit it was read."""
    return str(table()["sources"][key])


def plugin_versions(name: str) -> list[str]:
    """The lines of TensorRT whose own plugin library has a plugin of this name; empty for other users' plugins."""
    return [each for each in VERSIONS if name in _names("library", Version.of(each))]


@cache
def _names(kind: str, version: Version) -> frozenset[str]:
    """Names of "library" plugins, or of operators beside ONNX that have "importers"."""
    rows = table()["plugins"][kind]
    return frozenset(rows[_latest(rows, version)].split())


def dla_support(dla: str) -> Mapping[str, str]:
    """Operator -> how TensorRT runs it on this DLA ("native", "no" ...); what is not there is not run there."""
    found: Mapping[str, str] = table()["dla"][dla]["operators"]
    return found


@cache
def table() -> Any:
    """The whole of support.json."""
    return json.loads(resources.files(__package__).joinpath("support.json").read_text(encoding="utf-8"))


def _read(key: str) -> tuple[int, int]:
    major, _, minor = key.partition(".")
    return int(major), int(minor)


def _latest(rows: Mapping[str, Any], version: Version) -> Any:
    """The key of the last row that stands under ``version`` or an earlier one."""
    return max((key for key in rows if _read(key) <= version), key=_read, default=None)
