from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import pickle
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

import graphsurgery
from graphsurgery.errors import GraphSurgeryError, ModelError
from graphsurgery.modelfile import limits
from graphsurgery.modelfile.fields import INITIALIZER, NODE, VALUE_INFO, Edit
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.source import FileSource
from tests import models
from tests.models import field, node, value

pytestmark = pytest.mark.smoke

MODELS: dict[str, Callable[[], ModelProto]] = {
    "kitchen sink": models.kitchen_sink,
    "detector": models.detector,
    "dynamo": lambda: models.detector(style="dynamo"),
    "ir 3": lambda: models.detector(opset=9, ir_version=3),
    "if": models.with_if,
    "loop": lambda: models.with_if(shadowed=True),
}


@pytest.fixture(params=MODELS)
def data(request: pytest.FixtureRequest) -> bytes:
    return MODELS[request.param]().SerializeToString()


def insert_first(data: bytes | ModelFile, module: str = "simam") -> ModelFile:
    """Put a block behind the first node that gives a map."""
    model = ModelFile.load(data)
    names = [name for n in model.structure.graph.node for name in n.output]
    wish = next(name for name in ("site", "/model.0/conv/Conv_output_0", "val_0") if name in names)
    return graphsurgery.insert(model, module, after=f"tensor:{wish}")


# ---------------------------------------------------------------------- the same bytes


def test_bytes_come_back(data: bytes) -> None:
    assert ModelFile.load(data).to_bytes() == data


def test_a_file_comes_back(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(data)
    ModelFile.load(tmp_path / "in.onnx").save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == data


def test_inserting_and_removing_gives_the_bytes_back(data: bytes) -> None:
    edited = insert_first(data)
    assert edited.to_bytes() != data
    assert graphsurgery.remove(edited).to_bytes() == data
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data  # not from what is still in memory


@pytest.mark.parametrize("seed", range(8))
def test_any_layout_comes_back(data: bytes, seed: int) -> None:
    """Fields out of order, nodes between initializers, padded lengths, unknown fields in the middle."""
    odd = models.relaid(data, seed)
    assert ModelProto.FromString(odd).graph.node[0].name == ModelProto.FromString(data).graph.node[0].name
    assert ModelFile.load(odd).to_bytes() == odd
    edited = insert_first(odd)
    models.valid(edited.to_bytes())
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == odd


def test_a_shuffled_model_still_runs() -> None:
    """What the runtime reads out of an edited file of odd layout is what it reads out of a plain one."""
    plain = models.kitchen_sink(runnable=True).SerializeToString()
    expected = models.run(graphsurgery.insert(plain, "simam", after="tensor:site").to_bytes())
    for seed in range(3):
        odd = graphsurgery.insert(models.relaid(plain, seed), "simam", after="tensor:site").to_bytes()
        assert all(np.array_equal(a, b) for a, b in zip(expected, models.run(odd), strict=True))


def test_the_graph_may_come_first() -> None:
    made = models.detector()
    fields = list(models.parts(made.SerializeToString()))
    data = b"".join(field(*p) for p in sorted(fields, key=lambda p: p.number != 7))
    assert data[0] == 7 << 3 | 2
    edited = graphsurgery.insert(data, "se", after="/model.2")
    assert edited.proto().ir_version == made.ir_version
    models.valid(edited.to_bytes())
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


@pytest.mark.parametrize(("width", "name"), [(2, "x" * 150), (3, "x" * 20000)])
def test_padding_that_an_edit_uses_up_comes_back(width: int, name: str) -> None:
    """The length of a node, of its input and of the graph take as many bytes as there were once the new name is in."""
    made = models.chain("Relu", "Neg", "Relu")
    made.graph.node[1].input[0] = made.graph.node[0].output[0] = "s"
    made.graph.node[1].name = name
    data = made.SerializeToString()
    padded = b""
    for part in models.parts(data):
        content = part.content
        if part.number == 7:
            content = b"".join(
                field(p.number, 2, models.relaid(p.content, 1, onnx.NodeProto.DESCRIPTOR), pad=width - 1)
                if p.number == 1
                else field(*p)
                for p in models.parts(content)
            )
        padded += field(part.number, part.kind, content, pad=1 if part.kind == 2 else 0)
    edited = graphsurgery.insert(padded, "simam", after="tensor:s")
    models.valid(edited.to_bytes())
    assert [n.input[0] for n in edited.proto().graph.node if n.name == name] == ["/simam/Mul_1_output_0"]
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == padded


def test_a_field_of_another_wire_type_is_unknown_and_kept() -> None:
    """Protobuf reads a varint under the number of the nodes as an unknown field; so it counts as no node."""
    made = models.detector().SerializeToString()
    graph = models.graph_of(made)
    odd = b"".join(field(*p) for p in models.parts(made) if p.number != 7)
    odd += field(14, 0, b"\x05")
    odd += field(7, 2, field(1, 0, b"\x07") + graph)
    edited = graphsurgery.insert(odd, "simam", after="/model.2")
    models.valid(edited.to_bytes())
    names = [n.name for n in edited.proto().graph.node]
    assert names[names.index("/model.2/simam/Mul") - 2] == "/model.2/act/Mul"
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == odd


def test_unknown_groups_are_kept() -> None:
    made = models.detector()
    reader = made.graph.node[6]
    for message in (made, made.graph, reader, reader.attribute[0], made.graph.initializer[0]):
        message.MergeFromString(b"\xcb\x3e" + field(1, 2, b"inside") + b"\xcc\x3e")  # group 1001
    data = made.SerializeToString()
    assert data.count(b"inside") == 5
    edited = graphsurgery.insert(data, "simam", after="/model.1/cv1")
    models.valid(edited.to_bytes())
    assert edited.proto().graph.node[6 + 5].input[0] == "/model.1/cv1/simam/Mul_1_output_0"
    assert edited.to_bytes().count(b"inside") == 5
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_onnx_own_test_models_come_back() -> None:
    files = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))
    assert len(files) > 100
    for path in files:
        assert ModelFile.load(path).to_bytes() == path.read_bytes(), path


