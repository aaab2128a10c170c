"""The calibrated start in a file: what comes behind a block meets the means and deviations that it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphsurgery as gsx
from graphsurgery.blocks.calibration import Moments
from graphsurgery.errors import (
    BlockError,
    CannotRun,
    GraphSurgeryWarning,
    InsertionError,
    RecipeError,
    RequestError,
    WeightsError,
)
from graphsurgery.insertion.activations import activations
from graphsurgery.insertion.removal import same_bytes
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.record import KEY
from tests import models, optimisers
from tests.quantised import fork, half_quantised, quantised
from tests.test_every_site import catalogue

SCALE, SHIFT = "calibration.scale", "calibration.shift"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of 32 x 32, as arrays in the model's own scale."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(7)
    for number in range(4):
        np.save(folder / f"{number}.npy", rng.random((3, 32, 32), np.float32))
    return folder


def detector(**how: Any) -> ModelFile:
    return ModelFile.load(models.detector(**how).SerializeToString())


def entry(module: str, images: Path, **keys: Any) -> dict[str, Any]:
    settings = {"settings": {"reduction": 2}} if module in ("se", "cbam") else {}
    return {"module": module, "init": "calibrated", "images": str(images), **settings, **keys}


def calibrated(model: ModelFile, images: Path, module: str = "se", **keys: Any) -> ModelFile:
    """Insert one block, and prove that it agrees with PyTorch and can be undone to the byte."""
    keys = {"after": "/model.2"} | keys
    return proven(gsx.Recipe.of([entry(module, images, **keys)]).apply(model), model)


def proven(edited: ModelFile, model: ModelFile) -> ModelFile:
    report = gsx.verify(edited, original=model, providers=["cpu"], seeds=1)
    assert report.passed, report.lines()
    assert same_bytes(gsx.remove(edited), model)
    return edited


def moments(model: ModelFile, tensors: list[str], images: Path, kind: int = onnx.TensorProto.FLOAT) -> list[Moments]:
    """Of each tensor, over all images."""
    run = activations(model, [(name, kind) for name in tensors], images)
    assert not run.failure
    found = [Moments() for _ in tensors]
    for _, values in run.images:
        for name, each in zip(tensors, found, strict=True):
            each.add(Moments.of(values[name]))
    return found


def apart(one: Moments, other: Moments) -> float:
    """How far two are apart in mean or deviation, relative to the deviation of the widest channel."""
    size = float(other.deviation.max())
    return float(max(np.abs(one.mean - other.mean).max(), np.abs(one.deviation - other.deviation).max())) / size


RECIPE = [
    {"module": "se", "after": "/model.3"},
    {"module": "simam", "after": "/model.0"},
    {"module": "cbam", "after": "/model.1"},
    {"module": "se", "after": "/model.1"},
    {"module": "nam", "before": "/model.3/m"},
]
"""not in the order of the model; two blocks in a row at /model.1"""


def test_every_channel_has_its_mean_and_deviation_back(images: Path) -> None:
    model = detector()
    edited = proven(gsx.Recipe.of([entry(images=images, **each) for each in RECIPE]).apply(model), model)
    fresh = gsx.Recipe.of([{**entry(images=images, **each), "init": "default"} for each in RECIPE]).apply(model)
    sites = {"model.0.simam": "/model.0", "model.3.m.nam": "/model.2", "model.3.se": "/model.3"}
    sites |= {"model.1.cbam": "/model.1", "model.1.se": "/model.1"}
    inserted = edited.insertions()
    before = moments(model, [gsx.sites(model, sites[each.id])[0].tensor for each in inserted], images)
    found = moments(edited, [each.output_tensor for each in inserted], images)
    without = moments(fresh, [each.output_tensor for each in fresh.insertions()], images)
    for one, other, expected in zip(found, without, before, strict=True):
        assert apart(one, expected) < 1e-5
        assert apart(other, expected) > 0.05
    assert [each.init for each in inserted] == ["calibrated"] * 5


def test_the_scale_and_the_shift_are_weights_of_the_insertion(images: Path) -> None:
    edited = calibrated(detector(), images)
    (inserted,) = edited.insertions()
    weights = inserted.weights(edited)
    assert weights[SCALE].shape == weights[SHIFT].shape == (16,)
    assert not np.allclose(weights[SCALE], 1, atol=0.1)
    assert inserted.parameters == sum(each.size for each in weights.values())
    state = inserted.torch_module(edited).state_dict()
    assert np.array_equal(state["scale"].numpy(), weights[SCALE])
    assert np.array_equal(state["block.fc1.weight"].numpy(), weights["fc1.weight"])
    assert [node.op_type for node in edited.structure.graph.node if node.name in inserted.nodes][-1] == (
        "BatchNormalization"
    )


def test_verify_sees_a_calibration_that_is_not_what_its_constants_say(images: Path) -> None:
    edited = calibrated(detector(), images)
    proto = edited.proto()
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("calibration.running_var"):
            tensor.CopyFrom(numpy_helper.from_array(np.full(16, 1.001, np.float32), tensor.name))
    assert not gsx.verify(proto, providers=["cpu"], seeds=1).passed


def test_behind_a_gate_the_output_stays_and_the_block_is_calibrated_all_the_same(images: Path) -> None:
    model = detector()
    edited = calibrated(model, images, gate="residual")
    plain = calibrated(model, images)
    (gated,), (bare,) = edited.insertions(), plain.insertions()
    found, expected = gated.weights(edited), bare.weights(plain)
    assert found.keys() == expected.keys() | {"alpha"}
    assert all(np.allclose(found[key], expected[key], rtol=1e-6, atol=1e-6) for key in expected)
    for a, b in zip(models.run(edited.to_bytes(), size=32), models.run(model.to_bytes(), size=32), strict=True):
        assert np.array_equal(a, b)


def test_a_later_place_is_calibrated_on_what_the_earlier_ones_give(images: Path) -> None:
    """Alone it gets another scale than behind another block, which keeps mean and deviation and not more."""
    model = detector()
    alone = calibrated(model, images, after="/model.3")
    both = gsx.Recipe.of([entry(images=images, **each) for each in RECIPE[:3]]).apply(model)
    one, other = (
        next(each for each in edited.insertions() if each.id == "model.3.se").weights(edited)
        for edited in (alone, both)
    )
    assert not np.allclose(one[SCALE], other[SCALE], rtol=1e-3)


def test_a_channel_that_is_constant_keeps_its_scale(images: Path) -> None:
    proto = models.detector()
    for tensor in proto.graph.initializer:
        if tensor.name in ("model.2.conv.weight", "model.2.conv.bias"):
            values = numpy_helper.to_array(tensor).copy()
            values[3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    edited = calibrated(ModelFile.load(proto.SerializeToString()), images)
    weights = edited.insertions()[0].weights(edited)
    assert np.allclose(weights[SCALE][3], 1, rtol=1e-6)
    assert all(np.isfinite(each).all() for each in weights.values())


def test_a_block_that_leaves_nothing_of_a_map_is_told(images: Path, tmp_path: Path) -> None:
    x, y = models.value("x", ("N", 16, "H", "W")), models.value("y", ("N", 16, "H", "W"))
    zero = numpy_helper.from_array(np.zeros((1, 16, 1, 1), np.float32), "g")
    onnx.save(models.model([models.node("Mul", ["x", "g"], ["y"])], [x], [y], [zero]), tmp_path / "zero.onnx")
    with pytest.warns(GraphSurgeryWarning, match=r"model\.2\.zero: on the images, 16 of the block's 16 channels say"):
        gsx.insert(detector(), str(tmp_path / "zero.onnx"), after="/model.2", init="calibrated", images=images)


@pytest.mark.parametrize(
    "how",
    [
        {"dtype": np.float16},
        {"dtype": np.float16, "precision": "site"},
        {"dtype": np.float16, "precision": "fp32"},
        {"precision": "fp16"},
        {"opset": 9, "ir_version": 3},
        {"opset": 21, "ir_version": 10},
        {"style": "dynamo"},
        {"target": "dla"},
    ],
    ids=str,
)
def test_types_opsets_and_targets(how: dict[str, Any], images: Path) -> None:
    keys = {key: how.pop(key) for key in ("precision", "target") if key in how}
    model = detector(**how)
    edited = calibrated(model, images, after="/model.2" if "style" not in how else "model.2", **keys)
    (inserted,) = edited.insertions()
    kind = onnx.TensorProto.FLOAT16 if how.get("dtype") is np.float16 else onnx.TensorProto.FLOAT
    (after,) = moments(edited, [inserted.output_tensor], images, kind)
    (before,) = moments(model, [inserted.site.tensor], images, kind)
    assert apart(after, before) < (2e-3 if how.get("dtype") is np.float16 or keys.get("precision") == "fp16" else 1e-5)


def test_dynamic_sizes_and_pictures(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    pillow.fromarray(pixels).resize((80, 60)).save(folder / "0.png")
    model = detector(image=("N", 3, "H", "W"))
    edited = calibrated(model, folder)
    (inserted,) = edited.insertions()
    (after,), (before,) = (
        moments(edited, [inserted.output_tensor], folder),
        moments(model, [inserted.site.tensor], folder),
    )
    assert apart(after, before) < 1e-5


@pytest.mark.parametrize("keys", [{}, {"qdq": "int8"}, {"qdq": "int8", "qdq_scale": "images"}], ids=str)
def test_quantised_models(keys: dict[str, str], images: Path) -> None:
    """The block's own output, in front of the pair, has the moments of the site; the pair moves it by its steps."""
    model = ModelFile.load(quantised(fork(), "uint8"))
    edited = proven(gsx.Recipe.of([entry("se", images, after=["model.0", "model.1"], **keys)]).apply(model), model)
    inserted = edited.insertions()
    after = moments(edited, [each.block_output for each in inserted], images)
    before = moments(model, [gsx.sites(model, each.site.path)[0].tensor for each in inserted], images)
    assert apart(after[0], before[0]) < 1e-5
    assert apart(after[1], before[1]) < (2e-2 if "qdq_scale" in keys else 1e-5)


