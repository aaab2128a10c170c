"""Progress: with counts, in place on a terminal, in lines on a pipe, and nothing for what takes a moment."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphsurgery.cli import progress as module
from graphsurgery.messages import observed, tracked


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Iterator[Stream]:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module, "_AT_ONCE", 0.02)
    monkeypatch.setattr(module, "_ON_A_TERMINAL", 0.02)
    monkeypatch.setattr(module, "_ON_A_PIPE", 0.02)
    with module.progress("verify"):
        yield stream


def wait_for(stream: Stream, text: str) -> None:
    end = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.005)


def test_on_a_terminal_one_line_is_rewritten_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, terminal=True) as stream:
        for _ in tracked(range(3), "insertions"):
            wait_for(stream, "\r\x1b[Kverify: 0 of 3 insertions, 0 s")
            break
    assert stream.getvalue().endswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_on_a_pipe_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, terminal=False) as stream:
        steps = tracked(["a", "b"], "blocks")
        next(steps)
        next(steps)
        wait_for(stream, "graphsurgery: verify: 1 of 2 blocks, 0 s\n")
    assert "\x1b" not in stream.getvalue()


def test_the_line_makes_way_for_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, terminal=True) as stream:
        wait_for(stream, "verify: 0 s")
        monkeypatch.setattr(module, "_ON_A_TERMINAL", 60.0)
        time.sleep(0.05)
        module.clear()
        assert stream.getvalue().endswith("\r\x1b[K")


def test_what_takes_a_moment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    assert (module._AT_ONCE, module._ON_A_PIPE) == (2.0, 10.0)
    with module.progress("sites"):
        pass
    assert stream.getvalue() == ""


def test_steps_are_told_to_whoever_observes() -> None:
    told: list[tuple[int, int, str]] = []
    with observed(lambda *step: told.append(step)):
        assert list(tracked("ab", "letters")) == ["a", "b"]
    assert list(tracked("ab", "letters")) == ["a", "b"]
    assert told == [(0, 2, "letters"), (1, 2, "letters")]
