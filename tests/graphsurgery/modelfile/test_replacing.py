"""A model and its external data are replaced together, or not at all."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphsurgery
from graphsurgery.errors import GraphSurgeryError, OutputError
from graphsurgery.modelfile import saving
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.source import Stamp
from graphsurgery.process import leftovers
from tests import models

KILLED = Path(__file__).with_name("killed_saves.py")
MODES = ("file", "data", "place")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A model with external data, to be replaced."""
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    return models.external(folder, "deep/w.data")


@pytest.fixture
def new(tmp_path: Path) -> ModelFile:
    """A model of which the data has the same name and other content."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    path = models.external(folder, "deep/w.data")
    data = folder / "deep" / "w.data"
    data.write_bytes(bytes(255 - byte for byte in data.read_bytes()))
    return graphsurgery.insert(path, "simam", after="/model.2")


# ---------------------------------------------------------------------- kills and failures


def killed(*arguments: str | Path) -> dict[str, int]:
    done = subprocess.run([sys.executable, KILLED, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("mode", "states"),
    [("file", {"a", "b"}), ("data", {"a", "kept a", "b"}), ("place", {"a", "a+"})],
)
def test_killed_at_every_step(tmp_path: Path, mode: str, states: set[str]) -> None:
    assert set(killed("steps", mode, tmp_path / "work")) == states


def test_killed_at_any_moment(tmp_path: Path) -> None:
    assert sum(killed("random", "data", tmp_path / "work", "8").values()) == 8


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_killed_at_many_moments(tmp_path: Path, mode: str) -> None:
    assert sum(killed("random", mode, tmp_path / "work", "100").values()) == 100


def failing(monkeypatch: pytest.MonkeyPatch, name: str, fails: Callable[[int], bool]) -> list[int]:
    """Let the calls of a function of ``os`` fail whose number ``fails`` says so; returns the numbers so far."""
    real, calls = getattr(os, name), [0]

    def call(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if fails(calls[0]):
            raise OSError(16, "Device or resource busy")
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)
    return calls


def fails_to_save(model: ModelFile, path: Path) -> bool:
    """Whether saving fails, as told."""
    try:
        model.save(path, force=True)
    except OutputError as error:
        return "was not written: Device or resource busy" in str(error)
    return False


@pytest.mark.parametrize("name", ["replace", "mkdir"])
def test_a_failure_at_any_step_leaves_everything(old: Path, new: ModelFile, name: str) -> None:
    before = tree(old.parent)
    for number in range(1, 20):
        with pytest.MonkeyPatch.context() as patch:
            calls = failing(patch, name, number.__eq__)
            if not fails_to_save(new, old):
                assert calls[0] < number
                break
        assert tree(old.parent) == before
    assert number > 1
    assert tree(old.parent).keys() == before.keys()
    assert tree(old.parent)["deep/w.data"] != before["deep/w.data"]
    assert models.run(old)


def test_what_cannot_be_put_back_is_kept_and_named(old: Path, new: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(old.parent)
    failing(monkeypatch, "replace", lambda number: number > 2)
    with pytest.raises(OutputError, match=r"could not be put back .*: the old files are kept in ") as error:
        new.save(old, force=True)
    kept = Path(str(error.value).rpartition("kept in ")[2])
    assert kept.parent == old.parent
    assert kept.name.startswith("graphsurgery-old-")
    assert tree(kept) == before
    assert tree(old.parent).keys() == {f"{kept.name}/{name}" for name in before}
    monkeypatch.undo()
    (old.parent / "deep" / "w.data").write_bytes(b"new")
    with pytest.raises(OutputError, match=r"w\.data exists already") as error:
        new.save(old, force=True)
    assert f"the old files are kept in {kept}" in str(error.value)


def test_another_program_makes_the_model_in_between(old: Path, new: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = tree(old.parent), os.link

    def link(*arguments: Any) -> None:
        old.write_bytes(b"of another program")
        real(*arguments)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OutputError, match="the old files are kept in ") as error:
        new.save(old, force=True)
    assert old.read_bytes() == b"of another program"
    assert (Path(str(error.value).rpartition("kept in ")[2]) / old.name).read_bytes() == before[old.name]


def test_a_file_system_without_hard_links(old: Path, new: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "link", lambda number: True)
    new.save(old, force=True)
    new.save(old.with_name("new.onnx"))
    assert models.run(old)
    assert sorted(tree(old.parent)) == ["deep/w.data", "model.onnx", "new.onnx"]


def test_the_disk_has_the_data_before_it_has_its_name(
    old: Path, new: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replaced(*arguments: Any) -> None:
        events.append("rename")
        replace(*arguments)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    new.save(old, force=True)
    assert events[: events.index("rename")] == ["file", "file"]
    assert events[-1] == "folder"
    assert all(after == "folder" for before, after in itertools.pairwise(events) if before == "rename")


# ---------------------------------------------------------------------- what may be replaced


def test_data_of_the_replaced_model_may_be_replaced(old: Path, new: ModelFile) -> None:
    assert new.folder is not None
    new.save(old, force=True)
    assert tree(old.parent) == {
        "model.onnx": new.to_bytes(),
        "deep/w.data": (new.folder / "deep" / "w.data").read_bytes(),
    }


@pytest.mark.parametrize("force", [False, True])
def test_data_of_others_may_not_be_replaced(old: Path, new: ModelFile, force: bool) -> None:
    (old.parent / "plain.onnx").write_bytes(models.detector().SerializeToString())
    before = tree(old.parent)
    for name in ("another.onnx", "plain.onnx") if force else ("another.onnx",):
        with pytest.raises(OutputError, match=r"deep/w\.data exists already with other content"):
            new.save(old.with_name(name), force=force)
    assert tree(old.parent) == before


def test_data_that_another_model_reads_too_may_not_be_replaced(old: Path, new: ModelFile) -> None:
    old.with_name("sibling.onnx").write_bytes(old.read_bytes())
    old.with_name("no model.onnx").write_bytes(b"text")
    old.with_name("folder.onnx").mkdir()
    before = tree(old.parent)
    with pytest.raises(OutputError, match=r"w\.data is external data of .*sibling\.onnx, too"):
        new.save(old, force=True)
    assert tree(old.parent) == before


def test_data_that_is_the_same_is_shared(old: Path, new: ModelFile, tmp_path: Path) -> None:
    other = graphsurgery.remove(new)
    first = other.save(tmp_path / "both.onnx")
    data = tmp_path / "deep" / "w.data"
    before = Stamp.at(data)
    new.save(tmp_path / "second.onnx")
    new.save(first, force=True)
    assert Stamp.at(data) == before
    assert models.run(first)


def test_data_that_would_leave_the_folder(old: Path, new: ModelFile, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "deep").symlink_to(old.parent / "deep")
    before = tree(old.parent)
    with pytest.raises(OutputError, match=r"leads out of"):
        new.save(tmp_path / "target" / "new.onnx")
    assert tree(old.parent) == before


# ---------------------------------------------------------------------- changes of others


def test_in_place_twice_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.detector().SerializeToString())
    first, second = (graphsurgery.insert(path, name, after="/model.2") for name in ("simam", "nam"))
    second.save(path, force=True)
    with pytest.raises(OutputError, match=r"m\.onnx was changed while this was at work on it"):
        first.save(path, force=True)
    assert [insertion.id for insertion in ModelFile.load(path).insertions()] == ["model.2.nam"]
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_in_place_again_and_again(tmp_path: Path) -> None:
    """What this program itself has written is no change by another."""
    path = tmp_path / "m.onnx"
    path.write_bytes(models.detector().SerializeToString())
    model = ModelFile.load(path)
    for name in ("simam", "nam"):
        graphsurgery.insert(model, name, after="/model.2").save(path, force=True)
    assert [insertion.id for insertion in ModelFile.load(path).insertions()] == ["model.2.nam"]
    path.unlink()
    assert model.save(path).read_bytes() == model.to_bytes()


def test_force_replaces_what_has_come_meanwhile(new: ModelFile, tmp_path: Path) -> None:
    path = tmp_path / "result.onnx"
    with saving.staged(graphsurgery.remove(new), path, force=True):
        path.write_bytes(b"of another program")
    assert path.read_bytes() == graphsurgery.remove(new).to_bytes()


@pytest.mark.parametrize("there", [False, True])
def test_an_output_that_changes(new: ModelFile, tmp_path: Path, there: bool) -> None:
    path = tmp_path / "result.onnx"
    if there:
        path.write_bytes(b"old")
    target = saving.check_target(path, force=there, watched=True)
    words = "was changed while" if there else "exists already: another program made it"
    with pytest.raises(OutputError, match=words), saving.staged(graphsurgery.remove(new), target):
        path.write_bytes(b"of another program")
    assert path.read_bytes() == b"of another program"
    assert sorted(os.listdir(tmp_path)) == ["in", "result.onnx"]


def test_a_side_file_that_appears(tmp_path: Path) -> None:
    target = saving.check_target(tmp_path / "a.svg", force=False, watched=True)
    target.real.write_bytes(b"of another program")
    with pytest.raises(OutputError, match="exists already"):
        saving.write_whole(target, b"picture")
    assert tree(tmp_path) == {"a.svg": b"of another program"}


def test_a_model_whose_data_may_be_that_of_another(new: ModelFile, old: Path, tmp_path: Path) -> None:
    """Its file was replaced, so what lies beside it may belong to the new one."""
    assert new.folder is not None
    shutil.copy(old, tmp_path / "copy.onnx")
    os.replace(tmp_path / "copy.onnx", new.folder / "model.onnx")
    for path in (new.folder / "beside.onnx", tmp_path / "elsewhere.onnx"):
        with pytest.raises(OutputError, match=r"model\.onnx was changed while"):
            new.save(path)
    assert "elsewhere.onnx" not in os.listdir(tmp_path)


def test_data_that_changes_while_it_is_copied(new: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphsurgery.modelfile import source

    assert new.folder is not None
    data, real = new.folder / "deep" / "w.data", source.FileSource.copy

    def copy(self: source.FileSource, *arguments: Any) -> None:
        real(self, *arguments)
        data.write_bytes(b"of another program")

    monkeypatch.setattr(source.FileSource, "copy", copy)
    with pytest.raises(GraphSurgeryError, match=r"w\.data was changed by another program"):
        new.save(tmp_path / "new.onnx")
    assert os.listdir(tmp_path) == ["in"]


def test_data_at_the_destination_that_changes(old: Path, new: ModelFile) -> None:
    with pytest.raises(OutputError, match=r"w\.data was changed while"), saving.staged(new, old, force=True):
        (old.parent / "deep" / "w.data").write_bytes(b"of another program")
    assert tree(old.parent)["deep/w.data"] == b"of another program"


# ---------------------------------------------------------------------- names and owners


def test_two_processes_of_one_number(tmp_path: Path) -> None:
    """As in two containers, where the first process of each has the number 1."""
    code = (
        "import os, sys; os.getpid = lambda: 1\n"
        "import graphsurgery\n"
        "model = graphsurgery.ModelFile.load(sys.argv[1])\n"
        "for _ in range(10): model.save(sys.argv[2], force=True)\n"
    )
    (tmp_path / "out").mkdir()
    started = []
    for name in "ab":
        source = models.external(_made(tmp_path / name), f"{name}.data")
        target = tmp_path / "out" / f"{name}.onnx"
        started.append((name, subprocess.Popen([sys.executable, "-c", code, source, target])))
    for name, process in started:
        assert process.wait(timeout=60) == 0
        for written, given in ((f"{name}.onnx", "model.onnx"), (f"{name}.data", f"{name}.data")):
            assert (tmp_path / "out" / written).read_bytes() == (tmp_path / name / given).read_bytes()
    assert sorted(os.listdir(tmp_path / "out")) == ["a.data", "a.onnx", "b.data", "b.onnx"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_leftovers_of_others_do_no_harm(old: Path, new: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    names = itertools.chain([b"taken!!!"], map(os.urandom, itertools.repeat(8)))
    left = [f".graphsurgery-{os.getpid()}-0.part", f".graphsurgery-{b'taken!!!'.hex()}.part"]
    for name in left:
        old.with_name(name).write_bytes(b"of another run")
    monkeypatch.setattr(os, "urandom", lambda size: next(names))
    new.save(old, force=True)
    assert old.read_bytes() == new.to_bytes()
    assert all(old.with_name(name).read_bytes() == b"of another run" for name in left)


def test_owner_and_mode_are_kept(old: Path, new: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def chown(path: Path, owner: int, group: int) -> None:
        assert leftovers.PREFIX in path.name
        asked.append((owner, group))
        if owner != -1:
            raise PermissionError

    data = old.parent / "deep" / "w.data"
    old.chmod(0o640)
    data.chmod(0o600)
    monkeypatch.setattr(os, "chown", chown)
    new.save(old, force=True)
    status = old.stat()
    assert asked == [(status.st_uid, status.st_gid), (-1, status.st_gid)] * 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, data)] == [0o640, 0o600]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_root_keeps_the_owner(old: Path, new: ModelFile) -> None:
    os.chown(old, 1000, 1001)
    new.save(old, force=True)
    assert (old.stat().st_uid, old.stat().st_gid) == (1000, 1001)


def test_extended_attributes_are_kept(old: Path, new: ModelFile) -> None:
    try:
        os.setxattr(old, "user.note", b"mine")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    new.save(old, force=True)
    assert os.getxattr(old, "user.note") == b"mine"
