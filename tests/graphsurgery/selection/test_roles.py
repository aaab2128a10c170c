"""Roles as selectors: of several networks, of the neck, as consumers, and what is said where there is none."""

from __future__ import annotations

import io
import warnings
from functools import cache

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsurgery.errors import SelectorError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.sites import SiteFinder
from tests.patterns.detector.built import Conv, traced

C = 16


class Pyramid(nn.Module):
    """Stages of strides 4 and 8, their sum, and a head on both."""

    def __init__(self, lateral: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = Conv(3, C, 3, 2)
        self.stages = nn.ModuleList([Conv(C, C, 3, 2), Conv(C, C, 3, 2)])
        self.lateral = lateral or Conv(C, C)
        self.merge = Conv(C, C, 3)
        self.heads = nn.ModuleList(nn.Conv2d(C, 6, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stages[0](self.stem(x))
        coarse = self.lateral(self.stages[1](fine))
        maps = (self.merge(fine + functional.interpolate(coarse, scale_factor=2.0)), coarse)
        return torch.cat([head(m).flatten(2) for head, m in zip(self.heads, maps, strict=True)], 2)


class Two(nn.Module):
    """Two detectors in one file."""

    def __init__(self) -> None:
        super().__init__()
        self.face, self.plate = Pyramid(), Pyramid()

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.face(x[0]), self.plate(x[1])


class TwoImages(nn.Module):
    """A camera's and a thermal image under backbones of their own, joined at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb, self.ir = (nn.Sequential(Conv(3, C, 3, 2), Conv(C, C, 3, 2)) for _ in range(2))
        self.stage, self.heads = Conv(2 * C, C, 3, 2), nn.ModuleList([nn.Conv2d(2 * C, 6, 1), nn.Conv2d(C, 6, 1)])

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        fine = torch.cat((self.rgb(x[0]), self.ir(x[1])), 1)
        maps = (fine, self.stage(fine))
        return torch.cat([head(m).flatten(2) for head, m in zip(self.heads, maps, strict=True)], 2)


@cache
def finder(kind: type[nn.Module]) -> SiteFinder:
    torch.manual_seed(0)
    if kind is Pyramid:
        return SiteFinder(ModelFile.load(traced(kind(), 64)))
    return SiteFinder(ModelFile.load(_exported(kind().eval())))


def _exported(model: nn.Module) -> onnx.ModelProto:
    written = io.BytesIO()
    images = (torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (images,),
            written,
            input_names=["first_image", "second_image"],
            dynamo=False,
            opset_version=17,
        )
    return onnx.load_from_string(written.getvalue())


def paths(selector: str, kind: type[nn.Module] = Pyramid) -> list[str | None]:
    return [site.path for site in finder(kind).find([selector])]


def told(selector: str, kind: type[nn.Module] = Pyramid, **how: object) -> SelectorError:
    with pytest.raises(SelectorError) as caught:
        finder(kind).find([selector], **how)  # type: ignore[arg-type]
    return caught.value


# ---------------------------------------------------------------------- the neck


def test_the_maps_of_the_neck_have_names() -> None:
    assert paths("role:p2") == ["/stages.0"]
    assert paths("role:p3") == ["/stages.1"]
    assert paths("role:n2") == ["/merge"]
    assert paths("role:n3") == ["/lateral"]
    assert paths("role:n*") == ["/lateral", "/merge"]


def test_of_a_map_of_the_backbone_it_is_said_which_the_neck_has() -> None:
    (site,) = finder(Pyramid).find(["role:p3"])
    assert site.note == "p3 is the backbone's; the neck's map of that stride is role:n3 (lateral)"
    assert finder(Pyramid).find(["role:n3"])[0].note == ""
    assert "note" not in site.to_json()


def test_a_role_as_a_consumer_stands_for_every_reader_with_that_role() -> None:
    (site,) = finder(Pyramid).find(["role:p2"], consumers=["role:neck"])
    assert site.consumers == ("/Add",)
    (site,) = finder(Pyramid).find(["role:n3"], consumers=["role:head"])
    assert site.consumers == ("/heads.1/Conv",)


def test_in_front_of_a_head_are_all_the_maps_that_it_reads() -> None:
    sites = finder(Pyramid).find(["Detect"], position="before")
    assert {site.tensor for site in sites} == set(finder(Pyramid).blocks.role("neck-outputs"))
    assert [site.consumers for site in sites] == [("/heads.0/Conv",), ("/heads.1/Conv",)]


# ---------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("selector", "sentence", "candidates"),
    [
        ("role:neck", "role:neck is a part of the model and not one place; name one of its maps: ", ("role:n2",)),
        ("role:backbone", "role:backbone is a part of the model and not one place; name one ", ("role:p1", "role:p2")),
        ("role:head", "role:head is a part of the model and not one place; the maps in fr", ("role:neck-outputs",)),
        ("role:P3", "there is no role 'P3'; the nearest are p3; the roles are p1, ", ("role:p3",)),
        ("p3", "no module or block of the model is called 'p3'; the role of that name is role:p3 [", ("role:p3",)),
        ("P3", "no module or block of the model is called 'P3'; the role of that name is role:p3 [", ("role:p3",)),
        ("Backbone", "no module or block of the model is called 'Backbone'; the maps of that part are ", ("role:p1",)),
        ("CONV", "the model has no CONV; the type of block is called Conv", ("Conv",)),
        ("role:p3@", "behind @ comes the image or the module whose role is meant", ()),
    ],
)
def test_words_that_mean_a_role(selector: str, sentence: str, candidates: tuple[str, ...]) -> None:
    error = told(selector)
    assert str(error).startswith(sentence)
    assert set(candidates) <= set(error.candidates)
    for candidate in error.candidates:
        assert finder(Pyramid).find([candidate])


def test_a_part_of_the_model_as_a_consumer() -> None:
    error = told("role:p2", consumers=["Neck"])
    assert "the part of the model is role:neck" in str(error)
    assert finder(Pyramid).find(["role:p2"], consumers=error.candidates)


# ---------------------------------------------------------------------- several networks


def test_each_network_has_its_roles_and_one_is_named() -> None:
    error = told("role:p3", Two)
    assert str(error).startswith("2 maps are p3: role:p3@first_image [1, 16, 8, 8], role:p3@second_image [1, 16, 8, 8]")
    each = [paths(candidate, Two) for candidate in error.candidates]
    assert each == [["/face/stages.1"], ["/plate/stages.1"]]
    assert paths("role:p3@*", Two) == paths("role:p3@*_image", Two) == ["/face/stages.1", "/plate/stages.1"]
    assert paths("role:p3@plate", Two) == paths("role:p3@second", Two) == ["/plate/stages.1"]
    assert "no map of this role is of 'third'; they are computed from first_image" in str(told("role:p3@third", Two))


def test_stages_of_two_images_before_they_meet() -> None:
    assert paths("role:p1@first", TwoImages) == ["/rgb/rgb.0"]
    assert paths("role:p1@second", TwoImages) == ["/ir/ir.0"]
    assert "2 maps are p1" in str(told("role:p1", TwoImages))
    assert [site.tensor for site in finder(TwoImages).find(["role:p2"])] == ["/Concat_output_0"]


# ---------------------------------------------------------------------- two readings


class Ending(nn.Module):
    """A backbone that ends in convolutions unlike its other stages', before the one that is enlarged."""

    def __init__(self) -> None:
        super().__init__()
        stage = nn.Sequential(nn.MaxPool2d(2), Conv(C, C, 3))
        self.body = nn.Sequential(Conv(3, C, 3), stage)
        self.last = nn.Sequential(nn.MaxPool2d(2), Conv(C, C, 3))
        self.more = nn.Sequential(Conv(C, 2 * C, 3), Conv(2 * C, C))
        self.heads = nn.ModuleList(nn.Conv2d(C, 6, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.body(x)
        coarse = self.more(self.last(fine))
        maps = (fine + functional.interpolate(coarse, scale_factor=2.0), coarse)
        return torch.cat([head(m).flatten(2) for head, m in zip(self.heads, maps, strict=True)], 2)


def test_where_two_maps_could_be_a_role_both_are_told() -> None:
    here = SiteFinder(ModelFile.load(traced(Ending(), 64)))
    with pytest.raises(SelectorError) as caught:
        here.find(["role:p2"])
    said = str(caught.value)
    assert said.startswith("the structure of the model does not tell which map is p2: tensor:/last/last.1/")
    assert (
        "[1, 16, 16, 16] would be the backbone's last map, if that ends as the stages at the other strides do" in said
    )
    assert "[1, 32, 16, 16] would be the backbone's last map, if only the 1x1 convolution behind it is the neck" in said
    assert [site.path for c in caught.value.candidates for site in here.find([c])] == ["/last", "/more/more.0"]


class Stem(nn.Module):
    """A head at one stride that begins with a 1x1 convolution, or a neck that ends with it (FastestDet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Conv(3, C, 3, 2), Conv(C, C, 3, 2)])
        self.merge, self.stem = Conv(2 * C, C, 3), Conv(C, C)
        self.heads = nn.ModuleList(nn.Sequential(Conv(C, C, 3), nn.Conv2d(C, 4, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stages[0](x)
        coarse = self.stages[1](fine)
        x = self.stem(self.merge(torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0)], 1)))
        return torch.cat([head(x) for head in self.heads], 1)


class Classifier(nn.Module):
    """MobileNet's last convolution, which widens."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(Conv(3, C, 3, 2), Conv(C, C, 3, 2))
        self.last, self.score = Conv(C, 4 * C), nn.Linear(4 * C, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.last(self.stages(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "role", "between", "sentences"),
    [
        (Stem, "n1", ["/merge", "/stem"], ("the 1x1 convolution behind it is the head's", "is the end of the neck")),
        (Stem, "neck-outputs", ["/merge", "/stem"], ("what the neck gives, if the 1x1",)),
        (Classifier, "p2", ["/stages", "/last"], ("is the classifier's", "is the end of the backbone")),
    ],
)
def test_what_a_1x1_convolution_leaves_open(
    kind: type[nn.Module], role: str, between: list[str], sentences: tuple[str, ...]
) -> None:
    here = SiteFinder(ModelFile.load(traced(kind(), 64)))
    with pytest.raises(SelectorError) as caught:
        here.find([f"role:{role}"])
    assert all(sentence in str(caught.value) for sentence in sentences)
    assert [site.path for c in caught.value.candidates for site in here.find([c])] == between
