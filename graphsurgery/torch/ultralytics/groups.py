"""The optimizer groups of Ultralytics, corrected for attached blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ...blocks.calibrated_module import CalibratedBlock
from ...blocks.residual_module import ResidualGate
from ..detaching import block_parameters
from ..hooks import hooks_in

_NO_DECAY, _WITH_DECAY = "bn", "weight"
"""what Ultralytics calls the groups"""


def regroup(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Move parameters of blocks to the groups where they belong, before the first step.

    Ultralytics sorts by names and ranks. It gives weight decay to the alpha of a residual gate, which pulls the gate
    shut, and to the scale and shift of a calibrated block, which are those of a BatchNorm in all but name; and
    MuSGD would orthogonalise the small convolutions and linear layers of blocks, which is meant for large matrices.
    """
    undecayed = {id(each) for each in _undecayed(model)}
    own = {id(parameter) for _, parameter in block_parameters(model)}
    for group in optimizer.param_groups:
        for parameter in list(group["params"]):
            if id(parameter) in undecayed and group["weight_decay"]:
                _move(optimizer, parameter, group["params"], _NO_DECAY)
            elif id(parameter) in own and group.get("use_muon"):
                _move(optimizer, parameter, group["params"], _WITH_DECAY)


def _move(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, old: list[nn.Parameter], kind: str) -> None:
    # MuSGD has two groups of each kind, the first of which is for heads, with three times the learning rate
    target = [group for group in optimizer.param_groups if group["param_group"] == kind][-1]
    old[:] = [each for each in old if each is not parameter]
    target["params"].append(parameter)


def _undecayed(model: nn.Module) -> Iterator[nn.Parameter]:
    for _, host, hook in hooks_in(model):
        for module in host.get_submodule(hook.name).modules():
            if isinstance(module, ResidualGate):
                yield module.alpha
            elif isinstance(module, CalibratedBlock):
                yield from (module.scale, module.shift)
