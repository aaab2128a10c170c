"""One block alone in a model: every block there is, weights and inputs that show its mistakes, and how it is built."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.blocks.block import Block
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template import residual_gate, weight_folding
from graphsurgery.template.residual_gate import GATE_KEY
from graphsurgery.template.subgraph import Subgraph
from graphsurgery.template.template import Template
from graphsurgery.userblocks import make_block
from tests.patterns.attention.truth import Truth, truth

Array = np.ndarray[Any, Any]
Settings = Mapping[str, object]

OPSETS = range(9, 27)
"""Those that the pinned onnx and onnxruntime both know."""
DTYPES = ("float32", "float16", "bfloat16", "float64")
HALVES = ("float16", "bfloat16")

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("simam", {}),
    ("simam", {"e_lambda": 0.1}),
    ("simam", {"divisor": "HW"}),
    ("se", {"reduction": 4}),
    ("se", {"hidden": 3, "bias": False}),
    ("se", {"hidden": 3, "activation": "silu"}),
    ("se", {"hidden": 3, "gate": "hard-sigmoid"}),
    ("se", {"hidden": 3, "gate": "hard-sigmoid", "bias": False}),
    ("ge", {}),
    ("ge", {"extent": 2}),
    ("ge", {"extent": 4}),
    ("ge", {"extent": 8}),
    ("ge[theta]", {"bn_eps": 1e-3}),
    ("ge[theta]", {"extent": 2}),
    ("ge[theta]", {"extent": 4, "bn_eps": 1e-3}),
    ("ge[theta]", {"extent": 8}),
    ("ge[theta-plus]", {"hidden": 3}),
    ("ge[theta-plus]", {"extent": 2, "hidden": 5}),
    ("ge[theta-plus]", {"extent": 8, "bn_eps": 1e-3, "hidden": 4}),
    ("nam", {}),
    ("nam", {"bn_eps": 1e-3}),
    ("nam[channel+spatial]", {"bn_eps": 1e-3}),
    ("nam[spatial]", {}),
    ("nam", {"absolute": False}),
]
"""Every block and variant, with settings that reach every branch. Those of the later blocks stand in cases/."""

CASES: dict[str, ModuleType] = {
    found.name: importlib.import_module(f"tests.patterns.attention.cases.{found.name}")
    for found in pkgutil.iter_modules([str(Path(__file__).parent / "cases")])
}
"""Block -> its file in cases/: BLOCKS, a list as above; and, where the defaults do not fit, IDENTITY (the spelled
names that have one; default none), INERT (parameters that the function does not depend on), ELSEWHERE (variants that
have no case here: their own test file has them), LARGEST (the largest input that float16 can take, for a block that is
a polynomial of it), FACTOR (how much wider the tolerances are, with the reason), and weights(key, shape, rng), which
gives random values for a parameter or None; NOT_READ_BY, readers that cannot read the block, or, as
``Reader: lowering``, one form of it."""

LATER: list[tuple[str, dict[str, object]]] = [block for module in CASES.values() for block in module.BLOCKS]
"""The blocks of cases/."""


def trait(spelled: str, name: str, default: Any) -> Any:
    """What the file of a block in cases/ says under ``name``."""
    return getattr(CASES.get(spelled.partition("[")[0]), name, default)


def label(block: tuple[str, Settings]) -> str:
    """``ge[theta] extent=4``: the id of a parametrised test."""
    return " ".join([block[0], *(f"{key}={value}" for key, value in block[1].items())])


def opsets_of(dtype: str) -> Sequence[int]:
    """The opsets in which a model can be of this type at all: bfloat16 came with 13."""
    return range(13, OPSETS.stop) if dtype == "bfloat16" else OPSETS


# ---------------------------------------------------------------------- building


@dataclass(frozen=True)
class Built:
    """A model of one block: input ``x``, output ``y``."""

    block: Block
    feature: FeatureMap
    model: onnx.ModelProto
    subgraph: Subgraph
    lowering: str

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    @property
    def opset(self) -> int:
        return int(self.model.opset_import[0].version)

    @property
    def operators(self) -> list[str]:
        """Of all nodes in order; a mean that is taken along one side after the other, at a large map, counts once."""
        producer = {name: node.op_type for node in self.graph.node for name in node.output}
        return [
            node.op_type
            for node in self.graph.node
            if not (self.feature.large and node.op_type == "ReduceMean" and producer.get(node.input[0]) == "ReduceMean")
        ]

    @property
    def constants(self) -> dict[str, TensorProto]:
        """Initializers and, for the oldest IR versions, Constant nodes, by name."""
        nodes = {node.output[0]: node.attribute[0].t for node in self.graph.node if node.op_type == "Constant"}
        return nodes | {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def weights(self) -> dict[str, Array]:
        """The block's parameters as the record reads them back from the model, float64."""
        constants, shapes = self.constants, self.block.parameters(self.feature)
        if GATE_KEY in self.subgraph.stored:
            shapes = {**shapes, GATE_KEY: (1,)}
        return weight_folding.read_back(
            self.subgraph.stored, shapes, lambda name: numpy_helper.to_array(constants[name])
        )

    @cached_property
    def truth(self) -> Truth:
        """The PyTorch module with those weights."""
        own = {key: value for key, value in self.weights.items() if key != GATE_KEY}
        return truth(self.block, self.feature, own)

    def expected(self, x: Array) -> Array:
        """What the PyTorch module gives for ``x``, float64."""
        return self.truth.expected(x)

    def slack(self, x: Array) -> float:
        """What is permitted on top of the tolerance where the block multiplies rounding errors."""
        return self.truth.slack(x)

    def rounding(self, x: Array) -> float:
        """How far rounding alone can move the result in half precision, relative to it."""
        return self.truth.rounding(x)


