"""Code and metadata of other people's packages: whatever they raise is said in a sentence, and Ctrl-C still works."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphsurgery as gsx
from graphsurgery import entry_points
from graphsurgery.blocks import registry
from graphsurgery.entry_points import ForeignError, foreign_code
from graphsurgery.errors import BlockError, GraphSurgeryWarning
from graphsurgery.userblocks import make_block
from tests import models


@pytest.fixture
def fresh() -> Iterator[None]:
    registry.forget()
    yield
    registry.forget()


@pytest.mark.parametrize("text", [b"[graphsurgery.patterns]\nx = \xff", b"[graphsurgery.patterns]\nno value"])
def test_damaged_metadata_of_a_package_is_no_reason_to_have_no_blocks(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    folder = tmp_path / "theirs-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (folder / "entry_points.txt").write_bytes(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(
        GraphSurgeryWarning, match=r"^entry_points\.txt of the installed package theirs cannot be loaded"
    ):
        assert make_block("se").spelled == "se"
    assert {"se", "simam"} < set(registry.all_blocks())


@pytest.mark.parametrize("raised", [ValueError("a\nb"), SystemExit(3), KeyboardInterrupt("a b"), BaseException()])
def test_whatever_foreign_code_raises_is_an_error_of_one_kind(raised: BaseException) -> None:
    with pytest.raises(ForeignError) as caught, foreign_code():
        raise raised
    assert caught.value.raised is raised
    assert str(caught.value) == entry_points.reason(raised)


def test_ctrl_c_while_foreign_code_runs_is_the_users() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt), foreign_code():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


FORWARD = "def forward(self, x): raise KeyboardInterrupt"
INIT = "def __init__(self, channels): raise SystemExit(0)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise KeyboardInterrupt", r"^their_blocks cannot be imported: KeyboardInterrupt: $"),
        ("raise SystemExit", r"^their_blocks cannot be imported: SystemExit: $"),
        ("import sys\nsys.modules[__name__] = None", "their_blocks cannot be imported|has no Theirs"),
        (f"import torch\nclass Theirs(torch.nn.Module):\n    {INIT}", r"Theirs\(channels=8\) fails: 0"),
        (f"import torch\nclass Theirs(torch.nn.Module):\n    {FORWARD}", r"Theirs fails on a map \[1, 8, 16, 16\]: $"),
    ],
    ids=["interrupt", "exit", "no module", "in the constructor", "in forward"],
)
def test_a_module_of_the_users_own_that_ends_the_program(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_blocks.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_blocks", raising=False)
    with pytest.raises(BlockError, match=said):
        gsx.insert(models.detector(), "their_blocks:Theirs", after="model.1")
    monkeypatch.delitem(sys.modules, "their_blocks", raising=False)
