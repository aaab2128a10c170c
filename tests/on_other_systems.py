"""What is done on every system, by tests/test_other_systems.py: commands and calls, in an empty current folder."""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path

import graphsurgery
from graphsurgery import __main__ as program
from graphsurgery.cli.main import main
from graphsurgery.errors import OutputError
from graphsurgery.modelfile import saving
from graphsurgery.process import signals
from tests import models

DETECTOR = Path(__file__).parents[1] / "examples" / "01_first_insertion" / "detector.onnx"
FLAGS = [] if "torch" in sys.modules else ["--no-verify"]


def run(*words: str | Path) -> None:
    """A command that has to end well."""
    code = main([str(word) for word in words])
    assert code == 0, (words, code)


def commands() -> None:
    Path("detector.onnx").write_bytes(DETECTOR.read_bytes())
    before = Path("detector.onnx").read_bytes()
    run("sites", "detector.onnx")
    run("insert", "detector.onnx", "--module", "simam", "--after", "/model.8", "-o", "out.onnx", *FLAGS)
    if not FLAGS:
        run("verify", "out.onnx")
    run("insert", "out.onnx", "--module", "se", "--after", "role:p4", "--in-place", *FLAGS)
    run("bench", "out.onnx", "--rounds", "2", "--warm-up", "1")
    run("info", "out.onnx")
    run("diff", "detector.onnx", "out.onnx")
    run("tensorrt", "check", "out.onnx", "--version", "10")
    run("remove", "out.onnx", "--all", "--in-place")
    assert Path("out.onnx").read_bytes() == before
    assert main(["insert", "out.onnx", "--module", "se", "--after", "/nothing", "--in-place"]) == 2
    assert Path("out.onnx").read_bytes() == before


def calls() -> None:
    """A model goes on when its file is replaced, moved or removed by its own process."""
    before = Path("detector.onnx").read_bytes()
    model = graphsurgery.ModelFile.load("detector.onnx")
    second = graphsurgery.ModelFile.load("detector.onnx")
    edited = graphsurgery.insert(model, "simam", after="/model.8")
    edited.save("detector.onnx", force=True)
    after = Path("detector.onnx").read_bytes()
    assert after == edited.to_bytes() != before
    assert model.to_bytes() == second.to_bytes() == before
    edited.save("detector.onnx", force=True)
    assert Path("detector.onnx").read_bytes() == after
    graphsurgery.remove("detector.onnx").save("detector.onnx", force=True)
    assert Path("detector.onnx").read_bytes() == before


def external_data() -> None:
    Path("deep").mkdir()
    path = models.external(Path(), "deep/w.data")
    data = Path("deep/w.data").read_bytes()
    kept = graphsurgery.ModelFile.load(path)
    edited = graphsurgery.insert(path, "simam", after="/model.2")
    edited.save(path, force=True)
    assert Path("deep/w.data").read_bytes() == data
    Path("other/deep").mkdir(parents=True)
    models.external(Path("other"), "deep/w.data")
    Path("other/deep/w.data").write_bytes(bytes(255 - byte for byte in data))
    held = [graphsurgery.ModelFile.load(Path("other") / path.name) for _ in range(2)]
    edited.save(Path("other") / path.name, force=True)  # a model with other data is there, and open
    assert Path("other/deep/w.data").read_bytes() == data
    assert kept.size == held[0].size == held[1].size


def failures() -> None:
    """Nothing is left behind, and the old file stays, where a check fails while the new file is open."""
    before = Path("detector.onnx").read_bytes()
    model = graphsurgery.insert("detector.onnx", "simam", after="/model.8")
    opened = []
    try:
        with saving.staged(model, Path("detector.onnx"), force=True) as path:
            opened.append(graphsurgery.ModelFile.load(path))
            raise OutputError("stop")
    except OutputError:
        pass
    assert Path("detector.onnx").read_bytes() == before
    assert opened[0].to_bytes() == model.to_bytes()


def threads() -> None:
    """Ranges of one file are read at the same time."""
    model = graphsurgery.ModelFile.load("detector.onnx")
    whole, wrong = model.to_bytes(), []

    def read(start: int) -> None:
        source = next(model.ranges())[0]
        for each in range(start, len(whole) - 100, 4001):
            if source.read(each, each + 100) != whole[each : each + 100]:
                wrong.append(each)

    running = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert not wrong


signals.install()
assert callable(program.main)
for step in (commands, calls, external_data, failures, threads):
    step()
    gc.collect()
left = [str(path) for path in Path().rglob("*graphsurgery-*")]
print(json.dumps({"left": left}))
