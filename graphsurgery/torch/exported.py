"""What only an export of a live model tells: roles and types of blocks, mapped back to its modules by their paths."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from torch import nn

from ..errors import SelectorError
from ..graph.module_paths import enclosing
from ..messages import listed
from ..modelfile.model import ModelFile
from ..selection.branches import NodeConsumer, OutputConsumer, nodes_of
from ..selection.context import Context
from ..selection.resolver import Place, Resolver
from ..userblocks.export import quietly
from .dry_run import arguments
from .untouched import untouched

_OPSET = 17
_DYNAMO_OPSET = 18


class Exported:
    """An export of a model, of which selectors are asked."""

    def __init__(self, model: nn.Module, example: object) -> None:
        """SelectorError if torch cannot export the model."""
        self._names = {name for name, _ in model.named_modules(remove_duplicate=False)}
        self._context = Context(ModelFile.load(_exported(model, example)))
        self._resolver = Resolver(self._context)
        self._context.suggestions.try_by(self._resolver.try_selector)

    def modules(self, selector: str, position: str) -> list[str]:
        """The paths of the modules after, or before, which a selector names the place. SelectorError if it names none,
        or one that no module has.
        """
        found = [self._module(place, position, selector) for place, _ in self._resolver.resolve(selector, position)]
        return list(dict.fromkeys(found))

    def consumers(self, selector: str, path: str, readers: Mapping[str, str]) -> list[str]:
        """Which of the modules ``readers`` (path -> how it is called) of what a module gives a selector names.

        SelectorError if it names none of them, or something that is only a part of one.
        """
        index, tree = self._context.index, self._context.tree
        tensor = self._resolver.borders.leaving(path) if path in tree.modules else ""
        consumers = self._resolver.resolve_consumers(selector)
        if any(isinstance(each, OutputConsumer) for each in consumers):
            raise SelectorError(f"{selector!r} names an output of a file; a live model has only modules to name")
        reading = set(index.consumers.get(tensor, ()))
        chosen, found = reading & nodes_of(consumers), []
        left = set(chosen)
        for reader in readers:
            own = {n for n in reading if f"{tree.of_node[n]}.".startswith(f"{reader}.")}
            if own and own <= chosen:
                found.append(reader)
            elif own & chosen:
                raise SelectorError(
                    f"{selector!r} names only a part of what {reader} does with the output of {path}; name {reader}"
                )
            left -= own
        if left:
            nodes = [index.label(each.node_index) for each in map(NodeConsumer, sorted(left))]
            raise SelectorError(f"{selector!r} names what no module of the live model does alone: {listed(nodes, 3)}")
        return found

    def _module(self, place: Place, position: str, selector: str) -> str:
        tree, leaving = self._context.tree, self._resolver.borders.leaving
        if position == "before":
            if place.path in self._names:
                return str(place.path)
        else:
            producer = self._context.index.producer.get(place.tensor)
            around = enclosing(tree.of_node[producer]) if producer is not None else []
            wanted = [place.path, *around] if place.path else around
            for path in wanted:
                if path in self._names and leaving(path) == place.tensor:
                    return path
        sentence = f"{selector!r} names {place.tensor!r} in an export of the model, and no module of it"
        verb = "gives that alone" if position == "after" else "takes that alone"
        raise SelectorError(f"{sentence} {verb}; name a module")


def _exported(model: nn.Module, example: object) -> onnx.ModelProto:
    """The model as whichever of torch's exporters can write it. SelectorError if none can."""
    reasons = []
    for attempt in (_traced, _by_dynamo):
        try:
            with untouched(model), quietly():
                return attempt(model, *arguments(example))
        except Exception as error:  # the exporters raise all kinds
            reasons.append(next(iter(str(error).strip().splitlines()), type(error).__name__))
    raise SelectorError(
        "roles and types of blocks are found in an export of the model, and torch cannot export it: "
        f"{reasons[0][:200]}; name modules by their paths"
    )


_Exporter = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], onnx.ModelProto]


def _traced(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> onnx.ModelProto:
    written: Any = io.BytesIO()  # which the exporter takes, and does not declare
    # a dict at the end of the arguments stands for keywords
    torch.onnx.export(model, (*args, kwargs) if kwargs else args, written, opset_version=_OPSET, dynamo=False)
    return onnx.load_from_string(written.getvalue())


def _by_dynamo(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> onnx.ModelProto:
    program = torch.onnx.export(model, args, kwargs=kwargs, opset_version=_DYNAMO_OPSET, dynamo=True, verbose=False)
    proto: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]  # there is one with dynamo
    return proto
