"""An unpickler that runs nothing: tensors become tensors, everything else an object without behaviour.

A training checkpoint is a pickle of the trainer's own classes, which cannot be loaded as "weights only", and loading it
in the usual way would execute whatever it names. Here every global that a pickle asks for, class or function, is
answered with a class of this module's own that takes any arguments and does nothing with them, but for the few
functions below, which build tensors and containers. So the file's modules can be walked for their weights.

The module has the interface that ``torch.load`` wants of its ``pickle_module``.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from ..modelfile import limits

if TYPE_CHECKING:
    import torch


class Inert:
    """Stands for an object of any class; it keeps the state that was pickled."""

    kind = ""
    """the class that it stands for, as module.name"""
    state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Any arguments are taken, none is kept."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Calling it runs nothing."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state[0] if isinstance(state, tuple) and state and isinstance(state[0], dict) else state

    # pickles fill subclasses of list, dict and set item by item

    def _ignore(self, *_: Any) -> None: ...

    append = extend = add = __setitem__ = _ignore


_WORD = 64
"""bits of the integers that are taken as text: Python refuses to write out those of thousands of digits"""


def _first(data: Any, *_: Any) -> Any:
    return data


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}


class Unpickler(pickle.Unpickler):
    """See above."""

    def find_class(self, module: str, name: str, /) -> Any:
        import torch

        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        value = vars(torch).get(name) if module == "torch" else None
        if value is torch.Size or isinstance(value, torch.dtype):
            return value
        return type(name.rpartition(".")[2], (Inert,), {"kind": f"{module}.{name}"})


def load(*_: Any, **__: Any) -> Any:
    """What torch would call for files of the format before 1.6; they are read as plain weights or not at all."""
    raise WeightsError("not a checkpoint in torch's format")


def state_dict(module: Inert) -> dict[str, torch.Tensor]:
    """What ``module.state_dict()`` would give, for a pickled ``nn.Module``; {} for any other object."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for path, each in modules(module):
        transient = each.state.get("_non_persistent_buffers_set")
        transient = transient if isinstance(transient, set) else ()
        for kind in ("_parameters", "_buffers"):
            for name, value in _entries(each, kind):
                if isinstance(value, torch.Tensor) and not (kind == "_buffers" and name in transient):
                    found[_joined(path, name)] = value
        if len(found) > limits.CHECKPOINT_ENTRIES:
            raise WeightsError(f"has modules with more than {limits.CHECKPOINT_ENTRIES:,} tensors")
    return found


def epsilons(module: Inert) -> dict[str, float]:
    """The epsilon of each BatchNorm over maps in a pickled ``nn.Module``, by module path.

    Not of a BatchNorm1d, whose epsilon trainers leave alone where they set that of the others.
    """
    every, kinds = every_epsilon(module), {path: each.kind for path, each in modules(module)}
    return {path: eps for path, eps in every.items() if kinds[path].endswith(("BatchNorm2d", "SyncBatchNorm"))}


def every_epsilon(module: Inert) -> dict[str, float]:
    """The epsilon of each module in a pickled ``nn.Module`` that has one, by module path."""
    found = ((path, each.state.get("eps")) for path, each in modules(module))
    return {path: eps for path, eps in found if isinstance(eps, float)}


def description(module: Inert) -> dict[str, str]:
    """What a pickled ``nn.Module`` says of itself beside its tensors: path of a module -> its class as module.name,
    path of an attribute -> its value as text, or the function or class that it is.
    """
    found: dict[str, str] = {"": module.kind}
    for path, each in modules(module):
        own = {name: inner.kind for name, inner in _entries(each, "_modules") if isinstance(inner, Inert)}
        for name, value in each.state.items():
            if isinstance(name, str) and not name.startswith("_") and (text := _text(value)):
                own[name] = text
        found |= {_joined(path, name): text for name, text in own.items()}
        if len(found) > limits.CHECKPOINT_ENTRIES:
            raise WeightsError(f"has modules with more than {limits.CHECKPOINT_ENTRIES:,} attributes")
    return found


def _text(value: object) -> str:
    """A plain value, or the name of a function or class, as text; "" for anything else."""
    if isinstance(value, type):
        return value.kind if issubclass(value, Inert) else ""
    plain = isinstance(value, bool | float | str) or (isinstance(value, int) and value.bit_length() < _WORD)
    return str(value)[: limits.CHECKPOINT_KEY] if plain else ""


def modules(module: Inert) -> Iterator[tuple[str, Inert]]:
    """A pickled ``nn.Module`` and all those inside it, with their paths, each once."""
    pending, seen = [("", module)], set[int]()
    while pending:
        path, each = pending.pop()
        if id(each) in seen or not isinstance(each.state, dict):
            continue
        seen.add(id(each))
        yield path, each
        inner = [(_joined(path, name), m) for name, m in _entries(each, "_modules") if isinstance(m, Inert)]
        pending += reversed(inner)
        if len(pending) > limits.CHECKPOINT_ENTRIES:
            raise WeightsError(f"has more than {limits.CHECKPOINT_ENTRIES:,} modules in one another")


def _joined(path: str, name: str) -> str:
    if len(path) + len(name) > limits.CHECKPOINT_KEY:
        raise WeightsError(f"has a module whose path has more than {limits.CHECKPOINT_KEY:,} characters")
    return f"{path}.{name}" if path else name


def _entries(module: Inert, kind: str) -> list[tuple[str, Any]]:
    entries = module.state.get(kind)
    return [(str(name), value) for name, value in entries.items()] if isinstance(entries, dict) else []