# ---------------------------------------------------------------------- what can be loaded


@pytest.mark.parametrize("kind", [str, Path])
def test_from_a_path(kind: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.detector().SerializeToString())
    model = ModelFile.load(kind(str(path)))
    assert (model.name, model.folder) == ("m.onnx", tmp_path)
    assert model.opset == 17


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_from_bytes(kind: Callable[[bytes], Any]) -> None:
    data = models.detector().SerializeToString()
    model = ModelFile.load(kind(data))
    assert model.to_bytes() == data
    assert model.folder is None


def test_from_a_proto_which_stays_as_it_is() -> None:
    made = models.kitchen_sink()
    before = made.SerializeToString()
    edited = graphsurgery.insert(made, "simam", after="/model.0")
    assert made.SerializeToString() == before
    assert graphsurgery.remove(edited).proto() == made


def test_from_graphsurgeon() -> None:
    graph = gs.import_onnx(models.detector())
    edited = graphsurgery.insert(graph, "se", after="/model.2")
    models.valid(edited.to_bytes())
    assert len(edited.proto().graph.node) > len(graph.nodes)


def test_from_a_model_file() -> None:
    model = ModelFile.load(models.detector())
    assert ModelFile.load(model) is model


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system here")
def test_from_a_pipe(tmp_path: Path) -> None:
    data = models.detector().SerializeToString()
    read, write = os.pipe()
    assert len(data) < 60_000  # what a pipe holds
    os.write(write, data)
    os.close(write)
    model = ModelFile.from_source(FileSource.adopt(read, "-"), folder=None)
    assert model.to_bytes() == data


def test_a_pipe_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROTOBUF_BYTES", 1 << 21)
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        source = FileSource.adopt(os.dup(endless.stdout.fileno()), "a pipe")
        endless.kill()
    with pytest.raises(ModelError, match="holds 2 GB or more"):
        ModelFile.from_source(source, folder=None)


def test_from_an_open_file_in_the_middle(tmp_path: Path) -> None:
    data = models.detector().SerializeToString()
    (tmp_path / "m").write_bytes(b"before" + data)
    descriptor = os.open(tmp_path / "m", os.O_RDONLY)
    os.lseek(descriptor, 6, os.SEEK_SET)
    assert ModelFile.from_source(FileSource.adopt(descriptor, "m"), folder=None).to_bytes() == data


def test_models_do_not_keep_files_open(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.detector().SerializeToString())
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        ModelFile.load(path)
    assert not before or len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize("what", [None, 7, ["a"], models.detector().graph])
def test_what_is_no_model_is_named(what: Any) -> None:
    with pytest.raises(ModelError, match=f"not {type(what).__name__}$"):
        ModelFile.load(what)


