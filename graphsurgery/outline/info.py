"""Info: one screen about a model: where it comes from, what it computes in, its blocks, and what is unusual in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import onnx

from ..feature_map import Dimension, type_name
from ..graph import validity
from ..graph.shapes import tensor_type
from ..messages import attributes, html_table, listed, printable, shape_text
from ..modelfile.model import ModelFile
from ..modelfile.operators import STANDARD, operator
from ..selection.sites import SiteFinder
from .outline import Outline

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource

_ROLES = ("p2", "p3", "p4", "p5", "p6", "neck-outputs")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None
    """None where the model does not tell"""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {'of unknown shape' if self.shape is None else shape_text(self.shape)}"


@dataclass(frozen=True)
class Info:
    """What :func:`graphsurgery.info` tells of a model."""

    model: str
    bytes: int
    """of the file, external data not counted"""
    producer: str
    """name and version of the exporter; "" where the model does not tell"""
    opset: int | None
    """of the standard operators"""
    domains: dict[str, int]
    """every other operator set -> its version"""
    ir_version: int
    nodes: int
    weights: dict[str, int]
    """element type -> number of values in initializers"""
    quantised: bool
    """whether it has QuantizeLinear, DequantizeLinear or integer operators"""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    blocks: dict[str, int]
    """type of a recognised outermost block -> how many there are"""
    roles: dict[str, tuple[str, ...]]
    """p3, p4, neck-outputs ... -> module paths, or tensors where there are none"""
    insertions: dict[str, str]
    """id -> block"""
    replaced: dict[str, str]
    """id of a block that stands in the place of something -> what that was: "rewritten from 17 nodes" """
    unusual: tuple[str, ...]
    """what a tool may stumble over, a sentence each"""

    def to_json(self) -> dict[str, Any]:
        """The fields, as plain data for ``json.dumps``; ``replaced`` only where there is something in it."""
        found = attributes(self)
        return found if self.replaced else {key: value for key, value in found.items() if key != "replaced"}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each fact as its name and a text."""
        domains = "".join(f", {name} {version}" for name, version in self.domains.items())
        yield "exporter", self.producer or "not told"
        yield "opset", f"{self.opset or 'none'}{domains}; IR version {self.ir_version}"
        yield "size", f"{self.nodes:,} nodes, {self.bytes / 1e6:,.1f} MB"
        weights = ", ".join(f"{count:,} {dtype}" for dtype, count in self.weights.items())
        yield "weights", (weights or "none") + (" (quantised)" if self.quantised else "")
        yield from (("input", str(tensor)) for tensor in self.inputs)
        yield from (("output", str(tensor)) for tensor in self.outputs)
        yield "blocks", ", ".join(f"{count} {name}" for name, count in self.blocks.items()) or "none recognised"
        yield from ((role, listed(places)) for role, places in self.roles.items())
        yield "insertions", ", ".join(self._inserted()) or "none"
        yield from (("unusual", sentence) for sentence in self.unusual)

    def _inserted(self) -> Iterator[str]:
        for id, block in self.insertions.items():
            yield f"{id} ({', '.join(filter(None, (block, self.replaced.get(id))))})"

    def lines(self) -> Iterator[str]:
        """As text."""
        yield printable(self.model)
        yield from (printable(f"  {name:<14}{text}") for name, text in self.rows())

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return html_table((self.model, ""), self.rows())


def info(model: ModelSource) -> Info:
    """Describe a model on one screen.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.

    Returns
    -------
    Info
        The exporter, operator sets, element types, inputs and outputs, recognised blocks and roles, insertions, and
        what is unusual.

    Raises
    ------
    ModelError
        If it is no ONNX model.

    Examples
    --------
    >>> info("yolov8n.onnx").blocks   # doctest: +SKIP
    {'Conv': 7, 'C2f': 8, 'SPPF': 1, 'Detect': 1}
    """
    finder = SiteFinder(ModelFile.load(model))
    opened, index = finder.model, finder.index
    structure = opened.structure
    sets = {entry.domain: int(entry.version) for entry in structure.opset_import}
    inputs = tuple(_tensor(value) for value in structure.graph.input if value.name not in index.initializers)
    weights: Counter[str] = Counter()
    for tensor in structure.graph.initializer:
        weights[type_name(tensor.data_type)] += prod(tensor.dims)
    return Info(
        model=opened.name,
        bytes=opened.size,
        producer=f"{structure.producer_name} {structure.producer_version}".strip(),
        opset=opened.standard_opset,
        domains={domain: version for domain, version in sets.items() if domain not in STANDARD},
        ir_version=int(structure.ir_version),
        nodes=len(index.nodes),
        weights=dict(weights.most_common()),
        quantised=any(_is_quantised(operator(node)) for node in index.nodes),
        inputs=inputs,
        outputs=tuple(map(_tensor, structure.graph.output)),
        blocks=dict(Counter(block.type for block in finder.blocks.blocks).most_common()),
        roles=_roles(finder),
        insertions={insertion.id: insertion.module for insertion in opened.insertions()},
        replaced={insertion.id: insertion.origin for insertion in opened.insertions() if insertion.origin},
        unusual=tuple(_unusual(finder, inputs)),
    )


def _roles(finder: SiteFinder) -> dict[str, tuple[str, ...]]:
    """Where the roles are: by module path, by block where the model has no paths, else by tensor."""
    names = {row.tensor: row.path or row.name for row in Outline(finder).rows()}
    found = {role: finder.blocks.role(role) for role in _ROLES}
    return {
        role: tuple(names.get(tensor, f"tensor:{tensor}") for tensor in tensors)
        for role, tensors in found.items()
        if tensors
    }


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind, shape = tensor_type(value.type)
    return Tensor(value.name, type_name(kind), shape)


def _is_quantised(operator: str) -> bool:
    return operator in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear") or operator.endswith("Integer")


def _unusual(finder: SiteFinder, inputs: Iterable[Tensor]) -> Iterator[str]:
    opened, index = finder.model, finder.index
    if wrong := validity.fault(index):
        yield wrong
    elif not validity.is_in_order(index):
        yield "the nodes are not in topological order, which the ONNX standard demands"
    if opened.external_data:
        yield f"weights lie in other files: {listed(opened.external_data)}"
    if opened.structure.functions:
        yield f"it has local functions: {listed([function.name for function in opened.structure.functions])}"
    known = STANDARD.union(function.domain for function in opened.structure.functions)
    if others := dict.fromkeys(node.domain for node in index.nodes if node.domain not in known):
        yield f"it has operators that are not of the ONNX standard: {listed(others)}"
    if dynamic := [t.name for t in inputs if t.shape is None or not all(isinstance(size, int) for size in t.shape)]:
        yield f"sizes of its inputs are dynamic: {listed(dynamic)}"
    made = (name for node_index in sorted(index.active) for name in index.nodes[node_index].output if name)
    if missing := [name for name in made if finder.shapes.lookup(name)[1] is None]:
        yield f"shapes that are neither declared nor can be inferred: {listed(missing, 3)}"
    if unnamed := sum(not node.name for node in index.nodes):
        yield f"{unnamed:,} of its nodes have no name"
