from __future__ import annotations

import pytest
from onnx import NodeProto

from graphsurgery.graph import module_paths
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.module_paths import ModuleTree, describe, from_metadata, from_name, join
from graphsurgery.modelfile.model import ModelFile
from tests import models
from tests.models import node, value


def tree(made: models.ModelProto) -> ModuleTree:
    return ModuleTree(GraphIndex(ModelFile.load(made)))


def with_metadata(**entries: str) -> NodeProto:
    made = node("Conv", ["x"], ["y"], "node_conv2d")
    for key, text in entries.items():
        made.metadata_props.add(
            key={"scopes": module_paths._SCOPES, "classes": module_paths._CLASSES}.get(key, key), value=text
        )
    return made


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/model.8/cv2/act/Mul", "model.8.cv2.act"),
        ("/model/model.8/cv2/act/Mul", "model.8.cv2.act"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/model.22/cv2.0/cv2.0.1/conv/Conv", "model.22.cv2.0.1.conv"),
        ("/model/encoder/layer/layer.3/attention/self/MatMul", "model.encoder.layer.3.attention.self"),
        ("/stem/conv/conv/Conv", "stem.conv.conv"),  # a module `conv` in a module `conv`
        ("/conv1/Conv", "conv1"),
        ("conv1/Conv", "conv1"),
        ("/Concat_3", ""),
        ("Conv_12", ""),
        ("", ""),
        ("//Conv", ""),
        ("/model.8//Conv", "model.8"),
        ("/model.1/model.10/Conv", "model.1.model.10"),  # no prefix: there is no dot behind it
        ("/a/a.0/a.0.b/a.0.b.c/Conv", "a.0.b.c"),
    ],
)
def test_paths_of_node_names(name: str, path: str) -> None:
    assert from_name(name) == path


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        (["", "model.8", "model.8.cv2", "model.8.cv2.conv"], "model.8.cv2.conv"),
        (["", "model.8", "m.0", "m.0.cv1", "act"], "model.8.m.0.cv1.act"),
        (["", "model.8", "cv1", "conv"], "model.8.cv1.conv"),
        (["", "model", "model.8", "cv2"], "model.8.cv2"),
        (["", "_empty_nn_module_stack_from_metadata_hook", "model.8"], "model.8"),
        (["_empty_nn_module_stack"], ""),
        ([""], ""),
        ([], ""),
    ],
)
def test_joining_scopes(scopes: list[str], path: str) -> None:
    assert join(scopes) == path


# ---------------------------------------------------------------------- metadata


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        ("['', 'model.8', 'm.0', 'm.0.cv1', 'act', 'silu_22']", "model.8.m.0.cv1.act"),
        ("['', 'model.9', 'model.9.cv1', 'model.9.cv1.conv', 'conv2d_3']", "model.9.cv1.conv"),
        (
            "['', 'model.slice(None, -1, None).5', 'model.slice(None, -1, None).5.m.0', 'conv1', 'conv2d']",
            "model.5.m.0.conv1",
        ),
        ("['', 'layers.slice(2, None, None).1', 'add']", "layers.3"),
        ("('', 'model.8', 'add')", "model.8"),
        ("['add']", ""),
        ("[]", ""),
    ],
)
def test_scopes_of_the_dynamo_exporter(scopes: str, path: str) -> None:
    told = from_metadata(with_metadata(scopes=scopes))
    assert told is not None
    assert told[0] == path


def test_classes_stand_beside_the_scopes() -> None:
    told = from_metadata(
        with_metadata(
            scopes="['', 'model.8', 'model.8.cv1', 'conv2d']",
            classes="['a.b.DetectionModel', 'a.b.C2f', 'a.b.Conv', 'aten.conv2d.default']",
        )
    )
    assert told == ("model.8.cv1", [("model.8", "a.b.C2f"), ("model.8.cv1", "a.b.Conv")])


def test_the_namespace_of_older_exporters() -> None:
    told = from_metadata(
        with_metadata(namespace=": pkg.Model/model.8: pkg.C2f/cv1: pkg.Conv/conv2d: aten.conv2d.default")
    )
    assert told == ("model.8.cv1", [("model.8", "pkg.C2f"), ("model.8.cv1", "pkg.Conv")])


@pytest.mark.parametrize(
    "scopes", ["", "[", "model.8", "7", "{'a': 1}", "[" * 5000, "-" * 100_000 + "1", "\0", "[1, 2", "['a' 'b'"]
)
def test_metadata_that_is_no_list_is_ignored(scopes: str) -> None:
    assert from_metadata(with_metadata(scopes=scopes)) is None


def test_nodes_without_metadata() -> None:
    assert from_metadata(node("Conv", ["x"], ["y"])) is None
    assert from_metadata(with_metadata(stack_trace="File a.py")) is None


def test_metadata_that_is_not_text() -> None:
    made = NodeProto.FromString(
        with_metadata(namespace="ABCD").SerializeToString().replace(b"ABCD", b"\xff\xfe\xfd\xfc")
    )
    assert from_metadata(made) is None


