"""What attach refuses: one sentence in the user's terms, and the model as it was."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.errors import BlockError, GraphSurgeryError, RecipeError, RequestError, SelectorError, SiteError

from .nets import entry, image, net, state


def refused(model: nn.Module, recipe: Any, kind: type[GraphSurgeryError], message: str, example: object = None) -> None:
    """Attaching fails with this message, a regular expression, and changes nothing."""
    before = state(model)
    with pytest.raises(GraphSurgeryError) as caught:
        gt.attach(model, recipe, image() if example is None else example)
    assert type(caught.value) is kind
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(caught.value).splitlines()[0][-1] != "."
    assert state(model) == before


@pytest.mark.parametrize(
    ("where", "kind", "message"),
    [
        ({"after": "c3f"}, SelectorError, r"no module of the model matches 'c3f'; the nearest are c2f \(C2f\)"),
        ({"before": "stem.con"}, SelectorError, r"stem\.conv"),
        ({"after": "c2f", "consumers": "heed"}, SelectorError, r"no module of the model matches 'heed'.*head"),
        ({"after": "tensor:x"}, SelectorError, "a live model has no names of tensors"),
        ({"after": "node:x"}, SelectorError, "a live model has no nodes"),
        ({"after": "c2f", "consumers": "output:y"}, SelectorError, "a live model has no names of outputs"),
        ({"after": "op:Conv[1]"}, SelectorError, "a live model has modules, not operators"),
        ({"after": "c2f//op:Conv[1]"}, SelectorError, "a live model has modules, not operators"),
        ({"after": "unused"}, SiteError, r"unused \(Conv\) is never called"),
        ({"after": "c2f.m"}, SiteError, r"c2f\.m \(ModuleList\) is never called.*inside of it are: c2f\.m\.0"),
        ({"after": "head"}, SiteError, r"head \(Head\) gives a tensor \[1, 4, 320\], not one map \[N, C, H, W\]"),
        ({"after": "pair"}, SiteError, r"pair \(Pair\) gives 2 maps; name the module that gives the one you mean"),
        ({"before": "pair"}, SiteError, r"pair \(Pair\) takes 2 maps; use after with consumers: pair"),
        ({"after": "drop"}, SiteError, r"drop \(Dropout\) gives back what it takes.*; name out"),
        (
            {"after": "stem.bn"},
            SiteError,
            r"stem \(Conv\) takes stem\.bn out of itself when the model is fused",
        ),
        ({"after": "stem.conv"}, SiteError, "the block would vanish with it; name stem"),
        ({"after": "c2f.cv2.act"}, SiteError, r"c2f\.cv2\.act \(SiLU\) is one module with stem\.act"),
        (
            {"after": "c2f", "consumers": "head"},
            SelectorError,
            r"no consumer of what c2f gives, which down \(Conv\), con",
        ),
        ({"after": "c2f", "consumers": ["down", "concat"]}, SiteError, "down, concat all take what c2f gives"),
        ({"after": "c2f..cv1"}, SelectorError, "empty step"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_places(where: dict[str, Any], kind: type[GraphSurgeryError], message: str) -> None:
    refused(net(), [{"module": "simam", **where}], kind, f"^entry 1 of the recipe: .*{message}")


class Plain(nn.Module):
    """A convolution, a BatchNorm, and a map that is read twice."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.se = nn.Conv2d(8, 8, 1)
        self.inner = Twice()
        self.extra = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(self.se(self.bn1(self.conv1(x))))
        return result


class Twice(nn.Module):
    """Goes on with what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Conv2d(8, 8, 1)
        self.look = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.make(x)
        self.score = float(self.look(y).mean())
        return y


def test_a_place_that_a_file_does_not_have_or_has_elsewhere() -> None:
    refused(Plain(), [entry("simam", "conv1")], SiteError, "goes into the BatchNorm bn1, which exports fold.*name bn1")
    refused(Plain(), [{"module": "simam", "before": "bn1"}], SiteError, "goes into the BatchNorm bn1")
    message = r"what inner \(Twice\) gives is read inside of it as well, by inner\.look; name inner\.make"
    refused(Plain(), [entry("simam", "inner")], SiteError, message)
    gt.attach(Plain(), [entry("simam", "bn1")], image())


class Optional(nn.Module):
    """A block as timm has them: with SE inside, or None in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.act = nn.ReLU(inplace=True)
        self.se = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y if self.se is None else self.se(y)
        return self.act(y)


