"""Module paths: where in the source model each node came from.

A path is kept in the dotted form of ``torch.nn.Module.named_modules()``: ``model.8.cv2.act``. It is read from

* node metadata of the dynamo exporter (``pkg.torch.onnx.name_scopes``, or ``namespace``), whose innermost entries
  can be relative to the one before;
* node names of the TorchScript exporter: ``/model.8/cv2/act/Mul``, where nested containers repeat themselves
  (``/layer1/layer1.0/conv1/Conv`` is ``layer1.0.conv1``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, takewhile

import onnx

from ..modelfile import limits
from ..modelfile.wire import text
from .index import GraphIndex

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_NAMESPACE = "namespace"
NAMING = frozenset({_SCOPES, _CLASSES, _NAMESPACE})
"""the metadata of a node that tells its module, whatever its name says"""
_WEIGHTS = frozenset({"weight", "bias", "running_mean", "running_var"})
_SLICE = re.compile(r"slice\((?:None|(\d+)), [^,]+, None\)\.(\d+)")


@dataclass
class Module:
    """One module: its dotted path, how the model's own names spell it, its class where known, the nodes in it."""

    path: str
    display: str
    nodes: list[int] = field(default_factory=list)
    type: str | None = None


def join(scopes: list[str]) -> str:
    """The dotted path of nested scopes, each given in full or relative to the one before; "" where they are too many.

    >>> join(["layer1", "layer1.0", "conv1"]), join(["", "model.1", "conv"])
    ('layer1.0.conv1', 'model.1.conv')
    """
    path: list[str] = []
    if len(scopes) > limits.SCOPES:
        return ""
    last = ""
    for scope in scopes:
        if not scope or scope.startswith("_empty_nn_module_stack"):  # dynamo's filler for nodes of no module
            continue
        whole = ".".join(path)
        if path and scope.startswith(whole + "."):
            path = [scope]
        elif last and scope.startswith(last + "."):
            path[-1] = scope
        else:
            path.append(scope)
        last = scope
    return _bounded(".".join(path))


def _bounded(path: str) -> str:
    """A dotted path; "" for one with more steps than modules have."""
    return path if path.count(".") < limits.SCOPES else ""


def from_name(name: str) -> str:
    """Dotted path of a node name of the TorchScript exporter; "" for a name without scopes.

    >>> from_name("/model.8/cv2/act/Mul")
    'model.8.cv2.act'
    """
    scopes, slash, _ = name.rpartition("/")
    return _joined(scopes) if slash else ""


@lru_cache(maxsize=1 << 16)
def _joined(scopes: str) -> str:
    return join(scopes.split("/"))


def from_metadata(node: onnx.NodeProto) -> tuple[str, list[tuple[str, str]]] | None:
    """(dotted path, [(path, class)] of the modules around the node) from dynamo's metadata; None without any."""
    entries = {entry.key: entry.value for entry in node.metadata_props if text(entry.value) is not None}
    scopes = _strings(entries.get(_SCOPES))
    classes = _strings(entries.get(_CLASSES))
    if scopes is None and _NAMESPACE in entries:
        pairs = [part.partition(": ") for part in entries[_NAMESPACE].split("/")]
        scopes = [name.strip() for name, _, _ in pairs]
        classes = [kind.strip() for _, _, kind in pairs]
    if scopes is None or len(scopes) > limits.SCOPES:
        return None
    scopes = [_without_slices(scope) for scope in scopes[:-1]]  # the last entry is the operation itself
    paths = [join(scopes[: count + 1]) for count in range(len(scopes))]
    kinds = classes[: len(paths)] if classes else []
    return (paths[-1] if paths else ""), [(p, k) for p, k in zip(paths, kinds, strict=False) if p]


def _without_slices(scope: str) -> str:
    """A scope inside a slice of a container under its place in the whole container.

    >>> _without_slices("model.slice(None, -1, None).5.cv1"), _without_slices("layers.slice(2, None, None).0")
    ('model.5.cv1', 'layers.2')
    """
    return _SLICE.sub(lambda match: str(int(match[1] or 0) + int(match[2])), scope)


