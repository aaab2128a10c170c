"""What selectors mean in quantised models and in models with Casts: the same tensor as in the float model, or behind
what all readers see it through.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import pytest

from graphsurgery.api import carry_out
from graphsurgery.errors import SelectorError, SiteError
from graphsurgery.insertion import removal
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from graphsurgery.selection.sites import Site, SiteFinder
from graphsurgery.verification import verify
from tests import models
from tests.exports import export
from tests.models import node, value
from tests.quantised import IMAGE, SITE, fork, images, quantised, run, se

DEQUANTISED = "_DequantizeLinear_Output"
LAST = {"yolov8n": "C2f[-1]", "yolo11n": "C3k2[-1]"}
NAMES = ("yolov8n", pytest.param("yolo11n", marks=pytest.mark.long))


@cache
def finder(name: str, variant: str) -> SiteFinder:
    return SiteFinder(ModelFile.load(export(name, variant)))


def only(model: bytes | SiteFinder, selector: str, position: str = "after", consumers: tuple[str, ...] = ()) -> Site:
    found = model if isinstance(model, SiteFinder) else SiteFinder(ModelFile.load(model))
    (site,) = found.find([selector], position=position, consumers=consumers)
    return site


# ---------------------------------------------------------------------- real exports


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["qdq", "dynamic-int8", "half-converted"])
def test_every_module_names_the_tensor_of_the_float_model(name: str, variant: str) -> None:
    plain = {site.path: site.tensor for site in finder(name, "simplified").listing()}
    found = {site.path: site.tensor for site in finder(name, variant).listing()}

    same = [path for path in plain if found.get(path, "").removesuffix(DEQUANTISED) == plain[path]]

    assert len(plain) > 100
    assert [path for path in plain if path not in same] == []
    if variant == "qdq":  # and behind the pair, not in front of it
        assert sum(tensor.endswith(DEQUANTISED) for tensor in found.values()) > 100


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["qdq", "dynamic-int8"])
def test_blocks_and_roles_name_the_tensors_of_the_modules(name: str, variant: str) -> None:
    model, plain = finder(name, variant), finder(name, "simplified")

    for selector in (LAST[name], "SPPF", "role:p4", "role:p5"):
        site, same = only(model, selector), only(plain, selector)
        assert site.tensor.removesuffix(DEQUANTISED) == same.tensor
        assert same.path is not None
        assert only(model, same.path).tensor == site.tensor


@pytest.mark.parametrize("name", NAMES)
def test_in_front_of_a_block_stands_what_enters_it_from_outside(name: str) -> None:
    site = only(finder(name, "qdq"), "SPPF", "before")

    assert site.tensor == "/model.8/cv2/act/Mul_output_0" + DEQUANTISED
    assert site.consumers == ("/model.9/cv1/conv/Conv",)


@pytest.mark.parametrize(
    "selector", ["model.8", "C2f[-1]", "role:p4", "tensor:/model.4/cv2/act/Mul_output_0_quantized"]
)
def test_qoperator_models_are_refused_with_what_to_do(selector: str) -> None:
    with pytest.raises(SiteError, match=r"holds 8-bit integers.*insert into its QDQ form|no tensor leaves"):
        only(finder("yolov8n", "qoperator"), selector)


def test_the_float_tensor_beside_integers_is_named() -> None:
    with pytest.raises(SiteError, match=r"8-bit integers.*use tensor:images \[1, 3, 640, 640\]\n"):
        only(finder("yolov8n", "qoperator"), "tensor:images_quantized")
    with pytest.raises(
        SiteError, match=rf"use tensor:/model.8/cv2/act/Mul_output_0{DEQUANTISED} \[1, 256, 20, 20\] or"
    ):
        only(finder("yolov8n", "qdq"), "tensor:/model.8/cv2/act/Mul_output_0_QuantizeLinear_Output")


@pytest.mark.parametrize("name", NAMES)
def test_dynamic_quantisation_takes_blocks(name: str) -> None:
    before = ModelFile.load(export(name, "dynamic-int8"))

    after, done = carry_out(before, [Request("se", after=("model.8",))])

    assert [each.insertion.site.tensor for each in done] == ["/model.8/cv2/act/Mul_output_0"]
    assert verify(after, original=before, seeds=1).passed
    assert removal.same_bytes(removal.remove(after), before)


# ---------------------------------------------------------------------- small models


@cache
def small(kind: str) -> bytes:
    return quantised(fork(), kind)


@pytest.mark.parametrize("kind", ["uint8", "symmetric", "int16", "uint16", "int16 of com.microsoft"])
def test_a_pair_for_all_readers_is_stood_behind(kind: str) -> None:
    site = only(small(kind), "model.1")

    assert (site.tensor, site.shape, site.warnings) == (SITE + DEQUANTISED, (1, 8, 16, 16), ())
    assert site.consumers == ("/model.2/conv/Conv", "/model.3/Concat")


def test_several_pairs_are_stood_in_front_of() -> None:
    site = only(small("dedicated"), "model.1")

    assert site.tensor == SITE
    assert [name.startswith(SITE + "_QuantizeLinear") for name in site.consumers] == [True, True]
    (warning,) = site.warnings
    assert "dequantised 2 times" in warning
    for number in (1, 2):
        assert f"tensor:{SITE}{DEQUANTISED}_{number}" in warning


def test_one_of_several_pairs_belongs_to_its_reader() -> None:
    narrow = only(small("dedicated"), "model.1", consumers=("model.3",))
    assert (narrow.tensor, narrow.consumers) == (SITE, (SITE + "_QuantizeLinear_2",))
    assert narrow.others == (SITE + "_QuantizeLinear_1",)

    behind = only(small("dedicated"), "model.2", "before")
    assert (behind.tensor, behind.consumers) == (f"{SITE}{DEQUANTISED}_1", ("/model.2/conv/Conv",))


def one_branch() -> bytes:
    """The Concat reads model.1 as it is, the Conv reads it quantised."""
    proto = onnx.ModelProto.FromString(small("symmetric"))
    (concat,) = [each for each in proto.graph.node if each.op_type == "Concat"]
    concat.input[0] = SITE
    return bytes(proto.SerializeToString())


def test_a_pair_on_one_branch_is_stood_in_front_of() -> None:
    site = only(one_branch(), "model.1")

    assert (site.tensor, len(site.consumers)) == (SITE, 2)
    assert "some that read it read it as it is" in site.warnings[0]
    assert only(one_branch(), "model.2", "before").tensor == SITE + DEQUANTISED


def test_a_pair_that_belongs_to_the_reader_is_stood_behind_all_the_same() -> None:
    proto = onnx.ModelProto.FromString(small("symmetric"))
    for each in proto.graph.node:  # as quantisation-aware training writes it
        if each.name.startswith(SITE):
            each.name = "/model.2/input_quantizer/" + each.op_type

    assert only(proto.SerializeToString(), "model.1").tensor == SITE + DEQUANTISED


def test_a_tensor_in_front_of_its_pair_is_taken_with_a_warning() -> None:
    before = ModelFile.load(small("symmetric"))

    after, (done,) = carry_out(before, [se(f"tensor:{SITE}")])

    assert done.insertion.site.consumers == (SITE + "_QuantizeLinear",)
    assert f"use tensor:{SITE}{DEQUANTISED} to insert behind the DequantizeLinear" in done.warnings[0]
    assert not any("compute" in warning and "in float" in warning for warning in done.warnings)
    assert verify(after, original=before, seeds=1).passed


def test_weights_are_no_place() -> None:
    with pytest.raises(SiteError, match="is a constant"):
        only(small("symmetric"), "tensor:w1" + DEQUANTISED)


def test_dynamic_quantisation_for_one_reader_only() -> None:
    model = small("dynamic")

    assert only(model, "model.1").tensor == SITE
    before = only(model, "model.2", "before")
    assert (before.tensor, before.consumers) == (SITE, (SITE + "_QuantizeLinear",))
    assert only(model, "model.1", consumers=("model.2",)).consumers == (SITE + "_QuantizeLinear",)


# ---------------------------------------------------------------------- half precision with Casts


def cast_around(*operators: str, nodes: tuple[str, ...] = ()) -> bytes:
    """``fork`` in float16, but for some operators or nodes, as converters leave what they think unsafe in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made = convert_float_to_float16(
        fork(), keep_io_types=True, op_block_list=list(operators), node_block_list=list(nodes)
    )
    for number, each in enumerate(made.graph.node):  # it gives two Casts of one tensor one name
        each.name = f"{each.name}_{number}" if each.op_type == "Cast" else each.name
    return bytes(made.SerializeToString())