def feature_map(
    channels: int = 6,
    height: int | None = 13,
    width: int | None = 21,
    dtype: str = "float32",
    batch: int | None = 1,
) -> FeatureMap:
    """A site: by default odd, not square, and with channels that fill no vector register."""
    return FeatureMap(channels, height, width, dtype, batch, "/model.8")


def build(
    spelled: str,
    settings: Settings | None = None,
    feature: FeatureMap | None = None,
    *,
    opset: int = 17,
    lowering: str | None = None,
    weights: Mapping[str, Array] | None = None,
    gated: bool = False,
    target: str = "tensorrt",
    precision: str = "safe",
    ir_version: int | None = None,
    seed: int = 0,
) -> Built:
    """The block in a model of its own; by default with the lowering that would be chosen and random weights.

    Goes the way of an insertion: parameters that the template does not hold are kept as the record keeps them.
    """
    block, feature = make_block(spelled, settings), feature or feature_map()
    block.check(feature)
    weights = dict(random_weights(block, feature, seed) if weights is None else weights)
    if gated:
        weights[GATE_KEY] = np.zeros(1, np.float32)
    template = Template(
        feature,
        opset=opset,
        scope="/block",
        weight_scope="block",
        target=target,
        precision=precision,
        weights=weights,
        x="x",
    )
    lowering = lowering or block.choose(template, block.lowerings(template.feature, opset))
    output = block.emit(template, lowering)
    if gated:
        output = residual_gate.residual(template, output)
    ir_version = ir_version or helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    subgraph = template.export(output, ir_version=ir_version)
    for key, values in weights.items():
        subgraph.stored.setdefault(key, weight_folding.keep(np.asarray(values)))
    shape = [
        "N" if feature.batch is None else feature.batch,
        feature.channels,
        "H" if feature.height is None else feature.height,
        "W" if feature.width is None else feature.width,
    ]
    graph = helper.make_graph(
        subgraph.nodes,
        "block",
        [helper.make_tensor_value_info("x", feature.onnx_type, shape)],
        [helper.make_tensor_value_info(subgraph.output, feature.onnx_type, shape)],
        subgraph.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return Built(block, feature, model, subgraph, lowering)


def random_weights(block: Block, feature: FeatureMap, seed: int = 0) -> dict[str, Array]:
    """Weights under which the gate really depends on the input, and saturates for some of them; float32.

    Running variances between 0.3 and 2.5, scales of either sign, shifts and running means that are not zero. The scales
    of NAM grow with their number, since each is divided by the sum of all.
    """
    rng = np.random.default_rng([seed, 77])
    found: dict[str, Array] = {}
    special = trait(block.name, "weights", lambda key, shape, rng: None)
    for key, shape in block.parameters(feature).items():
        given = special(key, shape, rng)
        if given is not None:
            values = np.asarray(given)
        elif key.endswith("running_var"):
            values = rng.uniform(0.3, 2.5, shape)
        elif "Att." in key and key.endswith((".weight", ".bias")):
            values = rng.uniform(0.05, 0.5, shape) * rng.choice([-1.0, 1.0], shape) * shape[0]
        elif key.endswith("fc1.bias"):
            values = rng.uniform(0.3, 0.8, shape)  # negative ones could close the ReLU behind them for good
        elif len(shape) == 1:
            values = rng.uniform(0.3, 1.0, shape) * rng.choice([-1.0, 1.0], shape)
        else:
            deviation = 0.6 if ".fc" in key else 1.0
            values = rng.normal(0.05, deviation / np.sqrt(np.prod(shape[1:])), shape)
        found[key] = values.astype(np.float32)
    return found


# ---------------------------------------------------------------------- inputs


def inputs(feature: FeatureMap, seed: int = 0, *, largest: float = 20.0) -> list[tuple[str, Array]]:
    """Inputs for a site in its type: every magnitude from 1e-3 to ``largest``, constants, and a single spike."""
    shape, kind = concrete(feature), feature.numpy_dtype
    rng = np.random.default_rng([seed, 5])
    signal = rng.standard_normal(shape) + 0.5 * rng.standard_normal((*shape[:2], 1, 1))
    spike = np.zeros(shape)
    spike[:, :, shape[2] // 2, shape[3] // 3] = 3.0
    magnitudes = sorted({1e-3, 1e-1, 1.0, 20.0, largest})
    return [
        *((f"magnitude {magnitude:g}", (signal * magnitude).astype(kind)) for magnitude in magnitudes),
        *((f"constant {constant:g}", np.full(shape, constant, kind)) for constant in (0.0, 0.7, -7.0)),
        ("spike", spike.astype(kind)),
    ]


def few_inputs(feature: FeatureMap, seed: int = 0) -> list[tuple[str, Array]]:
    """The three inputs that find most: of order one, of order twenty, and a constant."""
    wanted = ("magnitude 1", "magnitude 20", "constant 0.7")
    return [(name, x) for name, x in inputs(feature, seed) if name in wanted]


def concrete(feature: FeatureMap) -> tuple[int, int, int, int]:
    """A shape that the site takes; 3 x 11 x 14 for what is dynamic."""
    return feature.batch or 3, feature.channels, feature.height or 11, feature.width or 14


# ---------------------------------------------------------------------- for every block

Named = tuple[str, Settings]
every_block = pytest.mark.parametrize("block", [*BLOCKS, *LATER], ids=label)

STATIC = feature_map(12)
"""Twelve channels: what wants an even number, or groups of two, three or four, can be put there."""
DYNAMIC_BATCH = feature_map(12, batch=None)
DYNAMIC = feature_map(12, batch=None, height=None, width=None)


def forms(block: Named, feature: FeatureMap, opset: int) -> Iterator[Built]:
    """The block in each of its lowerings there."""
    made = make_block(*block)
    for lowering in made.lowerings(feature, opset):
        yield build(*block, feature, opset=opset, lowering=lowering)


def is_heavy(block: Named) -> bool:
    """Whether its scores take too much on a large map, 80 x 80, to compute them there again and again."""
    made = make_block(*block)
    return made.is_quadratic and prod(made.scores(80, 80)) > 10**7


def possible(block: Named, feature: FeatureMap, opset: int) -> bool:
    """Whether the block can be put there. What it says where it cannot is tested block by block."""
    try:
        make_block(*block).check(feature)
    except BlockError:
        return False
    return feature.static or opset >= 11 or not block[1].get("extent")  # Upsample takes constant scales only
