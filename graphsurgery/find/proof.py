"""Proof: a part of a model, as it stands there, against the PyTorch module of a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from ..blocks.block import Block, Module
from ..errors import CannotRun, GraphSurgeryError, NoKernel
from ..feature_map import Array
from ..runtime.session import Session, session
from ..verification.cases import Case, cases
from ..verification.conditioning import Conditioning
from ..verification.rounding import in_float32
from ..verification.runners import Comparing
from ..verification.tolerance import TOLERANCES
from .reading import Reading
from .regions import outside_constants

_SMALL = 1 << 18
FAILURES = (
    GraphSurgeryError,
    RuntimeError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    ArithmeticError,
    AssertionError,
)
"""what is raised where a module or a part cannot be computed: by a block, PyTorch, NumPy, the reference of ONNX"""
_FAR = 1e3
"""how many times as large as usual the inputs are that look for bounds"""
_NEAR = 2e-2
"""how far a block may be off on the first input to be compared on all, in the largest element"""
_CLOSE = 1e-3
"""the same where both are computed in float64: what is further off is another function"""


@dataclass(frozen=True)
class Proof:
    """What a comparison gave."""

    passed: bool
    max_error: float


class PartAlone:
    """A part as a model of its own, computed in float32 whatever its element type."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.feature = reading.part.feature
        self._outputs: dict[str, Array | None] = {}
        self.multiple: tuple[Block, Array] | None = None
        """a block whose result it gives but for a factor, and the factor"""

    @cached_property
    def model(self) -> onnx.ModelProto:
        """With what its nodes read that is constant as initializers."""
        part, index = self._reading.part, self._reading.index
        kind, whole = part.feature.onnx_type, index.model.structure
        weights = [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name in outside_constants(part, index)
            if (value := self._reading.constants.value(name)) is not None
        ]
        x = onnx.helper.make_tensor_value_info(part.input, kind, part.shape)
        y = onnx.helper.make_tensor_value_info(part.output, kind, part.output_shape)
        graph = onnx.helper.make_graph(self._reading.nodes, "part", [x], [y], weights)
        alone = onnx.helper.make_model(graph, opset_imports=list(whole.opset_import), ir_version=whole.ir_version)
        return in_float32(alone)

    @cached_property
    def _session(self) -> Session:
        return session(self.model.SerializeToString(), "cpu", optimise=False, threads=1, frugal=True)

    @cached_property
    def inputs(self) -> list[Case]:
        """What it is compared on."""
        return list(cases(self.feature.shape, np.dtype(np.float32), seeds=1))

    @cached_property
    def far_out(self) -> list[Case]:
        """Inputs so large, means among them, that what is bounded inside a part or a module meets its bounds: with a
        Clip at 6 that small numbers never reach, it is another function.
        """
        far = np.float32(_FAR)
        return [Case(f"{each.name}, times {far:g}", each.array * far) for each in self.inputs if each.usual]

    @cached_property
    def usual(self) -> Case:
        """The one to begin with."""
        return next(case for case in self.inputs if case.usual)

    def output(self, case: Case) -> Array | None:
        """What the part gives; None where onnxruntime cannot run it."""
        if case.name not in self._outputs:
            try:
                self._outputs[case.name] = self._run(case.array)
            except (CannotRun, NoKernel):
                self._outputs[case.name] = None
        return self._outputs[case.name]

    def in_float64(self, case: Case) -> Array | None:
        """What the part gives for a small map in float64, by ONNX's reference; None where that cannot be had."""
        if case.array.size > _SMALL:
            return None
        try:
            with np.errstate(all="ignore"):  # its sigmoid computes both of two forms
                return self._moved(case.array.astype(np.float64), self._reference)
        except FAILURES:
            return None

    @cached_property
    def _reference(self) -> Callable[[Array], Array]:
        from .convolution import evaluator_in_float64  # takes as long as a small part, and few need it

        evaluator = evaluator_in_float64(_widened(self.model))
        name = self._reading.part.input
        return lambda array: np.asarray(evaluator.run(None, {name: array})[0])  # type: ignore[index]

    def _run(self, array: Array) -> Array:
        return self._moved(array, lambda given: self._session.run({self._reading.part.input: given})[0])

    def _moved(self, array: Array, run: Callable[[Array], Array]) -> Array:
        """Run a map [N, C, H, W] as the part has it."""
        if not self._reading.part.channels_last:
            return run(array)
        entering = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        leaving = run(entering)
        if self._reading.part.gives_tokens:
            leaving = leaving.reshape(entering.shape)
        moved: Array = leaving.transpose(0, 3, 1, 2)
        return moved


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in float64, where it is in float32."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    narrow, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    tensors = [*wide.graph.initializer]
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == narrow:
                attribute.i = double
    for tensor in tensors:
        if tensor.data_type == narrow:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = double
    return wide


