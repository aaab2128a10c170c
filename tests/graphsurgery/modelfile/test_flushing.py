"""What is written goes to the disk meanwhile, and no failure of the disk is lost."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from graphsurgery.errors import OutputError
from graphsurgery.modelfile import saving
from graphsurgery.modelfile.flushing import flushed
from graphsurgery.modelfile.model import ModelFile
from tests import models

needs_background = pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="nothing is flushed in the background here")


def fails(*arguments: object) -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)


@needs_background
def test_the_disk_is_given_what_there_is_while_more_is_written(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, first, flush, threads = list[str](), threading.Event(), os.fdatasync, threading.active_count()

    def flushes(given: int) -> None:
        flush(given)
        events.append("meanwhile")
        first.set()

    monkeypatch.setattr(os, "fdatasync", flushes)
    monkeypatch.setattr(os, "fsync", lambda given: events.append("in the end"))
    with flushed(descriptor):
        os.write(descriptor, b"1")
        assert first.wait(60)
        os.write(descriptor, b"2")
        events.append("written")
    assert events[0] == "meanwhile"
    assert events[-1] == "in the end"
    assert threading.active_count() == threads


@needs_background
def test_a_failure_that_the_disk_tells_meanwhile_counts(
    tmp_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells it once: the last flush would succeed."""
    told = threading.Event()

    def fails_once(given: int) -> None:
        told.set()
        fails()

    monkeypatch.setattr(os, "fdatasync", fails_once)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), flushed(descriptor):
        assert told.wait(60)

    def written(model: object, descriptor: int) -> None:
        told.clear()
        assert told.wait(60)

    monkeypatch.setattr(saving, "_copy", written)
    with pytest.raises(OutputError, match="was not written"):
        ModelFile.load(models.detector()).save(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_in_the_end_counts(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), flushed(descriptor):
        os.write(descriptor, b"1")


@pytest.mark.parametrize("lacking", ["fdatasync", "threads", "flushing"])
def test_systems_that_lack_something(tmp_path: Path, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    def knows_nothing(*arguments: object) -> NoReturn:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    if lacking == "threads":
        monkeypatch.setattr(threading.Thread, "start", refuses)
    elif lacking == "fdatasync":
        monkeypatch.delattr(os, "fdatasync", raising=False)
    else:
        monkeypatch.setattr(os, "fdatasync", knows_nothing, raising=False)
        monkeypatch.setattr(os, "fsync", knows_nothing)
    model = ModelFile.load(models.detector())
    model.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == model.to_bytes()


def test_what_the_body_raises_is_raised(descriptor: int) -> None:
    with pytest.raises(KeyError), flushed(descriptor):
        raise KeyError
