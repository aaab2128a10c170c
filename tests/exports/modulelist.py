"""The list of a PyTorch model's modules that an export keeps beside it: the truth that site recovery is judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = "modules.json"


class Module(NamedTuple):
    """One module of the PyTorch model that was exported."""

    path: str
    kind: str
    """its class, with the Python module that has it: ultralytics.nn.modules.block.C2f"""
    values: tuple[float, float] | None
    """mean and standard deviation of the tensor that left it when `image` went in; None for several tensors or none"""


def image(size: int) -> NDArray[np.float32]:
    """Return the image that `values` are of: seeded noise, [1, 3, size, size] in 0 ... 1."""
    return np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)


def write(model: Any, size: int, folder: Path) -> None:
    """Run a torch model as it is exported on the image of `size` pixels, and write its modules, in order."""
    import torch

    values: dict[Any, tuple[float, float]] = {}

    def note(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            values[module] = (output.double().mean().item(), output.double().std().item())

    hooks = [part.register_forward_hook(note) for part in model.modules()]
    with torch.no_grad():
        model(torch.from_numpy(image(size)))
    for hook in hooks:
        hook.remove()
    modules = [
        Module(path, f"{type(part).__module__}.{type(part).__name__}", values.get(part))
        for path, part in model.named_modules()
    ]
    (folder / FILE).write_text(json.dumps(modules, indent=0) + "\n")


def read(folder: Path) -> list[Module]:
    """Return what `write` wrote to a folder."""
    return [
        Module(path, kind, values and tuple(values)) for path, kind, values in json.loads((folder / FILE).read_text())
    ]
