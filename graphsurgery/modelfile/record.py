"""The record of an insertion, kept in the model's metadata: enough to list it, verify it and take it out again.

One metadata entry per insertion, key ``graphsurgery.insertion.<id>``, value a JSON object. Nothing in it is needed
to run the model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import onnx

from ..errors import InsertionError
from ..feature_map import Array, Dimension, FeatureMap
from ..messages import printable
from ..request import arguments, fits
from . import limits
from .cut_payload import with_payload
from .fields import INITIALIZER
from .packed import unpack
from .source import BytesSource
from .wire import number_of, scan, text

KEY = "graphsurgery.insertion."
EDITION = 2
"""of the forms that blocks are written in. A block that was inserted in an earlier one is written once more in that,
with the same operators. 2: forms that other readers take as well, not only TensorRT and onnxruntime
"""
_FORMAT, _CALIBRATED_FORMAT, _WIDER_FORMAT, _EDITION_FORMAT, _REPLACED_FORMAT = 1, 2, 3, 4, 5
"""of a record; of one with a scale and a shift behind the block, which the readers of 1 would leave out; of one of
a block in a local function, or with shapes that the user gave, which those of 2 do not know; of one of a block in
forms of edition 2, of which those of 3 do not know either; and of one of a block that stands in the place of a part of
the graph, which those of 4 could not put back
"""
_LATER: dict[str, tuple[int, object]] = {
    "function": (_WIDER_FORMAT, None),
    "shapes": (_WIDER_FORMAT, {}),
    "edition": (_EDITION_FORMAT, 1),
    "replaced": (_REPLACED_FORMAT, None),
}
"""what a record of that format or a later one has where it is not the default"""
_CALIBRATION = "calibration.scale"
"""the parameter by which such a record is told, see template/calibration.py"""
POSITIONS = ("after", "before")
IN_PLACE_OF = "in place of"
"""the position of a block that stands where something else stood"""
_FUNCTION_NODE = number_of(onnx.FunctionProto, "node")
UNNAMED = re.compile(r"(.+)#\d+")
"""how a record names a reader that has no name: ``Concat#17``"""
OUTPUT = "output:"
"""what stands in front of the name of an output that is a reader"""


@dataclass(frozen=True)
class RecordedSite:
    """Where a block was put, as the model was then."""

    path: str | None
    type: str | None
    tensor: str
    shape: tuple[Dimension, ...]
    dtype: str
    stride: int | None
    consumers: tuple[str, ...]
    """the readers that were rewired to the block"""
    position: str = "after"
    """"before" if the path is of the module in front of which the block stands, and not of the one behind which; "in
    place of" if it is of what the block replaces"""
    others: tuple[str, ...] = ()
    """the readers that went on reading the tensor itself"""


@dataclass(frozen=True)
class RecordedPair:
    """QuantizeLinear and DequantizeLinear behind a block, for those who read it."""

    type: str
    """of the integers: "int8", "uint8" ..."""
    scale_from: str
    """"site" or "images" """
    tensor: str
    """what the block itself gives, in front of the pair"""
    scale: str
    zero_point: str
    nodes: tuple[str, ...]
    """the pair, and Casts around it; the last ones of the insertion's own nodes"""


@dataclass(frozen=True)
class Replaced:
    """A part of the graph that a block stands in the place of: what was taken out, to the byte."""

    input: str
    """the tensor that it read, as the fields call it"""
    output: str
    """the one that it gave, likewise"""
    nodes: int
    """how many were taken out, constants apart"""
    same: bool
    """whether the block computes what the part did, rather than something else"""
    fields: str
    """nodes, initializers and declared shapes, packed: one after the other as they stood in the graph, tags and lengths
    included"""
    at: tuple[int, ...]
    """where each of them stood among all fields of the graph, as the graph was before its first insertion"""
    reused: tuple[str, ...] = ()
    """initializers of the part that the block reads"""
    left: tuple[str, ...] = ()
    """constants that nothing reads any more, and that stay in the file: they are too large to be kept here, or lie
    beside the model"""
    moved: dict[str, str] = field(default_factory=dict)
    """initializer that was taken out without its numbers -> the one of the block that has them, in another shape"""
    turned: tuple[str, ...] = ()
    """those of them that were the transpose of that"""

    def contents(self, tensor: Callable[[str], Array] | None = None) -> list[tuple[int, bytes]]:
        """(place among all fields of the graph, the whole field) of everything taken out. InsertionError if damaged.

        ``tensor``: gives the initializers of the block as they are now, from which the numbers of the part's come;
        without it they have none.
        """
        try:
            data = unpack(self.fields, limits.REPLACED_BYTES)
            found = scan(BytesSource(data), 0, len(data))
            pairs = zip(self.at, found, strict=True)
            return [(at, self._whole(data[each.start : each.end], each.number, tensor)) for at, each in pairs]
        except ValueError:
            raise InsertionError("the record of what a block replaced is damaged") from None

    def _whole(self, data: bytes, number: int, tensor: Callable[[str], Array] | None) -> bytes:
        if tensor is None or number != INITIALIZER:
            return data
        initializer = _initializer(data)
        name = initializer.name
        if name not in self.moved:
            if initializer.HasField("raw_data") and not initializer.raw_data and prod(initializer.dims):
                raise ValueError("it has no numbers")
            return data
        try:
            values = tensor(self.moved[name])
        except KeyError:
            gone = f"the initializer {self.moved[name]!r} is gone, which has the numbers of {name!r}"
            raise InsertionError(f"{gone}, which a block replaced") from None
        if name in self.turned:
            values = values.reshape(len(values), -1).T
        if values.size != prod(initializer.dims):
            raise ValueError("it has other numbers")
        return with_payload(data, np.ascontiguousarray(values).tobytes())

    def graph(self, tensor: Callable[[str], Array] | None = None) -> onnx.GraphProto:
        """The same as a message, whether it comes from the main graph or from a function."""
        graph = onnx.GraphProto()
        for _, data in self.contents(tensor):
            (each,) = scan(BytesSource(data), 0, len(data))
            if each.number == _FUNCTION_NODE:
                graph.node.add().MergeFromString(data[each.body : each.end])
            else:
                graph.MergeFromString(data)
        return graph


