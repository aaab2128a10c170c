"""What is attached to a model, its parameters, and taking it off again."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..weights.attachment import Attachment
from . import freezing
from .hooks import attached, hooks_in, unregister


def attachments(model: nn.Module) -> list[Attachment]:
    """The blocks that are attached to a model; none for a model without.

    Raises
    ------
    WeightsError
        If a newer graphsurgery attached them.
    """
    return [hook.attachment("the model") for _, _, hook in hooks_in(model)]


def block_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the attached blocks, alphas of residual gates among them, each with its name in the model.

    Examples
    --------
    >>> torch.optim.SGD([parameter for _, parameter in block_parameters(model)], lr=1e-3)   # doctest: +SKIP
    """
    for path, module, hook in attached(model):
        for name, parameter in module.get_submodule(hook.name).named_parameters():
            yield f"{path}.{hook.name}.{name}" if path else f"{hook.name}.{name}", parameter


def detach(model: nn.Module) -> None:
    """Take all attached blocks off a model, in place, and undo :func:`freeze_rest`: the model is what it was before.

    Raises
    ------
    RequestError
        If no block is attached.
    """
    for _, module, hook in attached(model):
        unregister(module, hook)
        delattr(module, hook.name)
    freezing.undo(model)