@dataclass(frozen=True)
class Pair:
    """What a part gives for an input, and what a module does."""

    given: Array
    expected: Array
    case: Case

    @property
    def near(self) -> bool:
        """Whether they are about the same."""
        return _agree(self.given, self.expected, self.case, _NEAR)

    @cached_property
    def factor(self) -> Array:
        """What the module's result is to be multiplied by, for each channel [C, 1, 1], to come nearest to the part's.

        Of results of one shape.
        """
        axes = (0, 2, 3)
        squares = (self.expected * self.expected).sum(axes)
        found: Array = (self.given * self.expected).sum(axes) / np.maximum(squares, 1e-30)
        return found[:, None, None]

    def has(self, factor: Array) -> bool:
        """Whether such a factor is all that makes the difference."""
        off = np.abs(self.given - factor * self.expected).max()
        return bool(off <= _CLOSE * np.abs(self.given).max())


def pair(module: Module, alone: PartAlone, case: Case | None = None) -> Pair | None:
    """A part and a module (float32, evaluation mode) on an input, by default the usual one; None where onnxruntime
    cannot run the part, or the module gives something of another shape.
    """
    import torch

    case = case or alone.usual
    given = alone.output(case)
    if given is None:
        return None
    with torch.inference_mode():
        expected = module(torch.from_numpy(case.array)).numpy()
    return Pair(given, expected, case) if expected.shape == given.shape else None


def common_factor(first: Pair, module: Module, alone: PartAlone) -> Array | None:
    """The factor of the first pair, if the part and the module (float32) differ by that on all inputs."""
    if not first.has(first.factor):
        return None
    others = (pair(module, alone, case) for case in alone.inputs if case is not first.case)
    return first.factor if all(each is not None and each.has(first.factor) for each in others) else None


def _agree(given: Array, expected: Array, case: Case, share: float) -> bool:
    """Whether two results are as near as a share of what is done to the input, in the largest element; or of the result
    itself, where that is less: attention without a shortcut takes the input away.
    """
    if expected.shape != given.shape or not np.isfinite(expected).all():
        return False
    done = min(float(np.abs(expected - case.array).max()), float(np.abs(expected).max()))
    return bool(np.abs(expected - given).max() <= share * (1e-3 + done))


def prove(module: Module, alone: PartAlone) -> Proof:
    """A module (float64, evaluation mode) against a part on all inputs, with the tolerance of the part's type."""
    import torch

    conditioning = Conditioning(module, "float32")
    dtype = alone.feature.dtype
    tolerance = TOLERANCES["float32" if dtype == "float64" else dtype]
    largest = 0.0
    for case in sorted(alone.inputs, key=lambda each: not each.usual):
        given = alone.output(case)
        if given is None:
            return Proof(False, float("inf"))
        with torch.inference_mode():
            expected = module(torch.from_numpy(case.array.astype(np.float64))).numpy()
        plain = Comparing(case.array, expected, "float32")
        found = plain.compare(given, tolerance)
        if not found.passed:
            # exporters write norms and means in forms whose float32 is worse than the module's
            exact = alone.in_float64(case)
            if exact is not None:
                if not _agree(exact, expected, case, _CLOSE):
                    return Proof(False, max(largest, found.max_abs))
                found = plain.compare(exact.astype(np.float32), tolerance)
            if not found.passed:  # how far rounding alone moves the module takes long to measure
                wider = Comparing(case.array, expected, "float32", conditioning)
                found = wider.compare(given if exact is None else exact.astype(np.float32), tolerance)
        largest = max(largest, found.max_abs)
        if not found.passed:
            return Proof(False, largest)
    return Proof(all(_same_far_out(module, alone, case, conditioning) for case in alone.far_out), largest)


def _same_far_out(module: Module, alone: PartAlone, case: Case, conditioning: Conditioning) -> bool:
    """Whether a part and a module (float64) stay the same function where numbers are large.

    Weights that were folded in float32 move a gate by more than the usual tolerance there.
    """
    import torch

    given = alone.output(case)
    if given is None:
        return False
    with torch.inference_mode():
        expected = module(torch.from_numpy(case.array.astype(np.float64))).numpy()
    if _agree(given, expected, case, _CLOSE):
        return True
    exact = alone.in_float64(case)
    if exact is not None:
        return _agree(exact, expected, case, _CLOSE)
    return Comparing(case.array, expected, "float32", conditioning).compare(given, TOLERANCES["float32"]).passed