def islands() -> Iterator[tuple[str, bytes]]:
    yield "gates", cast_around("Sigmoid")
    yield "products", cast_around("Mul")
    yield "module", cast_around(nodes=("/model.1/act/Mul", "/model.3/Concat"))
    yield "readers", cast_around("Concat")


@pytest.mark.parametrize(("island", "model"), list(islands()))
def test_a_block_runs_in_the_type_of_the_model(island: str, model: bytes) -> None:
    site = only(model, "model.1")

    assert site.dtype == "float16", island
    assert only(model, "Conv[1]").tensor == site.tensor
    before = ModelFile.load(model)
    after, _ = carry_out(before, [se("model.1", gate="residual")])
    image = images(1)[0]
    np.testing.assert_allclose(run(after, image)[0], run(before, image)[0], rtol=2e-3, atol=2e-3)
    assert verify(after, original=before, seeds=1).passed
    assert removal.same_bytes(removal.remove(after), before)


@pytest.mark.long
def test_casts_in_a_real_model_change_no_place() -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    blocked = ["Resize", "Concat", "Sigmoid", "Softmax", "MaxPool"]
    made = convert_float_to_float16(
        onnx.load(export("yolov8n", "simplified")), keep_io_types=True, op_block_list=blocked
    )
    mixed, plain = SiteFinder(ModelFile.load(made)), finder("yolov8n", "simplified")

    found = {site.path: site for site in mixed.listing()}
    assert [site.path for site in plain.listing() if found[site.path].tensor != site.tensor] == []
    assert {site.dtype for site in found.values()} == {"float16"}
    for selector in ("C2f[*]", "SPPF", "Upsample", "role:p{3,4,5}"):
        places = [[site.tensor for site in each.find([selector])] for each in (mixed, plain)]
        assert places[0] == places[1], selector


