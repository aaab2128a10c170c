"""A model that is run and is afterwards what it was: flags, hooks, caches, buffers, and torch's random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """In the body the model is in evaluation mode and computes no gradients; then everything is as it was before.

    Not under ``torch.inference_mode``: what a model keeps from one run for the next, anchors say, could never be
    trained with.
    """
    kept = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    devices = {each.device.index or 0 for each in model.parameters() if each.device.type == "cuda"}
    with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
        try:
            model.eval()
            yield
        finally:
            for module, state, buffers in kept:
                vars(module).clear()
                vars(module).update(state)
                module._buffers.clear()
                module._buffers.update(buffers)
