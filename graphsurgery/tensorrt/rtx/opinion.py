"""Opinion: what NVIDIA's parser and builder say of a model, and why they were not asked where they were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..inspector import Layer
from ..support import Version

GENERATION = 11
"""the major version of TensorRT that the libraries belong to; what they refuse may be taken by an earlier one"""
SILENT_ON = ("speed", "TensorRT 8.6 and 10", "Jetson", "DLA")
"""what nothing follows for: kernels are chosen on the GPU, and the libraries are of the generation of TensorRT 11"""


@dataclass(frozen=True)
class Refusal:
    """One error of the parser, in its own words."""

    words: str
    code: int
    """of nvonnxparser::ErrorCode"""
    function: str
    """of the parser that raised it; "" where it does not tell"""
    node: int
    """position in the main graph; below 0 for the model as a whole"""
    name: str
    operator: str
    within: Sequence[str] = ()
    """the calls and subgraphs that the node is in, from the outside: "/model.8/If (If)" """

    @property
    def sentence(self) -> str:
        """The words, with where in the parser they come from: some are no more than a condition that is false."""
        return f"{self.words} (in {self.function})" if self.function else self.words


@dataclass(frozen=True)
class Build:
    """What came of building an engine, which is not kept."""

    built: bool
    seconds: float
    bytes: int
    words: str = ""
    """the builder's own, where it built none"""


@dataclass(frozen=True)
class Opinion:
    """What NVIDIA's parser says of a model."""

    version: str
    """of TensorRT for RTX"""
    supported: bool | None
    """None: no verdict, because of ``failure``"""
    refusals: Sequence[Refusal] = ()
    blocks: Mapping[str, Sequence[Layer]] = field(default_factory=dict)
    """insertion -> the layers that its nodes became"""
    build: Build | None = None
    complete: bool = True
    """whether the refusals are all: the parser stops at the first node that it cannot import"""
    failure: str = ""
    """what the libraries died of, in a sentence; "" if they did not"""

    @property
    def source(self) -> str:
        """How findings name it."""
        return f"NVIDIA's ONNX parser, TensorRT for RTX {self.version}"

    @property
    def _verdict(self) -> str:
        if self.supported is None:
            return "gives no verdict"
        nodes = len({(tuple(each.within), each.node, each.name) for each in self.refusals if each.node >= 0})
        if self.supported or not nodes:
            return f"{'takes' if self.supported else 'refuses'} the model"
        return f"refuses the model, for {nodes} node{'' if nodes == 1 else 's'} of it"

    def confirms(self, version: Version) -> str:
        """What it says for that a version of TensorRT builds the model; "" where it says nothing for it."""
        if not self.supported or version.major < GENERATION:
            return ""
        if self.build is not None and self.build.built:
            return "; NVIDIA's builder made an engine of it, for RTX cards"
        untold = self.build is not None or self.failure
        return "" if untold else ", as far as can be told without building it; NVIDIA's parser takes it"

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        blocks = {
            name: [{"name": each.name, "type": each.type, "types": list(each.runs_in)} for each in layers]
            for name, layers in self.blocks.items()
        }
        return {
            "asked": True,
            "version": self.version,
            "supported": self.supported,
            "errors": [asdict(each) for each in self.refusals],
            "complete": self.complete,
            "blocks": blocks,
            "build": asdict(self.build) if self.build else None,
            "failure": self.failure or None,
            "silent_on": list(SILENT_ON),
        }

    def lines(self) -> Iterator[str]:
        """The opinion as text; refused nodes are among the findings."""
        library = f"NVIDIA's parser (TensorRT for RTX {self.version}, of the generation of TensorRT {GENERATION})"
        yield f"{library} {self._verdict}"
        if not self.complete:
            yield "  it stops at the first node that it cannot import: there may be more behind those that it names"
        yield from (f"  {name} became {_layers(layers)}" for name, layers in self.blocks.items())
        if self.build is not None and self.build.built:
            size = f"{self.build.bytes / 1e6:,.1f} MB"
            yield f"  an engine was built in {self.build.seconds:.1f} s, of {size}; it is not kept"
        elif self.build is not None:
            yield "  no engine was built"
        if self.failure:
            yield f"  {self.failure}"
        yield f"  this says nothing about {', '.join(SILENT_ON[:-1])} or {SILENT_ON[-1]}"


@dataclass(frozen=True)
class NotAsked:
    """There is no opinion."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return {"asked": False, "reason": self.reason}

    def lines(self) -> Iterator[str]:
        """One line."""
        yield f"NVIDIA's parser was not asked: {self.reason}"


def _layers(layers: Sequence[Layer]) -> str:
    """``5 layers (2 ElementWise, 2 Reduce, 1 Activation) in float32``."""
    if not layers:
        return "no layers of its own"
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(layer.type for layer in layers).most_common())
    types = dict.fromkeys(kind for layer in layers for kind in layer.runs_in)
    return f"{len(layers)} layer{'' if len(layers) == 1 else 's'} ({kinds}) in {' and '.join(types)}"
