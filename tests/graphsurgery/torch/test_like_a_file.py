"""One recipe on a live model and on its export: the same places, the same weights, the same function."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.errors import SelectorError

from .nets import entry, image, net, run

SE = {"module": "se", "settings": {"reduction": 4}, "gate": "none"}
SIMAM = {"module": "simam", "gate": "none"}


def exported(model: nn.Module, x: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), stream, dynamo=False, input_names=["x"], opset_version=17)
    return stream.getvalue()


def check_alike(model: nn.Module, recipe: list[Mapping[str, Any]], x: torch.Tensor, tolerance: float = 1e-5) -> None:
    """The recipe, attached and applied to an export, gives one and the same result, and not that of the model."""
    plain, file = run(model, x), exported(model, x)
    inserted = gsx.Recipe.of(recipe).apply(file)
    attached = gt.attach(model, recipe, x)
    ids = {f"{each.named}.{each.name}" for each in attached}
    assert {each.id for each in inserted.insertions()} == ids
    found = run(model, x).numpy()
    (other,) = onnxruntime.InferenceSession(inserted.proto().SerializeToString()).run(None, {"x": x.numpy()})
    assert np.abs(found - other).max() < tolerance * np.abs(found).max()
    assert np.abs(found - plain.numpy()).max() > 10 * tolerance * np.abs(found).max()
    gt.detach(model)


@pytest.mark.parametrize(
    "recipe",
    [
        [{**SE, "after": "c2f"}],
        [{**SE, "after": ["{stem,down}", "c2f.m.0.0"]}],
        [{**SE, "after": "stage"}],
        [{**SE, "after": "c2f"}, {**SIMAM, "after": "c2f"}, {**SE, "after": "c2f", "settings": {"reduction": 2}}],
        [{**SE, "before": "down"}],
        [{**SIMAM, "after": "stem"}, {**SE, "before": "c2f.cv1"}],
        [{**SE, "after": "stage.0"}, {**SIMAM, "before": "stage.1"}],
        [{**SE, "after": "c2f", "consumers": "down"}, {**SIMAM, "after": "c2f"}],
        [{**SE, "after": "c2f.m.0"}, {**SIMAM, "after": "out", "seed": 4}],
        [{"module": "cbam", "after": "concat", "gate": "none", "seed": 7}],
        [{"module": "mhsa", "after": "stem", "gate": "none"}],
        [{"module": "ge[theta-minus]", "after": "up", "gate": "none", "settings": {"extent": 2}}],
    ],
    ids=str,
)
def test_module_paths(recipe: list[Mapping[str, Any]]) -> None:
    check_alike(net(), recipe, image())


def test_types_of_blocks() -> None:
    recipe = [{**SE, "after": "C2f[0]"}, {**SIMAM, "after": "C2f[*].m.0"}, {**SE, "after": "c2f//Conv[0]"}]
    check_alike(net(), recipe, image())


def test_types_of_blocks_that_are_not_there() -> None:
    with pytest.raises(SelectorError, match="the model has no C3k2; it has"):
        gt.attach(net(), [entry("simam", "C3k2[-1]")], image())


class Sum(nn.Module):
    """Adds what no module of its own does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()
        return self.second(y).relu() + y


def test_a_place_that_no_module_has() -> None:
    file = exported(Sum().eval(), image())
    assert gsx.sites(file, "Conv[0]")
    with pytest.raises(SelectorError, match=r"'Conv.0.' names .* in an export of the model, and no module of it gives"):
        gt.attach(Sum(), [entry("simam", "Conv[0]")], image())


class Fickle(nn.Module):
    """A model that no exporter can write."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting():
            raise ValueError("not for export")
        result: torch.Tensor = self.conv(x)
        return result


def test_a_model_that_cannot_be_exported() -> None:
    with pytest.raises(SelectorError, match="cannot export it: not for export; name modules by their paths"):
        gt.attach(Fickle(), [entry("simam", "role:p3")], image())
    gt.attach(Fickle(), [entry("simam", "conv")], image())
