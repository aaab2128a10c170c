"""Saves that are killed, and what a reader finds then. A program of its own, because it forks.

    killed_saves.py random MODE FOLDER COUNT    kill -9 at moments drawn at random
    killed_saves.py steps MODE FOLDER           kill -9 before and behind every call that changes a folder

MODE: ``file`` (one file is replaced by another), ``data`` (a model and its external data by others), ``place`` (a model
with external data is edited in place). Prints how often which state was found, as JSON; ends with 1 at a mixture.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

import graphsurgery as gsx

CALLS = ("replace", "rename", "link", "unlink", "mkdir", "rmdir")
SIZE = 1 << 18
DATA = ("w.data", "deep/w.data")


def make(folder: Path, mark: str, *, external: bool) -> Path:
    """A model, all of whose weights are the byte ``mark``, and which says so in its documentation."""
    folder.mkdir(parents=True)
    weights = []
    for number, location in enumerate(DATA):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.UINT8, dims=[SIZE])
        if external:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=location)
            (folder / location).parent.mkdir(exist_ok=True)
            (folder / location).write_bytes(mark.encode() * SIZE)
        else:
            tensor.raw_data = mark.encode() * SIZE
        weights.append(tensor)
    values = [helper.make_tensor_value_info(name, 1, [1, 8, 4, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "/a/Relu")], "g", [values[0]], [values[1]])
    graph.initializer.extend(weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, doc_string=mark)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def found(path: Path) -> str:
    """What a reader finds under the name of a model: a mark, with ``+`` after an insertion; "none"; or "MIXTURE"."""
    if not path.exists():
        return "none"
    model = onnx.load(path)
    marks = {model.doc_string.encode() * SIZE, *(weight.raw_data for weight in model.graph.initializer[: len(DATA)])}
    edited = "+" if len(model.graph.node) > 1 else ""
    return model.doc_string + edited if len(marks) == 1 else "MIXTURE"


def state(folder: Path) -> str:
    """What lies in a folder: the model, or the one that is kept beside where it was, once it is put back by hand."""
    here = found(folder / "m.onnx")
    if here != "none":
        return here
    kept = list(folder.glob("graphsurgery-old-*"))
    for path in kept:
        shutil.copytree(path, folder, dirs_exist_ok=True)
    return f"kept {found(folder / 'm.onnx')}" if len(kept) == 1 else "LOST"


def saves(mode: str, folder: Path) -> Callable[[], object]:
    """A function that saves to ``m.onnx`` in a folder, which is made first."""
    here = folder / "here"
    shutil.rmtree(folder, ignore_errors=True)
    external = mode != "file"
    make(here, "a", external=external)
    if mode == "place":
        return lambda: (gsx.remove if len(onnx.load(here / "m.onnx").graph.node) > 1 else insert)(here / "m.onnx").save(
            here / "m.onnx", force=True
        )
    make(folder / "there", "a", external=external)
    other = gsx.ModelFile.load(make(folder / "other", "b", external=external))
    turns = itertools.cycle([other, gsx.ModelFile.load(folder / "there" / "m.onnx")])
    return lambda: next(turns).save(here / "m.onnx", force=True)


def insert(path: Path) -> gsx.ModelFile:
    return gsx.insert(path, "simam", after="tensor:y")


def killed(work: Callable[[], object], delay: float | None) -> None:
    """Do the work in a child, again and again if it is to be killed after a delay in seconds."""
    child = os.fork()
    if child == 0:
        work()
        while delay is not None:
            work()
        os._exit(0)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def dying(at: int, *, behind: bool) -> None:
    """Let this process be killed at the n-th call that changes a folder."""
    calls = 0

    def wrapped(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            number = calls
            if number == at and not behind:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **options)
            finally:
                if number == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def main(how: str, mode: str, where: str, count: str = "0") -> int:
    folder, seen = Path(where), Counter[str]()
    draw = random.Random(count)
    os.fsync = lambda descriptor: None  # a kill loses nothing that the system has, and disks are slow
    saves(mode, folder)()  # what it imports, the children need not
    if how == "random":
        for _ in range(int(count)):
            killed(saves(mode, folder), draw.uniform(0.001, 0.06))
            seen[state(folder / "here")] += 1
    else:
        for number in itertools.count(1):
            for behind in (False, True):
                work = saves(mode, folder)

                def die(work: Callable[[], object] = work, number: int = number, behind: bool = behind) -> None:
                    dying(number, behind=behind)
                    work()
                    (folder / "alive").touch()

                killed(die, None)
                seen[state(folder / "here")] += 1
            if (folder / "alive").exists():
                break
    print(json.dumps(seen))
    return int(bool({"MIXTURE", "LOST"} & set(seen)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
