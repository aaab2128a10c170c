"""The part that a block replaced, rebuilt from its record and compared with the same PyTorch module.

It is computed in float32 whatever its element type: what is compared is the function that stood there, not how its form
rounds, which can be why it was replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import CannotRun, InsertionError, ModelError
from ..feature_map import Array
from ..graph.local_functions import written_out
from ..modelfile.subgraphs import reads
from ..runtime.session import session
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
        with self.runner.stopping():
            try:
                alone = in_float32(part_of(model, insertion, insertion.replaced))
            except (InsertionError, ModelError, KeyError) as error:
                raise CannotRun(f"what the block replaced cannot be rebuilt: {error}") from None
            ready = session(alone.SerializeToString(), "cpu", optimise=False, threads=1, frugal=True)
            name = insertion.replaced.input
            self.runner.run = lambda array: ready.run({name: array.astype(np.float32)})[0]

    def compare(self, case: str, given: Array, expected: Array, conditioning: Conditioning | None) -> None:
        """Compare on one input with what the PyTorch module gives for it (float64)."""
        actual = self.runner.output(given)
        if actual is not None:
            comparing = Comparing(given.astype(np.float32), expected, "float32", conditioning)
            self.runner.record(case, comparing.compare(actual, self.runner.row.tolerance))


def part_of(model: ModelFile, insertion: Insertion, replaced: Replaced) -> onnx.ModelProto:
    """What a block replaced in a model, or in a function, as a model of its own. InsertionError or KeyError where
    something of it is gone.
    """
    graph, whole = replaced.graph(model.tensor), model.whole.structure
    held = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    outside = {name for node in graph.node for name in reads(node)} - held - made - {replaced.input}
    weights = [onnx.numpy_helper.from_array(model.tensor(name), name) for name in sorted(outside)]
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
