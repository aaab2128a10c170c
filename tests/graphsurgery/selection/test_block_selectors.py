"""Selectors of blocks, parts, roles and operators, in real exports and against what their module paths say."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import graphsurgery
from graphsurgery.errors import GraphSurgeryError, SelectorError, SiteError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.parser import parse
from graphsurgery.selection.sites import Site, SiteFinder
from tests import models
from tests.counting import calls
from tests.exports import export
from tests.exports.dialects import dialect
from tests.models import node, value


@cache
def finder(variant: str = "simplified") -> SiteFinder:
    return SiteFinder(ModelFile.load(export("yolov8n", variant)))


def tensors(selector: str, variant: str = "simplified") -> list[str]:
    return [site.tensor for site in finder(variant).find([selector])]


def told(selector: str, where: SiteFinder | None = None, position: str = "after") -> tuple[str, str]:
    """The sentence, and the part of the selector that is marked."""
    with pytest.raises(SelectorError) as error:
        (where or finder()).find([selector], position=position)
    sentence, shown, mark = str(error.value).split("\n")
    assert shown == f"  {selector}"
    return sentence, shown[mark.index("^") : len(mark)]


# ---------------------------------------------------------------------- what they point at


@pytest.mark.parametrize("variant", ["torchscript", "simplified", "half", "dynamic"])
@pytest.mark.parametrize(
    ("selector", "paths"),
    [
        ("C2f[3]", ["/model.8"]),
        ("C2f[-1]", ["/model.21"]),
        ("C2f[0:2]", ["/model.2", "/model.4"]),
        ("C2f[-2:]", ["/model.18", "/model.21"]),
        ("C2f[::3]", ["/model.2", "/model.8", "/model.18"]),
        ("C2f", ["/model.{2,4,6,8,12,15,18,21}"]),
        ("C2f[*]", ["/model.{2,4,6,8,12,15,18,21}"]),
        ("//C2f[0]", ["/model.2"]),
        ("C2f[{0,3}]", ["/model.2", "/model.8"]),
        ("C2f[3], SPPF", ["/model.8", "/model.9"]),
        ("SPPF,/model.2,C2f[0]", ["/model.2", "/model.9"]),
        ("{SPPF,C2f}[0]", ["/model.2", "/model.9"]),
        ("C2f[1].cv1", ["/model.4/cv1"]),
        ("C2f[1].cv{1,2}", ["/model.4/cv1", "/model.4/cv2"]),
        ("C2f[1].m.0.cv2", ["/model.4/m.0/cv2"]),
        ("C2f[1].m.*.cv2", ["/model.4/m.0/cv2", "/model.4/m.1/cv2"]),
        ("C2f[1]/m.1", ["/model.4/m.1"]),
        ("C2f[*].cv2", ["/model.{2,4,6,8,12,15,18,21}/cv2"]),
        ("Bottleneck[0].cv2", ["/model.2/m.0/cv2"]),
        ("model.4//Bottleneck[1].cv2", ["/model.4/m.1/cv2"]),
        ("/model.{4,6}//Bottleneck[-1]", ["/model.4/m.1", "/model.6/m.1"]),
        ("C2f[1]//Bottleneck", ["/model.4/m.0", "/model.4/m.1"]),
        ("model.[04]//Bottleneck[1]", ["/model.4/m.1"]),  # model.0 has none, and is passed over
        ("/model.9//op:MaxPool[-1]", ["/model.9/m_2"]),
        ("role:p{3,5}", ["/model.4", "/model.9"]),
        ("role:before-sppf", ["/model.8"]),
        ("role:after-sppf", ["/model.9"]),
        ("role:neck-out*", ["/model.15", "/model.18", "/model.21"]),
    ],
)
def test_what_selectors_of_blocks_point_at(selector: str, paths: list[str], variant: str) -> None:
    if paths == ["/model.9/m_2"]:
        pools = [n for n in finder(variant).index.nodes if n.op_type == "MaxPool"]
        assert tensors(selector, variant) == [pools[-1].output[0]]
        return
    expected = [tensor for path in paths for tensor in tensors(path, variant)]
    assert tensors(selector, variant) == expected


def test_operators_are_counted_in_the_order_of_the_file() -> None:
    convolutions = [n.output[0] for n in finder().index.nodes if n.op_type == "Conv"]
    assert tensors("op:Conv[17]") == [convolutions[17]]
    assert tensors("op:Conv[-3]") == [convolutions[-3]]
    assert tensors("op:Conv[3:6]") == convolutions[3:6]
    assert tensors("op:Conv") == [name for name in convolutions if "/dfl/" not in name]


def test_a_path_of_the_model_is_preferred_to_a_type() -> None:
    """A module may be called as a type of block; // says that the type is meant."""
    made = models.detector()
    for proto in made.graph.node:
        proto.name = proto.name.replace("/model.3/", "/Conv/")
    here = SiteFinder(ModelFile.load(made))
    assert [site.path for site in here.find(["Conv"])] == ["/Conv"]
    assert len(here.find(["//Conv"])) == len(here.blocks.of_type("Conv"))
    assert len(here.find(["//Conv"])) > 5


