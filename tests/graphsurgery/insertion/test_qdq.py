"""qdq="int8": QuantizeLinear and DequantizeLinear after a block."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import graphsurgery
from graphsurgery.api import carry_out
from graphsurgery.errors import CannotRun, GraphSurgeryWarning, RecipeError, RequestError, SiteError
from graphsurgery.graph.quantisation import dequantiser
from graphsurgery.insertion import removal
from graphsurgery.insertion.qdq import Pair
from graphsurgery.insertion.splice import AppliedInsertion
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recipe import Recipe
from graphsurgery.request import Request
from graphsurgery.selection.sites import SiteFinder
from graphsurgery.tensorrt import findings
from graphsurgery.tensorrt.precision import inserted_types
from graphsurgery.verification import Mode, Verdict, verify
from tests import models
from tests.exports import export
from tests.exports.derive import unfit
from tests.quantised import (
    SITE,
    fork,
    half_quantised,
    images,
    maker,
    quantised,
    reading,
    run,
    se,
)

READER = "/model.2/conv/Conv"
INTEGERS = ("uint8", "int8", "symmetric", "int16", "uint16", "int16 of com.microsoft")


@cache
def small(kind: str) -> ModelFile:
    return ModelFile.load(quantised(fork(), kind))


def insert(before: ModelFile, *requests: Request) -> tuple[ModelFile, list[AppliedInsertion]]:
    """Insert, and prove that the result is valid, agrees with PyTorch, and can be undone byte for byte."""
    after, done = carry_out(before, list(requests))
    report = verify(after, original=before, seeds=1)
    assert report.passed, report.lines()
    assert removal.same_bytes(removal.remove(after), before)
    return after, done


def through(model: ModelFile, tensor: str) -> tuple[str, NDArray[Any], NDArray[Any], str]:
    """What a tensor is quantised and dequantised from, the scale and the zero point, and the operators' domain."""
    back = maker(model, tensor)
    there = maker(model, back.input[0])
    assert (back.op_type, there.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert list(back.input[1:]) == list(there.input[1:])
    assert back.domain == there.domain
    return there.input[0], model.tensor(back.input[1]), model.tensor(back.input[2]), back.domain


# ---------------------------------------------------------------------- types of integers


@pytest.mark.parametrize("kind", INTEGERS)
def test_readers_keep_their_quantised_input(kind: str) -> None:
    before = small(kind)
    site = SITE + "_DequantizeLinear_Output"

    after, (done,) = insert(before, se("model.1", qdq="int8"))

    insertion = done.insertion
    assert insertion.site.tensor == site
    assert reading(after, READER).input[0] == insertion.output_tensor
    inner, scale, zero_point, domain = through(after, insertion.output_tensor)
    assert insertion.qdq is not None
    assert inner == insertion.qdq.tensor == insertion.block_output
    _, own_scale, own_zero_point, own_domain = through(before, site)
    assert (scale, zero_point, domain) == (own_scale, own_zero_point, own_domain)
    assert insertion.qdq.type == zero_point.dtype.name == own_zero_point.dtype.name
    given, seen = run(after, images(1)[0], inner, insertion.output_tensor)
    assert 0 < np.abs(given - seen).max() <= 0.5001 * scale
    assert done.warnings == ()


@pytest.mark.parametrize("kind", ["symmetric", "uint8"])
def test_without_a_pair_the_readers_become_float_and_that_is_said(kind: str) -> None:
    after, (done,) = insert(small(kind), se("model.1"))

    assert maker(after, reading(after, READER).input[0]).op_type == "Mul"
    assert done.insertion.qdq is None
    (warning,) = done.warnings
    assert f"{READER}, /model.3/Concat had a quantised input" in warning
    assert told(done, "qdq='int8'")


def test_nothing_is_advised_that_would_be_refused() -> None:
    """FP8 pairs, as NVIDIA's tools write them: the block goes there, and what to do comes from what can be done."""
    shape = (1, 8, 16, 16)
    zero = numpy_helper.from_array(np.array(0, ml_dtypes.float8_e4m3fn), "z")
    scale, weight = np.array(0.1, np.float32), np.ones((8, 8, 1, 1), np.float32)
    nodes = [
        models.node("Conv", ["x", "w"], ["c"], "/model.0/Conv"),
        models.node("QuantizeLinear", ["c", "s", "z"], ["q"], "/model.0/Q"),
        models.node("DequantizeLinear", ["q", "s", "z"], ["d"], "/model.0/DQ"),
        models.node("Conv", ["d", "w"], ["y"], "/model.1/Conv"),
    ]
    constants = [zero, numpy_helper.from_array(scale, "s"), numpy_helper.from_array(weight, "w")]
    before = ModelFile.load(
        models.model(nodes, [models.value("x", shape)], [models.value("y", shape)], constants, opset=19)
    )
    _, (done,) = carry_out(before, [se("model.0")])
    assert done.insertion.site.tensor == "d"
    (warning,) = done.warnings
    assert "/model.1/Conv had a quantised input" in warning
    assert "is held in float8_e4m3fn" in warning
    assert not told(done, "qdq='int8'")
    with pytest.raises(SiteError, match="float8_e4m3fn"):
        carry_out(before, [se("model.0", qdq="int8")])


def test_onnxruntime_computes_the_readers_in_integers_as_before(tmp_path: Path) -> None:
    before = small("uint8")
    after, _ = carry_out(before, [se("model.1", qdq="int8")])
    bare, _ = carry_out(before, [se("model.1")])

    def operators(model: ModelFile) -> dict[str, str]:
        """The model's own nodes that onnxruntime runs -> their operators."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(model.to_bytes(), options, providers=["CPUExecutionProvider"])
        kept = onnx.load(tmp_path / "optimised.onnx").graph.node
        return {node.name: node.op_type for node in kept if "Linear" not in node.name and "/se/" not in node.name}

    assert operators(before)[READER] == "QLinearConv"
    assert operators(after) == operators(before)
    changed = {name for name, operator in operators(bare).items() if operators(before).get(name) != operator}
    assert changed == {READER, "/model.3/Concat"}


def test_a_pair_behind_each_of_several_blocks() -> None:
    before = small("symmetric")

    after, done = insert(before, se("model.1", qdq="int8"), Request("simam", after=("model.1",), qdq="int8"))

    first, second = (each.insertion for each in done)
    assert second.site.tensor == first.output_tensor
    assert through(after, second.output_tensor)[0] == second.block_output
    for name in (first.id, second.id):  # each has scales of its own, so either can go alone
        left = removal.remove(after, [name])
        run(left, images(1)[0])
        assert verify(left, original=before, seeds=1).passed
        assert removal.same_bytes(removal.remove(left), before)


def test_a_later_block_goes_behind_the_pair_and_outlives_it() -> None:
    before = small("symmetric")
    once = graphsurgery.insert(before, "se", after="model.1", settings={"reduction": 2}, qdq="int8")

    twice, (done,) = carry_out(once, [Request("simam", after=("model.1",), qdq="int8")])

    assert done.insertion.site.tensor == once.insertions()[0].output_tensor
    left = removal.remove(twice, [once.insertions()[0].id])
    run(left, images(1)[0])
    assert verify(left, original=before, seeds=1).passed
    assert removal.same_bytes(removal.remove(twice, [done.insertion.id]), once)


@pytest.mark.parametrize(
    ("opset", "operators"), [(17, ["Cast", "QuantizeLinear", "DequantizeLinear", "Cast"]), (19, 2)]
)
def test_half_precision_models(opset: int, operators: list[str] | int) -> None:
    before = ModelFile.load(half_quantised(opset))

    after, (done,) = carry_out(before, [se("model.1", qdq="int8")])

    pair = done.insertion.qdq
    assert done.insertion.site.dtype == "float16"
    assert pair is not None
    made = [reading(after, name).op_type for name in pair.nodes]
    assert made == operators if isinstance(operators, list) else len(made) == operators
    assert verify(after, original=before, seeds=1).passed
    (output,) = run(after, images(1)[0].astype(np.float16))
    assert output.dtype == np.float16
    assert removal.same_bytes(removal.remove(after), before)


def test_a_quantised_output_of_the_model_keeps_its_name() -> None:
    proto = onnx.ModelProto.FromString(small("symmetric").to_bytes())
    proto.graph.output.append(helper.make_tensor_value_info(SITE + "_DequantizeLinear_Output", 1, (1, 8, 16, 16)))
    before = ModelFile.load(proto)

    after, (done,) = insert(before, se("model.1", qdq="int8"))

    assert done.insertion.output_tensor == SITE + "_DequantizeLinear_Output"
    assert through(after, done.insertion.output_tensor)[0] == done.insertion.block_output


# ---------------------------------------------------------------------- what the scale is


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images as arrays."""
    where = tmp_path / "images"
    where.mkdir()
    for number, image in enumerate(images(3)):
        np.save(where / f"{number}.npy", image)
    return where


def told(done: AppliedInsertion, text: str) -> bool:
    return any(text in str(GraphSurgeryWarning(warning)) for warning in done.warnings)


def test_what_can_exceed_its_input_is_said_to_be_clipped() -> None:
    bounded = ["se", "simam", "eca", "cbam", "nam"]
    for module in bounded:
        settings = {"reduction": 2} if module in ("se", "cbam") else {}
        _, (done,) = carry_out(small("symmetric"), [Request(module, after=("model.1",), settings=settings, qdq="int8")])
        assert not told(done, "clipped"), module

    _, (done,) = carry_out(small("symmetric"), [Request("lsk", after=("model.1",), gate="residual", qdq="int8")])
    assert told(done, "clipped")
    assert told(done, "qdq_scale='images'")


@pytest.mark.parametrize("kind", ["symmetric", "uint8", "int16"])
def test_scale_from_images_is_that_of_what_the_block_gives(kind: str, folder: Path) -> None:
    before = small(kind)

    after, (done,) = insert(before, se("model.1", qdq="int8", qdq_scale="images", images=str(folder)))

    inner, scale, zero_point, _ = through(after, done.insertion.output_tensor)
    values = np.stack([run(after, image, inner)[0] for image in images(3)]).astype(np.float64)
    low, high = min(values.min(), 0), max(values.max(), 0)
    limits = np.iinfo(zero_point.dtype)
    if kind == "symmetric":
        assert int(zero_point) == 0
        assert scale == pytest.approx(max(-low, high) / 127, rel=1e-4)
    else:
        assert scale == pytest.approx((high - low) / (int(limits.max) - int(limits.min)), rel=1e-4)
        assert (limits.min - int(zero_point)) * scale == pytest.approx(low, abs=float(scale))
    assert done.insertion.qdq is not None
    assert done.insertion.qdq.scale_from == "images"
    site_scale = through(before, SITE + "_DequantizeLinear_Output")[1]
    assert scale < 0.9 * site_scale  # the gate makes the values smaller, so the steps can be finer


def test_zeros_leave_the_scale_of_the_site() -> None:
    own = Pair(np.asarray(0.5, np.float16), np.asarray(3, np.uint8))

    assert own.fitted(0, 0).scale == own.fitted(0, 1e-6).scale == own.scale
    assert own.fitted(-1.0, 1.55).range == pytest.approx((-1.0, 1.55), abs=0.01)
    with pytest.raises(CannotRun, match="not finite"):
        own.fitted(0.0, float("inf"))


def test_scales_from_images_of_several_blocks_at_once(folder: Path) -> None:
    both = [
        Request("simam", after=("model.0", "model.1"), qdq="int8", qdq_scale="images", images=str(folder)),
        se("model.1", qdq="int8"),
    ]

    after, done = insert(small("symmetric"), *both)

    assert [each.insertion.qdq and each.insertion.qdq.scale_from for each in done].count("images") == 2
    for each in done[:2]:
        scale = through(after, each.insertion.output_tensor)[1]
        values = run(after, images(1)[0], each.insertion.block_output)[0]
        assert 0.5 < np.abs(values).max() / (127 * scale) < 1.1


# ---------------------------------------------------------------------- what cannot be done


def test_float_places_are_refused() -> None:
    for model in (ModelFile.load(fork()), small("dynamic")):
        with pytest.raises(SiteError, match=r"model\.1 has no scale .*leave out qdq= there"):
            carry_out(model, [se("model.1", qdq="int8")])


def test_in_front_of_the_pairs_of_its_readers_a_block_needs_none() -> None:
    _, (done,) = insert(small("dedicated"), se("model.1", qdq="int8"))

    assert done.insertion.qdq is None
    assert told(done, "qdq= adds nothing here")


def test_a_scale_that_is_computed_is_refused() -> None:
    proto = onnx.ModelProto.FromString(small("symmetric").to_bytes())
    back = next(node for node in proto.graph.node if node.output[0] == SITE + "_DequantizeLinear_Output")
    proto.graph.node.insert(0, helper.make_node("Abs", [back.input[1]], ["computed"], name="abs"))
    back.input[1] = "computed"

    with pytest.raises(SiteError, match=r"scale of model\.1 is computed"):
        carry_out(ModelFile.load(proto), [se("model.1", qdq="int8")])


def per_channel() -> ModelFile:
    proto = onnx.ModelProto.FromString(small("symmetric").to_bytes())
    for node in proto.graph.node:
        if node.name.startswith(SITE):
            node.input[1], node.input[2] = "scales", "zeros"
            node.attribute.append(helper.make_attribute("axis", 1))
    scales = np.linspace(0.01, 0.05, 8, dtype=np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int8), "zeros"))
    return ModelFile.load(proto)