def test_a_name_that_the_module_uses() -> None:
    recipe = [entry("se", "0", settings={"reduction": 4})]
    message = r"0 \(Optional\) has something called se already \(NoneType\).*; 0\.act inside of it has the same map"
    refused(nn.Sequential(Optional()), recipe, SiteError, message)
    model = nn.Sequential(nn.Sequential(Optional()))
    assert [each.id for each in gt.attach(model, recipe, image())] == ["0.0.act.se"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"after": "c2f"}, {"after": "c2f.cv2"}),
        ({"before": "c2f.cv1"}, {"before": "c2f"}),
        ({"before": "c2f.cv1"}, {"after": "stem"}),
        ({"after": "stem", "consumers": "c2f"}, {"after": "stem"}),
    ],
    ids=str,
)
def test_an_order_that_hooks_cannot_have(first: dict[str, str], second: dict[str, str]) -> None:
    recipe = [{"module": "simam", **first}, {"module": "nam", **second}]
    refused(
        net(), recipe, SiteError, "^entry 2 of the recipe: the block .* at the same map, although its entry does not"
    )
    gt.attach(net(), recipe[::-1], image())


# ---------------------------------------------------------------------- blocks and recipes


class Reshaping(nn.Module):
    """No block: its output is smaller."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c = channels

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]


class Failing(nn.Module):
    """No block either."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c = channels

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("keys", "kind", "message"),
    [
        ({"module": "sima"}, BlockError, "there is no block 'sima'; did you mean simam"),
        ({"module": "se", "settings": {"reduction": 99}}, BlockError, "c2f has 16 channels; a reduction of 99"),
        ({"module": f"{__name__}:Reshaping"}, BlockError, r"makes \[1, 16, 16, 8\] of \[1, 16, 16, 16\]"),
        ({"module": f"{__name__}:Failing"}, BlockError, r"fails on a map \[1, 16, 16, 16\]: not today"),
        ({"module": "no.such:Thing"}, BlockError, "no.such cannot be imported"),
        (
            {"module": "se", "init": "identity", "settings": {"reduction": 4}},
            BlockError,
            "se never learns from an id",
        ),
        ({"module": "simam", "init": "identity"}, BlockError, "use gate: residual instead"),
        ({"module": "se", "weights": "missing.pt"}, gsx.errors.WeightsError, "there is no weights file missing.pt"),
        ({"module": "se", "gate": "open"}, RecipeError, "there is no gate 'open'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_blocks(keys: dict[str, Any], kind: type[GraphSurgeryError], message: str) -> None:
    refused(net(), [{"after": "c2f", **keys}], kind, message)


def test_a_block_from_a_file_of_onnx() -> None:
    block = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
    refused(net(), [{"module": str(block), "after": "c2f"}], BlockError, ".")


def test_weights_of_other_channels_and_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = net()
    gt.attach(model, [entry("se", "concat", settings={"reduction": 4}, gate="none")], image())
    arrays = {key: np.asarray(value) for key, value in model.concat.se.state_dict().items()}
    np.savez(tmp_path / "se.npz", **arrays)
    weights = {"weights": f"{tmp_path}/se.npz"}
    refused(net(), [entry("se", "c2f", **weights)], gsx.errors.WeightsError, "c2f has 16 channels; fc1.weight.* 32")
    np.savez(tmp_path / "se.npz", **arrays | {"fc1.bias": np.full_like(arrays["fc1.bias"], np.nan)})
    refused(net(), [entry("se", "concat", **weights)], gsx.errors.WeightsError, "fc1.bias .*not finite")


def test_keys_that_mean_nothing_on_a_live_model_a_line_each() -> None:
    recipe = [
        entry("simam", "c2f", target="dla", precision="fp16"),
        entry("nam", "c2f"),
        entry("se", "c2f", lowering="default", qdq="int8"),
    ]
    with pytest.raises(RecipeError) as caught:
        gt.attach(net(), recipe, image())
    first, *lines = str(caught.value).splitlines()
    assert first == "keys that mean nothing on a live model; drop them:"
    assert [line.strip().rpartition(" (")[0] for line in lines] == [
        "entry 1 of the recipe: target: dla",
        "entry 1 of the recipe: precision: fp16",
        "entry 3 of the recipe: lowering: default",
        "entry 3 of the recipe: qdq: int8",
    ]
    gt.attach(net(), [entry("simam", "c2f", target="tensorrt")], image())  # the default asks for nothing


def test_a_module_that_is_called_with_maps_of_several_sizes() -> None:
    small = torch.rand(1, 3, 4, 4)  # the maps of the head are 2 x 2 and 1 x 1
    refused(
        net(),
        [entry("simam", "head.shared")],
        BlockError,
        r"simam needs more than one position, and head\.shared is 1 x 1",
        small,
    )
    refused(net(), [entry("mhsa", "head.shared")], BlockError, "mhsa.* works at one size, and head.shared has several")
    gt.attach(net(), [entry("eca", "head.shared")], small)


@pytest.mark.parametrize("recipe", [[], {}, 3, None, "no such file.yaml", [3], [{"after": "c2f"}], [{"module": "se"}]])
def test_what_is_no_recipe(recipe: Any) -> None:
    before = state(model := net())
    with pytest.raises(RequestError):
        gt.attach(model, recipe, image())
    assert state(model) == before


# ---------------------------------------------------------------------- models


def scripted(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, image(), check_trace=False)


def averaged(model: nn.Module) -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(model)


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scripted, "is TorchScript; attach to the module that it was made from"),
        (lambda model: torch.compile(model, backend="eager"), "is compiled, and would go on as it is; attach first"),
        (compiled_in_place, "is compiled, and would go on as it is; attach first"),
        (nn.DataParallel, r"the model \(DataParallel\) wraps the model; attach to model.module"),
        (averaged, r"the model \(AveragedModel\) wraps the model; attach to model.module"),
        (lambda model: model.fuse(), r"stem \(Conv\) is fused, and can no longer be trained"),
    ],
)
def test_models_that_are_too_far_gone(change: Callable[[nn.Module], nn.Module], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        gt.attach(change(net()), [entry("simam", "c2f")], image())


def test_what_is_no_model() -> None:
    for model, what in ((3, "of type int"), (nn.Conv2d, "the class Conv2d"), ("best.pt", "of type str")):
        with pytest.raises(RequestError, match=f"a torch.nn.Module; the model is {what}"):
            gt.attach(model, [entry("simam", "c2f")], image())  # type: ignore[arg-type]


def test_attached_twice() -> None:
    model = net()
    gt.attach(model, [entry("simam", "c2f")], image())
    refused(model, [entry("se", "down")], RequestError, r"has blocks attached already \(c2f\.simam for one\)")


@pytest.mark.usefixtures("sees_holders")
def test_an_optimizer_that_holds_the_parameters_already() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    refused(model, [entry("simam", "c2f")], RequestError, r"an optimizer \(SGD\) holds the model's parameters")
    del optimizer
    gt.attach(model, [entry("simam", "c2f")], image())


@pytest.mark.usefixtures("sees_holders")
def test_a_compiled_or_wrapped_model_around_the_one_that_is_given() -> None:
    for wrap in (lambda model: torch.compile(model, backend="eager"), nn.DataParallel):
        model = net()
        around = wrap(nn.Sequential(model))
        refused(model, [entry("simam", "c2f")], RequestError, f"{type(around).__name__} holds the model already")


@pytest.mark.parametrize(
    "example", [torch.zeros(1, 5, 32, 32), [], {"y": 3}, (1, 2, 3)], ids=["C", "list", "dict", "3"]
)
def test_an_example_that_the_model_does_not_take(example: object) -> None:
    refused(net(), [entry("simam", "c2f")], RequestError, "^the model fails on the example: ", example)


def test_nothing_is_attached() -> None:
    model = net()
    assert gt.attachments(model) == []
    for act in (gt.detach, gt.freeze_rest, lambda m: list(gt.block_parameters(m)), lambda m: gt.save_blocks(m, "x")):
        with pytest.raises(RequestError, match="the model has no blocks attached"):
            act(model)


def test_blocks_of_a_newer_graphsurgery() -> None:
    model = net()
    gt.attach(model, [entry("simam", "c2f")], image())
    newer = copy.deepcopy(model)
    next(iter(newer.c2f._forward_hooks.values())).spec["format"] = 99
    with pytest.raises(gsx.errors.WeightsError, match="the model was written by a newer graphsurgery"):
        gt.attachments(newer)
