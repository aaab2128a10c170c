"""The calibrated start: what comes behind a block meets the means and deviations that it knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.blocks.wrapped_module import wrapped
from graphsurgery.errors import BlockError, RecipeError, RequestError
from graphsurgery.template.around import Around
from graphsurgery.userblocks import Trust

from .nets import entry, image, net, run, state
from .test_attaching import Keywords
from .test_like_a_file import exported


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images, as arrays in the model's own scale."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        np.save(folder / f"{number}.npy", image(number).numpy()[0])
    return folder


def recipe(images: Path) -> list[dict[str, object]]:
    start = {"init": "calibrated", "images": str(images)}
    return [
        {"module": "cbam", "after": "out", "settings": {"reduction": 4}, **start},
        {"module": "se", "after": "c2f", "settings": {"reduction": 4}, **start},
        {"module": "nam", "before": "down", **start},
    ]


class Named(nn.Module):
    """A block with the keys that its surroundings have, too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 0.3))
        self.shift = nn.Parameter(torch.ones(channels))
        self.block = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x).sigmoid() * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        return y


class Alpha(Named):
    """One that has the key of the gate."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.alpha = nn.Parameter(torch.ones(channels))


def moments(model: nn.Module, paths: list[str], images: Path) -> dict[str, Tensor]:
    """Mean and deviation [2, C] of what modules give, over all images."""
    maps: dict[str, list[Tensor]] = {path: [] for path in paths}
    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda m, args, y, path=path: maps[path].append(y))
    for file in sorted(images.iterdir()):
        run(model, torch.from_numpy(np.load(file))[None])
    whole = {path: torch.cat(found).transpose(0, 1).flatten(1).double() for path, found in maps.items()}
    return {path: torch.stack([x.mean(1), x.std(1, correction=0)]) for path, x in whole.items()}


def test_every_channel_has_its_mean_and_deviation_back(images: Path) -> None:
    plain, attached, fresh = net(), net(), net()
    gt.attach(attached, recipe(images), image())
    gt.attach(fresh, [{**each, "init": "default", "images": None, "gate": "none"} for each in recipe(images)], image())
    expected = moments(plain, ["out", "c2f"], images)
    blocks = {"out.cbam": "out", "c2f.se": "c2f", "down.nam": "c2f"}
    for path, source in blocks.items():
        found = moments(attached, [path], images)[path]
        assert torch.allclose(found, expected[source], rtol=1e-3, atol=1e-5)
        assert not torch.allclose(moments(fresh, [path], images)[path], expected[source], rtol=1e-2, atol=1e-3)
    assert [each.init for each in gt.attachments(attached)] == ["calibrated"] * 3
    assert [each.gate for each in gt.attachments(attached)] == ["none"] * 3
    near, far = ((run(model, image()) - run(plain, image())).abs().mean() for model in (attached, fresh))
    assert near < 0.5 * far


def test_every_parameter_has_a_gradient_at_once(images: Path) -> None:
    model = net().train()
    gt.attach(model, recipe(images), image())
    model(image()).square().mean().backward()
    assert all(float(each.grad.abs().max()) > 0 for _, each in gt.block_parameters(model))


def test_the_model_is_otherwise_untouched_and_detach_is_exact(images: Path) -> None:
    model = net().train()
    before = state(model)
    gt.attach(model, recipe(images), image())
    gt.detach(model)
    assert state(model) == before


def rebuilt(attachment: gt.Attachment) -> nn.Module:
    """The module of a block from nothing but what its attachment says."""
    block = attachment.block(Trust.in_blocks([attachment.module]))
    around = Around(attachment.init == "calibrated", attachment.gate == "residual")
    return wrapped(block.module(attachment.feature), attachment.channels, around)


def test_blocks_come_back_from_a_file(images: Path, tmp_path: Path) -> None:
    first, second = net(), net()
    for model in (first, second):
        gt.attach(model, recipe(images), image())
    with torch.no_grad():
        first.c2f.se.scale.mul_(2)
    gt.load_blocks(second, gt.save_blocks(first, tmp_path / "blocks.safetensors"))
    assert torch.equal(run(first, image()), run(second, image()))
    for each in gt.attachments(first):
        assert rebuilt(each).state_dict().keys() == first.get_submodule(each.id).state_dict().keys()


def test_a_constant_channel_keeps_a_gradient(images: Path) -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.conv.weight.data[1] = 0

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y

    model = Dead()
    start = {"init": "calibrated", "images": str(images)}
    gt.attach(model, [entry("se", "conv", settings={"reduction": 2}, **start)], image())
    assert model.conv.se.scale[1].item() == 1
    assert torch.isfinite(torch.cat([model.conv.se.scale, model.conv.se.shift])).all()


def test_images_go_where_the_example_has_its_own(images: Path) -> None:
    model, start = Keywords(), {"init": "calibrated", "images": str(images)}
    gt.attach(
        model, [entry("se", "first", settings={"reduction": 2}, **start)], {"pixel_values": image(), "scale": 2.0}
    )
    assert not torch.equal(model.first.se.scale, torch.ones(8))


def test_bad_input(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    start = {"init": "calibrated"}
    for keys, kind, message in (
        ({}, RecipeError, "say which images the block is calibrated on: images: DIR"),
        ({"images": str(tmp_path / "none")}, RequestError, "does not exist"),
        ({"images": str(tmp_path / "empty")}, RequestError, "has no images"),
    ):
        model = net()
        before = state(model)
        with pytest.raises(kind, match=message):
            gt.attach(model, [entry("se", "c2f", settings={"reduction": 4}, **start, **keys)], image())
        assert state(model) == before
    np.save(images / "9.npy", np.zeros((3, 8, 8), np.float32))
    with pytest.raises(RequestError, match="has shape"):
        gt.attach(net(), [entry("se", "c2f", settings={"reduction": 4}, images=str(images), **start)], image())


def test_values_that_are_not_finite_leave_the_model_as_it_was(images: Path) -> None:
    np.save(images / "9.npy", np.full((3, 32, 32), 3e38, np.float32))  # whose sums overflow
    model = net()
    before = state(model)
    with pytest.raises(RequestError, match=r"c2f\.se gives values on the images that are not finite"):
        gt.attach(model, recipe(images)[1:2], image())
    assert state(model) == before


@pytest.mark.parametrize("gate", ["none", "residual"])
def test_a_file_gets_the_same_scale_and_shift(gate: str, images: Path) -> None:
    """One recipe on a model and on its export, places neither in the order of the recipe nor all alone."""
    entries: list[dict[str, object]] = [
        *({**each, "gate": gate} for each in recipe(images)),
        {"module": "simam", "after": "c2f", "init": "calibrated", "images": str(images), "gate": gate},
    ]
    model = net()
    file = exported(model, image())
    inserted = gsx.Recipe.of(entries).apply(file)
    names = {f"{each.named}.{each.name}": each.id for each in gt.attach(model, entries, image())}
    assert names.keys() == {each.id for each in inserted.insertions()}
    for each in inserted.insertions():
        live, given = model.get_submodule(names[each.id]), each.weights(inserted)
        block = live.block if isinstance(live, gt.ResidualGate) else live
        assert isinstance(block, gt.CalibratedBlock)
        for key in ("scale", "shift"):
            expected = getattr(block, key).detach().double().numpy()
            assert np.allclose(given[f"calibration.{key}"], expected, rtol=2e-6, atol=1e-6)
        assert not np.allclose(block.scale.detach().numpy(), 1, atol=0.1)
    found = onnxruntime.InferenceSession(inserted.proto().SerializeToString()).run(None, {"x": image().numpy()})[0]
    expected = run(model, image()).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("gate", ["none", "residual"])
def test_what_was_calibrated_and_trained_goes_into_a_file(gate: str, images: Path, tmp_path: Path) -> None:
    start = {"init": "calibrated", "images": str(images)}
    entries = [
        {**each, "gate": gate}
        for each in (
            *recipe(images),
            {"module": "simam", "after": "stem", **start},
            {"module": f"{__name__}:Named", "after": "down", **start},
        )
    ]
    model = net()
    file = exported(model, image())
    attached = gt.attach(model, entries, image())
    with torch.no_grad():
        for _, parameter in gt.block_parameters(model):
            parameter.add_(0.1)
    torch.save(model.state_dict(), tmp_path / "trained.pt")
    for index, each in enumerate(attached):
        place = {each.position: each.named, "settings": each.settings}
        file = gsx.insert(file, each.module, **place, gate=gate, weights=f"{tmp_path / 'trained.pt'}:{each.id}")
        assert len(file.insertions()) == index + 1
    assert {each.init for each in file.insertions()} == {"weights"}
    found = onnxruntime.InferenceSession(file.to_bytes()).run(None, {"x": image().numpy()})[0]
    expected = run(model, image()).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    other = net()
    again = [
        {**each, "init": "default", "images": None, "weights": f"{tmp_path / 'trained.pt'}:{one.id}"}
        for each, one in zip(entries, attached, strict=True)
    ]
    gt.attach(other, again, image())
    assert torch.equal(run(other, image()), run(model, image()))
    for each in gt.attachments(other):
        assert rebuilt(each).state_dict().keys() == other.get_submodule(each.id).state_dict().keys()


def test_a_block_with_a_parameter_that_is_called_as_that_of_the_gate(images: Path) -> None:
    model, block = net(), f"{__name__}:Alpha"
    before = state(model)
    with pytest.raises(BlockError, match="Alpha has a parameter 'alpha' of its own, which is that of"):
        gt.attach(model, [entry(block, "c2f")], image())
    with pytest.raises(BlockError, match="give it another name"):
        gsx.insert(exported(model, image()), block, after="c2f", gate="residual")
    assert state(model) == before
    gt.attach(model, [entry(block, "c2f", init="calibrated", images=str(images))], image())
    assert isinstance(model.c2f.alpha, gt.CalibratedBlock)
