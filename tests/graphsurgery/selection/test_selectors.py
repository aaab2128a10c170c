from __future__ import annotations

import contextlib
import re

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsurgery.errors import SelectorError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.resolver import Place
from graphsurgery.selection.sites import SiteFinder
from graphsurgery.selection.text import Text, spellings
from tests import models
from tests.models import node, value


def places(made: models.ModelProto, selector: str) -> list[Place]:
    return [place for place, _ in SiteFinder(ModelFile.load(made))._resolver.resolve(selector)]


def tensors(made: models.ModelProto, selector: str) -> list[str]:
    return [place.tensor for place in places(made, selector)]


def told(made: models.ModelProto, selector: str) -> str:
    with pytest.raises(SelectorError) as error:
        places(made, selector)
    first, *below = str(error.value).split("\n")
    if selector.strip():
        shown, mark = below
        assert shown == f"  {selector}"
        assert set(mark) <= {" ", "^"}
        assert "^" in mark
        assert len(mark) <= len(shown) + 1
    else:
        assert not below
    return first


def marked(made: models.ModelProto, selector: str) -> str:
    """The part of a selector that the error is about."""
    with pytest.raises(SelectorError) as error:
        places(made, selector)
    _, shown, mark = str(error.value).split("\n")
    return shown[mark.index("^") : len(mark)]


def named(*names: str) -> models.ModelProto:
    """A chain of Relu nodes of these names."""
    made = models.chain(*["Relu"] * len(names))
    for proto, name in zip(made.graph.node, names, strict=True):
        proto.name = name
    return made


SILU = "/{}/act/Mul_output_0"
DETECTOR = SiteFinder(ModelFile.load(models.detector()))

# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("selector", "module"),
    [
        ("/model.2", "model.2"),
        ("model.2", "model.2"),
        ("/model.2/", "model.2"),
        ("  /model.2 ", "model.2"),
        ("/model.1/cv2", "model.1/cv2"),
        ("model.1.cv2", "model.1/cv2"),
        ("/model.1", "model.1/cv2"),
        ("/model.1/cv2/act", "model.1/cv2"),
        ("m.0.cv1", "model.1/m.0/cv1"),
        ("/m.0/cv1", "model.1/m.0/cv1"),
        ("m.0/cv1", "model.1/m.0/cv1"),
        ("model.1/m.0/cv1/act", "model.1/m.0/cv1"),
    ],
)
def test_a_module_by_slashes_by_dots_or_by_a_unique_end(selector: str, module: str) -> None:
    assert tensors(models.detector(), selector) == [SILU.format(module)]


@pytest.mark.parametrize("style", ["dynamo", "namespace"])
@pytest.mark.parametrize("selector", ["/model.1/m.0/cv1", "model.1.m.0.cv1", "m.0.cv1"])
def test_the_same_in_other_exporters(style: str, selector: str) -> None:
    made = models.detector(style=style)
    (tensor,) = tensors(made, selector)
    straight = models.detector()
    position = [n.output[0] for n in straight.graph.node].index(SILU.format("model.1/m.0/cv1"))
    assert made.graph.node[position].output[0] == tensor


def test_the_end_of_several_paths_is_ambiguous() -> None:
    message = told(models.detector(), "cv2")
    assert message == (
        "'cv2' is the end of 3 module paths: /model.1/cv2 [1, 8, 16, 16], /model.3/cv2 [1, 16, 8, 8], "
        "/model.4/cv2 [1, 4, 8, 8]"
    )
    assert "conv' is the end of" in told(models.detector(), "conv")
    two = named("/a/cv2/Relu", "/b/cv2/Relu", "/c/cv20/Relu")
    assert told(two, "cv2") == "'cv2' is the end of 2 module paths: /a/cv2 [1, 4, 8, 8], /b/cv2 [1, 4, 8, 8]"
    assert tensors(two, "{a,b}.cv2") == ["t0", "t1"]


def test_the_end_of_a_path_is_whole_steps() -> None:
    made = named("/m.10/cv1/Relu", "/m.0/cv1/Relu", "/m.20/cv2/Relu")
    assert tensors(made, "0.cv1") == ["t1"]
    assert told(made, "0.cv2").startswith("no module of the model matches '0.cv2'")


def test_a_whole_path_is_preferred_to_an_end() -> None:
    made = named("/cv2/Relu", "/model.1/cv2/Relu", "/head/Relu")
    assert tensors(made, "cv2") == ["t0"]
    assert tensors(made, "model.1.cv2") == ["t1"]