def test_scales_by_channel_are_used_and_not_measured(folder: Path) -> None:
    after, (done,) = insert(per_channel(), se("model.1", qdq="int8"))
    assert through(after, done.insertion.output_tensor)[1].shape == (8,)

    with pytest.raises(SiteError, match="a scale for each channel"):
        carry_out(per_channel(), [se("model.1", qdq="int8", qdq_scale="images", images=str(folder))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qdq": "int4"}, "there is no qdq 'int4'"),
        ({"qdq": "int8", "qdq_scale": "max"}, "there is no qdq scale 'max'"),
        ({"qdq_scale": "images", "images": "x"}, "give qdq='int8' with it"),
        ({"qdq": "int8", "qdq_scale": "images"}, "images=DIR"),
        ({"qdq": "int8", "qdq_scale": "images", "images": "nowhere"}, "image folder nowhere does not exist"),
    ],
)
def test_wrong_requests(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        graphsurgery.insert(small("symmetric"), "simam", after="model.1", **arguments)


# ---------------------------------------------------------------------- what parity sees


def broken(change: Callable[[onnx.ModelProto], None]) -> ModelFile:
    after, _ = carry_out(small("uint8"), [se("model.1", qdq="int8")])
    proto = onnx.ModelProto.FromString(after.to_bytes())
    change(proto)
    return ModelFile.load(proto)


def _other_scale(proto: onnx.ModelProto) -> None:
    """The DequantizeLinear multiplies with another scale than the QuantizeLinear divided by."""
    back = next(node for node in proto.graph.node if node.name == "/model.1/se/DequantizeLinear")
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "other"))
    back.input[1] = "other"