# ---------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "m.onnx is empty"),
        (b"<html>not found</html>\n", "m.onnx is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "m.onnx is a text file"),
        (b"PK\x03\x04" + bytes(1000), "m.onnx is a zip archive .* export it to ONNX first"),
        (
            b"\x18\x00\x00\x00ORTM" + bytes(99),
            "m.onnx is in the ORT format .* give the ONNX model that it was made from",
        ),
        (bytes(5000), "m.onnx is not an ONNX model: a field has the number 0"),
        (b"\x80\x02}q\x00.", "m.onnx is not an ONNX model"),
        (b"\x08\x08", "it has no graph"),
        (b"\x3a\x00\x3a\x00", "its graph is stored in several parts"),
        (b"\x3a\x00", "it names no IR version or no operator set"),
        (b"\x08\x08\x38\x07", "several parts"),
        (b"\x08\x08\x3a\x04\x0a\x02\x0a\x05", "its structure is not that of an ONNX model"),
    ],
)
def test_what_is_not_a_model_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as told:
        ModelFile.load(path)
    assert "\n" not in str(told.value)


def test_a_directory_a_missing_file_and_a_file_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "none.onnx", "there is no file"),
        (tmp_path / "file" / "m.onnx", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ):
        with pytest.raises(ModelError, match=words):
            ModelFile.load(path)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.detector().SerializeToString())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("whoever runs this may read everything")
    with pytest.raises(ModelError, match="no permission"):
        ModelFile.load(path)


def test_a_truncated_file_is_told_wherever_it_ends(data: bytes) -> None:
    """Only at the ends of fields behind the graph can a cut file be a model, one that says less."""
    graph_is_whole = []
    for end in [*range(1, 40), *range(40, len(data), 101), *range(len(data) - 10, len(data))]:
        try:
            model = ModelFile.load(data[:end])
        except ModelError:
            continue
        assert model.to_bytes() == data[:end]
        graph_is_whole.append(models.graph_of(data[:end]) == models.graph_of(data))
    assert all(graph_is_whole)


