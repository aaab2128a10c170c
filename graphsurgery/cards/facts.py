"""Facts: what is known of a block by trying it: its nodes, whether it can be the identity, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx

from ..blocks.block import Array, Block
from ..errors import BlockError, GraphSurgeryError
from ..feature_map import FeatureMap
from ..graph.work import Work
from ..messages import attributes
from ..modelfile.model import ModelFile
from ..runtime.session import session
from ..template.subgraph import Subgraph
from ..template.template import Template
from ..tensorrt import findings
from ..verification.rounding import rounded_after_every_node
from .listing import DLA, TENSORRT

OPSET, _IR_VERSION = 17, 8
_X, _Y = "x", "y"
_LARGEST = 20.0
_CLOSE = 0.02
"""How far a float16 result may be off, relative to its largest element."""


@dataclass(frozen=True)
class Facts:
    """A block with its default hyper-parameters, on the feature map ``site``, written for TensorRT at opset 17."""

    block: Block

    @property
    def site(self) -> FeatureMap:
        """256 channels, 20 x 20, but for a block that was made for other sizes."""
        return self.block.example()

    @cached_property
    def _counts(self) -> tuple[int, int]:
        return self.block.counts(self.site)

    @property
    def parameters(self) -> int:
        """Number of weights that are learned."""
        return self._counts[0]

    @property
    def buffers(self) -> int:
        """Number of other values in its weights: the statistics of BatchNorms."""
        return self._counts[1]

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of its convolutions and matrix products; None where sizes are not known."""
        return self._work.macs()

    @property
    def largest_tensor(self) -> list[int] | None:
        """Shape of the largest tensor between its nodes; None likewise, and where there is none."""
        index = self._work.index
        last = {index.producer[name] for name in index.outputs}
        found = self._work.largest(index.active - last)
        return list(found.shape) if found else None

    @cached_property
    def _work(self) -> Work:
        return Work.of(ModelFile.load(self.model))

    def to_json(self) -> dict[str, Any]:
        """What the table says, with the keys of the command line's JSON."""
        return {
            **attributes(self, "parameters", "buffers", "nodes", "macs", "largest_tensor", "identity", "static"),
            "float16": self.half,
            "tensorrt": {version: self.tensorrt(version) for version in TENSORRT},
            "dla": self.tensorrt("10", DLA),
            "lowerings": list(self.lowerings),
        }

    @property
    def nodes(self) -> int:
        """Number of ONNX nodes."""
        return len(self.model.graph.node)

    @property
    def lowerings(self) -> Sequence[str]:
        """The formulations to choose from."""
        return self.block.lowerings(self.site, OPSET)

    @cached_property
    def identity(self) -> bool:
        """Whether there are weights with which it gives its input back bit by bit."""
        return not _is_refused(self.block.identity, self.site)

    @cached_property
    def static(self) -> bool:
        """Whether height and width have to be known."""
        return _is_refused(self._lowered, FeatureMap(self.site.channels, None, None))

    @cached_property
    def half(self) -> bool | None:
        """Whether it is right in float16 with every intermediate result rounded, for signals of up to 20.

        None where onnxruntime, which is needed to try it, is not installed.
        """
        if find_spec("onnxruntime") is None:
            return None
        narrow = replace(self.site, dtype="float16")
        try:
            rounded = rounded_after_every_node(self._model(narrow))
        except GraphSurgeryError:
            return False
        shape = (narrow.batch or 1, narrow.channels, narrow.height or 20, narrow.width or 20)
        x = np.random.default_rng(0).standard_normal(shape) * _LARGEST / 3
        x = x.astype(np.float16).astype(np.float32)
        exact, found = _run(self.model, x), _run(rounded, x)
        return bool(np.abs(found - exact).max() <= _CLOSE * np.abs(exact).max())  # False for NaN as well

    def tensorrt(self, version: str, dla: str | None = None) -> bool:
        """Whether a version of TensorRT takes it, or that DLA all of it as it is written for one, by the table."""
        model = self._model(self.site, "dla") if dla else self.model
        found = findings(ModelFile.load(model), version, dla=dla, precision="fp16" if dla else "fp32")
        return not any(each.severity == "error" or (dla and each.severity == "warning") for each in found)

    def left_by_a_dla(self, site: FeatureMap) -> list[str]:
        """The operators of the block, written for a DLA of Orin at that site, that go to the GPU, by the table."""
        found = findings(ModelFile.load(self._model(site, "dla")), TENSORRT[1], dla=DLA, precision="fp16")
        return list(dict.fromkeys(str(each.operator) for each in found if each.rule.startswith("dla-")))

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The block as a model of its own, from ``x`` to its output."""
        return self._model(self.site)

    def _lowered(self, feature: FeatureMap, target: str = "tensorrt") -> Subgraph:
        self.block.check(feature)
        weights = self.block.initial(feature, np.random.default_rng(0))
        t = Template(feature, opset=OPSET, target=target, weights=weights, x=_X)
        output = self.block.emit(t, self.block.choose(t, self.block.lowerings(feature, OPSET)))
        return t.export(output, ir_version=_IR_VERSION)

    def _model(self, feature: FeatureMap, target: str = "tensorrt") -> onnx.ModelProto:
        """The block as a model of its own."""
        one = replace(feature, batch=feature.batch or 1)
        return self._lowered(feature, target).as_model(_X, one, opset=OPSET, ir_version=_IR_VERSION)


def _is_refused(what: Callable[[FeatureMap], object], feature: FeatureMap) -> bool:
    """Whether a block cannot do that at such a site."""
    try:
        what(feature)
    except BlockError:
        return True
    return False


def _run(model: onnx.ModelProto, x: Array) -> Array:
    ready = session(model.SerializeToString(), "cpu", optimise=False, threads=1)
    return np.asarray(ready.run({_X: x})[0], dtype=np.float64)
