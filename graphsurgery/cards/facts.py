"""Facts: what is known of a block by trying it: its nodes, whether it can be the identity, and what runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx

from ..blocks.block import Array, Block, Setting
from ..blocks.registry import all_blocks
from ..errors import BlockError, GraphSurgeryError
from ..feature_map import FeatureMap
from ..messages import attributes
from ..modelfile.model import ModelFile
from ..runtime.session import session
from ..template.subgraph import Subgraph
from ..template.template import Template
from ..tensorrt import findings
from ..verification.rounding import rounded_after_every_node

OPSET, _IR_VERSION = 17, 8
TENSORRT = ("8.6", "10", "11")
DLA = "orin"
_X, _Y = "x", "y"
_LARGEST = 20.0
_CLOSE = 0.02
"""How far a float16 result may be off, relative to its largest element."""


def in_order_of_demand() -> list[type[Block]]:
    """The installed blocks, those first that people ask for most."""
    return sorted(all_blocks().values(), key=lambda block: (block.demand, block.name))


def variants(block: type[Block]) -> list[Block]:
    """The block in each of its variants, the one of the bare name first."""
    return [block(variant) for variant in block.variants or (None,)]


@dataclass(frozen=True)
class Facts:
    """A block with its default hyper-parameters, on the feature map ``site``, written for TensorRT at opset 17."""

    block: Block

    @property
    def site(self) -> FeatureMap:
        """256 channels, 20 x 20, but for a block that was made for other sizes."""
        return self.block.example()

    @property
    def spelled(self) -> str:
        """As a user names it."""
        return self.block.spelled

    @cached_property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Official key -> shape."""
        return self.block.parameters(self.site)

    @property
    def parameters(self) -> int:
        """Number of weights, buffers included."""
        return sum(int(np.prod(shape)) for shape in self.weights.values())

    @property
    def nodes(self) -> int:
        """Number of ONNX nodes."""
        return len(self._here.graph.node)

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
        exact, found = _run(self._here, x), _run(rounded, x)
        return bool(np.abs(found - exact).max() <= _CLOSE * np.abs(exact).max())  # False for NaN as well

    def tensorrt(self, version: str, dla: str | None = None) -> bool:
        """Whether a version of TensorRT takes it, or that DLA all of it as it is written for one, by the table."""
        model = self._model(self.site, "dla") if dla else self._here
        found = findings(ModelFile.load(model), version, dla=dla, precision="fp16" if dla else "fp32")
        return not any(each.severity == "error" or (dla and each.severity == "warning") for each in found)

    def left_by_a_dla(self, site: FeatureMap) -> list[str]:
        """The operators of the block, written for a DLA of Orin at that site, that go to the GPU, by the table."""
        found = findings(ModelFile.load(self._model(site, "dla")), TENSORRT[1], dla=DLA, precision="fp16")
        return list(dict.fromkeys(str(each.operator) for each in found if each.rule.startswith("dla-")))

    @cached_property
    def _here(self) -> onnx.ModelProto:
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


def short_paper(paper: str) -> str:
    """An identifier of the paper that fits into a table: its arXiv number, or where it appeared."""
    number = re.search(r"arXiv:\d+\.\d+", paper)
    return number.group() if number else paper.rpartition(", ")[2]


def settings_json(settings: Iterable[Setting]) -> list[dict[str, Any]]:
    """The hyper-parameters with all that restricts them."""
    keys = ("name", "type", "default", "doc", "minimum", "above", "choices", "required")
    return [attributes(setting, *keys) for setting in settings]