def test_a_file_that_was_cut_off_is_called_that(tmp_path: Path) -> None:
    data = models.detector().SerializeToString()
    with pytest.raises(ModelError, match=r"not a complete ONNX model: .*was it cut off"):
        ModelFile.load(data[: len(data) // 2])


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_random_bytes_never_do_harm(data: bytes) -> None:
    _load_and_use(data)


@given(st.sampled_from(sorted(MODELS)), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_a_damaged_model_is_told_or_edited_but_never_crashes(name: str, rng: Any) -> None:
    data = bytearray(MODELS[name]().SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(data))
        data[place : place + rng.choice([0, 1, 1, 3])] = bytes(
            rng.randrange(256) for _ in range(rng.choice([0, 1, 1, 3]))
        )
    _load_and_use(bytes(data))


def _load_and_use(data: bytes) -> None:
    with contextlib.suppress(GraphSurgeryError):
        model = ModelFile.load(data)
        assert model.to_bytes() == data
        graphsurgery.sites(model)
        edited = graphsurgery.insert(model, "simam", after=["/model.0"])
        new = [i.id for i in edited.insertions()]
        assert graphsurgery.remove(edited.to_bytes(), new).to_bytes() == data


def test_a_name_that_is_not_text_is_told() -> None:
    data = models.chain("Relu", "Neg").SerializeToString()
    for old, new in ((b"n0", b"\xff0"), (b"t0", b"\xff0"), (b"Neg", b"\xffeg")):
        with pytest.raises(ModelError, match="not UTF-8 text"):
            graphsurgery.insert(data.replace(old, new), "simam", after="tensor:x")


def test_a_type_that_onnx_does_not_know() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.input[0].type.tensor_type.elem_type = 73
    with pytest.raises(GraphSurgeryError, match="holds type 73 values"):
        graphsurgery.insert(made, "simam", after="tensor:x")


def test_subgraphs_too_deep_for_protobuf() -> None:
    """Made of bytes: a message nested deeper than any reader takes must not end in a stack overflow."""
    graph = models.model([node("Relu", ["x"], ["y"])], [value("x")], [value("y")]).graph.SerializeToString()
    for _ in range(3000):
        attribute = field(1, 2, b"then_branch") + field(6, 2, graph) + field(20, 0, b"\x05")
        graph = field(1, 2, field(4, 2, b"If") + field(5, 2, attribute))
    data = b"\x08\x08" + field(8, 2, field(2, 0, b"\x11")) + field(7, 2, graph)
    with pytest.raises(ModelError, match="structure"):
        ModelFile.load(data)


def test_two_gigabytes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(ModelError, match=r"large\.onnx holds 2 GB or more in one .* save_as_external_data=True"):
        ModelFile.load(path)


def test_more_than_a_gigabyte_is_not_two(tmp_path: Path) -> None:
    path = models.sparse_file(tmp_path / "half.onnx", 3 * 2**29)
    edited = graphsurgery.insert(path, "simam", after="/model.0")
    assert edited.size > 3 * 2**29
    assert list(edited.ranges())


def test_growing_over_two_gigabytes_is_refused(tmp_path: Path) -> None:
    path = models.sparse_file(tmp_path / "almost.onnx", 2**31 - 1 - 700)
    edited = graphsurgery.insert(path, "simam", after="/model.0")
    with pytest.raises(ModelError, match=r"almost\.onnx would hold 2 GB or more"):
        edited.save(tmp_path / "out.onnx")
    assert os.listdir(tmp_path) == ["almost.onnx"]


# ---------------------------------------------------------------------- what is read, and what is not


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of bytes that were read from files."""
    reads: list[int] = []
    original = FileSource.read

    def read(self: FileSource, start: int, end: int) -> bytes:
        reads.append(end - start)
        return original(self, start, end)

    monkeypatch.setattr(FileSource, "read", read)
    return reads


def test_payload_is_not_read(tmp_path: Path, count: list[int]) -> None:
    path = models.sparse_file(tmp_path / "m.onnx", 50 << 20)
    graphsurgery.insert(path, "simam", after="/model.0")  # whatever is imported on first use
    count.clear()
    tracemalloc.start()
    edited = graphsurgery.insert(path, "simam", after="/model.0")
    edited.save(tmp_path / "out.onnx")
    graphsurgery.remove(ModelFile.load(tmp_path / "out.onnx")).save(tmp_path / "back.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(count) < 100_000
    assert peak < 2 << 20
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()


def test_many_small_weights_are_not_read_either(tmp_path: Path, count: list[int]) -> None:
    weights = [models.weight(f"w{i}", (4, 4, 25, 25)) for i in range(400)]
    made = models.model([node("Relu", ["x"], ["y"], "/model.0/Relu")], [value("x")], [value("y")], weights)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert (tmp_path / "m.onnx").stat().st_size > 15 << 20
    graphsurgery.insert(tmp_path / "m.onnx", "simam", after="/model.0")
    assert sum(count) < 1 << 20


def test_structure_is_everything_but_payload(data: bytes) -> None:
    whole = ModelProto.FromString(data)
    constants = [n.attribute[0].t for n in whole.graph.node if n.op_type == "Constant"]
    for tensor in (*whole.graph.initializer, *constants):
        kept = [p for p in models.parts(tensor.SerializeToString()) if p.kind != 2 or len(p.content) <= 1024]
        tensor.ParseFromString(b"".join(field(*p) for p in kept))
    assert ModelFile.load(data).structure == whole
    assert len(data) - whole.ByteSize() > 1000 or len(data) < 10_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("typed", (np.arange(144, dtype=np.float64) / 144).astype(np.float32).reshape(1, 4, 6, 6)),
        ("int32_data", np.arange(400, dtype=np.int32)),
        ("int64_data", np.arange(400)),
        ("double_data", np.arange(200.0)),
        ("uint64_data", np.arange(200, dtype=np.uint64)),
        ("halves", np.array([1, 0, 65504], np.float16)),
        ("bf16", np.arange(64).astype(ml_dtypes.bfloat16)),
        ("fp8", np.arange(64).astype(ml_dtypes.float8_e4m3fn)),
        ("table", numpy_helper.to_array(models.weight("", (600,)))),
        ("optional", numpy_helper.to_array(models.weight("optional", (1, 4, 6, 6)))),
    ],
)
def test_one_tensor_is_read_from_its_place(name: str, expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(models.relaid(models.kitchen_sink().SerializeToString(), 3))
    found = ModelFile.load(tmp_path / "m.onnx").tensor(name)
    assert found.dtype == expected.dtype
    assert np.array_equal(found.astype(np.float64), expected.astype(np.float64))


def test_no_such_tensor() -> None:
    with pytest.raises(KeyError):
        ModelFile.load(models.kitchen_sink()).tensor("none")


# ---------------------------------------------------------------------- a file that changes


def rewrite(path: Path, size: int | None = None) -> None:
    """Write to the file itself, as a program does that does not save atomically."""
    with path.open("r+b") as stream:
        stream.truncate(size if size is not None else path.stat().st_size)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10_000_000))


@pytest.mark.parametrize("size", [None, 100])
def test_a_file_that_changes_is_noticed(tmp_path: Path, size: int | None) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.detector().SerializeToString())
    model = ModelFile.load(path)
    edited = graphsurgery.insert(model, "simam", after="/model.0")
    rewrite(path, size)
    for act in (
        lambda: model.save(tmp_path / "out.onnx"),
        lambda: edited.save(tmp_path / "out.onnx"),
        lambda: edited.to_bytes(),
        lambda: model.tensor("model.0.conv.weight"),
        lambda: graphsurgery.insert(model, "simam", after="/model.1"),
    ):
        with pytest.raises(ModelError, match=r"m\.onnx was changed by another program"):
            act()
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_a_file_that_is_replaced_does_no_harm(tmp_path: Path) -> None:
    """Saving atomically over the input, as --in-place does, leaves the old content to whoever has it open."""
    path = tmp_path / "m.onnx"
    data = models.detector().SerializeToString()
    path.write_bytes(data)
    model = ModelFile.load(path)
    graphsurgery.insert(model, "simam", after="/model.0").save(path, force=True)
    assert model.to_bytes() == data
    assert graphsurgery.remove(path).to_bytes() == data


# ---------------------------------------------------------------------- editing


def test_an_edit_changes_what_it_names_only(data: bytes) -> None:
    model = ModelFile.load(data)
    new = value("new", [1]).SerializeToString()
    edit = Edit(replaced={(NODE, 0): None}, appended={VALUE_INFO: [new]}, metadata={"a": "b"})
    edited = model.edited(edit).to_bytes()
    assert model.to_bytes() == data
    assert models.nodes_of(edited) == models.nodes_of(data)[1:]
    before, after = list(models.parts(models.graph_of(data))), list(models.parts(models.graph_of(edited)))
    before.remove(next(p for p in before if p.number == NODE))
    after.remove(next(p for p in after if p.content == new))
    assert before == after
    assert [(p.key, p.value) for p in ModelProto.FromString(edited).metadata_props][-1] == ("a", "b")


def test_new_fields_stand_where_protobuf_would_write_them() -> None:
    made = models.chain("Relu", "Neg")
    edit = Edit(
        nodes={0: [b"\x22\x01A"], 2: [b"\x22\x01Z"]},
        appended={INITIALIZER: [b""], VALUE_INFO: [b""]},
        metadata={"key": "value"},
    )
    edited = ModelFile.load(made).edited(edit)
    data = edited.to_bytes()
    assert ModelProto.FromString(data).SerializeToString() == data
    assert [n.op_type for n in edited.proto().graph.node] == ["A", "Relu", "Neg", "Z"]


def test_nodes_into_a_graph_without_any() -> None:
    made = models.model([], [value("x")], [value("x")])
    edited = ModelFile.load(made).edited(Edit(nodes={0: [b"\x22\x01A"]}))
    assert [n.op_type for n in edited.proto().graph.node] == ["A"]
    assert edited.proto().graph.input == made.graph.input


def test_metadata_is_set_in_place_and_dropped() -> None:
    made = models.kitchen_sink()
    edited = ModelFile.load(made).edited(Edit(metadata={"names": "new", "stride": None, "more": "x", "gone": None}))
    assert [(p.key, p.value) for p in edited.proto().metadata_props] == [
        ("names", "new"),
        ("author", "Łukasz"),
        ("more", "x"),
    ]


def test_looking_inside_with_other_outputs() -> None:
    model = ModelFile.load(models.detector())
    seen = model.with_outputs([("/model.2/act/Mul_output_0", TensorProto.FLOAT)])
    (inside,) = models.run(seen.to_bytes())
    assert inside.shape == (1, 16, 8, 8)
    assert [o.name for o in model.proto().graph.output] == ["boxes", "scores"]


def test_opset_of_a_model_without_the_standard_operators() -> None:
    made = models.chain("Relu")
    made.opset_import[0].domain = "com.microsoft"
    with pytest.raises(ModelError, match="does not import the standard ONNX operator set"):
        _ = ModelFile.load(made).opset
    made.opset_import[0].domain = "ai.onnx"
    assert ModelFile.load(made).opset == 17


def test_digest_is_of_the_structure() -> None:
    data = models.detector().SerializeToString()
    model = ModelFile.load(data)
    edited = graphsurgery.insert(model, "se", after="/model.2")
    assert edited.digest() != model.digest()
    assert graphsurgery.remove(edited.to_bytes()).digest() == model.digest()
    assert edited.insertions()[0].original == model.digest()
    assert ModelFile.load(data.replace(b"/model.2/", b"/Model.2/")).digest() != model.digest()
    large = models.chain("Relu")
    large.graph.initializer.append(models.weight("w", (500,)))
    before = ModelFile.load(large).digest()
    large.graph.initializer[0].raw_data = bytes(2000)
    assert ModelFile.load(large).digest() == before  # the payload is not read for it


def test_the_graph_is_one_message() -> None:
    """The tests' own reading of the wire format agrees with protobuf's."""
    data = models.kitchen_sink().SerializeToString()
    assert GraphProto.FromString(models.graph_of(data)) == models.kitchen_sink().graph


# ---------------------------------------------------------------------- shown to a person


def test_how_a_model_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "<b>.onnx"
    path.write_bytes(models.detector().SerializeToString())
    model = graphsurgery.insert(path, "se", after="/model.2", settings={"reduction": 2})
    size = f"{model.size / 1000:.1f} kB"
    nodes = len(model.structure.graph.node)
    assert repr(model) == f"<ModelFile <b>.onnx: opset 17, IR version 8, {nodes} nodes, {size}, insertions: model.2.se>"
    (insertion,) = model.insertions()
    html = model._repr_html_()
    assert f"<tr><td>&lt;b&gt;.onnx</td><td>opset 17, IR version 8, {nodes} nodes, {size}</td></tr>" in html
    cells = (insertion.id, "se", insertion.site.tensor, "[1, 16, 8, 8]", "float32", insertion.parameters)
    assert f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" in html


def test_a_model_without_insertions_is_shown_without_a_table_of_them() -> None:
    assert ModelFile.load(models.chain("Relu"))._repr_html_().count("<table") == 1


def test_what_is_wrong_with_a_model_does_not_keep_it_from_being_shown() -> None:
    proto = models.chain("Relu")
    proto.opset_import[0].domain = "com.example"
    proto.metadata_props.add(key="graphsurgery.insertion.a", value="{}")
    shown = repr(ModelFile.load(proto))
    assert shown.startswith("<ModelFile the model: opset unknown, IR version 8, 1 node, ")
    assert shown.endswith(" B>")


def test_showing_a_model_reads_no_payload(tmp_path: Path, count: list[int]) -> None:
    model = ModelFile.load(models.sparse_file(tmp_path / "big.onnx", 1_200_000_000))
    loaded = sum(count)
    assert "1.2 GB" in repr(model)
    assert "1.2 GB" in model._repr_html_()
    assert sum(count) - loaded < 1000


def pickled(model: ModelFile) -> ModelFile:
    copied: ModelFile = pickle.loads(pickle.dumps(model))
    return copied


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_copy_of_a_model_leaves_the_original_its_file(
    tmp_path: Path, copied: Callable[[ModelFile], ModelFile]
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(models.detector(), path)
    original = ModelFile.load(path)
    assert copied(original).to_bytes() == path.read_bytes()
    with open(os.devnull):  # takes the number of a descriptor that was closed by mistake
        assert original.to_bytes() == path.read_bytes()
    del original


def test_a_pickled_model_refers_to_its_file_and_not_to_another_one(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = ModelFile.load(models.sparse_file(path, 50_000_000))
    data = pickle.dumps(model)
    assert len(data) < 1_000_000
    assert pickle.loads(data).size == model.size
    path.rename(tmp_path / "moved.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx cannot be opened again: No such file"):
        pickle.loads(data)
    path.write_bytes(b"another")
    with pytest.raises(ModelError, match=r"m\.onnx was changed by another program"):
        pickle.loads(data)


def test_a_pickled_model_holds_its_bytes_where_its_path_leads_to_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(models.detector(), path)
    data = path.read_bytes()
    model = ModelFile.load(path)
    path.unlink()
    assert pickled(model).to_bytes() == data


def test_a_spawned_process_takes_a_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(models.detector(), path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ModelFile.to_bytes, (ModelFile.load(path),)) == path.read_bytes()
