"""freeze_rest: training changes the blocks and nothing else, so that they fit the original model."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn

from graphsurgery import torch as gt

from .nets import entry, image, net, run

RECIPE = [entry("se", "c2f", settings={"reduction": 4}), entry("nam", "down")]


def trained(freeze: bool) -> tuple[nn.Module, set[str]]:
    """The model after three steps, and the tensors that changed."""
    model, x = net().train(), image()
    gt.attach(model, RECIPE, x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if freeze:
        gt.freeze_rest(model)
    else:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".se." in name or ".nam." in name)
    optimizer = torch.optim.SGD([each for _, each in gt.block_parameters(model)], lr=0.5)
    for _ in range(3):
        model.train()  # as a loop does at the start of every epoch
        optimizer.zero_grad()
        model(torch.cat([x, image(2)])).square().sum().backward()
        optimizer.step()
    return model, {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def test_nothing_but_the_blocks_changes() -> None:
    model, changed = trained(freeze=True)
    assert changed
    assert all(".se." in key or ".nam." in key for key in changed)
    assert any("bn2.running_mean" in key for key in changed)  # the block's own BatchNorm does learn
    gt.detach(model)
    assert torch.equal(run(model.eval(), image()), run(net(), image()))


def test_without_it_the_statistics_change() -> None:
    _, changed = trained(freeze=False)
    assert any("running_mean" in key and ".nam." not in key for key in changed)


def test_it_is_kept_by_copies_and_pickles_and_undone_by_detach() -> None:
    model = net().train()
    model.out.conv.weight.requires_grad_(False)  # what the user froze stays so
    gt.attach(model, RECIPE, image())
    gt.freeze_rest(model)
    gt.freeze_rest(model)
    for copied in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.train() is copied
        assert copied.down.train() is copied.down
        assert copied.stem.bn.train() is copied.stem.bn
        assert not copied.stem.bn.training
        assert copied.stem.training
        assert copied.down.nam.block.Channel_Att.bn2.training
        assert {name for name, each in copied.named_parameters() if each.requires_grad} == {
            name for name, _ in gt.block_parameters(copied)
        }
        gt.detach(copied)
        assert copied.stem.bn.training
        assert not copied.eval().stem.bn.training
        assert [name for name, each in copied.named_parameters() if not each.requires_grad] == ["out.conv.weight"]