def _initializer(data: bytes) -> onnx.TensorProto:
    """An initializer of a graph, given as the whole field."""
    graph = onnx.GraphProto.FromString(data)
    found: onnx.TensorProto = graph.initializer[0]
    return found


_rebuild: dict[str, Callable[..., Any]] = {}


def rebuild_with(**functions: Callable[..., Any]) -> None:
    """Set how a record is rebuilt: ``block``, ``weights``, ``torch_module``. This folder knows of no blocks."""
    _rebuild.update(functions)


@dataclass(frozen=True)
class Insertion:
    """One block in a model."""

    id: str
    module: str
    settings: dict[str, Any]
    gate: str
    """"none" or "residual" """
    init: str
    """"default", "identity", "calibrated" or "weights" """
    target: str
    lowering: str
    site: RecordedSite
    output_tensor: str
    nodes: tuple[str, ...]
    initializers: tuple[str, ...]
    value_info: tuple[str, ...]
    parameters: int
    """number of weights of the module"""
    stored: dict[str, dict[str, Any]]
    """parameter key -> where it is (see folding.read_back)"""
    original: str
    """digest of the model before its first insertion"""
    qdq: RecordedPair | None = None
    precision: str = "site"
    """"safe", "site", "fp32" or "fp16"; records from before there was a choice have none"""
    function: tuple[str, ...] | None = None
    """domain, name and overload of the local function that the block is in; None: it is in the main graph"""
    shapes: dict[str, tuple[Dimension, ...]] = field(default_factory=dict)
    """tensor -> its shape as the user gave it, from which that of the site may follow"""
    edition: int = 1
    """the first edition of the forms in which the block is written so"""
    replaced: Replaced | None = None
    """what stood in its place"""

    def __repr__(self) -> str:
        place = self.site.path or f"tensor:{self.site.tensor}"
        return printable(f"<Insertion {self.id}: {self.module} {self.site.position} {place}>")

    @property
    def block_output(self) -> str:
        """The tensor that the block itself gives: the output, or what is in front of the pair that gives it."""
        return self.qdq.tensor if self.qdq else self.output_tensor

    @property
    def origin(self) -> str:
        """What stood in its place: "rewritten from 17 nodes", or "in place of 17 nodes"; "" where nothing did."""
        if self.replaced is None:
            return ""
        nodes = f"{self.replaced.nodes} node{'' if self.replaced.nodes == 1 else 's'}"
        return f"rewritten from {nodes}" if self.replaced.same else f"in place of {nodes}"

    @property
    def added(self) -> tuple[str, ...]:
        """Those of its initializers that came with it."""
        reused = self.replaced.reused if self.replaced else ()
        return tuple(name for name in self.initializers if name not in reused)

    @property
    def feature(self) -> FeatureMap:
        """What the block needs to know of its site."""
        batch, channels, height, width = (d if isinstance(d, int) else None for d in self.site.shape)
        assert channels is not None
        return FeatureMap(channels, height, width, self.site.dtype, batch, self.id)

    def block(self, trust: str | Sequence[str] = ()) -> Any:
        """The :class:`graphsurgery.Block` with its hyper-parameters.

        ``trust`` names PyTorch modules of your own that may be imported. BlockError if the block is not installed here.
        """
        return _rebuild["block"](self, trust)

    def weights(self, model: Any, trust: str | Sequence[str] = ()) -> dict[str, Any]:
        """The module's parameters by official key, float64 arrays, read back from the ModelFile as it stands.

        InsertionError if they are no longer where they were put.
        """
        found: dict[str, Any] = _rebuild["weights"](self, model, trust)
        return found

    def torch_module(self, model: Any, trust: str | Sequence[str] = ()) -> Any:
        """The PyTorch module, with what stands around it and the weights in the ModelFile: float64, evaluation mode."""
        return _rebuild["torch_module"](self, model, trust)

    def to_entry(self) -> tuple[str, str]:
        """Metadata key and value. The same insertion gives the same text."""
        data = asdict(self)
        del data["id"]
        own = _CALIBRATED_FORMAT if _CALIBRATION in self.stored else _FORMAT
        for name, (earliest, default) in _LATER.items():
            if data[name] == default:
                del data[name]
            else:
                own = max(own, earliest)
        return KEY + self.id, json.dumps({"format": own, **data}, separators=(",", ":"), ensure_ascii=True)

    def renamed(self, *, site: Mapping[str, str] | None = None, output: Mapping[str, str] | None = None) -> Insertion:
        """The record after the tensor that the block reads (``site``) or gives (``output``) got another name."""
        tensor = (site or {}).get(self.site.tensor, self.site.tensor)
        given = (output or {}).get(self.output_tensor, self.output_tensor)
        shapes = {(site or {}).get(name, (output or {}).get(name, name)): each for name, each in self.shapes.items()}
        return replace(self, site=replace(self.site, tensor=tensor), output_tensor=given, shapes=shapes)

    def with_readers(self, names: Mapping[str, Sequence[str]]) -> Insertion:
        """The record after nodes were replaced: name of a reader -> names of those that read in its place."""

        def now(readers: Iterable[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(name for each in readers for name in names.get(each, (each,))))

        site = replace(self.site, consumers=now(self.site.consumers), others=now(self.site.others))
        return self if site == self.site else replace(self, site=site)

    def with_constants(self, names: Mapping[str, str]) -> Insertion:
        """The record after constants of the block got other names, several perhaps one."""
        pair = self.qdq
        if pair is not None:
            scale, zero_point = (names.get(name, name) for name in (pair.scale, pair.zero_point))
            pair = replace(pair, scale=scale, zero_point=zero_point)
        initializers = tuple(dict.fromkeys(names.get(name, name) for name in self.initializers))
        part = self.replaced
        if part is not None:
            part = replace(part, moved={old: names.get(name, name) for old, name in part.moved.items()})
        stored = _with_names(self.stored, names)
        return replace(self, initializers=initializers, stored=stored, qdq=pair, replaced=part)


def read_insertions(structure: onnx.ModelProto) -> list[Insertion]:
    """The insertions that a model's metadata records, oldest first.

    InsertionError for a record that is damaged, of a later version, or there twice.
    """
    entries = [(text(entry.key) or "", entry.value) for entry in structure.metadata_props]
    found = [_read(key, value) for key, value in entries if key.startswith(KEY)]
    if twice := [id for id, count in Counter(insertion.id for insertion in found).items() if count > 1]:
        raise InsertionError(f"the model's metadata has several records of {twice[0]}")
    return found


def _with_names(stored: Any, names: Mapping[str, str]) -> Any:
    """Where parameters are stored, with other names for what holds them."""
    if isinstance(stored, Mapping):
        return {
            key: names.get(value, value) if key == "initializer" else _with_names(value, names)
            for key, value in stored.items()
        }
    return [_with_names(each, names) for each in stored] if isinstance(stored, list | tuple) else stored


def _is_sound(insertion: Insertion) -> bool:
    """Whether the values of a record, which are of their types, are such as an insertion has."""
    shape, choices = insertion.site.shape, arguments()
    sizes = [size for size in shape if isinstance(size, int)]
    given = (size for each in insertion.shapes.values() for size in each if isinstance(size, int))
    return (
        len(shape) == 4
        and isinstance(shape[1], int)
        and 0 < shape[1] <= limits.CHANNELS
        and min(sizes) > 0
        and prod(sizes) <= limits.ELEMENTS
        and all(0 < size < 1 << 63 for size in given)
        and insertion.site.position in (POSITIONS if insertion.replaced is None else (IN_PLACE_OF,))
        and all(place >= 0 for place in (insertion.replaced.at if insertion.replaced else ()))
        and (insertion.function is None or len(insertion.function) == 3)
        and 1 <= insertion.edition <= EDITION
        and all(getattr(insertion, name) in choices[name].argument.choices for name in ("gate", "target", "precision"))
    )


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; the records hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def _read(key: str, value: str) -> Insertion:
    name = key.removeprefix(KEY)
    try:
        data = json.loads(value)
        later = [_LATER[name][0] for name in data.keys() & _LATER.keys()]
        known = (max(later),) if later else (_FORMAT, _CALIBRATED_FORMAT)
        if data.pop("format") not in known:
            raise InsertionError(f"the record of {name} was written by a later version of graphsurgery")
        site = RecordedSite(**_with_tuples(data.pop("site")))
        pair = data.pop("qdq", None)
        qdq = RecordedPair(**_with_tuples(pair)) if pair is not None else None
        part = data.pop("replaced", None)
        replaced = Replaced(**_with_tuples(part)) if part is not None else None
        shapes = _with_tuples(data.pop("shapes", {}))
        insertion = Insertion(id=name, site=site, qdq=qdq, shapes=shapes, replaced=replaced, **_with_tuples(data))
        if not (fits(insertion, Insertion) and _is_sound(insertion)):
            raise ValueError
        _ = insertion.feature.onnx_type
        return insertion
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InsertionError(f"the record of {name} in the model's metadata is damaged") from None
