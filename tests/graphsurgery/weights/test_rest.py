"""Rest: the trained model is known in its exports, and any other model is told from it."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.weights import onnx_file
from graphsurgery.weights.rest import FLOAT16, LEAST, ROUNDINGS, Comparison, Rest
from graphsurgery.weights.sketch import Sketch
from tests.graphsurgery.torch.nets import Net, image, net

Arrays = Mapping[str, np.ndarray[Any, Any]]


def arrays_of(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value.detach().numpy() for key, value in model.state_dict().items()}


def rest_of(model: nn.Module, **more: Any) -> Rest:
    norms = {path: each.eps for path, each in model.named_modules() if isinstance(each, nn.BatchNorm2d)}
    return Rest.of(arrays_of(model), norms, **more)


@pytest.fixture(scope="module")
def stored() -> Rest:
    """Of a checkpoint in float16."""
    return rest_of(net().half())


def fused(model: nn.Module) -> Comparison:
    """The rest of the same network against a model whose BatchNorms are folded."""
    return rest_of(net().half()).compare(arrays_of(copy.deepcopy(model).eval().fuse()), {})  # type: ignore[operator]


def exported(model: nn.Module, **how: Any) -> ModelFile:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how.get("dynamo"):
            made = torch.onnx.export(model, (image(),), verbose=False, **how)
            assert made is not None
            made.save(stream)
        else:
            torch.onnx.export(model, (image().to(next(model.parameters()).dtype),), stream, opset_version=17, **how)
    return ModelFile.load(stream.getvalue())


# ---------------------------------------------------------------------- the same model

KINDS: dict[str, Callable[[], ModelFile]] = {
    "folded by the exporter": lambda: exported(net(), dynamo=False),
    "fused before": lambda: exported(net().fuse(), dynamo=False),
    "BatchNorms apart": lambda: exported(
        net(), dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False
    ),
    "half": lambda: exported(net().fuse().half(), dynamo=False),
    "from the checkpoint": lambda: exported(net().half().float(), dynamo=False),
    "dynamo": lambda: exported(net(), dynamo=True),
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.long if k == "dynamo" else ()) for k in KINDS])
def test_an_export_of_the_trained_model_is_known(stored: Rest, kind: str) -> None:
    file = onnx_file.of_model(KINDS[kind](), "base.onnx")
    found = stored.compare(file.arrays, file.epsilons)
    unused = {"unused.conv", "unused.bn"}
    assert found.differing == []
    assert found.compared == found.modules - len(unused)
    assert found.worst < 1.3 * FLOAT16
    assert found.share > 0.8


def test_what_the_checkpoint_has_in_float32_is_known_to_its_rounding() -> None:
    found = rest_of(net()).compare(arrays_of(net().fuse()), {})
    assert found.worst < 1e-6


def test_it_goes_through_json(stored: Rest) -> None:
    again = Rest.from_json(json.loads(json.dumps(stored.to_json())))
    arrays = arrays_of(net().fuse())
    assert again == stored
    assert again.compare(arrays, {}) == stored.compare(arrays, {})


# ---------------------------------------------------------------------- another model


def trained(steps: int, rate: float, *, norms: bool = True) -> nn.Module:
    """The network after some steps of training."""
    model = net().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not norms:
            module.eval()
    for step in range(steps):
        loss = ((model(torch.cat([image(2 * step), image(2 * step + 1)])) - 1) ** 2).mean()
        used = [each for name, each in model.named_parameters() if not name.startswith("unused")]
        with torch.no_grad():
            for each, gradient in zip(used, torch.autograd.grad(loss, used), strict=True):
                each -= rate * gradient
    return model


def statistics_alone() -> nn.Module:
    model = net().train()
    with torch.no_grad():
        model(torch.cat([image(), image(2)]))
    return model


def one_layer() -> nn.Module:
    model = net()
    with torch.no_grad():
        weight = model.down.conv.weight
        weight += 0.01 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return model


def one_mean() -> nn.Module:
    model = net()
    model.down.bn.running_mean += 0.01  # type: ignore[operator]
    return model


def one_bias() -> nn.Module:
    model = net()
    with torch.no_grad():
        assert model.head.box.bias is not None
        model.head.box.bias[1] += 0.01
    return model


@pytest.mark.parametrize(
    ("change", "first", "least"),
    [
        (lambda: trained(1, 1e-4), "stem.conv", 9),
        (lambda: trained(2, 0.1, norms=False), "", 1),
        (statistics_alone, "stem.conv", 9),
        (one_layer, "down.conv", 1),
        (one_mean, "down.conv", 1),
        (one_bias, "head.box", 1),
        (lambda: net(1), "stem.conv", 11),
    ],
    ids=["a step", "BatchNorms in evaluation", "statistics alone", "one layer", "one mean", "one bias", "another net"],
)
def test_a_model_that_was_trained_further_is_not(change: Callable[[], nn.Module], first: str, least: int) -> None:
    found = fused(change())
    assert len(found.differing) >= least
    assert found.differing[0] == first or not first
    if least == 1 and first:
        assert found.differing == [first]


def test_batch_norms_that_stand_alone_are_compared() -> None:
    model = net()
    model.down.bn.running_var *= 1.1  # type: ignore[operator]
    found = rest_of(net().half()).compare(arrays_of(model), {})
    assert found.differing == ["down.bn"]
    assert rest_of(net()).compare(arrays_of(net()), {"down.bn": 0.1}).differing == ["down.bn"]


def test_another_size_and_values_that_are_not_finite_differ(stored: Rest) -> None:
    arrays = arrays_of(net().fuse())
    arrays["down.conv.weight"] = np.zeros((4, 4), np.float32)
    arrays["out.conv.weight"] = arrays["out.conv.weight"] * np.float32("nan")
    found = stored.compare(arrays, {})
    assert found.differing == ["down.conv", "out.conv"]
    assert found.worst == float("inf")


# ---------------------------------------------------------------------- what cannot be compared


def test_modules_that_the_file_does_not_name_are_left_out(stored: Rest) -> None:
    arrays = {key: values for key, values in arrays_of(net().fuse()).items() if not key.startswith(("stem", "head"))}
    found = stored.compare(arrays, {})
    assert found.differing == []
    assert found.compared == found.modules - 4
    nothing = stored.compare({}, {})
    assert (nothing.compared, nothing.share, nothing.worst) == (0, 0.0, 0.0)
    assert nothing.share < LEAST


class Branches(nn.Module):
    """Two convolutions of one input, which are added: RepVGG before it is merged."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)


