"""Folding in float64, and the way back from a model to a block's parameters."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import BatchNorm2d, Conv2d, Sequential

from graphsurgery.feature_map import FeatureMap
from graphsurgery.template import Template, weight_folding

Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    return np.random.default_rng([3, *shape]).normal(size=shape)


def batch_norm() -> dict[str, Array]:
    """Six channels, scales of either sign, variances from 0.2 to 3."""
    scale, shift, mean = normal(3, 6)
    variance = np.linspace(0.2, 3.0, 6)
    return {"bn.weight": scale, "bn.bias": shift, "bn.running_mean": mean, "bn.running_var": variance}


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_affine_is_an_evaluated_batch_norm(eps: float) -> None:
    values = batch_norm()
    module = BatchNorm2d(6, eps=eps).double().eval()
    state = {key.removeprefix("bn."): torch.from_numpy(value) for key, value in values.items()}
    module.load_state_dict(state, strict=False)
    scale, shift = weight_folding.affine(values.__getitem__, "bn", eps)
    assert scale.dtype == shift.dtype == np.float64
    x = normal(2, 6, 3, 4)
    expected = module(torch.from_numpy(x)).detach().numpy()
    shape = (1, 6, 1, 1)
    np.testing.assert_allclose(x * scale.reshape(shape) + shift.reshape(shape), expected, rtol=1e-13, atol=1e-14)


def test_affine_of_a_running_variance_of_0() -> None:
    """A channel that never varied: only the epsilon is left under the root."""
    values = {**batch_norm(), "bn.running_var": np.zeros(6)}
    scale, _ = weight_folding.affine(values.__getitem__, "bn", 1e-3)
    np.testing.assert_allclose(scale, values["bn.weight"] / np.sqrt(1e-3), rtol=1e-15)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_per_output_multiplies_the_first_axis(rank: int) -> None:
    scale, weight = np.arange(1.0, 7.0), np.ones((6, *[2] * (rank - 1)))
    product = weight * weight_folding.per_output(scale, rank)
    assert product.shape == weight.shape
    assert all((product[i] == scale[i]).all() for i in range(6))


def test_a_folded_convolution_is_convolution_and_batch_norm() -> None:
    values = {**batch_norm(), "conv.weight": normal(6, 1, 3, 3)}
    conv = Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False)
    conv.weight.data = torch.from_numpy(values["conv.weight"])
    norm = BatchNorm2d(6, eps=1e-3).double()
    norm.load_state_dict({k.removeprefix("bn."): torch.from_numpy(v) for k, v in values.items() if "bn" in k}, False)
    scale, shift = weight_folding.affine(values.__getitem__, "bn", 1e-3)
    weight = values["conv.weight"] * weight_folding.per_output(scale, 4)
    x = torch.from_numpy(normal(2, 6, 9, 10))
    expected = Sequential(conv, norm).double().eval()(x)
    folded = torch.nn.functional.conv2d(x, torch.from_numpy(weight), torch.from_numpy(shift), 2, 1, 1, 6)
    torch.testing.assert_close(folded, expected, rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------------- the way back


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 1, 3, 3)])
def test_what_is_kept_comes_back_to_the_bit(shape: tuple[int, ...], dtype: str) -> None:
    values = np.asarray(normal(*shape)).astype(dtype)
    stored = json.loads(json.dumps({"key": weight_folding.keep(values)}))
    found = weight_folding.read_back(stored, {"key": shape}, lambda name: pytest.fail(f"asked for {name}"))
    assert found["key"].dtype == np.float64
    np.testing.assert_array_equal(found["key"], values.astype(np.float64))


def test_what_is_kept_need_not_be_contiguous() -> None:
    values = normal(4, 6).astype(np.float32).T[::2]
    found = weight_folding.read_back({"key": weight_folding.keep(values)}, {"key": (3, 4)}, lambda name: np.zeros(0))
    np.testing.assert_array_equal(found["key"], values)


def test_a_parameter_that_stands_in_the_model_gets_its_own_shape_back() -> None:
    tensor = normal(3, 6).astype(np.float32)
    found = weight_folding.read_back(
        {"fc.weight": {"initializer": "w"}}, {"fc.weight": (3, 6, 1, 1)}, {"w": tensor}.__getitem__
    )
    np.testing.assert_array_equal(found["fc.weight"], tensor.reshape(3, 6, 1, 1))


@pytest.mark.parametrize("factor", [1.0, 400.0])
def test_a_folded_weight_is_divided_by_its_scale(factor: float) -> None:
    values = {**batch_norm(), "conv.weight": normal(6, 1, 5, 4)}
    scale, _ = weight_folding.affine(values.__getitem__, "bn", 1e-3)
    tensor = (values["conv.weight"] * weight_folding.per_output(scale * factor, 4)).reshape(1, 6, 5, 4)
    stored = {key: weight_folding.keep(value) for key, value in values.items() if key.startswith("bn")}
    # in front of what it is divided by, as in a record whose keys stand in the module's order
    stored = {
        "conv.weight": {"initializer": "w", "divided_by": "bn", "eps": 1e-3, "factor": factor},
        **stored,
    }
    shapes = {key: value.shape for key, value in values.items()}
    found = weight_folding.read_back(stored, shapes, {"w": tensor}.__getitem__)
    assert list(found) == list(values)
    for key, value in values.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-14, err_msg=key)


def test_a_channel_whose_scale_is_0_gives_zeros_and_no_warning() -> None:
    values = {**batch_norm(), "conv.weight": normal(6, 1, 3, 3)}
    values["bn.weight"][4] = 0.0
    scale, _ = weight_folding.affine(values.__getitem__, "bn", 1e-5)
    stored = {key: weight_folding.keep(value) for key, value in values.items() if key.startswith("bn")}
    stored["conv.weight"] = {"initializer": "w", "divided_by": "bn", "eps": 1e-5, "factor": 1.0}
    tensor = values["conv.weight"] * weight_folding.per_output(scale, 4)
    with np.errstate(all="raise"):
        found = weight_folding.read_back(stored, {k: v.shape for k, v in values.items()}, {"w": tensor}.__getitem__)
    assert not found["conv.weight"][4].any()
    np.testing.assert_allclose(
        np.delete(found["conv.weight"], 4, 0), np.delete(values["conv.weight"], 4, 0), rtol=1e-14
    )


def test_a_parameter_that_was_never_stored_is_missed_by_name() -> None:
    with pytest.raises(KeyError, match="fc2"):
        weight_folding.read_back(
            {"fc1": weight_folding.keep(np.zeros(2))}, {"fc1": (2,), "fc2": (2,)}, lambda name: np.zeros(0)
        )


# ---------------------------------------------------------------------- what a template keeps


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float64", "<f8"), ("float32", "<f4"), ("float16", "<f4"), ("bfloat16", "<f4")]
)
def test_a_template_keeps_the_values_of_its_type(dtype: str, kind: str) -> None:
    """A third is another number in each type: kept in a narrower one it would come back changed."""
    feature = FeatureMap(4, 5, 6, dtype, 1)
    thirds = np.array([1 / 3, 1 + 1e-12, -2 / 3])
    t = Template(feature, opset=17, weights={"w": thirds})
    rounded = t.kept("w")
    stored = t.export(t.relu(t.x), ir_version=8).stored
    assert stored["w"]["dtype"] == kind
    np.testing.assert_array_equal(rounded, thirds.astype(feature.numpy_dtype).astype(np.float64))
    found = weight_folding.read_back(stored, {"w": (3,)}, lambda name: pytest.fail(f"asked for {name}"))
    np.testing.assert_array_equal(found["w"], rounded)


def test_rows_in_several_tensors_are_joined() -> None:
    """Transposed, multiplied, out of order, with a BatchNorm over all of them."""
    values = {**batch_norm(), "fc.weight": normal(6, 5)}
    t = Template(FeatureMap(6, 5, 6, "float64", 1), opset=17, weights=values)
    parts = [([0, 1, 4], 2.0, True), ([5, 2, 3], 1.0, False)]
    tensors = {}
    for rows, factor, transposed in parts:
        tensor = t.rows("fc.weight", rows, factor=factor, transposed=transposed, bn="bn", eps=1e-3)
        tensors[tensor.name] = tensor.values
    stored = t.export(t.relu(t.x), ir_version=8).stored
    assert [part["rows"] for part in stored["fc.weight"]["parts"]] == [[[0, 2], [4, 5]], [[5, 6], [2, 4]]]
    stored |= {key: weight_folding.keep(value) for key, value in values.items() if key.startswith("bn")}
    shapes = {key: value.shape for key, value in values.items()}
    found = weight_folding.read_back(stored, shapes, tensors.__getitem__)
    np.testing.assert_allclose(found["fc.weight"], values["fc.weight"], rtol=1e-14)
