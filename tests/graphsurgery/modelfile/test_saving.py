from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import graphsurgery
from graphsurgery.errors import OutputError
from graphsurgery.modelfile import saving
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.source import BytesSource
from tests import models

resource = pytest.importorskip("resource")  # which Windows has not

OLD = b"what was there before"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return models.sparse_file(folder / "m.onnx", 3 << 20)


@pytest.fixture
def edited(source: Path) -> ModelFile:
    return graphsurgery.insert(source, "simam", after="/model.0")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(OLD)
    return folder / "m.onnx"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let the system refuse longer files: a real failure in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_file_is_what_the_model_is(edited: ModelFile, tmp_path: Path) -> None:
    assert edited.save(tmp_path / "new.onnx") == tmp_path / "new.onnx"
    assert (tmp_path / "new.onnx").read_bytes() == edited.to_bytes()
    assert edited.size == (tmp_path / "new.onnx").stat().st_size


def test_a_failure_in_the_middle_leaves_everything(edited: ModelFile, source: Path, target: Path) -> None:
    before = source.read_bytes()
    with files_up_to(1 << 20), pytest.raises(OutputError, match=r"m\.onnx was not written: File too large"):
        edited.save(target, force=True)
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == ["m.onnx"]
    assert source.read_bytes() == before


def test_a_failure_in_the_middle_leaves_no_new_file(edited: ModelFile, target: Path) -> None:
    with files_up_to(1 << 20), pytest.raises(OutputError):
        edited.save(target.with_name("new.onnx"))
    assert os.listdir(target.parent) == ["m.onnx"]


def test_a_check_that_fails_leaves_everything(edited: ModelFile, target: Path) -> None:
    def look(temporary: Path) -> None:
        assert temporary.read_bytes() == edited.to_bytes()
        assert temporary.parent == target.parent
        assert target.read_bytes() == OLD
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), saving.staged(edited, target, force=True) as temporary:
        look(temporary)
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == ["m.onnx"]


def test_an_existing_file_is_kept_unless_forced(edited: ModelFile, target: Path) -> None:
    with pytest.raises(OutputError, match=r"m\.onnx exists already; use force=True"):
        edited.save(target)
    assert target.read_bytes() == OLD
    edited.save(target, force=True)
    assert target.read_bytes() == edited.to_bytes()
    assert os.listdir(target.parent) == ["m.onnx"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o440])
def test_permissions_are_kept(edited: ModelFile, target: Path, mode: int) -> None:
    target.chmod(mode)
    edited.save(target, force=True)
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_new_file_has_the_usual_permissions(edited: ModelFile, target: Path) -> None:
    (target.parent / "usual").write_bytes(b"")
    edited.save(target.with_name("new.onnx"))
    assert target.with_name("new.onnx").stat().st_mode == (target.parent / "usual").stat().st_mode


def test_a_link_is_followed_and_stays(edited: ModelFile, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(target)
    with pytest.raises(OutputError, match="exists already"):
        edited.save(link)
    edited.save(link, force=True)
    assert link.is_symlink()
    assert target.read_bytes() == edited.to_bytes()
    assert sorted(os.listdir(tmp_path)) == ["in", "link.onnx", "out"]


def test_a_dangling_link_gets_its_file(edited: ModelFile, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(target.with_name("new.onnx"))
    edited.save(link)
    assert link.is_symlink()
    assert target.with_name("new.onnx").read_bytes() == edited.to_bytes()


def test_over_the_input(edited: ModelFile, source: Path) -> None:
    expected = edited.to_bytes()
    edited.save(source, force=True)
    assert source.read_bytes() == expected
    assert os.listdir(source.parent) == ["m.onnx"]


def test_a_name_as_long_as_names_can_be(edited: ModelFile, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".onnx")
    assert edited.save(path).stat().st_size == edited.size


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (".", "is a directory; give the name of a file"),
        ("none/new.onnx", "there is no folder .*none to write new.onnx to"),
        ("m.onnx/new.onnx", "there is no folder"),
        ("x" * 256, "was not written: File name too long"),
    ],
)
def test_where_nothing_can_be_written(edited: ModelFile, target: Path, where: str, words: str) -> None:
    with pytest.raises(OutputError, match=words):
        edited.save(target.parent / where)
    assert os.listdir(target.parent) == ["m.onnx"]


def test_what_is_no_file_is_never_replaced(edited: ModelFile, tmp_path: Path) -> None:
    """--force -o /dev/null must not put a file in the place of the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="is not a regular file"):
        edited.save(pipe, force=True)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_no_permission(edited: ModelFile, target: Path) -> None:
    target.parent.chmod(0o500)
    if os.access(target.parent, os.W_OK):
        pytest.skip("whoever runs this may write everywhere")
    try:
        with pytest.raises(OutputError, match="no permission"):
            edited.save(target.with_name("new.onnx"))
    finally:
        target.parent.chmod(0o700)


def test_several_saves_at_once(edited: ModelFile, target: Path) -> None:
    failed: list[BaseException] = []

    def save() -> None:
        try:
            edited.save(target, force=True)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert target.read_bytes() == edited.to_bytes()
    assert os.listdir(target.parent) == ["m.onnx"]


# ---------------------------------------------------------------------- streams


def test_a_stream_gets_the_same_bytes(edited: ModelFile, tmp_path: Path) -> None:
    received = bytearray()
    read, write = os.pipe()

    def drain() -> None:
        while chunk := os.read(read, 65536):
            received.extend(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    saving.write_stream(edited, write)
    os.close(write)
    reader.join()
    os.close(read)
    assert bytes(received) == edited.to_bytes()


def test_a_reader_that_goes_away(edited: ModelFile) -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        saving.write_stream(edited, write)
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(edited: ModelFile) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OutputError, match="no space left on the disk"):
        saving.write_stream(edited, descriptor)
    os.close(descriptor)


def test_a_source_without_copying_in_the_kernel(
    edited: ModelFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems refuse copy_file_range, others copy less than asked for."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EXDEV, "not between these")

    done = set()

    def part(source: int, target: int, count: int, offset_src: int) -> int:
        if offset_src in done or count < 1000:
            return 0
        done.add(offset_src + 700)
        return os.write(target, os.pread(source, 700, offset_src))

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    edited.save(target.with_name("refused.onnx"))
    monkeypatch.setattr(os, "copy_file_range", lambda *_, **__: 0)
    edited.save(target.with_name("nothing.onnx"))
    monkeypatch.setattr(os, "copy_file_range", part)
    edited.save(target.with_name("part.onnx"))
    monkeypatch.delattr(os, "copy_file_range")
    edited.save(target.with_name("absent.onnx"))
    assert done
    for name in ("refused", "nothing", "part", "absent"):
        assert target.with_name(f"{name}.onnx").read_bytes() == edited.to_bytes()


def test_bytes_in_memory_are_as_long_as_they_are() -> None:
    with pytest.raises(EOFError):
        BytesSource(b"abc").read(1, 4)


def test_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    assert saving.same_file(tmp_path / "a", tmp_path / "link")
    assert not saving.same_file(tmp_path / "a", tmp_path / "b")
