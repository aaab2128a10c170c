"""The part that a block replaced, rebuilt from its record and compared with the same PyTorch module.

It is computed in float32 whatever its element type: what is compared is the function that stood there, not how its form
rounds, which can be why it was replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import CannotRun, InsertionError, ModelError
from ..feature_map import Array
from ..graph.constants import Constants
from ..graph.index import GraphIndex
from ..graph.local_functions import written_out
from ..graph.open_sizes import at_sizes, shapes_to_try
from ..graph.shapes import ShapeTable
from ..messages import listed
from ..modelfile.subgraphs import reads
from ..runtime.session import Session, session
from .conditioning import Conditioning
from .report import Mode, Row
from .rounding import in_float32
from .runners import Comparing, Runner
from .tolerance import TOLERANCES

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion, Replaced


_INITIALIZERS_ALONE = 4
"""the first IR version in which an initializer need not be an input"""


class ReplacedCheck:
    """Runs what one block replaced, on the CPU."""

    def __init__(self, model: ModelFile, insertion: Insertion) -> None:
        assert insertion.replaced is not None
        dtype = insertion.site.dtype
        tolerance = TOLERANCES["float32" if dtype == "float64" else dtype]
        self.runner = Runner(Row(provider="cpu", mode=Mode.REPLACED, tolerance=tolerance))
        """what was found; has failed where the part cannot be rebuilt, or cannot run"""
        self._insertion = insertion
        self._ready: dict[tuple[int, ...], Session] = {}
        """shape of the map that is known to go with the sizes in it, or () -> the part"""
        with self.runner.stopping():
            try:
                alone = {shape: in_float32(part) for shape, part in _parts_of(model, insertion, insertion.replaced)}
            except (InsertionError, ModelError, KeyError) as error:
                raise CannotRun(f"what the block replaced cannot be rebuilt: {error}") from None
            self._ready = {
                shape: session(part.SerializeToString(), "cpu", optimise=False, threads=1, frugal=True)
                for shape, part in alone.items()
            }
            self.runner.run = self._run

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the map at which alone it can run, since it reads sizes that are computed elsewhere in the
        model; nothing where it runs at any.
        """
        return [shape for shape in self._ready if shape]

    def _run(self, array: Array) -> Array:
        assert self._insertion.replaced is not None
        ready = self._ready[array.shape if self.shapes else ()]
        return ready.run({self._insertion.replaced.input: array.astype(np.float32)})[0]

    def compare(self, case: str, given: Array, expected: Array, conditioning: Conditioning | None) -> None:
        """Compare on one input with what the PyTorch module gives for it (float64), where it can run at its shape."""
        if self.shapes and given.shape not in self.shapes:
            return
        actual = self.runner.output(given)
        if actual is not None:
            comparing = Comparing(given.astype(np.float32), expected, "float32", conditioning)
            self.runner.record(case, comparing.compare(actual, self.runner.row.tolerance))


def _parts_of(
    model: ModelFile, insertion: Insertion, replaced: Replaced
) -> Iterator[tuple[tuple[int, ...], onnx.ModelProto]]:
    """(shape of the map, the part as it is there), or ((), the part) where it reads no sizes from elsewhere."""
    index = GraphIndex(model)
    sizes = index.sizes & _outside(replaced.graph(model.tensor), replaced)
    if not sizes:
        yield (), part_of(model, insertion, replaced)
    for shapes in shapes_to_try(index) if sizes else ():
        settled = GraphIndex(at_sizes(model, shapes))
        constants, shape = Constants(settled), ShapeTable(settled).lookup(replaced.input)[1]
        known = {name: value for name in sizes if (value := constants.value(name)) is not None}
        if shape is None or not all(isinstance(size, int) for size in shape) or len(known) < len(sizes):
            raise InsertionError(f"it reads {listed(sorted(sizes))}, and what these are cannot be told")
        yield tuple(size for size in shape if isinstance(size, int)), part_of(model, insertion, replaced, known)


def _outside(graph: onnx.GraphProto, replaced: Replaced) -> set[str]:
    """What the nodes of a part read that is neither in it nor the map that enters."""
    held = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    return {name for node in graph.node for name in reads(node)} - held - made - {replaced.input}


def part_of(
    model: ModelFile, insertion: Insertion, replaced: Replaced, sizes: Mapping[str, Array] = MappingProxyType({})
) -> onnx.ModelProto:
    """What a block replaced in a model, or in a function, as a model of its own. InsertionError or KeyError where
    something of it is gone. ``sizes``: what it reads that is computed elsewhere in the model.
    """
    graph, whole = replaced.graph(model.tensor), model.whole.structure
    outside = {name: sizes[name] if name in sizes else model.tensor(name) for name in _outside(graph, replaced)}
    weights = [onnx.numpy_helper.from_array(outside[name], name) for name in sorted(outside)]
    kind, shape = insertion.feature.onnx_type, list(insertion.site.shape)
    x, y = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in (replaced.input, replaced.output))
    alone = onnx.helper.make_graph(graph.node, insertion.id, [x], [y], [*graph.initializer, *weights])
    made = onnx.helper.make_model(
        alone,
        opset_imports=list(model.structure.opset_import),
        ir_version=max(whole.ir_version, _INITIALIZERS_ALONE),
        functions=[onnx.FunctionProto.FromString(piece.content) for piece in model.whole.functions()],
    )
    return written_out(made, f"what {insertion.id} replaced")
