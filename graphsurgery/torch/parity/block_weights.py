"""The weights of the blocks that both a file and a module have: images need not say anything of each of them.

A unit behind a ReLU that no image switches on leaves no trace in the outputs, whatever its weights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ...errors import GraphSurgeryError
from ...modelfile.record import Insertion
from ...template.residual_gate import GATE_KEY
from ...userblocks import is_module
from ...weights.attachment import Attachment
from ..hooks import hooks_in
from .deployed import Deployed
from .layout import SHARE
from .live import Live

_SHARES = {"fp16": 2.0**-10, "bf16": 2.0**-7}
"""what a weight that is stored in half precision may be off, as a share of the largest: twice the rounding"""


def other_weights(deployed: Deployed, live: Live) -> tuple[str, ...]:
    """A sentence for each block whose weights in the file are not those of the module. Blocks whose weights another
    tool has folded away, so that they cannot be read back, are left out.
    """
    inserted = {each.id: each for each in deployed.model.insertions()}
    return tuple(
        sentence
        for _, host, hook in hooks_in(live.module)
        for attachment in (hook.attachment("the model"),)
        if (insertion := inserted.get(f"{attachment.named}.{attachment.name}")) is not None
        for sentence in _differing(deployed, insertion, attachment, host.get_submodule(attachment.name))
    )


def _differing(deployed: Deployed, insertion: Insertion, attachment: Attachment, block: nn.Module) -> Iterator[str]:
    trust = [attachment.module] if is_module(attachment.module) else []
    try:
        with torch.random.fork_rng(devices=[]):  # modules draw their first weights
            state: Mapping[str, Tensor] = insertion.torch_module(deployed.model, trust).state_dict()
    except GraphSurgeryError:
        return
    share = _SHARES.get("fp16" if insertion.precision == "fp16" else deployed.in_half, SHARE)
    own = {key: value.detach().cpu().double() for key, value in block.state_dict().items() if value.is_floating_point()}
    if all(GATE_KEY in each and not each[GATE_KEY].any() for each in (own, state)):
        return  # both gates are shut, and nothing comes through
    for key, value in own.items():
        theirs = state.get(key)
        if theirs is None or theirs.shape != value.shape:
            yield f"{key} of {insertion.id} is missing in the file, or has another shape there"
            continue
        error, peak = float((theirs.double() - value).abs().max()), float(value.abs().max())
        if not error <= share * peak:
            yield f"{key} of {insertion.id} is off by {error:.1e} in the file, where the largest is {peak:.1e}"
