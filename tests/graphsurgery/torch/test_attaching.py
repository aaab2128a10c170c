"""attach and detach: where blocks go, what they begin with, and that the old model is all there."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.errors import GraphSurgeryWarning

from .nets import Net, entry, image, net, open_gates, run, state


def ids(model: nn.Module) -> list[str]:
    return [each.id for each in gt.attachments(model)]


def test_the_old_model_is_all_there() -> None:
    model, x = net(), image()
    before = run(model, x)
    keys, names = list(model.state_dict()), dict(model.named_parameters())
    types = {path: type(module) for path, module in model.named_modules()}
    gt.attach(model, [entry("se", "c2f", settings={"reduction": 4})], x)
    assert torch.equal(run(model, x), before)
    assert [key for key in model.state_dict() if ".se." not in key] == keys
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in names.items())
    assert {path: type(model.get_submodule(path)) for path in types} == types
    assert not model.load_state_dict(net(1).state_dict(), strict=False).unexpected_keys


@pytest.mark.parametrize("training", [True, False])
def test_detach_gives_back_every_bit(training: bool) -> None:
    model, x = net().train(training), image()
    before, output = state(model), run(copy.deepcopy(model).eval(), x)
    recipe = [
        entry("cbam", "c2f", gate="none", settings={"reduction": 4}),
        entry("eca", "c2f.m.0"),
        {"module": "nam", "before": "out"},
        entry("simam", "stage", consumers="up"),
    ]
    gt.attach(model, recipe, x)
    open_gates(model)
    gt.freeze_rest(model)
    assert len(ids(model)) == 4
    assert not torch.equal(run(copy.deepcopy(model).eval(), x), output)
    gt.detach(model)
    after = state(model)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == set()
    assert torch.equal(run(model.eval(), x), output)


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ("c2f", ["c2f.se"]),
        ("/c2f/cv2", ["c2f.cv2.se"]),
        ("{stem,down}", ["stem.se", "down.se"]),
        ("c2f.cv*", ["c2f.cv1.se", "c2f.cv2.se"]),
        ("m.0.1", ["c2f.m.0.1.se"]),  # the end of one path
        ("c2f.m.0", ["c2f.m.0.1.se"]),  # a Sequential runs every child that it has
        ("stage", ["stage.1.0.se"]),  # one in another
        ("c2f, c2f.cv2", ["c2f.se"]),  # one map
        ("c*", ["c2f.se", "concat.se"]),
        ("head*", None),
    ],
)
def test_places_after_modules(after: str, found: list[str] | None) -> None:
    model, x = net(), image()
    recipe = [entry("se", after, settings={"reduction": 4})]
    if found is None:
        with pytest.raises(gsx.errors.SiteError, match="not one map"):
            gt.attach(model, recipe, x)
        return
    gt.attach(model, recipe, x)
    assert sorted(ids(model)) == sorted(found)


class Recorder(nn.Module):
    """A block that remembers what it took."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.took: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.took.append(x)
        return x * 2


def test_every_consumer_reads_a_block_after_a_module_and_one_reads_that_before_it() -> None:
    x = image()
    seen: dict[str, list[Tensor]] = {}
    for position, where in (("after", "c2f"), ("before", "down")):
        model, inputs = net(), []
        for name in ("down", "concat"):
            model.get_submodule(name).register_forward_pre_hook(lambda m, args, got=inputs: got.append(args[0]))
        gt.attach(model, [{"module": f"{__name__}:Recorder", position: where, "gate": "none"}], x)
        inputs.clear()
        run(model, x)
        seen[position] = [inputs[0], inputs[1][1]]
    plain = run(nn.Sequential(net().stem, net().c2f), x)
    assert torch.equal(seen["after"][0], 2 * plain)
    assert torch.equal(seen["after"][1], 2 * plain)
    assert torch.equal(seen["before"][1], plain)


