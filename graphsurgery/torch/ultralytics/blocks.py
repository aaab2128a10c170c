"""The blocks of one model, to be put into another one of the same architecture."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...errors import BlockError, SiteError, WeightsError
from ...messages import listed
from ...recipe import Recipe
from ...weights.attachment import Attachment
from ..attaching import plain_entries
from ..files import check_same
from ..hooks import hooks_in, put
from ..untouched import untouched


@dataclass(frozen=True)
class AttachedBlock:
    """A block with its weights, and where it is attached."""

    attachment: Attachment
    module: nn.Module


def blocks_of(model: nn.Module, where: str) -> list[AttachedBlock]:
    """Copies of the blocks of a model, which messages call ``where``; none for a model without.

    WeightsError if a newer graphsurgery attached them, or if a weight is not finite.
    """
    found = []
    for _, host, hook in hooks_in(model):
        attachment, module = hook.attachment(where), host.get_submodule(hook.name)
        wrong = [key for key, each in module.state_dict().items() if not bool(torch.isfinite(each).all())]
        if wrong:
            raise WeightsError(f"{listed(wrong)} of {attachment.id} in {where} has values that are not finite")
        # Ultralytics writes checkpoints of float16 whose parameters want no gradient
        found.append(AttachedBlock(attachment, copy.deepcopy(module).float().requires_grad_(True)))
    return found


def put_into(model: nn.Module, blocks: Sequence[AttachedBlock]) -> None:
    """Attach copies of blocks to a model that has just been built."""
    for block in blocks:
        put(model, block.attachment, copy.deepcopy(block.module).train(model.training))


def check_same_blocks(own: Sequence[AttachedBlock], theirs: Sequence[AttachedBlock], where: str) -> None:
    """WeightsError if the blocks of a checkpoint, ``where``, are not those of the model."""
    mine, others = ({each.attachment.id: each.attachment for each in blocks} for blocks in (own, theirs))
    check_same(mine, others, where)


def check_same_recipe(model: nn.Module, recipe: Recipe, where: str) -> None:
    """WeightsError if the blocks of a model did not come from this recipe."""
    asked, had = plain_entries(recipe), list[Mapping[str, Any]]()
    for _, _, hook in hooks_in(model):
        entry = hook.attachment(where).entry
        had += [entry] if entry not in had else []
    for entry in asked:
        if entry not in had:
            raise WeightsError(f"{where} has blocks of another recipe attached: nothing came from the entry {entry}")
    for entry in had:
        if entry not in asked:
            raise WeightsError(f"{where} has blocks of another recipe attached, which has the entry {dict(entry)}")


def channels_of(model: Any) -> int:
    """How many channels the images of a model of Ultralytics have."""
    return int(model.yaml.get("channels", 3))


def check_fits(model: nn.Module, size: int) -> None:
    """Run a model with blocks once, on an image of ``size`` pixels. SiteError for a block that was made for another
    map than arrives there: parts of a head have as many channels as the data have classes.
    """
    arrived: dict[str, tuple[int, ...]] = {}
    handles = []
    attachments = [hook.attachment("the model") for _, _, hook in hooks_in(model)]
    for each in attachments:

        def note(module: nn.Module, args: tuple[Any, ...], id: str = each.id) -> None:
            arrived[id] = tuple(args[0].shape)

        handles.append(model.get_submodule(each.id).register_forward_pre_hook(note))
    parameter = next(model.parameters())
    image = torch.zeros(1, channels_of(model), size, size, device=parameter.device, dtype=parameter.dtype)
    failure = None
    try:
        with untouched(model):
            model(image)
    except Exception as error:  # whatever a block raises on a map that it cannot take
        failure = " ".join(str(error).split())[:200]
    finally:
        for handle in handles:
            handle.remove()
    for each in attachments:
        shape = arrived.get(each.id)
        if shape is not None and shape[1] != each.channels:
            raise SiteError(
                f"{each.path} has {shape[1]} channels in the model as it is built for these data; the block {each.id} "
                f"is made for {each.channels}"
            )
        if shape is not None and each.size is not None and shape[2:] != each.size:
            height, width = each.size
            raise SiteError(
                f"{each.id} works at one size, {height}x{width}, and at {size} pixels its map has "
                f"{shape[2]}x{shape[3]}; attach it for the size that the model is trained with"
            )
    if failure is not None:
        raise BlockError(f"the model fails with its blocks on an image of {size} pixels: {failure}")
