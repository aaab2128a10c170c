"""Files that are open: read at a position without pread, and let go of where the system refuses an operation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphsurgery.modelfile.source import FileSource
from graphsurgery.process import open_files

pytestmark = pytest.mark.smoke


class Refusing:
    """An operation that is refused so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls = 0

    def __call__(self, *paths: object) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise PermissionError(13, "it is open")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"0123456789")
    return path


def test_reading_leaves_the_position(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread", raising=False)
    with file.open("rb", buffering=0) as stream:
        stream.seek(3)
        assert open_files.read_at(stream.fileno(), 4, 5) == b"5678"
        assert open_files.read_at(stream.fileno(), 4, 8) == b"89"
        assert open_files.read_at(stream.fileno(), 4, 10) == b""
        assert stream.read() == b"3456789"


def test_a_source_that_has_let_go_has_the_content(file: Path) -> None:
    source, operation = FileSource.open(file), Refusing(1)
    open_files.freed(operation, file)
    assert operation.calls == 2
    file.write_bytes(b"another content")
    assert source.read(0, 10) == b"0123456789"


def test_a_source_lets_go_once(file: Path) -> None:
    source = FileSource.open(file)
    open_files.freed(Refusing(1), file)
    with pytest.raises(PermissionError):
        open_files.freed(Refusing(1), file)
    assert source.read(2, 4) == b"23"


def test_what_stays_refused_is_an_error(file: Path) -> None:
    source, operation = FileSource.open(file), Refusing(2)
    with pytest.raises(PermissionError):
        open_files.freed(operation, file)
    assert operation.calls == 2
    assert source.read(0, 1) == b"0"


def test_nothing_is_tried_again_for_files_that_are_not_open_here(file: Path) -> None:
    source, operation = FileSource.open(file), Refusing(1)
    with pytest.raises(PermissionError):
        open_files.freed(operation, file.with_name("other.onnx"))
    assert operation.calls == 1
    assert source.read(0, 1) == b"0"


def test_a_source_that_was_changed_does_not_let_go(file: Path) -> None:
    source = FileSource.open(file)
    file.write_bytes(b"changed")
    with pytest.raises(OSError, match="was changed by another program") as refused:
        open_files.freed(Refusing(1), file)
    assert not isinstance(refused.value, PermissionError)
    assert source.path == file