def test_the_type_of_the_block_is_told() -> None:
    (site,) = finder().find(["C2f[3]"])
    assert (site.type, site.path, site.shape, site.stride) == ("C2f", "/model.8", (1, 256, 20, 20), 32)


@pytest.mark.parametrize("selector", ["C2f[3]", "model.8", "model.8//C2f", "/model.8/cv1", "C2f[3].cv1"])
def test_in_front_of_a_block(selector: str) -> None:
    (site,) = finder().find([selector], position="before")
    assert (site.tensor, site.consumers) == (tensors("/model.7")[0], ("/model.8/cv1/conv/Conv",))


# ---------------------------------------------------------------------- what they say when there is nothing


@pytest.mark.parametrize(
    ("selector", "sentence", "part"),
    [
        ("C2f[8]", "the model has 8 C2f, so [0] to [7]; the last is C2f[7] [1, 256, 20, 20]", "[8]"),
        ("C2f[-9].cv1", "the model has 8 C2f, so [0] to [7]", "[-9]"),
        ("C2f[5:5]", "the model has 8 C2f, so [0] to [7]", "[5:5]"),
        ("SPPF[1]", "the model has 1 SPPF, so only [0]; the last is SPPF[0] [1, 256, 20, 20]", "[1]"),
        ("C3k2[0]", "the model has no C3k2; it has Conv (63), Bottleneck (10), C2f (8), ", "C3k2"),
        ("/model.8//C3k", "the module '/model.8' has no C3k; it has Conv (4), Bottleneck (1), C2f (1)", "C3k"),
        ("/model.8//C2f[1]", "the module '/model.8' has 1 C2f, so only [0]", "[1]"),
        (
            "C2f[1].m.0.cv3",
            "C2f[1].m.0 (Bottleneck) has no part 'cv3'; it has the parts cv1 [1, 32, 80, 80], cv2 [1, 32, 80, 80]",
            "cv3",
        ),
        ("C2f[1].cv9.x", "C2f[1] (C2f) has no part 'cv9.x'; it has the parts cv1 [1, 64, 80, 80], m.0 [", "cv9.x"),
        ("c2f[0]", "no module of the model matches 'c2f[0]'; the type of block is called C2f", "c2f"),
        ("role:p0", "there is no role 'p0'; the roles are p1, p2, p3, ", "p0"),
        ("role:p7", "the model has no p7; it has p", "p7"),
        ("op:Conf", "the model has no Conf nodes; its operators are Conv (64), ", "Conf"),
        ("op:Conv[64]", "the model has 64 Conv nodes, so [0] to [63]", "[64]"),
        ("/model.8//op:Resize", "the module '/model.8' has no Resize nodes; its operators are ", "Resize"),
        ("/model.8/cv3", "no module of the model matches '/model.8/cv3'; the nearest are /model.8/cv", "cv3"),
        ("/model.{4,8}/cv3", "no module of the model matches '/model.4/cv3'; ", "cv3"),
        ("SPPF, /model.99", "no module of the model matches '/model.99'; ", "99"),
        ("tensor:imagse", "the model has no tensor 'imagse'; the nearest are images [1, 3, 640, 640]", "imagse"),
    ],
)
def test_nothing_there(selector: str, sentence: str, part: str) -> None:
    said, marked = told(selector)
    assert said.startswith(sentence)
    assert marked == part