@pytest.mark.parametrize(
    "selector", ["/layer1/layer1.0/conv1", "layer1.0.conv1", "/layer1.0/conv1", "layer1/layer1.0/conv1"]
)
def test_nested_containers_by_either_spelling(selector: str) -> None:
    made = named("/layer1/layer1.0/conv1/Relu", "/layer1/layer1.0/act/Relu", "/layer1/layer1.1/conv1/Relu")
    assert tensors(made, selector) == ["t0"]


def test_scopes_that_repeat() -> None:
    made = named("/stem/conv/conv/Relu", "/stem/conv/act/Relu", "/head/conv/Relu")
    assert tensors(made, "/stem/conv/conv") == ["t0"]
    assert tensors(made, "/stem/conv") == ["t1"]


def test_the_filler_of_the_dynamo_exporter_is_no_module() -> None:
    made = models.chain("Relu", "Neg")
    for proto, scope in zip(made.graph.node, ("model.0", "model.1"), strict=True):
        scopes = str(["", "_empty_nn_module_stack_from_metadata_hook", scope, "relu"])
        proto.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert tensors(made, "model.0") == ["t0"]
    told(made, "_empty_nn_module_stack_from_metadata_hook")


# ---------------------------------------------------------------------- globs and braces


@pytest.mark.parametrize(
    ("selector", "modules"),
    [
        ("/model.{0,2}", ["model.0", "model.2"]),
        ("/model.{2,0}", ["model.0", "model.2"]),
        ("{model.0,/model.2}", ["model.0", "model.2"]),
        ("/model.{1/cv{1,2},2}", ["model.1/cv1", "model.1/cv2", "model.2"]),
        ("/model.{0,0}", ["model.0"]),
        ("/model.[02]", ["model.0", "model.2"]),
        ("/model.[!14]", ["model.0", "model.2", "model.3/cv2"]),
        ("/model.?", ["model.0", "model.1/cv2", "model.2", "model.3/cv2", "boxes"]),
        ("/model.*/cv2/act", ["model.1/cv2", "model.3/cv2"]),
        ("model.*.cv2.act", ["model.1/cv2", "model.3/cv2"]),
        ("/**/cv1/act", ["model.1/cv1", "model.1/m.0/cv1"]),
        ("/model.1/**/act", ["model.1/cv1", "model.1/m.0/cv1", "model.1/cv2"]),
        ("cv?.act", ["model.1/cv1", "model.1/m.0/cv1", "model.1/cv2", "model.3/cv2"]),
        ("*.act", ["model.0", "model.1/cv1", "model.1/m.0/cv1", "model.1/cv2", "model.2", "model.3/cv2"]),
        ("{model.*,m.0}.cv1.act", ["model.1/cv1", "model.1/m.0/cv1"]),
    ],
)
def test_several_modules_at_once(selector: str, modules: list[str]) -> None:
    """In the order of the model, each tensor once; modules that no single map leaves are passed over."""
    expected = [SILU.format(module) if module != "boxes" else module for module in modules]
    assert tensors(models.detector(), selector) == expected


def test_a_glob_passes_over_what_is_no_map() -> None:
    """scores, the one tensor that leaves model.5, has three dimensions; of maps, two leave model.4 then."""
    made = models.detector()
    made.graph.node[-1].name = "/model.5/Reshape"
    assert tensors(made, "/model.5") == ["scores"]
    assert tensors(made, "/model.?") == [SILU.format(m) for m in ("model.0", "model.1/cv2", "model.2", "model.3/cv2")]


def test_a_star_stays_within_its_step() -> None:
    assert "no module of the model matches '/model*1'" in told(models.detector(), "/model*1")
    assert tensors(models.detector(), "/mod*.0") == [SILU.format("model.0")]


def test_a_glob_that_fits_one_module_is_as_strict_as_a_path() -> None:
    assert "2 tensors leave the module '/m.0'" in told(two_maps(), "/m.[0]")


def test_a_glob_of_modules_that_no_map_leaves() -> None:
    made = models.model(
        [node("Relu", ["x"], ["a"], "/m.0/Relu"), node("Relu", ["a"], ["y"], "/m.1/Relu")],
        [value("x", [1, 5])],
        [value("y", [1, 5])],
    )
    assert told(made, "/m.*") == (
        "2 modules match '/m.*', and no image-like tensor leaves any of them; the first: 'a', which leaves m.0, has "
        "the shape [1, 5]; a block needs [N, C, H, W]"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a{b}", ["ab"]),
        ("a{b,c}d", ["abd", "acd"]),
        ("{a,b}{c,d}", ["ac", "ad", "bc", "bd"]),
        ("{a,{b,{c,d}}}", ["a", "b", "c", "d"]),
        ("x{a,b{c,d}e}y", ["xay", "xbcey", "xbdey"]),
        ("{,a}b", ["b", "ab"]),
        ("a,b", ["a,b"]),
        ("{}", [""]),
    ],
)
def test_braces(text: str, expected: list[str]) -> None:
    assert [spelling.text for spelling in spellings(Text.of(text))] == expected


