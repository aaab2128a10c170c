"""`--shape`: the shapes that a user knows of tensors whose shapes the model does not tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.errors import BlockError, InsertionError, RequestError
from tests import models
from tests.models import node, weight

NAM = "nam[channel+spatial]"
"""it has one weight for each position, and is quick to compare"""
R = "r=1x16x8x8"
WRITE = ("-o", "out.onnx")


def pillars(size: int | None = 8) -> onnx.ModelProto:
    """pillars -> PPScatterPlugin -> canvas -> Conv -> Relu -> r -> Conv -> out, with an output of this height."""
    nodes = [
        node("PPScatterPlugin", ["pillars"], ["canvas"], "scatter"),
        node("Conv", ["canvas", "w"], ["c"], "/b1/conv/Conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], "/b1/act/Relu"),
        node("Conv", ["r", "w2"], ["out"], "/head/Conv", kernel_shape=[1, 1]),
    ]
    weights = [weight("w", (16, 8, 3, 3)), weight("w2", (4, 16, 1, 1))]
    return models.model(
        nodes, [models.value("pillars", (1, 8, 100))], [models.value("out", (1, 4, size, size))], weights
    )


@pytest.fixture
def pillar_file(folder: Path) -> Path:
    path = folder / "pillars.onnx"
    onnx.save(pillars(), path)
    return path


def listed(ended: Any) -> dict[str, Any]:
    return {site["tensor"]: site for site in json.loads(ended.text)["sites"]}


def test_places_behind_a_plugin_are_listed(cli: Any, pillar_file: Path) -> None:
    found = listed(cli("sites", "pillars.onnx", "--json"))
    assert found["r"]["shape"] == [1, 16, None, None]
    assert found["r"]["advisable"]
    found = listed(cli("sites", "pillars.onnx", "--json", "--shape", "canvas=1x8x8x8"))
    assert found["canvas"]["shape"] == [1, 8, 8, 8]
    assert found["r"]["shape"] == [1, 16, 8, 8]


def test_without_height_and_width_a_block_works_that_needs_neither(cli: Any, pillar_file: Path) -> None:
    ended = cli("insert", "pillars.onnx", "-m", "simam", "-a", "b1", *WRITE)
    assert ended.code == 0
    assert "site: r, [1, 16, ?, ?] float32" in ended.text
    assert "parity on cpu: passed" in ended.text
    assert "the activation that really arrives here was not compared: onnxruntime refuses this" in ended.text


def test_a_block_that_needs_them_says_so(cli: Any, pillar_file: Path) -> None:
    sentence = cli("insert", "pillars.onnx", "-m", "mhsa", "-a", "b1", *WRITE).sentence(2)
    assert "b1 has a dynamic height or width; if they never vary, give them with --shape TENSOR=1x64x80x80" in sentence


def test_what_is_given_is_remembered(cli: Any, pillar_file: Path) -> None:
    """Verify and remove need no second word, and the file declares nothing that it did not."""
    before = pillar_file.read_bytes()
    assert cli("insert", "pillars.onnx", "-m", NAM, "-a", "b1", "--shape", R, *WRITE).code == 0
    made = onnx.load(pillar_file.with_name("out.onnx"))
    (record,) = gsx.ModelFile.load(made).insertions()
    assert record.site.shape == (1, 16, 8, 8)
    assert record.shapes == {"r": (1, 16, 8, 8)}
    assert [value.name for value in made.graph.value_info] == [record.output_tensor]
    assert cli("verify", "out.onnx").code == 0
    assert cli("verify", "out.onnx", "--shape", R).code == 0
    refused = cli("verify", "out.onnx", "--shape", "canvas=1x9x8x8").sentence(2)
    assert refused == "'canvas' is [?, 8, ?, ?] in the model, and --shape says [1, 9, 8, 8]"
    wrong = cli("verify", "out.onnx", "--shape", "canvas=1x8x4x4").error(1)
    assert "inserted for a map that is float32 [1, 16, 8, 8], and what it reads, 'r', is float32 [1, 16, 4, 4]" in wrong
    assert cli("remove", "out.onnx", "--all", "-o", "back.onnx").code == 0
    assert pillar_file.with_name("back.onnx").read_bytes() == before


def test_an_entry_of_a_recipe_has_the_key(cli: Any, pillar_file: Path) -> None:
    recipe = pillar_file.with_name("r.yaml")
    entries = [
        {"module": NAM, "after": "b1", "shapes": {"canvas": "1x8x8x8"}},
        {"module": "simam", "after": "tensor:canvas", "shapes": {"canvas": [1, 8, 8, 8]}},
    ]
    recipe.write_text(json.dumps(entries))
    assert cli("apply", "r.yaml", "pillars.onnx", *WRITE).code == 0
    found = gsx.ModelFile.load(pillar_file.with_name("out.onnx")).insertions()
    assert {each.site.tensor: each.site.shape for each in found} == {"r": (1, 16, 8, 8), "canvas": (1, 8, 8, 8)}
    entries[1]["shapes"] = {"canvas": [1, 8, 16, 16]}
    recipe.write_text(json.dumps(entries))
    sentence = cli("apply", "r.yaml", "pillars.onnx", "-o", "x.onnx").sentence(2)
    assert sentence.startswith("entry 2 of r.yaml: shapes says two shapes of 'canvas': [1, 8, 8, 8] elsewhere")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (
            {"canvas": "1x8x0x8"},
            "shapes takes sizes, ? or names for those that vary, such as 1x64x80x80; not '1x8x0x8'",
        ),
        ({"canvs": "1x8x8x8"}, "shapes names the tensor 'canvs', which pillars.onnx does not have; nearest: canvas"),
        ({"canvas": [1, 9, 8, 8]}, "'canvas' is [1, 8, ?, ?] in the model, and shapes says [1, 9, 8, 8]"),
        ([], "shapes are shapes by the names of tensors, as in {'images': '1x3x640x640'}, not []"),
        (
            {},
            "mhsa[botnet] has one weight per row and column, and b1 has a dynamic height or width; if they never vary, "
            "give them with shapes: {TENSOR: 1x64x80x80}",
        ),
    ],
)
def test_errors_spell_it_as_the_recipe_does(cli: Any, pillar_file: Path, shapes: object, words: str) -> None:
    recipe = pillar_file.with_name("r.yaml")
    entries = [{"module": "simam", "after": "b1"}, {"module": "mhsa", "after": "b1", "shapes": shapes}]
    recipe.write_text(json.dumps(entries))
    assert cli("apply", "r.yaml", "pillars.onnx", *WRITE).sentence(2).startswith(f"entry 2 of r.yaml: {words}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("canvas=1x9x8x8", "'canvas' is [1, 8, ?, ?] in the model, and --shape says [1, 9, 8, 8]"),
        ("canvas=1x8x32", "'canvas' is [1, 8, ?, ?] in the model, and --shape says [1, 8, 32]"),
        ("canvas=1x8x64x64", "--shape makes 'out' [1, 4, 64, 64], and it is [1, 4, 8, 8] in the model"),
        ("pillars=1x8x99", "'pillars' is [1, 8, 100] in the model, and --shape says [1, 8, 99]"),
        ("canvs=1x8x8x8", "--shape names the tensor 'canvs', which pillars.onnx does not have; nearest: canvas"),
        ("w=16x8x3x3", "--shape names the tensor 'w', which is a weight of pillars.onnx: its shape is known"),
        ("canvas", "--shape takes TENSOR=1x64x80x80, not 'canvas'"),
        ("canvas=", "--shape takes sizes, ? or names for those that vary, such as 1x64x80x80; not '' for 'canvas'"),
        ("canvas=1x8x0x32", "such as 1x64x80x80; not '1x8x0x32' for 'canvas'"),
        ("canvas=1x8x-1x32", "not '1x8x-1x32'"),
        ("canvas=1x8x" + "9" * 5000, "takes sizes, ? or names"),
        ("can=vas=1x8x8x8", "names the tensor 'can=vas', which"),
    ],
)
@pytest.mark.parametrize("command", ["insert", "sites"])
def test_bad_shapes(cli: Any, pillar_file: Path, command: str, given: str, words: str) -> None:
    more = ("-m", "simam", "-a", "b1", *WRITE) if command == "insert" else ()
    assert words in cli(command, "pillars.onnx", *more, "--shape", given).sentence(2)
    assert not pillar_file.with_name("out.onnx").exists()


def test_two_shapes_that_contradict_each_other(cli: Any, pillar_file: Path) -> None:
    pillar_file.write_bytes(pillars(None).SerializeToString())
    both = ("--shape", "canvas=1x8x64x64", "--shape", "r=1x16x8x8")
    sentence = cli("sites", "pillars.onnx", *both).sentence(2)
    assert "--shape makes 'r' [1, 16, 64, 64], and it is [1, 16, 8, 8] as it is given itself" in sentence
    twice = ("--shape", "canvas=1x8x64x64", "--shape", "canvas=1x8x64x64")
    assert "--shape gives canvas twice" in cli("sites", "pillars.onnx", *twice).sentence(2)


def test_the_sentence_names_the_node_at_which_shapes_stop(cli: Any, folder: Path) -> None:
    made = models.model(
        [node("Odd_TRT", ["x"], ["a"], "odd"), node("Neg", ["a"], ["b"], "/m.0/Neg"), node("Relu", ["b"], ["y"])],
        [models.value("x")],
        [models.value("y", None)],
    )
    onnx.save(made, folder / "odd.onnx")
    sentence = cli("insert", "odd.onnx", "-m", "simam", "-a", "m.0", *WRITE).error(2)
    assert "could not be inferred, as shapes stop at the node 'odd' (Odd_TRT)" in sentence
    assert "say it with --shape b=1x64x80x80, ? for a size that varies" in sentence
    sentence = cli("insert", "odd.onnx", "-m", "simam", "-a", "m.0", "--shape", "b=?x64x?x?", *WRITE).error(2)
    assert "the element type of 'b', which leaves m.0, is not in the model" in sentence


def test_dynamic_inputs_have_the_size_that_is_given(cli: Any, folder: Path) -> None:
    """The activation that arrives is computed at that size, then and whenever the block is verified."""
    made = models.detector(image=("batch", 3, "height", "width"))
    onnx.save(made, folder / "dynamic.onnx")
    size = ("--shape", "images=1x3x96x48")
    ended = cli("insert", "dynamic.onnx", "-m", NAM, "-a", "/model.2", *size, *WRITE)
    assert ended.code == 0
    assert "[1, 16, 24, 12] float32" in ended.text
    report = json.loads(cli("verify", "out.onnx", "--json").text)
    (row,) = [row for row in report["insertions"][0]["rows"] if row["mode"] == "in the model"]
    assert row["verdict"] == "passed"


def test_in_python() -> None:
    model = pillars()
    with pytest.raises(BlockError, match=r"give them with shapes=\{'TENSOR': '1x64x80x80'\}"):
        gsx.insert(model, "mhsa", after="b1")
    forms: list[str | Sequence[int | str | None]] = ["1x16x8x8", [1, 16, 8, 8], (None, 16, 8, 8), ("n", "c", 8, 8)]
    for shape in forms:
        made = gsx.insert(model, NAM, after="b1", shapes={"r": shape})
        assert made.insertions()[0].site.shape == (1, 16, 8, 8)
    (site,) = gsx.sites(model, "b1", shapes={"canvas": "1x8x8x8"})
    assert site.shape == (1, 16, 8, 8)
    for bad in ({"r": 7}, {"r": [1.5, 2]}, {3: "1x2"}, {"r": [True]}, ["r"], "r=1x2", {"r": "axb-c"}):
        with pytest.raises(RequestError):
            gsx.sites(model, shapes=bad)  # type: ignore[arg-type]


def test_a_record_of_a_later_version_is_called_that(cli: Any) -> None:
    """Readers of before do not know the key, and say so by the format."""
    made = gsx.insert(pillars(), "simam", after="b1", shapes={"r": "1x16x8x8"}).proto()
    (entry,) = [each for each in made.metadata_props if each.key.startswith("graphsurgery.insertion.")]
    assert json.loads(entry.value)["format"] == 3
    plain = gsx.insert(pillars(), "simam", after="b1").proto()
    (entry,) = [each for each in plain.metadata_props if each.key.startswith("graphsurgery.insertion.")]
    assert json.loads(entry.value)["format"] == 1
    assert "shapes" not in json.loads(entry.value)
    value = entry.value.replace('"format":1', '"format":3')[:-1]
    for shape in (["a", {}], [1, 16, 0, 8], [1, 16, -8, 8], [1, 16, 10**30, 8], [True], "1x16x8x8"):
        entry.value = f'{value},"shapes":{{"r":{json.dumps(shape)}}}}}'
        with pytest.raises(InsertionError, match="damaged"):
            gsx.ModelFile.load(plain).insertions()
