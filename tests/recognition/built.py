"""Models that are built and exported in the process that asks for them, with the list of their modules."""

from __future__ import annotations

import io
from functools import cache
from typing import NamedTuple

import onnx

from tests.exports import make, make_zoo
from tests.recognition.families.parts import vary_norms
from tests.recognition.families.recovered import MODELS


class Built(NamedTuple):
    """One export."""

    model: onnx.ModelProto
    modules: tuple[tuple[str, str], ...]
    """path and class of the modules that have layers with weights, in the order of ``named_modules()``"""


@cache
def built(name: str) -> Built:
    """Build and export one of the families' models, with random weights."""
    import torch

    make_zoo.declare_operators()
    torch.manual_seed(make.SEED)
    family = MODELS[name]
    model = family.build().eval()
    vary_norms(model)
    image = torch.rand(1, 3, family.size, family.size)
    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(model, (image,), file, dynamo=False, opset_version=17, input_names=["images"])
    found = onnx.load_from_string(file.getvalue())
    family.change(found)
    layers = (torch.nn.Conv2d, torch.nn.Linear)
    modules = []
    for path, module in model.named_modules():
        if any(isinstance(inner, layers) for inner in module.modules()):
            kind = type(module)
            modules.append((path, family.classes.get(kind.__name__, f"{kind.__module__}.{kind.__name__}")))
    return Built(found, tuple(modules))