def test_behind_the_cast_that_ends_a_module_and_in_front_of_the_cast_of_a_reader() -> None:
    ending = only(cast_around("Mul"), "model.1")
    assert ending.consumers == ("/model.2/conv/Conv", "/model.3/Concat")  # not the Cast
    reading = only(cast_around("Concat"), "model.1")
    assert len(reading.consumers) == 2
    assert "/model.3/Concat" not in reading.consumers  # its Cast stands between


def test_one_tensor_that_enters_in_two_types_is_one() -> None:
    site = only(cast_around("Sigmoid"), "model.1.act", "before")

    assert (site.tensor, site.dtype, len(site.consumers)) == ("/model.1/conv/Conv_output_0", "float16", 2)


def test_bfloat16_behind_a_module_in_float32() -> None:
    nodes = [
        node("Conv", ["images", "w"], ["c"], "/model.0/conv/Conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["t"], "/model.0/act/Relu"),
        node("Cast", ["t"], ["half"], "/model.0/Cast", to=onnx.TensorProto.BFLOAT16),
        node("Relu", ["half"], ["output"], "/model.1/Relu"),
    ]
    wide = onnx.TensorProto.BFLOAT16
    weights = [models.weight("w", (8, 3, 3, 3))]
    made = models.model(nodes, [value("images", IMAGE)], [value("output", (1, 8, 32, 32), wide)], weights)

    site = only(made.SerializeToString(), "model.0")

    assert (site.tensor, site.dtype, site.consumers) == ("half", "bfloat16", ("/model.1/Relu",))
    after, _ = carry_out(ModelFile.load(made), [Request("simam", after=("model.0",))])
    onnx.checker.check_model(onnx.ModelProto.FromString(after.to_bytes()), full_check=True)
    assert verify(after, seeds=1).passed


def test_two_tensors_that_enter_stay_two() -> None:
    with pytest.raises(SelectorError, match="2 tensors enter"):
        only(cast_around("Concat"), "model.3", "before")