@pytest.mark.parametrize("text", ["{", "}", "a{b", "a}b", "{a,{b}", "}{", "{a}}", "{{a}", "a}{b}", "{a,b}}{"])
def test_braces_without_a_partner(text: str) -> None:
    with pytest.raises(SelectorError, match="brace without"):
        spellings(Text.of(text))


@given(
    st.text(alphabet="ab.,/*{}[]?:", max_size=14)
    | st.lists(
        st.sampled_from(
            ["Conv", "op:", "role:", "p", "//", "[", "]", "-1", "0", ":", ".", "conv", "{", "}", ",", "*", "m"]
        ),
        max_size=9,
    ).map("".join)
)
def test_any_text_is_resolved_or_told(text: str) -> None:
    with contextlib.suppress(SelectorError):
        assert DETECTOR._resolver.resolve(text)
    with contextlib.suppress(SelectorError):
        assert DETECTOR._resolver.resolve(text, "before")
    with contextlib.suppress(SelectorError):
        assert DETECTOR._resolver.resolve_consumers(text)


# ---------------------------------------------------------------------- nodes and tensors


def test_a_tensor_and_a_node() -> None:
    made = models.detector()
    assert places(made, "tensor:images") == [Place("images")]
    assert places(made, "tensor:/model.0/conv/Conv_output_0") == [Place("/model.0/conv/Conv_output_0")]
    assert places(made, "node:/model.0/conv/Conv") == [Place("/model.0/conv/Conv_output_0")]
    assert places(made, "node:/model.4/Reshape") == [Place("scores")]


def test_names_with_colons_and_spaces_are_taken_as_they_are() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = "conv:0 "
    made.graph.node[0].name = "a:b"
    assert tensors(made, "tensor:conv:0 ") == ["conv:0 "]
    assert tensors(made, "node:a:b") == ["conv:0 "]


def test_unknown_nodes_and_tensors_name_the_nearest() -> None:
    made = models.detector()
    assert "no tensor 'image'; the nearest are images" in told(made, "tensor:image")
    assert "no node '/model.0/conv/Conf'; the nearest are /model.0/conv/Conv" in told(made, "node:/model.0/conv/Conf")
    assert told(made, "tensor:zzz") == "the model has no tensor 'zzz'"


def test_nodes_of_one_name_are_told_apart_by_tensor() -> None:
    assert told(models.kitchen_sink(), "node:same") == (
        "2 nodes are called 'same'; name one by its tensor: tensor:t1 [1, 4, 6, 6]"
    )


def test_a_node_with_several_outputs() -> None:
    made = models.model(
        [node("Split", ["x"], ["a", "b"], "split", axis=1), node("Add", ["a", "b"], ["y"], "add")],
        [value("x")],
        [value("y", (1, 2, 8, 8))],
        opset=11,
    )
    assert (
        told(made, "node:split")
        == "2 tensors leave the node 'split'; name one: tensor:a [1, 2, 8, 8], tensor:b [1, 2, 8, 8]"
    )
    made.graph.node[1].input[1] = "a"  # nothing reads b any more
    assert tensors(made, "node:split") == ["a"]


def test_a_node_that_nothing_reads() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node.append(node("Abs", ["x"], ["nowhere"], "end"))
    assert told(made, "node:end") == "no tensor leaves the node 'end'"
    assert tensors(made, "tensor:nowhere") == ["nowhere"]


# ---------------------------------------------------------------------- what leaves a module


def two_maps() -> models.ModelProto:
    return models.model(
        [
            node("Relu", ["x"], ["a"], "/m.0/Relu"),
            node("Neg", ["a"], ["b"], "/m.0/Neg"),
            node("Add", ["a", "b"], ["y"], "/m.1/Add"),
        ],
        [value("x")],
        [value("y")],
    )


def test_several_maps_that_leave_are_listed() -> None:
    assert (
        told(two_maps(), "/m.0")
        == "2 tensors leave the module '/m.0'; name one: tensor:a [1, 4, 8, 8], tensor:b [1, 4, 8, 8]"
    )


def test_a_map_that_is_an_output_leaves() -> None:
    made = models.chain("Relu", "Neg", "Abs")
    for proto, name in zip(made.graph.node, ("/m.0/A", "/m.0/B", "/m.1/C"), strict=True):
        proto.name = name
    assert tensors(made, "/m.0") == ["t1"]
    made.graph.output.append(value("t0"))
    assert "2 tensors leave" in told(made, "/m.0")


