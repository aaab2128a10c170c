"""Where the nodes of a model really ran, read from the profile that onnxruntime writes.

A profile is a JSON list of events. Each kernel that was run is one event of the category "Node" called
NODE_kernel_time, with the operator and the provider among its "args". A provider that compiles (TensorRT, OpenVINO,
CoreML) runs each of its parts of the graph as one kernel, whose name is made of the provider's. A function operator
without a kernel is replaced by the nodes of its body, which have names of their own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .providers import PROVIDERS

_SUFFIX = "_kernel_time"
_ADDED = ("MemcpyFromHost", "MemcpyToHost")
_ADDED_CAST = "InsertedPrecisionFreeCast_"
_SHORT = {full: short for short, full in PROVIDERS.items()}
_WRITTEN = {"cpu": "the CPU", "cuda": "CUDA", "tensorrt": "TensorRT", "openvino": "OpenVINO", "directml": "DirectML"}


@dataclass(frozen=True)
class Kernel:
    """One node as it was run."""

    name: str
    op_type: str
    provider: str | None
    """short name where there is one; None where the profile does not tell"""

    @property
    def added(self) -> bool:
        """Whether onnxruntime put it there, to copy between devices or because the CPU has no half precision."""
        return self.op_type in _ADDED or self.name.startswith(_ADDED_CAST)


def kernels(profile: str) -> tuple[Kernel, ...]:
    """The kernels of a profile (the text of the file), each once, in the order in which they first ran."""
    found: dict[tuple[str, str], Kernel] = {}
    for event in json.loads(profile):
        details = event.get("args") or {}
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX) or "provider" not in details:
            continue
        provider = str(details["provider"])
        kernel = Kernel(name.removesuffix(_SUFFIX), str(details.get("op_name", "")), _SHORT.get(provider, provider))
        found.setdefault((kernel.name, str(details.get("node_index", ""))), kernel)
    return tuple(found.values())


def by_provider(executed: Iterable[Kernel]) -> dict[str, int]:
    """How many kernels each provider ran, copies and casts that onnxruntime added left out."""
    return dict(Counter(kernel.provider or "unknown" for kernel in executed if not kernel.added))


@dataclass(frozen=True)
class Placement:
    """Where each node of a graph ran, in a session on one provider."""

    provider: str
    """the one that was asked for"""
    nodes: tuple[Kernel, ...]

    @classmethod
    def of(cls, provider: str, nodes: Sequence[tuple[str, str]], executed: Sequence[Kernel]) -> Placement:
        """``nodes``: (name, operator). ``executed``: of a session without graph optimisation, which keeps the names.

        A node without a kernel of its own was compiled together with others, or written out as the body of its
        function: it counts for the provider that ran all such kernels, and for none if several did. For none, too, if
        there are no such kernels: onnxruntime has merged it with another (a Cast with one that it added).
        """
        own = {kernel.name: kernel.provider for kernel in executed}
        names = {name for name, _ in nodes}
        nameless = {kernel.provider for kernel in executed if not kernel.added and kernel.name not in names}
        common = nameless.pop() if len(nameless) == 1 else None
        placed = [Kernel(name, op_type, own.get(name, common)) for name, op_type in nodes]
        return cls(provider, tuple(placed))

    @property
    def counts(self) -> dict[str, int]:
        """Provider -> how many nodes it ran; "unknown" for those that the profile does not account for."""
        return by_provider(self.nodes)

    @property
    def fell_back(self) -> tuple[Kernel, ...]:
        """The nodes that did not run on the provider that was asked for."""
        return tuple(node for node in self.nodes if node.provider != self.provider)

    def __str__(self) -> str:
        """``9 of 9 nodes on CUDA``, ``7 of 9 nodes on CUDA, 2 fell back to the CPU: Mod, Mul``."""
        total = len(self.nodes)
        parts = [f"{total - len(self.fell_back)} of {total} nodes on {written(self.provider)}"]
        for other in dict.fromkeys(node.provider for node in self.fell_back):
            operators = [node.op_type for node in self.fell_back if node.provider == other]
            where = f"fell back to {written(other)}" if other else "did not run by themselves"
            parts.append(f"{len(operators)} {where}: {', '.join(dict.fromkeys(operators))}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """{"total", "on": {provider: count}, "fell_back": [{"node", "operator", "provider"}]}."""
        return {
            "total": len(self.nodes),
            "on": self.counts,
            "fell_back": [{"node": n.name, "operator": n.op_type, "provider": n.provider} for n in self.fell_back],
        }


def written(provider: str) -> str:
    """A provider's name in a sentence."""
    return _WRITTEN.get(provider, provider)


def shares(counts: Mapping[str, int]) -> str:
    """``120 on CUDA, 2 on the CPU``."""
    return ", ".join(f"{count} on {written(provider)}" for provider, count in counts.items()) or "none"
