"""What a model with blocks goes through before it is deployed, at a C2f, at a Conv that fuses, and inside of both."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from graphsurgery import torch as gt

from .nets import Net, entry, image, net, open_gates, run

PLACES = {
    "c2f": entry("se", "c2f", settings={"reduction": 4}),
    "conv": entry("cbam", "down", settings={"reduction": 4}),
    "inner": entry("nam", "c2f.m.0.1"),
    "sequential": entry("ema", "stage", settings={"factor": 4}),
    "before": {"module": "eca", "before": "out"},
    "consumers": entry("simam", "c2f", consumers="concat"),
}
NAMES = [
    "/c2f/se/block/fc1/Conv",
    "/down/cbam/block/",
    "/c2f/m.0/m.0.1/nam/block/",
    "/stage/stage.1/stage.1.0/ema/block/conv1x1/Conv",
    "/out/eca/block/conv/",
    "/concat/simam/",
]
"""of nodes in an export of the TorchScript exporter: each begins with the path of its module"""


def attached(*places: str) -> Net:
    """The network with open blocks at these places, or at all."""
    model = net()
    gt.attach(model, [PLACES[place] for place in places or PLACES], image())
    open_gates(model)
    return model


def differ(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().max())


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


place = pytest.mark.parametrize("place", PLACES)


@place
def test_the_block_is_at_work(place: str) -> None:
    assert differ(run(attached(place), image()), run(net(), image())) > 1e-4


@place
def test_copies_and_pickles_have_blocks_of_their_own(place: str) -> None:
    model, x = attached(place), image()
    y = run(model, x)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    copies = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(stream, weights_only=False))
    for copied in copies:
        assert torch.equal(run(copied, x), y)
        assert gt.attachments(copied) == gt.attachments(model)
        open_gates(copied, 0.0)
        assert torch.equal(run(copied, x), run(net(), x))
        gt.detach(copied)
        assert torch.equal(run(copied, x), run(net(), x))
    assert torch.equal(run(model, x), y)


@place
def test_hooks_of_others_do_not_take_the_place_of_those_of_a_pickle(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = (torch.utils.hooks.RemovableHandle, "next_id", 0)  # as in a new process
    monkeypatch.setattr(*numbers)
    model, x = attached(place), image()
    monkeypatch.setattr(*numbers)
    copied = pickle.loads(pickle.dumps(model))
    host = copied.get_submodule(gt.attachments(model)[0].path)
    for register in (host.register_forward_pre_hook, host.register_forward_hook) * 500:
        register(lambda *_: None).remove()
    assert torch.equal(run(copied, x), run(model, x))
    assert gt.attachments(copied) == gt.attachments(model)


@place
def test_an_average_follows_slowly(place: str) -> None:
    model, x = attached(place), image()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(model)
    open_gates(model, 0.1)
    average.update_parameters(model)
    alphas = [each for name, each in gt.block_parameters(average.module) if name.endswith(".alpha")]
    assert [round(each.item(), 3) for each in alphas] == [0.4]
    assert not torch.equal(run(average.module, x), run(model, x))


@place
def test_half_precision(place: str) -> None:
    model, x = attached(place), image()
    y = run(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert differ(run(model, x), y) < 0.1 * float(y.abs().max())
    half = copy.deepcopy(model).half()
    assert {each.dtype for _, each in gt.block_parameters(half)} == {torch.float16}
    assert differ(run(half, x.half()), y) < 0.02 * float(y.abs().max())


@place
def test_fusing_keeps_the_block(place: str) -> None:
    model, x = attached(place), image()
    y = run(model, x)
    fused = copy.deepcopy(model).fuse()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.out.children())
    assert differ(run(fused, x), y) < 1e-4
    assert gt.attachments(fused) == gt.attachments(model)


@place
def test_every_block_gets_a_gradient_in_training(place: str) -> None:
    model, x = attached(place).train(), torch.cat([image(), image(2)])
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    assert all(float(each.grad.abs().max()) > 0 for name, each in gt.block_parameters(model) if name.endswith("alpha"))
    assert model.stem.conv.weight.grad is not None


def test_traced() -> None:
    model, x = attached(), image()
    with quiet():
        traced = torch.jit.trace(model, x, check_trace=False)
    assert torch.equal(run(traced, x), run(model, x))


def test_the_torchscript_exporter_writes_the_blocks_under_their_modules() -> None:
    model, x = attached().fuse(), image()
    stream = io.BytesIO()
    with quiet():
        torch.onnx.export(model, (x,), stream, dynamo=False, input_names=["x"])
    nodes = [node.name for node in onnx.load_from_string(stream.getvalue()).graph.node]
    assert [each for each in NAMES if not any(node.startswith(each) for node in nodes)] == []
    (found,) = onnxruntime.InferenceSession(stream.getvalue()).run(None, {"x": x.numpy()})
    assert np.abs(found - run(model, x).numpy()).max() < 1e-5


def test_torch_export_keeps_the_blocks() -> None:
    model, x = attached(), image()
    with quiet():
        program = torch.export.export(model, (x,), strict=False)
    assert torch.equal(run(program.module(), x), run(model, x))
    assert "c2f.se.block.fc1.weight" in program.state_dict


def test_compiled_after_attaching() -> None:
    torch._dynamo.reset()
    model, x = nn.Sequential(net().stem, net().down), torch.rand(1, 3, 8, 8)
    plain = run(model, x)
    gt.attach(model, [entry("se", "1", settings={"reduction": 4}), {"module": "eca", "before": "1"}], x)
    open_gates(model)
    with quiet():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert differ(run(compiled, x), run(model, x)) < 1e-5
        assert differ(run(compiled, x), plain) > 1e-4


@pytest.mark.long
def test_the_dynamo_exporter() -> None:
    model, x = attached(), image()
    with quiet():
        proto = torch.onnx.export(model, (x,), dynamo=True, verbose=False).model_proto
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.abs(found - run(model, x).numpy()).max() < 1e-5


def _train(rank: int, folder: str) -> None:
    """One of two processes, each with images of its own."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    model = attached("c2f", "conv").train()
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)  # of net
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        wrapped(image(10 * step + rank)).square().mean().backward()
        optimizer.step()
    torch.save(dict(model.named_parameters()), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_two_processes_stay_alike(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    start = dict(attached("c2f", "conv").named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["c2f.se.alpha"], start["c2f.se.alpha"])
