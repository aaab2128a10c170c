"""Checkpoints renumbered for an edited YAML: every tensor in its layer, and what is no edit refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from graphsurgery.cli.main import main
from graphsurgery.errors import WeightsError
from graphsurgery.weights import layout
from graphsurgery.weights.layer_alignment import align
from graphsurgery.weights.remapping import Remapped, remap

Row = list[Any]
Edit = Callable[[list[Row]], list[Row] | None]

ROWS: list[Row] = [
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 2, "C2f", [32, True]],
    [-1, 1, "Conv", [64, 3, 2]],
    [-1, 2, "C2f", [64, True]],
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
    [[-1, 2], 1, "Concat", [1]],
    [-1, 2, "C2f", [64, True]],
    [[4, 7], 1, "Detect", ["nc"]],
]
"""backbone of five, neck and head"""
BACKBONE = 5


class Model(nn.Module):
    """What stands for a model of Ultralytics: its layers, under its names, and the YAML."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__()
        channels = [16, 32, 32, 64, 64, None, None, 64, 8]
        self.model = nn.Sequential(*(nn.Sequential() if c is None else nn.Conv2d(4, c, 3) for c in channels))
        for count, parameter in enumerate(self.parameters()):
            nn.init.constant_(parameter, count)
        self.yaml = document
        self.names = {0: "digit"}


def document(rows: list[Row], **more: Any) -> dict[str, Any]:
    found = {"nc": 1, "scales": {"n": [1.0, 1.0, 1024], "s": [1.0, 2.0, 1024]}, "scale": "n"}
    return {**found, "backbone": rows[:BACKBONE], "head": rows[BACKBONE:], **more}


def inserted(rows: list[Row], after: int, row: Row) -> list[Row]:
    """A row behind another, and everything that reads one behind it renumbered."""
    found = []
    for index, (sources, *rest) in enumerate(rows):
        listed = [sources] if isinstance(sources, int) else sources
        moved = [source + 1 if source > after else source for source in listed]
        found.append([moved if isinstance(sources, list) else moved[0], *rest])
        if index == after:
            found.append(row)
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.pt"
    torch.save({"epoch": 3, "ema": None, "model": Model(document(deepcopy(ROWS))).half()}, path)
    return path


def edited(old: Path, rows: list[Row], name: str = "yolov8n-new.yaml", **more: Any) -> Path:
    path = old.parent / name
    path.write_text(yaml.safe_dump(document(rows, **more)))
    return path


def loaded(found: Remapped, folder: Path) -> dict[str, torch.Tensor]:
    """As a loader finds it, with nothing but torch allowed."""
    path = folder / "new.pt"
    path.write_bytes(found.data)
    with torch.serialization.safe_globals([nn.Module, nn.Sequential]):
        model = torch.load(path, weights_only=True)["model"]
    assert model.names == {0: "digit"}
    state: dict[str, torch.Tensor] = model.float().state_dict()
    return state


@pytest.mark.parametrize("after", [0, 2, 4, 6, 7])
@pytest.mark.parametrize("block", [["NotInstalled", []], ["CBAM", [64, 7]]])
def test_every_tensor_is_in_its_layer(old: Path, after: int, block: Row) -> None:
    found = remap(old, edited(old, inserted(ROWS, after, [-1, 1, *block])))
    state, before = loaded(found, old.parent), Model({}).state_dict()
    assert len(state) == len(before) == found.tensors
    for key, tensor in before.items():
        _, layer, name = key.split(".")
        assert torch.equal(state[f"model.{int(layer) + (int(layer) > after)}.{name}"], tensor)
    assert found.alignment.fresh == [after + 1]
    assert not found.alignment.uncertain


def test_several_layers_and_one_that_only_some_readers_see(old: Path) -> None:
    rows = inserted(inserted(ROWS, 2, [-1, 1, "SimAM", []]), 5, [-1, 1, "SimAM", []])
    rows[8][0] = [-1, 2]  # the Concat goes on reading the C2f itself
    assert remap(old, edited(old, rows)).alignment.fresh == [3, 6]


def test_how_much_names_alone_would_have_loaded(old: Path) -> None:
    found = remap(old, edited(old, inserted(ROWS, 3, [-1, 1, "SimAM", []])))
    assert (found.by_name, found.misplaced) == (8, 0)
    found = remap(old, edited(old, inserted(ROWS, 1, [-1, 1, "SimAM", []])))
    before = Model({}).state_dict()
    after = {
        f"model.{int(key.split('.')[1]) + (int(key.split('.')[1]) > 1)}.{key.split('.')[2]}": key for key in before
    }
    hit = [key for key in before if key in after and before[after[key]].shape == before[key].shape]
    assert (found.by_name, found.misplaced) == (len(hit), sum(after[key] != key for key in hit)) == (6, 2)


def test_the_file_itself(old: Path) -> None:
    assert remap(old, edited(old, ROWS)).alignment.fresh == []


