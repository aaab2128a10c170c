"""Recipes cost what their insertions cost: an entry more does not go through the whole model again."""

from __future__ import annotations

from functools import cache

import onnx
import pytest

from graphsurgery.api import carry_out
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recipe import Recipe
from tests import models
from tests.counting import calls

ENTRIES = 12


@cache
def chain(blocks: int) -> ModelFile:
    """Conv and SiLU, one after the other, each three nodes."""
    nodes, tensor = [], "x"
    for i in range(blocks):
        conv, gate, silu = (f"/model.{i}/{each}_output_0" for each in ("conv/Conv", "act/Sigmoid", "act/Mul"))
        nodes += [
            models.node("Conv", [tensor, "w"], [conv], f"/model.{i}/conv/Conv"),
            models.node("Sigmoid", [conv], [gate], f"/model.{i}/act/Sigmoid"),
            models.node("Mul", [conv, gate], [silu], f"/model.{i}/act/Mul"),
        ]
        tensor = silu
    declared = [models.value(output) for node in nodes for output in node.output]
    weights = [models.weight("w", (4, 4, 1, 1))]
    made = models.model(nodes, [models.value("x")], declared[-1:], weights, value_info=declared[:-1])
    return ModelFile.load(made)


def cost(model: ModelFile, selectors: list[str]) -> tuple[onnx.ModelProto, int]:
    entries = "\n".join(f"- {{module: simam, after: '{selector}'}}" for selector in selectors)
    requests = Recipe.from_text(entries).requests
    (after, _), count = calls(lambda: carry_out(model, requests))
    return after.proto(), count


@pytest.mark.parametrize(
    "selector", ["/model.{}", "model.{}.act", "tensor:/model.{}/act/Mul_output_0", "op:Mul[{}]", "Conv[{}]"]
)
def test_an_entry_more_costs_the_same_in_a_longer_model(selector: str) -> None:
    cost(chain(100), [selector.format(1)])  # imports, and fills caches
    added = []
    for blocks in (100, 400):
        one = cost(chain(blocks), [selector.format(1)])[1]
        many = cost(chain(blocks), [selector.format(i) for i in range(1, 1 + ENTRIES)])[1]
        added.append((many - one) / (ENTRIES - 1))
    assert added[1] < 1.2 * added[0]  # 4 times where each entry goes through the model


def test_entries_give_what_one_entry_gives() -> None:
    paths = [f"/model.{i}" for i in range(1, 1 + ENTRIES)]
    in_one = Recipe.from_text(f"- {{module: simam, after: [{', '.join(paths)}]}}").apply(chain(100))
    assert cost(chain(100), paths)[0] == in_one.proto()
