"""A block from an ONNX file: its nodes are copied, its weights are parameters, and its referee is the file itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from ..blocks.block import Array, Block
from ..blocks.reference import Reference
from ..errors import BlockError
from ..feature_map import FeatureMap
from ..template.template import Template
from .block_graph import Skeleton, load
from .fit_to_site import fitted
from .paste import paste

if TYPE_CHECKING:
    import torch

_GRAPH = "graph"


class OnnxBlock(Block):
    """The record holds the graph without its weights; those are in the model, as for every block."""

    paper = "none: a block of the user's own"
    formula = "what the ONNX file computes"
    untrained = "does what its file says"
    redrawn = False  # its weights are those of its file
    file: ClassVar[str]
    """name of the file, without its folder"""

    def __init__(self, skeleton: Skeleton, weights: Mapping[str, Array]) -> None:
        self.variant = None
        self._skeleton = skeleton
        self._weights = dict(weights)
        self.values: dict[str, Any] = {_GRAPH: skeleton.to_text()}

    @property
    def spelled(self) -> str:
        return self.file

    @property
    def has_weights(self) -> bool:
        return bool(self._skeleton.parameters)

    def with_values(self, **values: object) -> Block:
        return self

    def example(self) -> FeatureMap:
        usual = super().example()
        batch, channels, height, width = self._skeleton.shape
        return FeatureMap(
            channels or usual.channels,
            height or usual.height,
            width or usual.width,
            self._skeleton.dtype,
            batch or 1,
            usual.label,
        )

    def check(self, feature: FeatureMap) -> None:
        self._skeleton.check(feature)

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self._skeleton.dtype == feature.dtype:
            return []
        return [f"{self.file} is {self._skeleton.dtype}; it was converted to {feature.dtype}, that of the site"]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return self._skeleton.parameters

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return dict(self._weights)

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        return paste(t, fitted(self._skeleton, t.feature, t.opset), t.weight)

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from .onnx_reference import Referee

        return Referee(self._skeleton, self.compared_with(feature).dtype)

    def compared_with(self, feature: FeatureMap) -> Reference:
        what = f"{self.file} itself in onnxruntime"
        return Reference(what, what, "onnxruntime", "float64" if feature.dtype == "float64" else "float32")


def onnx_block(spelled: str, settings: Mapping[str, object]) -> Block:
    """The block in the file ``spelled``, or, with the graph in ``settings``, that of a record. Raises BlockError."""
    file = Path(spelled).name
    extra = [name for name in settings if name != _GRAPH]
    if extra:
        raise BlockError(f"{file} is an ONNX file and has no hyper-parameter {extra[0]!r}")
    name = re.sub(r"\W+", "_", Path(file).stem).strip("_").lower() or "block"
    texts = {"name": name, "title": file, "reference": file, "file": file}
    described: type[OnnxBlock] = type("OnnxFile", (OnnxBlock,), texts)
    if _GRAPH in settings:
        return described(Skeleton.from_text(settings[_GRAPH], file), {})
    return described(*load(Path(spelled)))