def test_half_precision_scales_of_a_pair(images: Path) -> None:
    model = ModelFile.load(half_quantised(19))
    proven(gsx.Recipe.of([entry("se", images, after="model.1", qdq="int8")]).apply(model), model)


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(images: Path) -> None:
    one, other, third = (
        gsx.insert(
            detector(), "se", after="/model.2", settings={"reduction": 2}, seed=seed, init="calibrated", images=images
        )
        for seed in (0, 0, 1)
    )
    assert one.to_bytes() == other.to_bytes() != third.to_bytes()


def test_at_the_input_and_at_an_output(images: Path) -> None:
    model = detector()
    calibrated(model, images, "simam", after=None, before="/model.0")
    edited = calibrated(model, images, after="tensor:boxes")
    (after,), (before,) = moments(edited, ["boxes"], images), moments(model, ["boxes"], images)
    assert apart(after, before) < 1e-5


@pytest.mark.parametrize("tool", optimisers.MOST)
def test_optimisers_that_let_blocks_share_constants(tool: str, images: Path, tmp_path: Path) -> None:
    """Two calibrations have the same means and variances of BatchNormalization."""
    edited = gsx.Recipe.of([entry("se", images, after=["/model.2", "/model.3"])]).apply(detector())
    edited.save(tmp_path / "calibrated.onnx")
    optimised = ModelFile.load(optimisers.optimised(tool, tmp_path / "calibrated.onnx"))
    assert gsx.verify(optimised, providers=["cpu"], seeds=1, ignore_rest=True).passed
    found = {each.id: each.weights(optimised) for each in optimised.insertions()}
    for each in edited.insertions():
        assert all(np.array_equal(found[each.id][key], values) for key, values in each.weights(edited).items())


