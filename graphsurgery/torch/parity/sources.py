"""Where the module comes from that a file is compared with: a checkpoint of Ultralytics, or a function of the user's.

A checkpoint is a pickle, and loading a pickle runs what it says. So Ultralytics' own restricted loading is used, which
builds nothing but the known classes of torch and of Ultralytics, together with those of the attached blocks; anything
else only where the user trusts the checkpoint.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...entry_points import ForeignError, foreign_code
from ...errors import MissingDependency, RequestError, WeightsError, concerning, option
from ...messages import listed
from ...runtime.providers import imported
from ...userblocks import Trust, is_module
from ...userblocks.importing import named
from ..hooks import BlockHook

_OWN = "graphsurgery."
_OPTION = "ultralytics"
_CATALOGUE = f"{_OWN}patterns."
"""where modules, and what they are built by, only keep what they are given"""


def from_checkpoint(path: str | Path, trust: Sequence[str] = ()) -> nn.Module:
    """The network in a checkpoint of Ultralytics, in float32 and in evaluation mode, with the blocks attached to it.

    Parameters
    ----------
    path:
        The file, such as ``best.pt``. Of what it holds the EMA is taken, or else the model, as Ultralytics does.
    trust:
        Classes of your own in it (``"mypkg.blocks:MyAttention"``) that may be built; with the path itself among them,
        everything is unpickled, which runs whatever the file says.

    Raises
    ------
    WeightsError
        If the file cannot be read, holds no network, or holds classes that nobody trusts.
    MissingDependency
        Without Ultralytics.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(
            f"there is no checkpoint {file}" if not file.exists() else f"{file} is not a file", option=_OPTION
        )
    whole = str(path) in {str(each) for each in trust}
    classes = Trust.in_modules(each for each in trust if str(each) != str(path))
    tasks = _tasks()
    found = _unpickled(file) if whole else _restricted(file, classes, tasks)
    network = (found.get("ema") or found.get("model")) if isinstance(found, dict) else None
    if not isinstance(network, nn.Module):
        raise WeightsError(f"{file.name} holds no network, as the checkpoints of Ultralytics do", option=_OPTION)
    return network.float().eval()


def _tasks() -> Any:
    imported("ultralytics", "Ultralytics, whose checkpoint this is,", "pip install ultralytics")
    return importlib.import_module("ultralytics.nn.tasks")


def _unpickled(file: Path) -> Any:
    try:
        with foreign_code():
            return torch.load(file, map_location="cpu", weights_only=False)
    except ForeignError as error:
        raise WeightsError(f"{file.name} cannot be read as a checkpoint: {error}", option=_OPTION) from None


def _restricted(file: Path, trust: Trust, tasks: Any) -> Any:
    """What the file holds, built of known classes only."""
    needed = _globals(file)
    safe = "safe_only" in inspect.signature(tasks.torch_safe_load).parameters
    if not safe:
        raise MissingDependency(
            f"this Ultralytics cannot load a checkpoint without running what it says; if {file.name} is yours, use "
            f"{option('trust', str(file))}"
        )
    own = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _attached_classes(needed)}
    own |= {name.replace(":", "."): trust.load(name) for name in sorted(trust.modules)}
    known = torch.serialization.get_safe_globals()
    try:
        with foreign_code():
            torch.serialization.add_safe_globals([(kind, name) for name, kind in own.items() if name in needed])
            return tasks.torch_safe_load(str(file), safe_only=True)[0]
    except ForeignError as error:
        refused = isinstance(error.raised, TypeError)  # which Ultralytics makes of what its unpickler refuses
        foreign = [name for name in needed if name not in own and not name.startswith(("torch.", "ultralytics."))]
        if not refused and not foreign:
            raise WeightsError(f"{file.name} cannot be read as a checkpoint: {error}", option=_OPTION) from None
        what = listed(foreign) or "what Ultralytics does not know"
        raise WeightsError(
            f"{file.name} holds {what}, which is not loaded unasked, since that runs code; if the checkpoint is yours, "
            f"use {option('trust', str(file))}",
            option=_OPTION,
        ) from None
    finally:  # Ultralytics leaves its own for good, and what reads weights alone would then build whole networks
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(known)


def _globals(file: Path) -> list[str]:
    """The names of the classes and functions in a checkpoint, beside those that torch knows to be harmless."""
    scan = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if scan is None:
        raise MissingDependency(
            f"loading a checkpoint without running what it says takes torch 2.6 or later; if {file.name} is yours, use "
            f"{option('trust', str(file))}"
        )
    try:
        with foreign_code():
            return list(scan(str(file)))
    except ForeignError as error:
        raise WeightsError(f"{file.name} cannot be read as a checkpoint: {error}", option=_OPTION) from None


def _attached_classes(needed: Sequence[str]) -> Iterator[type]:
    """The classes among these names that attached blocks are made of: of the catalogue, hooks, and gates."""
    for name in needed:
        module, _, kind = name.rpartition(".")
        if not name.startswith(_OWN):
            continue
        try:
            with foreign_code():
                found = getattr(importlib.import_module(module), kind, None)
        except ForeignError:
            continue
        if isinstance(found, type) and (name.startswith(_CATALOGUE) or issubclass(found, nn.Module | BlockHook)):
            yield found


def from_factory(spelled: str) -> nn.Module:
    """What a function of the user's gives, or a class of theirs without arguments.

    Parameters
    ----------
    spelled:
        ``"mypkg.models:detector"``. Importing and calling it runs its code.

    Raises
    ------
    BlockError
        If it cannot be imported.
    RequestError
        If it is no function, fails, or gives no module.
    """
    if not is_module(spelled):
        raise RequestError(f"{spelled!r} names no function; write it as in mypkg.models:detector", option="torch")
    with concerning("torch"):
        found = named(spelled.strip())
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise RequestError(f"{spelled} is no function that gives a torch.nn.Module", option="torch")
    try:
        with foreign_code():
            made = found()
    except ForeignError as error:
        raise RequestError(f"{spelled}() fails: {error}", option="torch") from None
    if not isinstance(made, nn.Module):
        raise RequestError(f"{spelled}() gives {type(made).__name__}, and no torch.nn.Module", option="torch")
    return made
