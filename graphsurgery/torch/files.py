"""The weights of attached blocks in a file of safetensors, whose header holds what is attached where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..messages import listed
from ..weights.attachment import Attachment
from ..weights.rest import Rest
from ..weights.safetensors_package import safetensors
from ..weights.torch_file import as_array
from ..weights.trained_blocks import TrainedBlocks, read_bytes, read_metadata
from .hooks import attached

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
    trained_blocks(model).save(path, force=force)
    return Path(path)


def trained_blocks(model: nn.Module) -> TrainedBlocks:
    """The attached blocks of a model with the weights that they have now, to put them into an export of the rest.

    RequestError if no block is attached.
    """
    found = _placed(model)
    state = {key: as_array(value.detach().cpu(), key) for key, value in model.state_dict().items()}
    arrays = {
        f"{attachment.id}.{key}": as_array(value.detach().cpu(), key).copy()
        for attachment, module in found
        for key, value in module.state_dict().items()
    }
    epsilons = {
        path: module.eps for path, module in model.named_modules() if isinstance(vars(module).get("eps"), float)
    }
    blocks = [path for path, module in model.named_modules() if any(module is each for _, each in found)]
    rest = Rest.of(state, epsilons, blocks).without_wrapper()
    return TrainedBlocks("the model", tuple(attachment for attachment, _ in found), arrays, rest)


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
    found, file = _placed(model), Path(path)
    tensors, recorded = _read(file)
    check_same({each.id: each for each, _ in found}, {each.id: each for each in recorded}, file.name)
    pairs: list[tuple[Tensor, Tensor]] = []
    known = set[str]()
    for attachment, block in found:
        for key, value in block.state_dict().items():
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


def _placed(model: nn.Module) -> list[tuple[Attachment, nn.Module]]:
    """The attachments of a model, as paths in it, each with its block. RequestError if there are none."""
    found = attached(model)
    return [(hook.attachment("the model").placed(path), host.get_submodule(hook.name)) for path, host, hook in found]


def _read(file: Path) -> tuple[dict[str, Tensor], Sequence[Attachment]]:
    reader, data = safetensors("torch", "reading blocks"), read_bytes(file)
    try:
        tensors: dict[str, Tensor] = reader.load(data)
    except Exception as error:  # its own
        reason = " ".join(str(error).split())
        raise WeightsError(f"{file.name} is not a readable safetensors file: {reason}") from None
    return tensors, read_metadata(data, file.name)[0]


def _fitting(tensors: Mapping[str, Tensor], key: str, own: Tensor, name: str) -> Tensor:
    """The tensor of a file for one of a model."""
    if key not in tensors:
        raise WeightsError(f"{name} lacks {key}")
    found = tensors[key]
    if found.shape != own.shape:
        raise WeightsError(f"{key} in {name} has the shape {list(found.shape)}; the block needs {list(own.shape)}")
    if found.is_floating_point() != own.is_floating_point() or found.is_complex():
        here, there = (str(each.dtype).removeprefix("torch.") for each in (own, found))
        raise WeightsError(f"{key} in {name} is of {there}; the block has {here}")
    given = found.to(own.dtype)
    if given.is_floating_point() and not bool(torch.isfinite(given).all()):
        raise WeightsError(f"{key} in {name} has values that are not finite, or more than the block's type can hold")
    return given