def test_consumers_are_the_modules_that_take_the_map_wherever_it_stands_in_what_they_take() -> None:
    model, x = net(), image()
    (attached,) = gt.attach(model, [entry("simam", "c2f", consumers="concat")], x)
    assert (attached.path, attached.named, attached.position) == ("concat", "c2f", "before")
    assert attached.places == ((0, 1),)  # concat([up, c2f])
    reference = net()
    x1 = run(nn.Sequential(reference.stem, reference.c2f), x)
    maps = [torch.zeros(1, 16, 16, 16), x1]
    open_gates(model, 1.0)
    found = run(model.concat, maps)
    assert torch.equal(found[:, :16], maps[0])
    assert not torch.allclose(found[:, 16:], x1)
    assert torch.equal(maps[1], x1)  # what the caller holds is not changed


class Keywords(nn.Module):
    """A model that hands a map on by its keyword, as transformers do, and gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = Second()

    def forward(self, pixel_values: Tensor, scale: float = 1.0) -> Tensor:
        result: Tensor = self.second(hidden=self.first(pixel_values), scale=scale)[0]
        return result


class Second(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, hidden: Tensor, scale: float) -> tuple[Tensor, int]:
        return self.conv(hidden) * scale, 1


def test_maps_are_found_behind_keywords_and_in_tuples() -> None:
    torch.manual_seed(0)
    model, x = Keywords(), image()
    recipe = [{"module": "simam", "before": "second"}, entry("se", "second", settings={"reduction": 2})]
    before, after = gt.attach(model, recipe, {"pixel_values": x, "scale": 2.0})
    assert before.places == (("hidden",),)
    assert after.places == ((0,),)
    plain = run(model, x)
    open_gates(model)
    assert not torch.equal(run(model, x), plain)


def test_a_block_at_a_module_that_is_called_several_times_is_one_block() -> None:
    model, x = net(), image()
    with pytest.warns(GraphSurgeryWarning, match=r"head\.shared\.simam: head\.shared is called 2 times"):
        gt.attach(model, [entry("simam", "head.shared")], x)
    assert ids(model) == ["head.shared.simam"]


def test_blocks_at_one_module_are_chained_and_numbered_as_in_a_file() -> None:
    model, x = net(), image()
    se = entry("se", "c2f", settings={"reduction": 4}, gate="none")
    recipe = [se, entry("simam", "c2f"), entry("se", "c2f", settings={"reduction": 2})]
    gt.attach(model, recipe, x)
    assert ids(model) == ["c2f.se", "c2f.simam", "c2f.se_1"]
    took: list[Tensor] = []
    model.c2f.simam.register_forward_pre_hook(lambda m, args: took.append(args[0]))
    run(model, x)
    plain = run(nn.Sequential(net().stem, net().c2f), x)
    assert torch.equal(took[0], run(model.c2f.se, plain))


# ---------------------------------------------------------------------- how blocks begin


@pytest.mark.parametrize(
    ("keys", "gate"),
    [({}, "residual"), ({"gate": "none"}, "none"), ({"gate": "residual"}, "residual"), ({"init": "identity"}, "none")],
)
def test_the_gate_is_residual_unless_the_entry_says_how_the_block_begins(keys: dict[str, str], gate: str) -> None:
    model = net()
    (attached,) = gt.attach(model, [entry("gc", "c2f", settings={"reduction": 4}, **keys)], image())
    assert attached.gate == gate
    assert isinstance(model.c2f.gc, gt.ResidualGate) == (gate == "residual")


def test_the_gate_has_a_gradient_and_then_so_has_the_block() -> None:
    model, x = net().train(), image()
    gt.attach(model, [entry("se", "c2f", settings={"reduction": 4})], x)
    parameters = dict(gt.block_parameters(model))
    assert list(parameters) == [f"c2f.se.{key}" for key in model.c2f.se.state_dict()]
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    start = {name: each.detach().clone() for name, each in parameters.items()}
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert all(not torch.equal(start[name], each) for name, each in parameters.items())


def test_a_recipe_in_a_file_a_recipe_and_its_entries_are_one(tmp_path: Path) -> None:
    text = "- {module: se, after: [c2f, down], settings: {reduction: 4}, seed: 3}\n- {module: simam, before: out}\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    entries = [
        {"module": "se", "after": ["c2f", "down"], "settings": {"reduction": 4}, "seed": 3},
        {"module": "simam", "before": "out"},
    ]
    requests = [gsx.Request(**each) for each in entries]
    states = []
    for recipe in (path, str(path), gsx.Recipe.from_text(text), entries, requests, gsx.Recipe(tuple(requests))):
        model = net()
        attached = gt.attach(model, recipe, image())
        assert [each.gate for each in attached] == ["residual"] * 3
        assert attached[0].entry == {"module": "se", "after": ["c2f", "down"], "settings": {"reduction": 4}, "seed": 3}
        states.append(model.state_dict())
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        assert all(torch.equal(other[key], states[0][key]) for key in other)


def test_every_place_has_weights_of_its_own_and_one_seed_gives_the_same_again() -> None:
    draws = []
    for seed in (0, 0, 1):
        model = net()
        torch.manual_seed(seed + 10)  # that of torch does not matter
        gt.attach(model, [entry("eca", "{stem,c2f}", seed=seed)], image())
        draws.append((model.stem.eca.block.conv.weight, model.c2f.eca.block.conv.weight))
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0])
    assert not torch.equal(draws[0][0], draws[0][1])


def test_trained_weights_come_from_a_file_and_are_at_work_at_once(tmp_path: Path) -> None:
    trained = net()
    gt.attach(trained, [entry("se", "c2f", settings={"reduction": 4}, gate="none")], image())
    torch.save(trained.state_dict(), tmp_path / "best.pt")
    model = net(1)
    (attached,) = gt.attach(model, [entry("se", "c2f", weights=f"{tmp_path}/best.pt:c2f.se")], image())
    assert (attached.gate, attached.init, attached.settings["hidden"]) == ("none", "weights", 4)
    assert torch.equal(model.c2f.se.fc1.weight, trained.c2f.se.fc1.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_block_has_the_element_type_of_the_module(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    gt.attach(model, [entry("cbam", "c2f", settings={"reduction": 4})], image().to(dtype))
    assert {each.dtype for _, each in gt.block_parameters(model)} == {dtype}


def test_under_autocast_and_in_inference_mode_a_block_has_parameters_that_can_be_trained() -> None:
    model, x = net().train(), image()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        gt.attach(model, [entry("se", "c2f", settings={"reduction": 4})], x)
    model(x).sum().backward()
    assert all(each.dtype == torch.float32 and not each.is_inference() for _, each in gt.block_parameters(model))
    assert model.c2f.se.alpha.grad is not None


def test_a_block_that_works_at_one_size_keeps_it_and_others_work_at_every_size() -> None:
    model, x = net(), image()
    sizes = [each.size for each in gt.attach(model, [entry("mhsa", "c2f"), entry("simam", "down")], x)]
    assert sizes == [(16, 16), None]
    other = net()
    gt.attach(other, [entry("simam", "down"), entry("nam", "c2f"), entry("coordatt", "stem")], x)
    open_gates(other)
    assert run(other, torch.rand(2, 3, 64, 48)).shape[0] == 2


def test_the_model_is_run_once_and_nothing_of_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = net().train(), []
    forward = Net.forward

    def counted(self: Net, x: Tensor) -> Tensor:
        calls.append((self.training, torch.is_grad_enabled()))
        self.cache = x.sum()  # as the head of Ultralytics keeps its anchors
        return forward(self, x)

    monkeypatch.setattr(Net, "forward", counted)
    before = state(model)
    with pytest.raises(gsx.errors.SiteError):
        gt.attach(model, [entry("simam", "c2f"), entry("se", "head")], image())
    assert calls == [(False, False)]
    assert state(model) == before


def test_attachments_are_plain_data_that_builds_the_block_again() -> None:
    model, x = net(), image()
    gt.attach(model, [entry("ge[theta-minus]", "c2f", gate="none", settings={"extent": 2})], x)
    (attached,) = gt.attachments(model)
    again = gt.Attachment.from_json(json.loads(json.dumps(attached.to_json())), "a test")
    assert again == attached
    assert (again.module, again.channels, again.settings["extent"]) == ("ge[theta-minus]", 16, 2)
    assert again.block().module(again.feature).state_dict().keys() == model.c2f.ge.state_dict().keys()
