from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery.errors import ExternalDataError, OutputError
from graphsurgery.modelfile import external_data
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.userblocks.inserted import weights_of
from tests import models

resource = pytest.importorskip("resource")  # which Windows has not


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return models.external(_folder(tmp_path, "in"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return _folder(tmp_path, "out")


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def relocated(folder: Path, location: str) -> Path:
    """The model of ``external``, its data called ``location``, which is not made."""
    made = onnx.load(models.external(folder), load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    return folder / "model.onnx"


# ---------------------------------------------------------------------- beside, and elsewhere


def test_beside_it_is_referred_to(source: Path) -> None:
    before = tree(source.parent)
    expected = models.run(models.detector().SerializeToString())
    result = graphsurgery.insert(source, "se", after="/model.2", init="identity").save(source.with_name("new.onnx"))
    assert sorted(os.listdir(source.parent)) == ["model.onnx", "model.onnx.data", "new.onnx"]
    assert all(np.array_equal(a, b) for a, b in zip(models.run(result), expected, strict=True))
    graphsurgery.remove(result).save(source.with_name("back.onnx"))
    after = tree(source.parent)
    assert after["back.onnx"] == after["model.onnx"]
    assert {name: after[name] for name in before} == before


def test_offsets_and_lengths_are_kept(tmp_path: Path) -> None:
    source = models.external(tmp_path, payload=4096)
    edited = graphsurgery.insert(source, "se", after="/model.2")
    before = {t.name: t for t in onnx.load(source, load_external_data=False).graph.initializer}
    after = {t.name: t for t in edited.proto().graph.initializer}
    outside = [t for t in before.values() if t.external_data]
    assert len(outside) == 8
    assert all(after[t.name] == t for t in outside)
    assert {e.key for t in outside for e in t.external_data} == {"location", "offset", "length"}


@pytest.mark.parametrize("location", ["model.onnx.data", "weights/deep/w.bin", "./weights/../w.bin"])
def test_elsewhere_it_is_copied(tmp_path: Path, elsewhere: Path, location: str) -> None:
    folder = _folder(tmp_path, "in")
    (folder / "weights").mkdir()
    source = models.external(folder, location)
    result = graphsurgery.insert(source, "se", after="/model.2", init="identity").save(elsewhere / "new.onnx")
    (data,) = {
        t.external_data[0].value
        for t in onnx.load(result, load_external_data=False).graph.initializer
        if t.external_data
    }
    assert data == location
    assert (elsewhere / location).read_bytes() == (folder / location).read_bytes()
    assert all(map(np.array_equal, models.run(result), models.run(models.detector().SerializeToString())))


def test_a_link_to_the_folder_is_the_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "same").symlink_to(source.parent)
    graphsurgery.insert(source, "simam", after="/model.2").save(tmp_path / "same" / "new.onnx")
    assert sorted(os.listdir(source.parent)) == ["model.onnx", "model.onnx.data", "new.onnx"]
    linked = tmp_path / "same" / "model.onnx"
    graphsurgery.insert(linked, "simam", after="/model.2").save(source.with_name("newer.onnx"))
    assert sorted(os.listdir(source.parent)) == ["model.onnx", "model.onnx.data", "new.onnx", "newer.onnx"]


def test_an_existing_data_file_is_not_overwritten(source: Path, elsewhere: Path) -> None:
    (elsewhere / "model.onnx.data").write_bytes(b"of another model")
    edited = graphsurgery.insert(source, "simam", after="/model.2")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"model\.onnx\.data exists already with other content"):
            edited.save(elsewhere / "new.onnx", force=force)
    assert tree(elsewhere) == {"model.onnx.data": b"of another model"}


def test_the_model_does_not_take_the_place_of_its_data(source: Path, elsewhere: Path) -> None:
    edited = graphsurgery.insert(source, "simam", after="/model.2")
    before = tree(source.parent)
    for folder in (source.parent, elsewhere):
        with pytest.raises(OutputError, match=r"model\.onnx\.data is the model's external data"):
            edited.save(folder / "model.onnx.data", force=True)
    assert tree(source.parent) == before
    assert tree(elsewhere) == {}


def test_the_model_does_not_take_the_place_of_its_data_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    source = models.external(tmp_path, "weights/w.bin")
    edited = graphsurgery.insert(source, "simam", after="/model.2")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"w\.bin is the model's external data"):
        edited.save(tmp_path / "weights" / "w.bin", force=True)
    assert tree(tmp_path) == before