def changed(index: int, place: int, value: Any) -> Edit:
    def edit(rows: list[Row]) -> None:
        rows[index][place] = value

    return edit


def wide(rows: list[Row]) -> list[Row]:
    return inserted(rows, 2, [-1, 1, "Conv", [48, 1, 1]])


def forgotten(rows: list[Row]) -> None:
    rows.insert(2, [-1, 1, "SimAM", []])


def without(index: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        del rows[index]
        if not index:
            rows[5][0], rows[7][0] = [-1, 1], [3, 6]

    return edit


BAD: list[tuple[Edit, str]] = [
    (
        changed(3, 3, [96, 3, 2]),
        r"layer 3 of old\.pt is Conv \[64, 3, 2\], and layer 3 of .* is Conv \[96, 3, 2\]: .* not ch",
    ),
    (
        changed(2, 1, 3),
        r"layer 2 of old\.pt is C2f \[32, True\] x2, and layer 2 of .* x3: layers can be inserted, not ch",
    ),
    (changed(2, 3, [32, 1]), r"layer 2 of old\.pt is C2f \[32, True\] x2, and layer 2 .* C2f \[32, 1\] x2"),
    (without(5), r"layer 7 of .* reads layer 7, and there are only those before it"),
    (without(0), r"lacks layer 0 \(Conv \[16, 3, 2\]\) of old\.pt: layers can be inserted, not removed"),
    (wide, r"layer 3 of .* \(Conv \[48, 1, 1\]\) gives 48 channels; layer 4 \(Conv\), .* made for 32 in old\.pt"),
    (forgotten, r"layer 7 of .* \(Concat\) reads 6, 2; what it reads in old\.pt is now 6, 3: renumber its 'from'"),
    (lambda rows: [[-1, 1, "HGStem", [8, 16]], *rows[:2]], r"no edit of old\.pt: of the 9 layers of that, only 2 are"),
    (changed(8, 0, [4, 5, 7]), r"layer 8 .* \(Detect\) reads 4, 5, 7; what it reads in old\.pt is now 4, 7"),
    (changed(3, 2, 5), r"layer 3 of .* is \[-1, 1, 5, \[64, 3, 2\]\]; a layer is a list"),
    (changed(3, 0, 9), r"layer 3 of .* reads layer 9, and there are only those before it"),
    (changed(3, 3, "wide"), r"layer 3 of .* has the arguments 'wide', which are no list"),
    (changed(3, 3, [{"a": 1}]), r"layer 3 of .* has the argument \{'a': 1\}, which is no number, text or list"),
]


@pytest.mark.parametrize(("edit", "said"), BAD, ids=range(len(BAD)))
def test_what_is_no_edit(old: Path, edit: Edit, said: str) -> None:
    rows = deepcopy(ROWS)
    with pytest.raises(WeightsError, match=said):
        remap(old, edited(old, edit(rows) or rows))


def test_two_candidates(old: Path) -> None:
    rows = inserted(ROWS, 2, [-1, 2, "C2f", [32, True]])
    rows[7][0] = [-1, 3]
    path = edited(old, rows)
    with pytest.raises(
        WeightsError, match=r"layers 2 and 3 of .* both C2f \[32, True\] x2: either can be layer 2 of old"
    ):
        remap(old, path)
    assert remap(old, path, fresh=[3]).alignment.fresh == [3]
    assert remap(old, path, fresh=[2]).alignment.fresh == [2]
    with pytest.raises(WeightsError, match="no layer 10: it has the layers 0 to 9"):
        remap(old, path, fresh=[10])


def test_what_a_layer_reads_tells_equal_ones_apart(old: Path) -> None:
    """A second C2f [64, True], beside the one that the Upsample reads."""
    rows = inserted(ROWS, 4, [3, 2, "C2f", [64, True]])
    rows[6][0] = 4
    assert remap(old, edited(old, rows)).alignment.fresh == [5]


def test_equal_layers_without_weights_are_not_ambiguous(old: Path) -> None:
    assert remap(old, edited(old, inserted(ROWS, 5, deepcopy(ROWS[5])))).tensors == 14


def test_other_scales(old: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"of scale 's', and old\.pt is at scale 'n', so the channels differ: .* name"
    ):
        remap(old, edited(old, ROWS, "yolov8s-new.yaml"))


def test_what_is_not_certain_is_said(old: Path) -> None:
    found = remap(old, edited(old, inserted(ROWS, 4, [[-1, 2], 1, "Fuse", []]), nc=3))
    assert found.alignment.uncertain == (
        "layer 5 of yolov8n-new.yaml (Fuse []) has to give 64 channels",
        "nc is 3 in yolov8n-new.yaml and 1 in old.pt: weights of the head that depend on it are not loaded",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is not YAML"),
        ("nc: 80", "lists no layers"),
        ("backbone: []\nhead: []", "lists 0 layers"),
        (f"backbone: [{'[-1, 1, A, []],' * 300}]\nhead: []", "lists 300 layers"),
        (
            "\n".join(["a0: &a0 [1]", *(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9))]),
            "stands for",
        ),
        ("nc: 1\nnc: 2", "the key 'nc' twice"),
        ("scales: 3\nbackbone: [[-1, 1, A, []]]\nhead: []", "has no scale ''"),
        ("scales: {n: [1, .inf, 1]}\nbackbone: [[-1, 1, A, []]]\nhead: []", "with which no model can be made"),
        ("scales: {n: [1, 2]}\nbackbone: [[-1, 1, A, []]]\nhead: []", "the multiples"),
    ],
    ids=range(9),
)
def test_files_that_are_no_yaml_of_a_model(old: Path, text: str, said: str) -> None:
    path = old.parent / "new.yaml"
    path.write_text(text)
    with pytest.raises(WeightsError, match=said):
        remap(old, path)


