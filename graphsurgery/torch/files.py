"""The weights of attached blocks in a file of safetensors, whose header holds what is attached where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._version import __version__
from ..errors import MissingDependency, WeightsError
from ..messages import listed
from ..modelfile import saving
from .attachment import FORMAT, Attachment
from .hooks import attached

HEADER = "graphsurgery"
"""the key of the header's metadata that holds the attachments as JSON"""
_COMPARED = ("module", "settings", "gate", "position", "places", "size")


def save_blocks(model: nn.Module, path: str | Path, *, force: bool = False) -> Path:
    """Write the weights of the attached blocks, and what is attached where, to a file of safetensors.

    Parameters
    ----------
    model:
        A model with blocks attached.
    path:
        The file. Its keys are those of the model's ``state_dict``: ``model.8.se.block.fc1.weight``.
    force:
        Replace a file that exists.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RequestError
        If no block is attached.
    OutputError
        If the file exists, or cannot be written.
    """
    safetensors = _safetensors("writing blocks")
    found = attached(model)
    every = [hook.attachment("the model") for _, _, hook in found]
    tensors = {
        f"{each.id}.{key}": value.detach().cpu().contiguous().clone()
        for each, (_, module, hook) in zip(every, found, strict=True)
        for key, value in module.get_submodule(hook.name).state_dict().items()
    }
    header = {"format": FORMAT, "graphsurgery": __version__, "attachments": [each.to_json() for each in every]}
    data: bytes = safetensors.save(tensors, {HEADER: json.dumps(header, sort_keys=True)})
    saving.write_whole(Path(path), data, force=force)
    return Path(path)


def load_blocks(model: nn.Module, path: str | Path) -> None:
    """Read the weights of attached blocks from a file that :func:`save_blocks` wrote.

    Parameters
    ----------
    model:
        A model to which the same recipe is attached. After an error it is as it was.
    path:
        The file.

    Raises
    ------
    RequestError
        If no block is attached.
    WeightsError
        If the file was not written by ``save_blocks``, or by that of a newer graphsurgery; if its blocks are not those
        of the model; if a weight has another shape or is not finite.
    """
    safetensors = _safetensors("reading blocks")
    found, file = attached(model), Path(path)
    tensors, recorded = _read(safetensors, file)
    own = {hook.attachment("the model").id: hook.attachment("the model") for _, _, hook in found}
    check_same(own, {each.id: each for each in recorded}, file.name)
    pairs: list[tuple[Tensor, Tensor]] = []
    known = set[str]()
    for _, module, hook in found:
        attachment = hook.attachment("the model")
        for key, value in module.get_submodule(hook.name).state_dict().items():
            name = f"{attachment.id}.{key}"
            known.add(name)
            pairs.append((value, _fitting(tensors, name, value, file.name)))
    if extra := sorted(tensors.keys() - known):
        raise WeightsError(f"{file.name} has {listed(extra)}, which the attached blocks do not")
    with torch.no_grad():
        for value, given in pairs:
            value.copy_(given)


def check_same(own: Mapping[str, Attachment], recorded: Mapping[str, Attachment], name: str) -> None:
    """WeightsError if the attachments of a file, or a checkpoint, are not those of a model."""
    for id in own:
        if id not in recorded:
            raise WeightsError(f"{name} is of another recipe: it has nothing for {id}, but {listed(list(recorded))}")
    for id, theirs in recorded.items():
        if id not in own:
            raise WeightsError(f"{name} is of another recipe: it has {id}, which is not attached to the model")
        mine = own[id]
        if mine.channels != theirs.channels:
            place = f"{mine.path} has {mine.channels} channels"
            raise WeightsError(f"{place}; the weights of {id} in {name} are made for {theirs.channels}")
        for what in _COMPARED:
            here, there = getattr(mine, what), getattr(theirs, what)
            if here != there:
                raise WeightsError(
                    f"{name} is of another recipe: the {what} of {id} there is {there!r}, and in the model {here!r}"
                )


def _read(safetensors: Any, file: Path) -> tuple[dict[str, Tensor], Sequence[Attachment]]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file {file}") from None
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}") from None
    try:
        tensors: dict[str, Tensor] = safetensors.load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except Exception as error:  # its own, and those of the JSON in it
        reason = " ".join(str(error).split())
        raise WeightsError(f"{file.name} is not a readable safetensors file: {reason}") from None
    if HEADER not in metadata:
        raise WeightsError(f"{file.name} has no attachments in it: it was not written by save_blocks")
    try:
        header = json.loads(metadata[HEADER])
        newer, attachments = header["format"] > FORMAT, list(header["attachments"])
    except (ValueError, KeyError, TypeError):
        raise WeightsError(f"the attachments in {file.name} are damaged") from None
    if newer:
        raise WeightsError(f"{file.name} was written by a newer graphsurgery; this one cannot read its attachments")
    return tensors, [Attachment.from_json(each, file.name) for each in attachments]


def _fitting(tensors: Mapping[str, Tensor], key: str, own: Tensor, name: str) -> Tensor:
    """The tensor of a file for one of a model."""
    if key not in tensors:
        raise WeightsError(f"{name} lacks {key}")
    found = tensors[key]
    if found.shape != own.shape:
        raise WeightsError(f"{key} in {name} has the shape {list(found.shape)}; the block needs {list(own.shape)}")
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise WeightsError(f"{key} in {name} has values that are not finite")
    return found


def _safetensors(what: str) -> Any:
    try:
        import safetensors.torch
    except ImportError:
        hint = 'pip install "graphsurgery[weights]"'
        raise MissingDependency(f"{what} needs the package safetensors: {hint}") from None
    return safetensors.torch