def test_a_new_node_is_described_like_its_neighbour() -> None:
    like = with_metadata(scopes="['', 'model.8', 'conv2d']")
    new = node("Sigmoid", ["a"], ["b"])
    describe(new, "model.8.simam", like=like)
    told = from_metadata(new)
    assert told is not None
    assert told[0] == "model.8.simam"
    for other in (None, node("Conv", ["x"], ["y"])):
        plain = node("Sigmoid", ["a"], ["b"])
        describe(plain, "model.8.simam", like=other)
        assert not plain.metadata_props


# ---------------------------------------------------------------------- the tree


@pytest.mark.parametrize("style", ["torchscript", "dynamo", "namespace"])
def test_every_exporter_gives_the_same_tree(style: str) -> None:
    found = tree(models.detector(style=style))
    assert list(found.modules) == [
        *("model", "model.0", "model.0.conv", "model.0.act", "model.1", "model.1.cv1", "model.1.cv1.conv"),
        *("model.1.cv1.act", "model.1.m", "model.1.m.0", "model.1.m.0.cv1", "model.1.m.0.cv1.conv"),
        *("model.1.m.0.cv1.act", "model.1.cv2", "model.1.cv2.conv", "model.1.cv2.act", "model.2", "model.2.conv"),
        *("model.2.act", "model.3", "model.3.m", "model.3.cv2", "model.3.cv2.conv", "model.3.cv2.act", "model.4"),
        *("model.4.cv2", "model.4.cv3"),
    ]
    assert found.modules["model.0"].nodes == [0, 1, 2]
    assert found.of_node[:4] == ["model.0.conv", "model.0.act", "model.0.act", "model.1.cv1.conv"]
    assert found.modules["model.1.cv1"].display == {"torchscript": "/model.1/cv1"}.get(style, "model.1.cv1")


def test_classes_are_known_where_the_model_tells() -> None:
    found = tree(models.detector(style="dynamo"))
    assert found.modules["model.0.conv"].type == "Conv"
    assert found.modules["model.2"].type == "Model"
    assert tree(models.detector()).modules["model.2"].type is None


def test_a_model_without_names_has_no_modules() -> None:
    found = tree(models.detector(style="none"))
    assert found.modules == {}
    assert set(found.of_node) == {""}


def test_nested_containers_are_spelled_as_the_model_spells_them() -> None:
    names = ["/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/act1/Relu", "/layer1/layer1.1/conv1/Conv"]
    made = models.chain("Relu", "Neg", "Abs")
    for proto, name in zip(made.graph.node, names, strict=True):
        proto.name = name
    found = tree(made)
    assert {m.path: m.display for m in found.modules.values()} == {
        "layer1": "/layer1",
        "layer1.0": "/layer1/layer1.0",
        "layer1.0.conv1": "/layer1/layer1.0/conv1",
        "layer1.0.act1": "/layer1/layer1.0/act1",
        "layer1.1": "/layer1/layer1.1",
        "layer1.1.conv1": "/layer1/layer1.1/conv1",
    }
    assert found.modules["layer1.0"].nodes == [0, 1]


def test_a_node_that_lost_its_name_belongs_to_what_surrounds_it() -> None:
    made = models.detector()
    for proto in made.graph.node:
        if proto.name == "/model.1/Concat":
            proto.name = "Concat_7"
    found = tree(made)
    position = [n.name for n in made.graph.node].index("Concat_7")
    assert found.of_node[position] == "model.1"
    assert position in found.modules["model.1"].nodes


def test_a_nameless_node_between_two_modules_belongs_to_neither() -> None:
    made = models.model(
        [node("Relu", ["x"], ["a"], "/one/Relu"), node("Neg", ["a"], ["b"]), node("Abs", ["b"], ["y"], "/two/Abs")],
        [value("x")],
        [value("y")],
    )
    assert tree(made).of_node == ["one", "", "two"]


@pytest.mark.parametrize("name", ["/" + "/".join("ab" * 20_000), "/" + ".".join("ab" * 20_000) + "/Relu", "/" * 40_000])
def test_scopes_that_are_too_many_for_modules(name: str) -> None:
    """Every module has the path of all around it in its own: written out, these are gigabytes."""
    made = models.chain("Relu", "Neg")
    made.graph.node[0].name = name
    assert ModuleTree(GraphIndex(ModelFile.load(made))).modules == {}
    made.graph.node[0].name = "n0"
    made.graph.node[0].metadata_props.add(key="namespace", value=": x/" + "a: b/" * 20_000 + "relu: c")
    assert ModuleTree(GraphIndex(ModelFile.load(made))).modules == {}


def test_weights_with_scopes_that_are_too_many() -> None:
    name = "a." * 20_000 + "weight"
    assert module_paths.from_weights(node("Conv", ["x", name], ["y"]), {name}) == ""