@pytest.mark.long
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block", catalogue())
def test_every_block_of_the_catalogue(block: str, dtype: Any, images: Path) -> None:
    """A scale makes the errors of a block larger, too."""
    nodes = [
        models.node("Conv", ["images", "w"], ["/model.0/conv/Conv_output_0"], "/model.0/conv/Conv", strides=[2, 2]),
        models.node("Relu", ["/model.0/conv/Conv_output_0"], ["/model.0/act/Relu_output_0"], "/model.0/act/Relu"),
        models.node("Conv", ["/model.0/act/Relu_output_0", "v"], ["y"], "/model.1/conv/Conv"),
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = models.value("images", (1, 3, 32, 32), kind), models.value("y", (1, 4, 16, 16), kind)
    weights = [models.weight("w", (128, 3, 2, 2), dtype), models.weight("v", (4, 128, 1, 1), dtype)]
    model = ModelFile.load(models.model(nodes, ends[:1], ends[1:], weights).SerializeToString())
    proven(gsx.insert(model, block, after="/model.0", init="calibrated", images=images), model)


# ---------------------------------------------------------------------- records, and weights out of them


def test_records_of_calibrated_blocks_have_a_format_of_their_own(images: Path) -> None:
    """A graphsurgery from before would compare the block without what stands behind it, and say that it is wrong."""
    model = detector()
    recipe = [entry("se", images, after="/model.2"), {"module": "simam", "after": "/model.1"}]
    edited = gsx.Recipe.of(recipe).apply(model)
    formats = {
        each.key: json.loads(each.value)["format"] for each in edited.proto().metadata_props if each.key.startswith(KEY)
    }
    assert formats == {f"{KEY}model.2.se": 2, f"{KEY}model.1.simam": 1}
    proto = edited.proto()
    for each in proto.metadata_props:
        if each.key == f"{KEY}model.2.se":
            each.value = json.dumps({**json.loads(each.value), "format": 4})
    with pytest.raises(InsertionError, match="later version"):
        ModelFile.load(proto.SerializeToString()).insertions()


def test_lost_records_are_adopted_with_the_calibration_of_the_file(images: Path) -> None:
    model = detector()
    recipe = gsx.Recipe.of([entry("se", images, after=["/model.1", "/model.2"])])
    edited = recipe.apply(model)
    proto = edited.proto()
    del proto.metadata_props[:]
    adopted = gsx.adopt(proto, recipe)
    assert [each.init for each in adopted.insertions()] == ["calibrated"] * 2
    assert adopted.insertions()[0].weights(adopted).keys() == edited.insertions()[0].weights(edited).keys()
    assert gsx.verify(adopted, providers=["cpu"], seeds=1).passed


@pytest.mark.parametrize("gate", ["none", "residual"])
@pytest.mark.parametrize("module", ["se", "simam"])
def test_weights_of_a_calibrated_block_bring_their_calibration_along(
    module: str, gate: str, images: Path, tmp_path: Path
) -> None:
    model = detector()
    first = calibrated(model, images, module, gate=gate)
    (inserted,) = first.insertions()
    first.save(tmp_path / "calibrated.onnx")
    given = f"{tmp_path / 'calibrated.onnx'}:{inserted.id}"
    second = gsx.insert(model, module, after="/model.2", gate=gate, weights=given)
    (again,) = proven(second, model).insertions()
    assert again.init == "weights"
    expected, found = inserted.weights(first), again.weights(second)
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[key], expected[key], rtol=1e-6) for key in expected)


