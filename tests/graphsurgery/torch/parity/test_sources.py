"""Checkpoints and functions that give the module to compare with; what is loaded unasked, and what is not."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from graphsurgery import torch as gt
from graphsurgery import weights
from graphsurgery.errors import BlockError, GraphSurgeryError, RequestError, WeightsError
from graphsurgery.torch.parity import from_checkpoint, from_factory

from ..nets import entry

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
EXTRA = """
import os
from torch import nn

class Own(nn.Conv2d):
    pass

class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)

def detector():
    return nn.Conv2d(3, 4, 1)

def fails():
    raise SystemExit("no data")

def text():
    return "detector"

made, number = detector(), 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules of the user's in it, and Ultralytics off the network."""
    for name, value in {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("ownmodels.py").write_text(EXTRA)
    return tmp_path


def network() -> nn.Module:
    """Two convolutions, with one block of each kind of start between and after them."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3)).eval()
    gt.attach(made, [entry("cbam", "1", settings={"reduction": 2}), entry("se", "2", settings={"reduction": 2})], IMAGE)
    return made


def save(what: object, name: str = "best.pt") -> str:
    torch.save(what, name)
    return name


def test_the_ema_in_float32_with_its_blocks() -> None:
    trained = network()
    file = save({"ema": copy.deepcopy(trained).half(), "model": None, "epoch": -1})
    found = from_checkpoint(file)
    assert {each.id for each in gt.attachments(found)} == {each.id for each in gt.attachments(trained)}
    assert {value.dtype for value in found.parameters()} == {torch.float32}
    assert not found.training
    with torch.no_grad():
        assert torch.allclose(found(IMAGE), trained.half().float()(IMAGE))


def test_nothing_is_left_that_other_readers_would_load_by() -> None:
    before = set(map(str, torch.serialization.get_safe_globals()))
    file = save({"ema": network(), "model": None})
    from_checkpoint(file)
    assert set(map(str, torch.serialization.get_safe_globals())) == before
    assert "1.cbam.block.SpatialGate.spatial.conv.weight" in weights.read(Path(file)).arrays


def test_the_model_where_there_is_no_ema() -> None:
    assert isinstance(from_checkpoint(save({"ema": None, "model": nn.Conv2d(3, 4, 1)})), nn.Conv2d)


def test_what_would_run_code_is_not_loaded_unasked(folder: Path) -> None:
    import ownmodels  # type: ignore[import-not-found]

    file = save({"ema": nn.Conv2d(3, 4, 1), "extra": ownmodels.Evil()})
    with pytest.raises(WeightsError) as raised:
        from_checkpoint(file)
    assert str(raised.value).startswith(f"best.pt holds {os.mkdir.__module__}.mkdir, which is not loaded unasked")
    assert "trust='best.pt'" in str(raised.value)
    assert not (folder / "ran").exists()
    assert isinstance(from_checkpoint(file, trust=[file]), nn.Conv2d)
    assert (folder / "ran").exists()


def test_a_class_of_the_users_own() -> None:
    import ownmodels

    file = save({"ema": ownmodels.Own(3, 4, 1)})
    with pytest.raises(WeightsError, match=r"holds ownmodels\.Own, which is not loaded unasked"):
        from_checkpoint(file)
    assert isinstance(from_checkpoint(file, trust=["ownmodels:Own"]), ownmodels.Own)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no checkpoint best.pt"),
        ({"0.weight": torch.zeros(2)}, "best.pt holds no network, as the checkpoints of Ultralytics do"),
        (torch.zeros(2), "best.pt "),
        (b"", "best.pt cannot be read as a checkpoint: "),
        (b"no zip archive", "best.pt cannot be read as a checkpoint: "),
    ],
    ids=["missing", "weights alone", "a tensor", "empty", "text"],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_bad_checkpoints(content: object, sentence: str, trusted: bool) -> None:
    if isinstance(content, bytes):
        Path("best.pt").write_bytes(content)
    elif content is not None:
        save(content)
    with pytest.raises(WeightsError) as raised:
        from_checkpoint("best.pt", trust=["best.pt"] if trusted else [])
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


def test_a_folder() -> None:
    Path("best.pt").mkdir()
    with pytest.raises(WeightsError, match="is not a file"):
        from_checkpoint("best.pt")


def test_functions_that_give_a_module() -> None:
    assert isinstance(from_factory("ownmodels:detector"), nn.Conv2d)
    assert isinstance(from_factory("ownmodels:made"), nn.Conv2d)
    assert isinstance(from_factory("torch.nn:Identity"), nn.Identity)


@pytest.mark.parametrize(
    ("spelled", "kind", "sentence"),
    [
        ("ownmodels:none", BlockError, "the module ownmodels has no none"),
        ("nowhere:detector", BlockError, "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("ownmodels:number", RequestError, "ownmodels:number is no function that gives a torch.nn.Module"),
        ("ownmodels:fails", RequestError, "ownmodels:fails() fails: SystemExit: no data"),
        ("ownmodels:text", RequestError, "ownmodels:text() gives str, and no torch.nn.Module"),
        ("ownmodels", RequestError, "'ownmodels' names no function; write it as in mypkg.models:detector"),
    ],
)
def test_functions_that_give_none(spelled: str, kind: type[GraphSurgeryError], sentence: str) -> None:
    with pytest.raises(kind) as raised:
        from_factory(spelled)
    assert str(raised.value) == sentence