def _other_zero_point(proto: onnx.ModelProto) -> None:
    there = next(node for node in proto.graph.node if node.name == "/model.1/se/QuantizeLinear")
    proto.graph.initializer.append(numpy_helper.from_array(np.uint8(200), "other"))
    there.input[2] = "other"


@pytest.mark.parametrize("change", [_other_scale, _other_zero_point])
def test_a_pair_that_does_not_give_back_what_it_got_fails(change: Callable[[onnx.ModelProto], None]) -> None:
    report = verify(broken(change), seeds=1)

    (insertion,) = report.insertions
    failed = {row.mode for row in insertion.rows if row.verdict is Verdict.FAILED}
    assert failed == {Mode.QUANTISED}  # the block itself is right
    assert not insertion.passed
    assert any("quantised and back: FAILED" in line for line in report.lines())


def test_the_block_itself_is_compared_in_front_of_the_pair() -> None:
    after, _ = carry_out(small("uint8"), [se("model.1", qdq="int8")])

    (insertion,) = verify(after, seeds=1).insertions

    assert {row.mode for row in insertion.rows} == {Mode.OPTIMISED, Mode.AS_WRITTEN, Mode.QUANTISED, Mode.IN_THE_MODEL}
    for row in insertion.rows:
        assert row.worst is not None
        if row.mode is not Mode.QUANTISED:
            assert row.worst.max_abs < 1e-4  # a step is 0.02