def test_merged_branches_are_no_difference() -> None:
    model = Branches()
    merged = nn.Conv2d(4, 4, 3, 1, 1)
    with torch.no_grad():
        merged.weight.copy_(model.large.weight + nn.functional.pad(model.small.weight, [1, 1, 1, 1]))
    arrays = {"large.weight": merged.weight.detach().numpy()}
    assert rest_of(model).compare(arrays, {}).distances == {}
    both = {**arrays, "small.weight": model.small.weight.detach().numpy()}
    assert rest_of(model).compare(both, {}).differing == ["large"]


def test_transposed_convolutions_linear_layers_and_attention() -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.up, model.norm = nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4)
    model.norm.running_mean.normal_()
    model.attention, model.scale = nn.MultiheadAttention(8, 2), nn.LayerNorm(8)
    rest = rest_of(model.half())
    arrays = arrays_of(model.float())
    scale = 1 / np.sqrt(arrays["norm.running_var"] + 1e-5)
    arrays["up.weight"] = arrays["up.weight"] * scale[None, :, None, None]
    arrays["up.bias"] = (arrays["up.bias"] - arrays["norm.running_mean"]) * scale
    for part in ("weight", "bias", "running_mean", "running_var"):
        del arrays[f"norm.{part}"]
    found = rest.compare(arrays, {})
    assert found.differing == []
    assert found.compared == found.modules == len(["up", "norm", "attention", "attention.out_proj", "scale"])
    arrays["attention.in_proj_weight"] = arrays["attention.in_proj_weight"][:16]
    assert rest.compare(arrays, {}).differing == []  # other products than the three
    arrays["scale.weight"] = arrays["scale.weight"] + np.float32(0.01)
    assert rest.compare(arrays, {}).differing == ["scale"]


def test_weights_that_float16_cannot_hold_are_left_out() -> None:
    model = net()
    model.down.bn.running_var[0] = 1e6  # type: ignore[index]
    rest = rest_of(copy.deepcopy(model).half())
    assert "down.bn" not in rest.modules
    assert rest.compare(arrays_of(model.fuse()), {}).differing == []


def test_a_checkpoint_in_bfloat16_is_known_to_its_own_rounding() -> None:
    from graphsurgery.weights.torch_file import as_array

    state = {key: as_array(value, key) for key, value in net().bfloat16().state_dict().items()}
    rest = Rest.of(state, dict.fromkeys(Net().state_dict(), 1e-05))
    found = rest.compare(arrays_of(net().fuse()), {})
    assert found.tolerance == ROUNDINGS * 2.0**-8
    assert found.differing == []
    assert found.worst > ROUNDINGS * FLOAT16 / 2
    assert rest.compare(arrays_of(statistics_alone().eval().fuse()), {}).differing != []  # type: ignore[operator]


# ---------------------------------------------------------------------- sketches


def test_the_distance_of_sketches_is_that_of_the_tensors() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(50):
        one, other = rng.standard_normal((2, 16, 8, 3, 3))
        true = np.linalg.norm(one - other) / np.linalg.norm(one)
        ratios.append(Sketch.of(one).distance(Sketch.of(other)) / true)
    assert 0.9 < np.mean(ratios) < 1.1
    assert min(ratios) > 0.5
    assert max(ratios) < 1.6


def test_a_sketch_is_the_same_on_every_machine() -> None:
    sketch = Sketch.of(np.arange(100.0))
    assert [round(each) for each in sketch.sums[:6]] == [-109, 241, -43, -93, -100, -86]
    large = np.ones((1 << 20) + 5, np.float32)  # more than are looked at in one go
    assert sum(Sketch.of(large).sums) == sum(Sketch.of(large[: 1 << 20]).sums) - 3


def test_a_tensor_of_zeros() -> None:
    zeros, ones = Sketch.of(np.zeros(4)), Sketch.of(np.ones(4))
    assert zeros.distance(zeros) == 0
    assert zeros.distance(ones) == float("inf")
