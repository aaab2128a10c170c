"""Trained blocks out of a checkpoint with a whole model in it. Nothing in it is executed, see inert_unpickler.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import WeightsError
from ..feature_map import Array
from . import inert_unpickler, torch_file
from .attachment import Attachment, check_count
from .checkpoint import owner
from .read import check_file, is_checkpoint
from .rest import Rest

_HOOKS = ("graphsurgery.torch.hooks.After", "graphsurgery.torch.hooks.Before")
_WHAT = "the trained blocks come out of a .pt or .pth that holds the model with its blocks"
_TABLES = ("_forward_pre_hooks", "_forward_hooks")


def read_checkpoint(path: Path) -> tuple[tuple[Attachment, ...], Mapping[str, Array], Rest, tuple[str, ...]]:
    """The attachments of a checkpoint's model, their weights, the rest of the model, and notes for the user.

    WeightsError if there are no blocks attached.
    """
    check_file(path)
    if not is_checkpoint(path):
        raise WeightsError(f"{path.name} is no checkpoint of PyTorch: {_WHAT}")
    state = torch_file.state(path)
    if state.module is None:
        raise WeightsError(
            f"{path.name} holds weights without the model that they are of, so nothing in it says what is attached "
            "where; save the whole model, or the blocks with graphsurgery.torch.save_blocks"
        )
    found = dict(_attachments(state.module, path.name))
    if not found:
        raise WeightsError(f"{path.name} has no blocks of graphsurgery attached to its model ({state.module.kind})")
    check_count(found, path.name)
    whole = torch_file.arrays(state, path.name)
    arrays = {
        found[block].id + key[len(block) :]: values for key, values in whole.items() if (block := owner(key, found))
    }
    rest = Rest.of(whole, inert_unpickler.every_epsilon(state.module), found.keys()).without_wrapper()
    return tuple(found.values()), arrays, rest, torch_file.notes(state, path.name)


def _attachments(model: inert_unpickler.Inert, name: str) -> Iterator[tuple[str, Attachment]]:
    """(path of its block in the checkpoint, attachment), in the order of the modules."""
    for path, module in inert_unpickler.modules(model):
        for table in _TABLES:
            hooks = module.state.get(table)
            for hook in hooks.values() if isinstance(hooks, dict) else ():
                if not (isinstance(hook, inert_unpickler.Inert) and hook.kind in _HOOKS):
                    continue
                spec = hook.state.get("spec") if isinstance(hook.state, dict) else None
                attachment = Attachment.from_json(spec if isinstance(spec, dict) else {}, name)
                yield f"{path}.{attachment.name}".lstrip("."), attachment.placed(path)
