"""GraphWriter: writes ONNX nodes in the form that an operator set, an element type and a target ask for.

It spells each operation as the model's operator set wants it: attribute or input, which constant type, which form of
an operator. Authored with onnx-graphsurgeon; constants become initializers in the element type that the nodes around
them compute in: the site's own, or float32 within ``statistics`` and where the whole block is to be computed in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from ..errors import BlockError, WeightsError
from ..feature_map import FeatureMap, float_dtype
from ..modelfile.limits import OLDEST_OPSET
from ..modelfile.record import EDITION
from .names import UniqueNames
from .subgraph import Subgraph

Array = np.ndarray[Any, Any]
HALVES = ("float16", "bfloat16")
_CONSTANTS_AS_NODES_BELOW_IR = 4  # up to IR 3 every initializer has to be a graph input as well


def computed_in(dtype: str, precision: str) -> str:
    """The element type that a block is computed in at a site of the type ``dtype``, but for its statistics."""
    if precision == "fp32" and dtype in HALVES:
        return "float32"
    return "float16" if precision == "fp16" and dtype == "float32" else dtype


class GraphWriter:
    """Writes one block's subgraph after the tensor ``x`` [N, C, H, W].

    ``scope`` names its nodes and tensors (``/model.8/se``), ``weight_scope`` its parameters (``model.8.se``);
    ``weights`` are the block's parameters by official key.
    """

    def __init__(
        self,
        feature: FeatureMap,
        *,
        opset: int,
        scope: str = "/block",
        weight_scope: str = "block",
        target: str = "tensorrt",
        precision: str = "safe",
        weights: Mapping[str, Array] | None = None,
        x: str = "x",
        names: UniqueNames | None = None,
        edition: int = EDITION,
    ) -> None:
        if opset < OLDEST_OPSET:
            raise BlockError(
                f"the model uses opset {opset}; blocks can be put into models of opset {OLDEST_OPSET} and later"
            )
        self.feature = replace(feature, dtype=computed_in(feature.dtype, precision))
        """the site; its element type is the one that the block is computed in"""
        self.opset = opset
        self.target = target
        self.precision = precision
        self._site = feature
        self._edition = edition
        self._first_edition = 1
        self._computing = self.feature
        self._scope = scope
        self._weight_scope = weight_scope
        self._weights = dict(weights or {})
        self._names = names or UniqueNames({x})
        self._nodes: list[gs.Node] = []
        self._constants: dict[str, gs.Constant] = {}
        self._stored: dict[str, dict[str, Any]] = {}
        self._warnings: list[str] = []
        self._cast: dict[tuple[str, int], gs.Variable] = {}
        self._input = gs.Variable(x, dtype=feature.onnx_type, shape=_shape(feature))
        self.x = self._in_type(self._input, self.onnx_type)

    def since(self, edition: int) -> bool:
        """Whether the block is written in the forms of that edition, or of a later one.

        Examples
        --------
        >>> shape = (-1,) if t.since(2) else (1, 1, 1, -1)
        """
        self._first_edition = max(self._first_edition, min(edition, self._edition))
        return self._edition >= edition

    # ------------------------------------------------------------------ element types

    @property
    def dtype(self) -> str:
        """The element type that nodes compute in now: the site's, or float32."""
        return self._computing.dtype

    @property
    def onnx_type(self) -> int:
        """The same as a TensorProto.DataType number."""
        return self._computing.onnx_type

    @contextmanager
    def statistics(self) -> Iterator[None]:
        """Within it, nodes are for variances, norms, softmaxes and their logits.

        Half precision cannot be trusted with them: with the precision "safe" they are in float32 at such a site.
        Tensors are cast where they enter and, by the first node outside that reads them, where they leave. With "site"
        they are in half precision all the same, and a block asks for ``t.dtype`` where float16 needs another form.

        Examples
        --------
        >>> with t.statistics():
        ...     centred = t.sub(t.x, t.mean_hw(t.x))
        ...     variance = t.mean_hw(t.mul(centred, centred))
        """
        outer = self._computing
        if self.precision in ("safe", "fp16") and outer.dtype in HALVES:
            self._computing = replace(outer, dtype="float32")
        try:
            yield
        finally:
            self._computing = outer

    def cast(self, x: gs.Variable) -> gs.Variable:
        """``x`` in the element type of here, for what comes out of ``statistics`` and is not read at once."""
        return self._in_type(x, self.onnx_type)

    def _in_type(self, x: gs.Tensor, kind: int) -> gs.Tensor:
        """A floating-point tensor in another floating-point type; one Cast however often it is asked for."""
        if isinstance(x, gs.Constant) or x.dtype == kind or float_dtype(x.dtype or 0) is None:
            return x
        if (x.name, kind) not in self._cast:
            self._cast[x.name, kind] = self.op("Cast", x, dtype=kind, to=kind)
        return self._cast[x.name, kind]

    def shape_of(self, x: gs.Variable) -> tuple[int | str | None, ...] | None:
        """Shape of a tensor of the block so far, by ONNX's inference; None where that does not tell the rank."""
        if x.name == self._input.name:
            return tuple(_shape(self._site))
        graph = gs.Graph(nodes=self._nodes, inputs=[self._input], outputs=[x], opset=self.opset)
        model = gs.export_onnx(graph, do_type_check=False)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0].type.tensor_type
        if not inferred.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in inferred.shape.dim)

    # ------------------------------------------------------------------ constants and parameters

    def constant(self, values: Array | float, name: str) -> gs.Constant:
        """A constant in the element type that nodes compute in now.

        Parameters
        ----------
        values:
            In any element type; they are rounded once, from float64.
        name:
            Its name within the block's scope.

        Raises
        ------
        WeightsError
            If the element type cannot hold the values, or they are not finite.
        """
        wide = np.asarray(values, dtype=np.float64)
        with np.errstate(over="ignore"):
            cast = wide.astype(self._computing.numpy_dtype)
        if not np.isfinite(cast.astype(np.float64)).all():
            if np.isfinite(wide).all():
                raise WeightsError(f"{name} reaches {np.abs(wide).max():.3g}, more than {self.dtype} can hold")
            raise WeightsError(f"{name} has values that are not finite")
        return self._add_constant(cast, name)

    def scalar(self, value: float, name: str) -> gs.Constant:
        """A number, shaped [1, 1, 1, 1] so that no runtime has to reshape it."""
        return self.constant(np.full((1, 1, 1, 1), value), name)

    def integers(self, values: Sequence[int], name: str) -> gs.Constant:
        """A vector of int64: axes, sizes, repeats."""
        return self._add_constant(np.asarray(values, dtype=np.int64), name)

    def floats(self, values: Sequence[float] | Array, name: str) -> gs.Constant:
        """Values in float32, for inputs that ONNX wants in float32 whatever the model's type (scales of a Resize)."""
        return self._add_constant(np.asarray(values, dtype=np.float32), name)

    def own(self, values: Array, name: str) -> gs.Constant:
        """A constant in the element type that it has, for inputs that ONNX wants in that type."""
        return self._add_constant(np.asarray(values), name)

    def _add_constant(self, values: Array, name: str) -> gs.Constant:
        tensor = gs.Constant(self._names.reserve(f"{self._weight_scope}.{name}"), values=values)
        self._constants[tensor.name] = tensor
        return tensor

    # ------------------------------------------------------------------ operators

    def supports(self, op_type: str) -> bool:
        """Whether the operator takes the element type of here at the model's opset."""
        try:
            schema = onnx.defs.get_schema(op_type, self.opset, "")
        except onnx.defs.SchemaError:
            return False
        wanted = {"float32": "tensor(float)", "float64": "tensor(double)"}.get(self.dtype, f"tensor({self.dtype})")
        first = schema.inputs[0].type_str
        allowed = {t for c in schema.type_constraints if c.type_param_str == first for t in c.allowed_type_strs}
        return wanted in (allowed or {first})

    def node(
        self, op_type: str, inputs: Sequence[gs.Tensor], dtypes: Sequence[int], **attributes: Any
    ) -> list[gs.Variable]:
        """One node with any number of outputs, whose element types are given."""
        name = self._names.reserve(f"{self._scope}/{op_type}")
        outputs = [
            gs.Variable(self._names.reserve(f"{name}_output_{place}"), dtype=dtype)
            for place, dtype in enumerate(dtypes)
        ]
        self._nodes.append(gs.Node(op=op_type, name=name, attrs=attributes, inputs=list(inputs), outputs=outputs))
        return outputs

    def op(self, op_type: str, *inputs: gs.Tensor, dtype: int | None = None, **attributes: Any) -> gs.Variable:
        """One node with one output.

        Parameters
        ----------
        op_type:
            The ONNX operator.
        inputs:
            Its inputs, in order. They are cast where they come from within ``statistics`` and this is outside, and vice
            versa; not where ``dtype`` is given.
        dtype:
            Element type of the output as a number of TensorProto.DataType; that which nodes compute in now where not
            given.
        attributes:
            The attributes of the node.

        Examples
        --------
        >>> largest = t.op("Max", a, b)
        """
        if dtype is None and op_type != "Cast":
            inputs = tuple(self._in_type(each, self.onnx_type) for each in inputs)
        (output,) = self.node(op_type, inputs, [dtype or self.onnx_type], **attributes)
        if dtype is None and not self.supports(op_type):
            self._warn(f"ONNX has no {op_type} for {self.dtype} at opset {self.opset}, the model's own")
        return output

    def _warn(self, message: str) -> None:
        if message not in self._warnings:
            self._warnings.append(message)

    def add(self, a: gs.Tensor, b: gs.Tensor) -> gs.Variable:
        return self.op("Add", a, b)

    def sub(self, a: gs.Tensor, b: gs.Tensor) -> gs.Variable:
        return self.op("Sub", a, b)

    def mul(self, a: gs.Tensor, b: gs.Tensor) -> gs.Variable:
        return self.op("Mul", a, b)

    def div(self, a: gs.Tensor, b: gs.Tensor) -> gs.Variable:
        return self.op("Div", a, b)

    def relu(self, x: gs.Tensor) -> gs.Variable:
        return self.op("Relu", x)

    def sigmoid(self, x: gs.Tensor) -> gs.Variable:
        return self.op("Sigmoid", x)

    def conv(self, x: gs.Tensor, weight: gs.Tensor, bias: gs.Tensor | None = None, **attributes: Any) -> gs.Variable:
        """A convolution; the kernel shape is read off the weight, strides, pads and group are attributes as in ONNX."""
        attributes = {"kernel_shape": [int(n) for n in weight.shape[2:]], **attributes}
        return self.op("Conv", x, weight, *([bias] if bias is not None else []), **attributes)

    # ------------------------------------------------------------------ result

    def export(self, output: gs.Variable, *, ir_version: int) -> Subgraph:
        """The subgraph as protobuf messages, in topological order; its output is of the site's type."""
        output = self._in_type(output, self._site.onnx_type)
        graph = gs.Graph(nodes=self._nodes, inputs=[self._input], outputs=[output], opset=self.opset)
        proto = gs.export_onnx(graph, do_type_check=False).graph
        nodes = list(proto.node)
        initializers = [numpy_helper.from_array(tensor.values, name) for name, tensor in self._constants.items()]
        if ir_version < _CONSTANTS_AS_NODES_BELOW_IR:
            nodes = [self._constant_node(tensor) for tensor in initializers] + nodes
            initializers = []
        return Subgraph(nodes, initializers, output.name, self._stored, self._warnings, self._first_edition)

    def _constant_node(self, tensor: onnx.TensorProto) -> onnx.NodeProto:
        name = self._names.reserve(f"{self._scope}/Constant")
        return onnx.helper.make_node("Constant", [], [tensor.name], name=name, value=tensor)


def _shape(feature: FeatureMap) -> list[int | str]:
    return [
        feature.batch if feature.batch is not None else "N",
        feature.channels,
        feature.height if feature.height is not None else "H",
        feature.width if feature.width is not None else "W",
    ]