def contents() -> Iterator[tuple[object, str]]:
    yield {"model": nn.Conv2d(1, 1, 1)}, "does not say of which layers"
    yield {"model.0.weight": torch.zeros(1)}, "does not say of which layers"
    yield [1], "does not say of which layers"
    shared: list[Any] = [1] * 100
    for _ in range(3):
        shared = [shared] * 100
    yield {"model": Model(document([[-1, 1, "Conv", [shared]], *ROWS[1:]]))}, "stands for more than 65,536 values"
    model = Model(document(ROWS[:4]))
    yield {"model": model}, r"model\.4\.weight in bad\.pt belongs to none of the 4 layers"


@pytest.mark.parametrize("case", range(5))
def test_files_that_are_no_checkpoint(old: Path, case: int) -> None:
    content, said = list(contents())[case]
    path = old.with_name("bad.pt")
    torch.save(content, path)
    with pytest.raises(WeightsError, match=said):
        remap(path, edited(old, ROWS))


def test_the_running_average_comes_first(old: Path) -> None:
    content = torch.load(old, weights_only=False)
    torch.save({"model": content["model"], "ema": Model(document(ROWS)).float()}, old)
    assert {tensor.dtype for tensor in remap(old, edited(old, ROWS)).model.state_dict().values()} == {torch.float32}


def test_nothing_is_executed(old: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return exec, (f"open({str(tmp_path / 'trapped')!r}, 'w')",)

    content = torch.load(old, weights_only=False)
    torch.save({**content, "extra": Trap()}, old)
    assert remap(old, edited(old, ROWS)).tensors == 14
    assert not (tmp_path / "trapped").exists()


def test_the_command(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = edited(old, inserted(ROWS, 2, [-1, 1, "SimAM", []])), old.with_name("new.pt")
    assert main(["remap", str(old), str(path), "-o", str(out), "--dry-run"]) == 0
    assert not out.exists()
    assert main(["remap", str(old), str(path), "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "transferred  14 of 14 tensors, 9 layers\nfresh        layer 3 (SimAM)\nby name      " in shown
    first = out.read_bytes()
    assert main(["remap", str(old), str(path), "-o", str(out)]) == 2
    assert "exists already; use --force" in capsys.readouterr().err
    assert main(["remap", str(old), str(path), "-o", str(out), "--force", "--json", "--fresh", "3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["transferred"], said["fresh"], said["layers"][4]) == (
        14,
        [3],
        {"layer": 4, "module": "Conv", "from": 3},
    )
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.pt", "new.yaml", "-o", "x.pt"], "there is no weights file missing.pt"),
        (["old.pt", "missing.yaml", "-o", "x.pt"], "there is no file missing.yaml"),
        (["old.pt", "old.pt", "-o", "x.pt"], "old.pt is not a text file in UTF-8"),
        (["old.pt", "new.yaml"], "say where the result goes: -o FILE"),
        (["old.pt", "new.yaml", "-o", "old.pt", "--force"], "old.pt is"),
        (["old.pt", "new.yaml", "-o", "-"], "a checkpoint goes to a file"),
        (["old.pt", "new.yaml", "-o", "x.pt", "--fresh", "two"], "--fresh takes the number of a layer, not 'two'"),
    ],
    ids=range(7),
)
def test_bad_requests(
    old: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(old.parent)
    edited(old, ROWS, "new.yaml")
    before = {path: path.read_bytes() for path in old.parent.iterdir()}
    assert main(["remap", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"graphsurgery: error: {said}")
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in old.parent.iterdir()} == before


def test_a_hostile_number_of_ways_ends() -> None:
    rows = [[-1, 1, "Conv", [8, 3, 1]]] * 60
    before = layout.Layout.of(document(rows), "a")
    after = layout.Layout.of(document(rows * 2), "b")
    with pytest.raises(WeightsError, match=r"either can be layer|too many ways"):
        align(before, after, range(60))
    huge = layout.Layout.of(document([[-1, 1, "Conv", [10**400]]], scales=None), "c")
    assert align(huge, huge, [0]).old == (0,)