@pytest.mark.parametrize(
    ("selector", "sentence", "part"),
    [
        ("C2f[x]", "[x] is no index; write [3], [-1], [0:2] or [*]", "[x]"),
        ("C2f[0:1:0]", "[0:1:0] is no index", "[0:1:0]"),
        ("C2f[1", "the index has no closing bracket", "[1"),
        ("C2f[1]cv1", "behind an index comes a point and the name of an inner part", "cv1"),
        ("C2f[1].", "the name of an inner part is missing", "."),
        ("model.8//C2f[1]..cv1", "the name of an inner part is missing", "..cv1"),
        ("op:", "op: needs an operator behind it", "op:"),
        ("op:Conv[a]", "[a] is no index", "[a]"),
        ("op:Conv[0].x", "the index has no closing bracket", "[0].x"),
        ("role:", "role: needs the name of a role", "role:"),
        ("model.8//", "has an empty step", "model.8//"),
        ("model.8//[0]", "behind // stands a type of block or op:TYPE", "[0]"),
        ("/model.{4,6", "has an opening brace without a closing one", "{"),
        ("/model.4}", "has a closing brace without an opening one", "}"),
        ("/model.4,,SPPF", "there is a comma with no selector beside it", ","),
        ("/model.4,", "there is a comma with no selector beside it", ""),
        ("model.8..cv1", "has an empty step", ".."),
        ("{a,b}" * 13, "the braces stand for more than 4,096 selectors", "{a,b}" * 13),
    ],
)
def test_what_cannot_be_read(selector: str, sentence: str, part: str) -> None:
    with pytest.raises(SelectorError) as error:
        finder().find([selector])
    said, shown, mark = str(error.value).split("\n")
    assert sentence in said
    assert shown == f"  {selector}"
    assert shown[mark.index("^") : len(mark)] == part


def test_the_mark_stands_below_wide_and_invisible_characters() -> None:
    with pytest.raises(SelectorError) as error:
        parse("/模型/\t{")
    _, shown, mark = str(error.value).split("\n")
    assert shown == "  /模型/\N{REPLACEMENT CHARACTER}{"
    assert mark == " " * (2 + 1 + 4 + 1 + 1) + "^"


def test_a_name_takes_the_rest_of_the_text() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = "a,{b}[0]//c"
    assert [s.tensor for s in SiteFinder(ModelFile.load(made)).find(["tensor:a,{b}[0]//c"])] == ["a,{b}[0]//c"]
    assert [s.tensor for s in SiteFinder(ModelFile.load(made)).find(["op:Neg, tensor:a,{b}[0]//c"])] == [
        "a,{b}[0]//c",
        "y",
    ]


def test_a_model_without_any_convolution() -> None:
    here = SiteFinder(ModelFile.load(models.chain("Relu", "Neg")))
    for selector in ("C2f[0]", "role:p5"):
        assert (
            "there is no convolution in the model, and so nothing to recognise; name a tensor"
            in told(selector, here)[0]
        )


def test_what_is_inside_a_body_or_a_function() -> None:
    here = SiteFinder(ModelFile.load(models.with_if()))
    said, _ = told("tensor:d", here)
    assert said.startswith("the model has no tensor 'd': it is inside the branches of the node 'branch' (If), where no")
    assert "what the node puts out can be named: tensor:r" in said
    assert "inside the branches of the node 'branch'" in told("node:nested", here)[0]
    made = models.chain("Relu", "Neg")
    inner = [node("Abs", ["a"], ["deep"], "inner"), node("Neg", ["deep"], ["b"])]
    made.functions.append(helper.make_function("local", "F", ["a"], ["b"], inner, made.opset_import))
    made.opset_import.add(domain="local", version=1)
    for call in made.graph.node:  # called once, it would take a block
        call.op_type, call.domain = "F", "local"
    here = SiteFinder(ModelFile.load(made))
    assert "inside the local function 'F', where no block can be put" in told("tensor:deep", here)[0]
    assert "can be named: tensor:" in told("node:inner", here)[0]


def test_the_arithmetic_of_the_head_is_refused() -> None:
    for name in ("/model.22/dfl/Reshape_output_0", "/model.22/Sigmoid_output_0"):
        with pytest.raises(SiteError, match=r"the nearest maps that it is made from are tensor:/model\.22/cv"):
            finder().find([f"tensor:{name}"])


# ---------------------------------------------------------------------- skip connections of a real detector


def run(model: bytes, extra: list[str]) -> dict[str, np.ndarray]:
    """The named tensors of a model for one image."""
    made = onnx.load_from_string(model)
    made.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in extra)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(5).random((1, 3, 640, 640), dtype=np.float32)
    names = [output.name for output in made.graph.output]
    return dict(zip(names, session.run(names, {made.graph.input[0].name: image}), strict=True))


def edited_and_original(**arguments: str) -> tuple[ModelFile, Site]:
    path = export("yolov8n", "simplified")
    edited = graphsurgery.insert(path, "simam", **arguments)  # type: ignore[arg-type]
    onnx.checker.check_model(edited.proto())
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == path.read_bytes()
    (site,) = finder().find(
        [arguments.get("after") or arguments["before"]],
        position="before" if "before" in arguments else "after",
        consumers=[arguments["consumers"]] if "consumers" in arguments else [],
    )
    return edited, site


