"""NVIDIA's libraries on the models that onnx has for every operator: what they say is what is recorded of them."""

from __future__ import annotations

import onnx
import pytest

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.rtx import child
from graphsurgery.tensorrt.rtx.libraries import Libraries, find
from tests.graphsurgery.tensorrt import node_models
from tests.graphsurgery.tensorrt.node_models import BUILT, PARSED, REFUSED
from tests.rtx import needs_rtx

pytestmark = needs_rtx
AT_ONCE = 200
"""models for one process: as many files are open in it"""


def verdict(libraries: Libraries, model: ModelFile) -> str:
    """What is said of one model, by a process of its own."""
    try:
        _, parsed, *built = child.answers(libraries, [child.Job(model, "it", build=True)])
    except child.LibraryFailed as error:
        return f"failed: {error}"
    return judged(parsed, built[0] if built else None)


def judged(parsed: child.Answer, built: child.Answer | None) -> str:
    taken = parsed["supported"] and parsed["parsed"] and parsed["outputs"]
    return REFUSED if not taken else BUILT if built and built["built"] else PARSED


def verdicts(libraries: Libraries, models: list[tuple[str, ModelFile]]) -> dict[str, str]:
    """What is said of several models by one process; of those behind one that ends it, by others."""
    found: dict[str, str] = {}
    said = child.answers(libraries, [child.Job(model, name, build=True) for name, model in models])
    try:
        next(said)
        for name, _ in models:
            parsed = next(said)
            found[name] = judged(parsed, next(said) if parsed["parsed"] else None)
    except child.LibraryFailed:
        (name, model), *others = models[len(found) :]
        found[name] = verdict(libraries, model)
        found |= verdicts(libraries, others) if others else {}
    return found


@pytest.mark.long
@pytest.mark.skipif(
    onnx.__version__ != node_models.asked()["onnx"], reason="the models of another onnx were asked about"
)
def test_the_libraries_say_what_is_recorded() -> None:
    libraries = find()
    asked = node_models.asked()["library"].removeprefix("TensorRT for RTX ")
    if libraries.number < Libraries(libraries.runtime, libraries.parser, asked).number:  # a newer one is compared
        pytest.skip(f"TensorRT for RTX {asked} was asked, and this is {libraries.version}")
    models = [(name, ModelFile.load(proto)) for name, proto in node_models.models()]
    found: dict[str, str] = {}
    for start in range(0, len(models), AT_ONCE):
        found |= verdicts(libraries, models[start : start + AT_ONCE])
    assert node_models.differences(found) == []
