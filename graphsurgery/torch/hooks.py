"""The hooks through which attached blocks are called.

A hook is an object that holds plain data and the *name* of the block, which is a child of the module that the hook is
on: so a copy of the model, an EMA say, calls its own block, and the model can be pickled. Wrapping the module would
rename its parameters, and a changed class or ``forward`` is lost when the model is fused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..weights.attachment import Attachment, Place


class BlockHook:
    """What the hooks before and after a module have in common. ``spec``: the plain data of its attachment."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """Of the block among the children of the module."""
        return str(self.spec["name"])

    @property
    def key(self) -> str:
        """Among the hooks of the module. torch numbers hooks from 0 in every process, and so a hook that came with a
        pickle would be replaced by one that is registered under the same number.
        """
        return f"graphsurgery.{self.name}"

    def attachment(self, where: str) -> Attachment:
        """What is attached. WeightsError if a newer graphsurgery attached it; ``where`` is what messages call it."""
        return Attachment.from_json(self.spec, where)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _apply(self, module: nn.Module, value: Any) -> Any:
        """``value`` with the block's output at the places of its map."""
        results: list[Tensor] = []

        def block(x: Tensor) -> Tensor:
            if not results:
                with _scope_of(module):
                    results.append(module._modules[self.name](x))  # type: ignore[misc]  # it is there
            return results[0]

        for place in self.spec["places"]:
            value = replaced(value, place, block)
        return value


class After(BlockHook):
    """A forward hook: what the module gives goes through the block."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self._apply(module, output)

    def register(self, module: nn.Module) -> None:
        """Put the hook on a module."""
        module._forward_hooks[self.key] = self  # type: ignore[index]


class Before(BlockHook):
    """A forward pre-hook: what the module takes goes through the block."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # one mapping, so that a place begins with the position or the keyword of an argument
        taken = self._apply(module, {**dict(enumerate(args)), **kwargs})
        return tuple(taken[index] for index in range(len(args))), {key: taken[key] for key in kwargs}

    def register(self, module: nn.Module) -> None:
        """Put the hook on a module."""
        module._forward_pre_hooks[self.key] = self  # type: ignore[index]
        module._forward_pre_hooks_with_kwargs[self.key] = True  # type: ignore[index]


HOOKS: dict[str, type[After | Before]] = {"after": After, "before": Before}


def put(model: nn.Module, attachment: Attachment, block: nn.Module) -> None:
    """Make a block a child of its module, and let a hook call it."""
    host = model.get_submodule(attachment.path)
    host.add_module(attachment.name, block)
    HOOKS[attachment.position](attachment.to_json()).register(host)


def hooks_of(module: nn.Module) -> Iterator[After | Before]:
    """The hooks of blocks that are on a module, in the order in which they are called."""
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        if isinstance(hook, After | Before):
            yield hook


def hooks_in(model: nn.Module) -> Iterator[tuple[str, nn.Module, After | Before]]:
    """All hooks of blocks in a model, each with the path of its module, and that module."""
    for path, module in model.named_modules():
        for hook in hooks_of(module):
            yield path, module, hook


def attached(model: nn.Module) -> list[tuple[str, nn.Module, After | Before]]:
    """The same. RequestError if there are none."""
    found = list(hooks_in(model))
    if not found:
        raise RequestError("the model has no blocks attached; attach a recipe first", option="model")
    return found


def unregister(module: nn.Module, hook: After | Before) -> None:
    """Take a hook off a module."""
    tables = (module._forward_hooks, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs)
    for table in tables[1:] if isinstance(hook, Before) else tables[:1]:
        del table[hook.key]  # type: ignore[arg-type]


@contextmanager
def _scope_of(module: nn.Module) -> Iterator[None]:
    """While the module is traced, its scope: hooks are called outside of it, and without it the nodes of a block would
    be called /se/fc in place of /model.8/se/fc.
    """
    state: Any = torch._C._get_tracing_state()
    names = torch.jit._trace._trace_module_map if state is not None else None
    if names is None or module not in names:
        yield
        return
    state.push_scope(names[module])
    try:
        yield
    finally:
        state.pop_scope()


def replaced(value: Any, place: Place, change: Callable[[Tensor], Tensor]) -> Any:
    """A value with the tensor at a place changed; the containers on the way are copies."""
    if not place:
        return change(value)
    step, rest = place[0], place[1:]
    if isinstance(value, Mapping):
        changed: Any = dict(value) if type(value) is dict else copy.copy(value)  # which torch.compile cannot follow
        changed[step] = replaced(value[step], rest, change)
        return changed
    items = list(value)
    items[int(step)] = replaced(items[int(step)], rest, change)
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