@pytest.mark.parametrize(
    "consumers", ["Concat", "Concat[*]", "role:neck", "/model.14", "op:Concat", "node:/model.14/Concat"]
)
def test_consumers_of_a_real_detector(consumers: str) -> None:
    (site,) = finder().find(["/model.4"], consumers=[consumers])
    assert (site.tensor, site.consumers, site.others) == (
        tensors("/model.4")[0],
        ("/model.14/Concat",),
        ("/model.5/conv/Conv",),
    )


@pytest.mark.parametrize("consumers", ["Concat"])
def test_the_skip_connection_and_not_the_next_stage(consumers: str) -> None:
    """Behind model.4 for the neck only: the backbone computes what it did, bit by bit, and the neck does not."""
    edited, site = edited_and_original(after="role:p3", consumers=consumers)
    assert (site.path, site.consumers, site.others) == ("/model.4", ("/model.14/Concat",), ("/model.5/conv/Conv",))
    watched = [*tensors("/model.5"), *tensors("/model.9"), *tensors("/model.15")]
    before, after = (run(m, watched) for m in (finder().model.to_bytes(), edited.to_bytes()))
    assert [np.array_equal(before[name], after[name]) for name in watched] == [True, True, False]


def test_in_front_of_sppf_only() -> None:
    """The C2f before it feeds nothing else in YOLOv8; at model.15, which feeds two, the other branch is unchanged."""
    edited, site = edited_and_original(before="SPPF")
    assert (site.path, site.consumers, site.others) == ("/model.9", ("/model.9/cv1/conv/Conv",), ())
    assert edited.insertions()[0].id == "model.9.simam"
    edited, site = edited_and_original(before="/model.16")
    assert site.path == "/model.16"
    assert len(site.others) == 2
    watched = [*tensors("/model.22/cv2.0"), *tensors("/model.16"), *tensors("/model.15")]
    before, after = (run(m, watched) for m in (finder().model.to_bytes(), edited.to_bytes()))
    assert [np.array_equal(before[name], after[name]) for name in watched] == [True, False, True]


# ---------------------------------------------------------------------- large graphs


def stages(count: int) -> models.ModelProto:
    """A chain of convolutions and activations in modules of their own."""
    nodes, x = [], "x"
    for i in range(count):
        nodes += [
            node("Conv", [x, "w"], [f"c{i}"], f"/m.{i}/conv/Conv"),
            node("Relu", [f"c{i}"], [f"r{i}"], f"/m.{i}/act/Relu"),
        ]
        x = f"r{i}"
    nodes.append(node("Identity", [x], ["y"], "/end/Identity"))
    shapes = [value(f"{kind}{i}") for i in range(count) for kind in "cr"]
    return models.model(nodes, [value("x")], [value("y")], [models.weight("w", (4, 4, 1, 1))], value_info=shapes)


@pytest.mark.parametrize(
    "selector",
    ["op:Conv[7]", "/m.7", "7.conv", "/m.*/act", "/m.*//op:Relu", "/m.9999", "tensor:c9999", "node:/x"],
)
@pytest.mark.parametrize("position", ["after", "before"])
def test_one_more_selector_costs_no_more_than_a_pass(selector: str, position: str) -> None:
    """Work grows with the size of the model and no faster."""
    counts = []
    for size in (150, 600):
        here = SiteFinder(ModelFile.load(stages(size)))
        _ = here.find(["/m.0"]), here.shapes.lookup("c3"), here.tree

        def find(here: SiteFinder = here) -> None:
            with contextlib.suppress(GraphSurgeryError):
                here.find([selector], position=position)

        counts.append(calls(find)[1])
    assert counts[1] < 8 * counts[0] + 500  # 16 where it grows with the square
    assert counts[1] < 600 * 2400  # one recognition of the model, where a path is not among the modules


def test_module_paths_by_the_names_of_weights() -> None:
    """torch before 1.13 numbers nodes and tensors, but its weights keep the names of the state_dict."""
    numbered = ModelFile.load(dialect("yolov8n", "numbered").model)
    named = ModelFile.load(export("yolov8n", "torchscript"))
    for path in ("model.8", "model.4.m.1", "model.9", "model.0", "model.15.cv1"):
        (here,) = SiteFinder(numbered).find([path])
        (there,) = SiteFinder(named).find([path])
        assert dialect("yolov8n", "numbered").tensors[there.tensor] == here.tensor
    with pytest.raises(SelectorError, match="no module of the model matches"):
        SiteFinder(numbered).find(["model.99"])