def from_weights(node: onnx.NodeProto, weights: Container[str]) -> str:
    """Dotted path of a node by the names of its weights, which many files keep where they keep no other: the node that
    reads model.8.cv2.conv.weight is in model.8.cv2.conv; "" where they tell none.
    """
    for name in node.input[1:]:
        path, _, last = str(name).rpartition(".")
        if path and last in _WEIGHTS and name in weights and "::" not in path:
            return _bounded(path)
    return ""


def describe(node: onnx.NodeProto, path: str, *, like: onnx.NodeProto | None) -> None:
    """Give a new node of the module ``path`` the scopes in its metadata that the node ``like`` has in its own, if it
    has any.
    """
    if like is None or not any(entry.key == _SCOPES for entry in like.metadata_props):
        return
    node.metadata_props.add(key=_SCOPES, value=str(["", *enclosing(path), node.op_type.lower()]))


def _strings(text: str | None) -> list[str] | None:
    if text is None:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested too deep to be names
        return None
    return [str(item) for item in value] if isinstance(value, list | tuple) else None


def enclosing(path: str) -> list[str]:
    """The paths of the modules around a module, the outermost first, and its own.

    >>> enclosing("model.8.cv1")
    ['model', 'model.8', 'model.8.cv1']
    """
    return list(accumulate(path.split("."), "{}.{}".format)) if path else []


def common_path(paths: list[str]) -> str:
    """The path of the innermost module that all of these are in."""
    steps = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(same[0] for same in takewhile(lambda step: len(set(step)) == 1, steps))


class ModuleTree:
    """All modules of a model by dotted path, in the order in which they first appear."""

    def __init__(self, index: GraphIndex) -> None:
        self.modules: dict[str, Module] = {}
        spelled: dict[str, str] = {}
        stated = [from_metadata(node) if node.metadata_props else None for node in index.nodes]
        pairs = list(zip(index.nodes, stated, strict=True))
        self.of_node = [(metadata[0] if metadata else "") or from_name(node.name) for node, metadata in pairs]
        """dotted path of each node, "" where the model does not tell"""
        self.strays = {node_index for node_index, path in enumerate(self.of_node) if not path}
        """nodes without a path of their own, those among them that get one from the nodes around them too"""
        self._place_strays(index)
        around: dict[str, list[Module]] = {}
        for node_index, (node, metadata) in enumerate(pairs):
            path = self.of_node[node_index]
            if not metadata and path and path not in spelled:
                for spelling in accumulate(node.name.split("/")[:-1], "{}/{}".format):
                    spelled.setdefault(_joined(spelling), spelling)
            if path not in around:
                around[path] = [self._module(prefix, spelled) for prefix in enclosing(path)]
            for module in around[path]:
                module.nodes.append(node_index)
            for prefix, kind in metadata[1] if metadata else ():
                if prefix in self.modules and self.modules[prefix].type is None:
                    self.modules[prefix].type = kind.rpartition(".")[2]

    def _module(self, path: str, spelled: Mapping[str, str]) -> Module:
        """The module of a path; ``spelled``: how names of nodes spell paths."""
        return self.modules.setdefault(path, Module(path, spelled.get(path, path)))

    def _place_strays(self, index: GraphIndex) -> None:
        """Nodes that an optimiser left without name and metadata belong to the module that all around them belongs
        to.
        """
        for node_index, node in enumerate(index.nodes):
            if self.of_node[node_index] or "/" in node.name or node_index not in index.active:
                continue
            producers = [index.producer[name] for name in node.input if name in index.producer]
            upstream, downstream = (
                [self.of_node[n] for n in side if n in index.active and self.of_node[n]]
                for side in (producers, index.downstream(node.output))
            )
            if upstream and downstream:
                self.of_node[node_index] = common_path(upstream + downstream)
