"""One selector, one place: whatever exporter, optimiser or quantiser wrote the file of a model."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.sites import SiteFinder
from tests.exports import export
from tests.exports.dialects import DIALECTS, dialect
from tests.exports.modulelist import image

REFERENCE = "torchscript"
SELECTORS = ("C2f[-1]", "role:p4", "model.8", "C2f[1].m.0.cv2", "role:after-sppf", "role:neck-outputs")
# how far the correlation with the values of the reference may be from 1: rounding, and 8-bit steps
TOLERANCE = {"simplified": 1e-6, "dynamo": 1e-6, "dynamo-raw": 1e-6, "half": 1e-3, "qdq": 0.2, "ort-extended": 1e-6}
OF_YOLO11N = ("C3k2[-1]", "role:p4", "model.8", "role:p5")
LONG = ("half-converted", "dynamic", "dynamo-external", "dynamo-optimised", "onnxsim", "dynamic-int8")


@cache
def found(name: str, variant: str, selector: str) -> tuple[npt.NDArray[Any], ...]:
    """The values of the sites that a selector names, on one image."""
    source = dialect(name, variant).model if variant in DIALECTS else export(name, variant)
    model = ModelFile.load(source)
    finder = SiteFinder(model)
    sites = finder.find([selector])
    wanted = [site.tensor for site in sites]
    shown = model.with_outputs([(tensor, finder.shapes.lookup(tensor)[0]) for tensor in wanted])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if finder.model.external_data:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(export(name, variant).parent)
        )
    session = ort.InferenceSession(shown.to_bytes(), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    dtype = np.float16 if given.type == "tensor(float16)" else np.float32
    pixels = image(640).astype(dtype)
    if given.shape[-1] == 3:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return tuple(value.astype(np.float64) for value in session.run(wanted, {given.name: pixels}))


def distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """1 less the correlation of the values: rounding to 8 bits leaves it small where errors have added up."""
    return 1 - float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def check(name: str, variant: str, selector: str, tolerance: float) -> None:
    here, there = found(name, variant, selector), found(name, REFERENCE, selector)
    assert [value.shape for value in here] == [value.shape for value in there]
    for one, other in zip(here, there, strict=True):
        assert distance(one, other) < tolerance


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("variant", TOLERANCE)
def test_the_same_values_stand_there(variant: str, selector: str) -> None:
    check("yolov8n", variant, selector, TOLERANCE[variant])


@pytest.mark.parametrize("variant", ["numbered", "blank", "paddle", "tf-scopes", "caffe2", "functions"])
def test_in_the_dialects_of_other_exporters(variant: str) -> None:
    for selector in ("C2f[-1]", "role:p4"):  # these files have no module paths of the kind model.8, but for functions
        check("yolov8n", variant, selector, 1e-6)


@pytest.mark.long
@pytest.mark.parametrize("selector", OF_YOLO11N)
@pytest.mark.parametrize("variant", [*TOLERANCE, *LONG])
def test_of_yolo11n(variant: str, selector: str) -> None:
    check("yolo11n", variant, selector, TOLERANCE.get(variant, 0.2 if variant == "dynamic-int8" else 1e-3))


def test_another_place_would_be_noticed() -> None:
    here = found("yolov8n", REFERENCE, "C2f[-1]")[0]
    assert distance(found("yolov8n", REFERENCE, "C2f[3]")[0], here) > max(TOLERANCE.values())
