"""What leaves and enters modules and nodes, and what errors offer instead."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from graphsurgery.errors import RequestError, SelectorError, SiteError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.sites import Site, SiteFinder
from tests import models
from tests.models import node, value


def resized(*, constant: bool = False) -> SiteFinder:
    """/up gets a map, and a size that is computed from the other input of the model (or is a constant)."""
    size = node("Identity" if constant else "Shape", ["given" if constant else "other"], ["size"], "/sizes/Size")
    made = models.model(
        [
            node("Relu", ["x"], ["map"], "/stem/Relu"),
            size,
            node("Resize", ["map", "", "", "size"], ["larger"], "/up/Resize"),
            node("Shape", ["larger"], ["leaving"], "/up/Shape"),
            node("Neg", ["larger"], ["y"], "/head/Neg"),
            node("Reshape", ["map", "leaving"], ["z"], "/head/Reshape"),
        ],
        [value("x"), value("other", (1, 4, 16, 16))],
        [value("y", None), value("z", None)],
        [numpy_helper.from_array(np.array([1, 4, 16, 16]), "given")],
    )
    return SiteFinder(ModelFile.load(made))


def before(finder: SiteFinder, selector: str) -> Site:
    (site,) = finder.find([selector], position="before")
    return site


@pytest.mark.parametrize("constant", [False, True])
def test_sizes_that_enter_do_not_count_beside_a_map(constant: bool) -> None:
    finder = resized(constant=constant)
    for selector in ("/up", "node:/up/Resize", "op:Resize"):
        site = before(finder, selector)
        assert (site.tensor, site.consumers) == ("map", ("/up/Resize",))
        assert site.others == ("/head/Reshape",)
    assert [site.tensor for site in finder.find(["/up"])] == ["larger"]  # and of what leaves: not its shape


def test_sizes_that_enter_alone_are_named() -> None:
    made = models.model(
        [
            node("Shape", ["x"], ["a"], "/a/Shape"),
            node("Shape", ["x"], ["b"], "/b/Shape"),
            node("Add", ["a", "b"], ["y"], "/sum/Add"),
        ],
        [value("x")],
        [value("y", (4,), 7)],
    )
    finder = SiteFinder(ModelFile.load(made))
    said = "2 tensors enter the module '/sum', and a block can be put at none of them: tensor:a [4], tensor:b [4]"
    with pytest.raises(SelectorError) as error:
        before(finder, "/sum")
    assert str(error.value).splitlines()[0] == said
    assert error.value.candidates == ()


def test_several_modules_without_a_map_say_why() -> None:
    finder = SiteFinder(ModelFile.load(models.chain("Relu", "Flatten", "Exp", "Exp")))
    reason = "the first: 't1' has the shape [1, 256]; a block needs [N, C, H, W]; the nearest maps that it is made from"
    with pytest.raises(SelectorError) as error:
        finder.find(["op:Exp"], position="before")
    said = str(error.value).splitlines()[0]
    assert said == (
        f"2 places match 'Exp', and no image-like tensor enters any of them; {reason} are tensor:t0 [1, 4, 8, 8]"
    )


def test_what_a_module_gives_itself_does_not_enter_it() -> None:
    made = models.chain("Relu", "Neg", "Abs")
    for proto, name in zip(made.graph.node, ("/m.0/A", "/m.1/B", "/m.1/C"), strict=True):
        proto.name = name
    finder = SiteFinder(ModelFile.load(made))
    assert before(finder, "/m.1").tensor == "t0"
    assert before(finder, "node:/m.1/C").tensor == "t1"
    assert before(finder, "/m.0").tensor == "x"
    sites = finder.find(["node:/m.1/C", "/m.1, /m.0"], position="before")
    assert [site.tensor for site in sites] == ["t1", "x", "t0"]  # those of one selector in the order of the model


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_do_not_enter(ir_version: int) -> None:
    """Up to IR version 3 they are inputs of the model too, with shapes like those of maps."""
    finder = SiteFinder(ModelFile.load(models.detector(ir_version=ir_version)))
    for selector in ("/model.4/cv3", "op:Conv[-1]"):
        assert before(finder, selector).tensor == "/model.3/cv2/act/Mul_output_0"


# ---------------------------------------------------------------------- candidates


def candidates(finder: SiteFinder, selector: str, kind: type[RequestError] = SelectorError) -> tuple[str, ...]:
    """What an error offers; each of it would be accepted."""
    with pytest.raises(kind) as error:
        finder.find([selector])
    for candidate in error.value.candidates:
        assert finder.find([candidate])
    return error.value.candidates


@pytest.mark.parametrize(
    ("selector", "nearest", "count"),
    [
        ("/model.1/cv5", "/model.1/cv2", 4),
        ("cv2", "/model.1/cv2", 3),
        ("Conv[20]", "Conv[7]", 1),
        ("op:Conf", "op:Conv", 6),
        ("op:Conv[20]", "tensor:/model.4/cv3/Conv_output_0", 1),
        ("tensor:boxe", "tensor:boxes", 1),
        ("node:/model.2/conv/Conf", "node:/model.2/conv/Conv", 4),
        ("output:box", "output:boxes", 1),
        ("role:stage-end", "role:stage-ends", 1),
    ],
)
def test_what_could_have_been_meant(selector: str, nearest: str, count: int) -> None:
    found = candidates(SiteFinder(ModelFile.load(models.detector())), selector)
    assert (found[0], len(found)) == (nearest, count)


def test_a_type_in_lower_case() -> None:
    assert candidates(SiteFinder(ModelFile.load(models.detector(style="none"))), "conv") == ("Conv",)


def test_maps_upstream_of_what_is_no_map() -> None:
    finder = SiteFinder(ModelFile.load(models.detector()))
    assert candidates(finder, "tensor:scores", SiteError) == ("tensor:/model.4/cv3/Conv_output_0",)