# ---------------------------------------------------------------------- faces


def test_the_command_line(tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from graphsurgery.cli.main import main

    source, out, second = (str(tmp_path / name) for name in ("in.onnx", "out.onnx", "second.onnx"))
    Path(source).write_bytes(small("symmetric").to_bytes())
    place = ["--module", "simam", "--after", "model.1", "--qdq", "int8", "--qdq-scale", "images"]

    assert main(["insert", source, *place, "--images", str(folder), "-o", out, "--json"]) == 0
    (insertion,) = json.loads(capfd.readouterr().out)["insertions"]
    assert insertion["qdq"]["type"] == "int8"
    assert insertion["qdq"]["scale_from"] == "images"

    assert main(["remove", out]) == 0
    assert "int8 pair" in capfd.readouterr().out
    assert main(["insert", source, *place, "--images", str(folder), "--no-verify", "-o", second]) == 0
    assert "quantised behind the block: int8, with the scale from the images" in capfd.readouterr().out
    assert Path(out).read_bytes() == Path(second).read_bytes()
    assert main(["remove", out, "--all", "-o", second, "--force"]) == 0
    assert Path(second).read_bytes() == Path(source).read_bytes()


def test_recipes(tmp_path: Path, folder: Path) -> None:
    text = "- {module: simam, after: model.1, qdq: int8, qdq_scale: images, images: images}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = Recipe.load(tmp_path / "recipe.yaml")

    model = recipe.apply(small("symmetric"))

    same, _ = carry_out(
        small("symmetric"),
        [Request("simam", after=("model.1",), qdq="int8", qdq_scale="images", images=str(folder))],
    )
    assert model.to_bytes() == same.to_bytes()
    from graphsurgery.cli.main import main

    (tmp_path / "in.onnx").write_bytes(small("symmetric").to_bytes())
    (tmp_path / "recipe.yaml").write_text(text.replace(", images: images}", "}"))
    names = [str(tmp_path / name) for name in ("recipe.yaml", "in.onnx")]
    assert main(["apply", *names, "--images", str(folder), "--no-verify", "-q", "-o", str(tmp_path / "out.onnx")]) == 0
    assert (tmp_path / "out.onnx").read_bytes() == same.to_bytes()
    with pytest.raises(RecipeError, match="entry 1 of the recipe: there is no qdq 8"):
        Recipe.from_text("- {module: simam, after: model.1, qdq: 8}")


# ---------------------------------------------------------------------- real exports


@pytest.mark.parametrize("name", ["yolov8n", pytest.param("yolo11n", marks=pytest.mark.long)])
def test_real_models(name: str) -> None:
    before = ModelFile.load(export(name, "qdq"))
    places = ("model.8", "role:p4", "C2f[-1]" if name == "yolov8n" else "C3k2[-1]")

    after, done = carry_out(before, [Request("se", after=places, init="identity", gate="residual", qdq="int8")])

    for each in done:
        assert each.insertion.site.tensor.endswith("_DequantizeLinear_Output")
        for reader in each.insertion.site.consumers:
            inputs = [
                maker(after, name) for name in reading(after, reader).input if name == each.insertion.output_tensor
            ]
            assert [node.op_type for node in inputs] == ["DequantizeLinear"]
    report = verify(after, original=before, seeds=1, only=[done[0].insertion.id])
    assert report.passed, report.lines()
    assert removal.same_bytes(removal.remove(after), before)
    image = images(1, (1, 3, 640, 640))[0]
    # the gate is closed, and what was quantised with a scale already does not change when it is again
    np.testing.assert_array_equal(run(after, image)[0], run(before, image)[0])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["uint8", "dedicated", "int16"])
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_every_place_of_real_models_at_once(name: str, kind: str) -> None:
    shape = (1, 3, 640, 640)
    data = quantised(
        export(name, "simplified"), kind, shape, count=1, nodes_to_exclude=unfit(export(name, "simplified"))
    )
    before = ModelFile.load(data)
    finder = SiteFinder(before)
    places = [site.path for site in finder.listing() if dequantiser(finder.index, site.tensor) is not None]
    paths = tuple(path for path in places if path is not None)
    assert len(paths) > 50

    after, done = carry_out(before, [Request("simam", after=paths, gate="residual", qdq="int8")])

    assert all(each.insertion.qdq for each in done)
    image = images(1, shape)[0]
    np.testing.assert_array_equal(run(after, image)[0], run(before, image)[0])
    report = verify(after, original=before, seeds=1, only=[each.insertion.id for each in done[::9]])
    assert report.passed, report.lines()
    assert removal.same_bytes(removal.remove(after), before)


@pytest.fixture(scope="module")
def symmetric() -> ModelFile:
    """yolov8n as TensorRT wants it: zero points of 0."""
    data = quantised(export("yolov8n", "simplified"), "symmetric", (1, 3, 640, 640), count=1, per_channel=True)
    return ModelFile.load(data)


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_tensorrt_takes_the_pair(symmetric: ModelFile, version: str) -> None:
    after, _ = carry_out(symmetric, [Request("se", after=("model.8", "C2f[0]"), qdq="int8")])

    found = [each for each in findings(after, version, precision="int8") if each.insertion]

    assert found == []


def test_the_pair_is_no_float32_island() -> None:
    settings = {"reduction": 2}
    after, (done,) = carry_out(small("symmetric"), [Request("gc", ("model.1",), settings, qdq="int8")])

    types = {each.node: each for each in inserted_types(after)}
    assert done.insertion.qdq is not None
    there, back = (types[name] for name in done.insertion.qdq.nodes)

    assert any(each.float32 for each in types.values())
    assert not there.float32
    assert (there.gives, back.runs_in, back.gives) == ("int8", "int8", "float32")