def test_sizes_that_leave_do_not_count_beside_a_map() -> None:
    made = models.model(
        [
            node("Relu", ["x"], ["a"], "/m.0/Relu"),
            node("Shape", ["a"], ["s"], "/m.0/Shape"),
            node("Neg", ["w"], ["c"], "/m.0/Neg"),
            node("Reshape", ["a", "s"], ["r"], "/m.1/Reshape"),
            node("Mul", ["r", "c"], ["y"], "/m.1/Mul"),
        ],
        [value("x")],
        [value("y")],
        [models.weight("w", (1, 4, 1, 1))],
    )
    assert tensors(made, "/m.0") == ["a"]


def test_a_map_that_only_a_subgraph_reads_leaves() -> None:
    made = models.with_if()
    made.graph.node[0].name = "/m.0/Relu"
    assert tensors(made, "/m.0") == ["site"]


def test_a_module_that_nothing_leaves() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node.append(node("Abs", ["x"], ["nowhere"], "/dead/Abs"))
    made.graph.node.append(node("Constant", [], ["c"], "/const/Constant", value=models.weight("", (1, 4, 8, 8))))
    assert told(made, "/dead") == "no tensor leaves the module '/dead'"
    assert told(made, "/const") == "no tensor leaves the module '/const'"


def test_unsorted_nodes() -> None:
    made = onnx.shape_inference.infer_shapes(named("/m.0/Relu", "/m.1/Relu", "/m.2/Relu"))
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([nodes[1], nodes[2], nodes[0]])
    assert tensors(made, "/m.1") == ["t1"]
    assert tensors(made, "/m.*") == ["t1", "y", "t0"]


def test_some_of_several_scopes_may_be_without() -> None:
    assert tensors(models.detector(), "/model.*//op:MaxPool") == ["/model.3/m/MaxPool_output_0"]
    assert told(models.detector(), "/model.*//op:Exp").startswith("the module '/model.0' has no Exp nodes; ")


# ---------------------------------------------------------------------- no match


@pytest.mark.parametrize(
    ("selector", "near"),
    [
        ("/model.9", "/model.4"),
        ("/model.1/cv3", "/model.1/cv1"),
        ("/modle.2", "/model.2"),
        ("backbone.stage1", "/model"),
    ],
)
def test_no_match_names_the_nearest(selector: str, near: str) -> None:
    message = told(models.detector(), selector)
    assert message.startswith(f"no module of the model matches {selector!r}; the nearest are /")
    assert near in message


@pytest.mark.parametrize("style", ["torchscript", "dynamo"])
def test_the_nearest_are_spelled_so_that_they_can_be_used(style: str) -> None:
    made = models.detector(style=style)
    message = told(made, "/model.1/cv4")
    found = re.findall(r"(\S+?)(?: \[[\d, ]+\])?(?:, |$)", message.partition("nearest are ")[2])
    assert len(found) == 4
    assert "/model.1/cv2 [1, 8, 16, 16]".replace("/", "." if style == "dynamo" else "/").lstrip(".") in message
    for near in found:
        assert SiteFinder(ModelFile.load(made)).tree.modules[near.strip("/").replace("/", ".")]


def test_a_model_without_paths_points_to_blocks_and_tensors() -> None:
    assert told(models.detector(style="none"), "/model.99").startswith(
        "no module of the model matches '/model.99'; its nodes carry no module paths, but it has the blocks Conv (8)"
    )
    assert told(models.chain("Relu", "Neg"), "/model.2") == (
        "no module of the model matches '/model.2'; its nodes carry no module paths, so name a tensor: tensor:NAME"
    )


@pytest.mark.parametrize("selector", ["", "  ", "/", ".", "//", "model..2", "/model.", "model.2..cv1"])
def test_selectors_with_nothing_in_them(selector: str) -> None:
    message = told(models.detector(), selector)
    assert "is empty" in message or "has an empty step" in message


def test_an_unknown_kind_is_a_path() -> None:
    assert "no module of the model matches 'module:Conv'" in told(models.detector(), "module:Conv")


def test_a_word_that_looks_like_a_type() -> None:
    """What is wrong with an index counts for types that the model has; for others, what it has instead."""
    detector = models.detector()
    assert told(detector, "Conv[0,2]").startswith("[0,2] is no index")
    assert told(detector, "Foo[0,2]").startswith("the model has no Foo; it has Conv (8)")
    assert "; modules of the model are /model.2 [1, 16, 8, 8], " in told(detector, "Model.2")
    assert "modules of the model" not in told(detector, "Conv[20]")