def test_weights_for_other_channels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"b.scale": np.ones(4, np.float32), "b.shift": np.zeros(4, np.float32)})
    with pytest.raises(WeightsError, match=r"scale in w\.npz:b has the shape \[4\]; .*model\.2 has 16 channels"):
        gsx.insert(detector(), "simam", after="/model.2", weights=f"{tmp_path / 'w.npz'}:b")
    np.savez(tmp_path / "o.npz", **{"b.other": np.ones(4, np.float32)})
    for prefix in ("b", "c"):
        with pytest.raises(BlockError, match="simam has no weights; drop weights="):
            gsx.insert(detector(), "simam", after="/model.2", weights=f"{tmp_path / 'o.npz'}:{prefix}")


# ---------------------------------------------------------------------- what is refused


def test_bad_input(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    for folder, message in (
        ("none", "does not exist"),
        ("empty", "has no images"),
        ("bad", "cannot be read as an image"),
    ):
        with pytest.raises(RequestError, match=message) as raised:
            gsx.Recipe.of([entry("se", tmp_path / folder, after="/model.2")]).apply(detector())
        assert str(raised.value).startswith("entry 1 of the recipe: ")
    with pytest.raises(RecipeError, match="say which images the block is calibrated on: images: DIR"):
        gsx.Recipe.of([{"module": "se", "after": "/model.2", "init": "calibrated"}])
    with pytest.raises(RecipeError, match="not from both: drop init or weights"):
        gsx.Recipe.of([entry("se", images, after="/model.2", weights="w.npz")])


def test_values_that_are_not_finite(images: Path) -> None:
    np.save(images / "9.npy", np.full((3, 32, 32), 3e38, np.float32))  # whose sums overflow
    with pytest.raises(RequestError, match=r"model\.2\.se gives values on the images that are not finite"):
        gsx.insert(detector(), "se", after="/model.2", settings={"reduction": 2}, init="calibrated", images=images)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float64], ids=["bfloat16", "float64"])
def test_a_model_that_does_not_run_here(dtype: Any, images: Path) -> None:
    with pytest.raises(CannotRun, match="the model does not run here, so that there is nothing to calibrate on: "):
        gsx.insert(
            detector(dtype=dtype), "se", after="/model.2", settings={"reduction": 2}, init="calibrated", images=images
        )
