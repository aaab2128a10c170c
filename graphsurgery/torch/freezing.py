"""freeze_rest: only the attached blocks are trained, and nothing else of the model changes, statistics included."""

from __future__ import annotations

from torch import nn

from .hooks import attached

_MARK = "_graphsurgery_frozen"
"""attribute of a module: the names of its parameters that freeze_rest froze"""


class StaysInEval:
    """Stands in the place of a normalisation's ``train``, so that ``model.train()`` leaves its statistics alone."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.wanted = module.training
        """the mode that was last asked for"""

    def __call__(self, mode: bool = True) -> nn.Module:
        self.wanted = mode
        return self.module


def freeze_rest(model: nn.Module) -> None:
    """Freeze everything but the attached blocks, in place.

    ``requires_grad`` of all other parameters is off, and the BatchNorms (and other normalisations with statistics)
    among the other modules stay in evaluation mode through ``model.train()``: with gradients off alone, their
    statistics go on changing, and the trained blocks do not fit the original model any more. :func:`detach` undoes it.

    Raises
    ------
    RequestError
        If no block is attached.
    """
    own = {id(part) for _, host, hook in attached(model) for part in host.get_submodule(hook.name).modules()}
    for module in model.modules():
        if id(module) in own:
            continue
        frozen = [name for name, each in module.named_parameters(recurse=False) if each.requires_grad]
        for name in frozen:
            module.get_parameter(name).requires_grad_(False)
        if frozen:
            setattr(module, _MARK, (*getattr(module, _MARK, ()), *frozen))
        if isinstance(module, nn.modules.batchnorm._NormBase) and not _stays(module):
            stays = StaysInEval(module)
            module.eval()
            vars(module)["train"] = stays


def undo(model: nn.Module) -> None:
    """Make everything that freeze_rest froze trainable again."""
    for module in model.modules():
        for name in vars(module).pop(_MARK, ()):
            module.get_parameter(name).requires_grad_(True)
        if _stays(module):
            stays = vars(module).pop("train")
            module.train(stays.wanted)


def _stays(module: nn.Module) -> bool:
    return isinstance(vars(module).get("train"), StaysInEval)