def test_a_failure_while_copying_leaves_nothing(tmp_path: Path, elsewhere: Path) -> None:
    source = models.external(_folder(tmp_path, "in"), "weights/w.bin")
    edited = graphsurgery.insert(source, "simam", after="/model.2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError):
            edited.save(elsewhere / "new.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(elsewhere) == []


def test_it_is_never_loaded(tmp_path: Path) -> None:
    source = models.external(tmp_path, payload=5 << 29)
    assert (tmp_path / "model.onnx.data").stat().st_size > 2**31
    graphsurgery.insert(source, "simam", after="/model.2")
    tracemalloc.start()
    result = graphsurgery.insert(source, "simam", after="/model.2").save(tmp_path / "new.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    onnx.checker.check_model(str(result), full_check=True)


# ---------------------------------------------------------------------- what must not be followed


def test_a_missing_file_is_told_before_anything_is_done(source: Path, elsewhere: Path) -> None:
    model = ModelFile.load(source)
    source.with_name("model.onnx.data").unlink()
    with pytest.raises(ExternalDataError, match=r"'model\.onnx\.data' is missing"):
        graphsurgery.insert(model, "simam", after="/model.2")
    for folder in (source.parent, elsewhere):
        with pytest.raises(ExternalDataError, match="is missing"):
            model.save(folder / "new.onnx")
    assert tree(elsewhere) == {}


@pytest.mark.parametrize(
    "location",
    ["../secret", "a/../../secret", "ABSOLUTE", "link", "linked/secret", "", "..", "/", "a\0b", "x" * 5000, "."],
)
def test_paths_that_leave_the_folder(tmp_path: Path, elsewhere: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    folder = _folder(tmp_path, "in")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    location = location.replace("ABSOLUTE", str(folder / "model.onnx.data"))
    model = ModelFile.load(relocated(folder, location))
    for act in (
        lambda: graphsurgery.insert(model, "simam", after="/model.2"),
        lambda: model.save(elsewhere / "new.onnx"),
        lambda: model.save(folder / "new.onnx"),
        lambda: model.tensor("model.0.conv.weight"),
    ):
        with pytest.raises(ExternalDataError, match=r"outside the model's folder|is missing"):
            act()
    assert tree(elsewhere) == {}


def test_a_link_inside_the_folder_is_fine(tmp_path: Path) -> None:
    source = relocated(tmp_path, "link")
    (tmp_path / "link").symlink_to("model.onnx.data")
    edited = graphsurgery.insert(source, "simam", after="/model.2")
    assert edited.tensor("model.0.conv.weight").shape == (8, 3, 3, 3)


# ---------------------------------------------------------------------- models from memory


def test_a_model_from_memory_can_only_be_saved_beside_its_data(source: Path, elsewhere: Path) -> None:
    edited = graphsurgery.insert(source.read_bytes(), "simam", after="/model.2")
    with pytest.raises(ExternalDataError, match="is missing"):
        edited.save(elsewhere / "new.onnx")
    with pytest.raises(ExternalDataError, match="from memory has no folder"):
        edited.tensor("model.0.conv.weight")
    edited.save(source.with_name("new.onnx"))
    models.run(source.with_name("new.onnx"))


def test_a_model_from_memory_whose_folder_is_told(source: Path, elsewhere: Path) -> None:
    model = ModelFile.load(onnx.load(source, load_external_data=False), folder=source.parent)
    graphsurgery.insert(model, "simam", after="/model.2").save(elsewhere / "new.onnx")
    models.run(elsewhere / "new.onnx")


# ---------------------------------------------------------------------- finding and reading


def outside(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_locations_are_found_wherever_tensors_can_be() -> None:
    made = models.with_if()
    graph = made.graph
    graph.initializer.extend([outside("a", "initializer"), outside("b", "initializer")])
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(outside("c", "sparse values"))
    sparse.indices.CopyFrom(outside("d", "sparse indices"))
    then = graph.node[1].attribute[0].g
    then.initializer.append(outside("e", "in a branch"))
    constant = then.node.add(op_type="Constant", output=["f"])
    constant.attribute.append(helper.make_attribute("value", outside("", "constant in a branch")))
    odd = graph.node.add(op_type="Odd", domain="custom")
    odd.attribute.add(name="many").tensors.append(outside("", "one of several"))  # no type, as in IR 1
    odd.attribute.add(name="sparse").sparse_tensor.values.CopyFrom(outside("", "sparse attribute"))
    odd.attribute.add(name="sparses").sparse_tensors.add().indices.CopyFrom(outside("", "sparse attributes"))
    odd.attribute.add(name="graphs").graphs.add().initializer.append(outside("", "one of several graphs"))
    function = made.functions.add(name="F", domain="custom")
    function.node.add(op_type="Constant").attribute.append(helper.make_attribute("value", outside("", "in a function")))
    function.attribute_proto.append(helper.make_attribute("default", outside("", "default of a function")))
    training = made.training_info.add()
    training.initialization.initializer.append(outside("g", "training start"))
    training.algorithm.initializer.append(outside("h", "training step"))
    graph.initializer.append(models.weight("inside", (1,)))
    assert sorted(ModelFile.load(made).external_data) == [
        "constant in a branch",
        "default of a function",
        "in a branch",
        "in a function",
        "initializer",
        "one of several",
        "one of several graphs",
        "sparse attribute",
        "sparse attributes",
        "sparse indices",
        "sparse values",
        "training start",
        "training step",
    ]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"offset": "8"}, [2, 3, 4, 5]),
        ({"offset": "8", "length": "8"}, [2, 3]),
        ({"length": "4", "checksum": "ignored"}, [0]),
    ],
)
def test_reading_a_range(tmp_path: Path, entries: dict[str, str], expected: list[float]) -> None:
    (tmp_path / "data").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    tensor = outside("t", "data")
    tensor.dims[:] = [len(expected)]
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    assert external_data.read(tensor, tmp_path).tolist() == expected


@pytest.mark.parametrize(
    "entries",
    [{"offset": "20"}, {"length": "100"}, {"offset": "-4"}, {"offset": "x"}, {"length": "-1"}, {"offset": "1"}],
)
def test_reading_what_is_not_there(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "data").write_bytes(bytes(24))
    tensor = outside("t", "data")
    tensor.dims[:] = [6]
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    with pytest.raises(ExternalDataError, match="'data'"):
        external_data.read(tensor, tmp_path)


def test_weights_are_read_back_after_another_tool_moved_them_outside(tmp_path: Path) -> None:
    """Insert, then onnx.save with external data: the block's own weights lie outside, and verify still finds them."""
    edited = graphsurgery.insert(models.detector(), "se", after="/model.2", settings={"reduction": 4})
    before = weights_of(edited.insertions()[0], edited)
    path = tmp_path / "moved.onnx"
    onnx.save(edited.proto(), path, save_as_external_data=True, location="w", size_threshold=0)
    moved = ModelFile.load(path)
    assert "w" in moved.external_data
    after: dict[str, Any] = weights_of(moved.insertions()[0], moved)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert numpy_helper.to_array(edited.proto().graph.initializer[0]).shape == moved.tensor("model.0.conv.weight").shape
