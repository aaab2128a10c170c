"""Command lines that users have in their scripts, by name: exit code, files, and the keys of what `--json` prints.

{hosts}, {made}, {recipes} and {weights} are the folders of the corpus; the process runs in an empty folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.compatibility import corpus

COMMAND = Path(sys.executable).with_name("graphsurgery")

COMMANDS: dict[str, str] = {
    "insert": (
        "insert {hosts}/torchscript.onnx --module se --set reduction=4 --after /model.2 -o out.onnx --no-verify --json"
    ),
    "insert, short": "insert {hosts}/torchscript.onnx -m nam -a /model.1 -a /model.2 -o out.onnx --no-verify -q",
    "insert, every option": (
        "insert {hosts}/torchscript.onnx --module cbam[official] --after /model.2 --consumers node:/model.3/Concat "
        "--set reduction=4 --set kernel=3 --init identity --seed 9 --gate residual --target onnxruntime "
        "--precision fp32 --lowering gemm --qdq none --qdq-scale site --no-verify -o out.onnx --json"
    ),
    "insert, verified": (
        "insert {hosts}/torchscript.onnx -m simam --before /model.3 --providers cpu -o out.onnx --force --json"
    ),
    "insert, weights": (
        "insert {hosts}/torchscript.onnx -m se -b model.3 --weights {weights}/se.safetensors:model.2.se "
        "--no-verify -o out.onnx"
    ),
    "insert, no such module": "insert {hosts}/torchscript.onnx -m se -a /model.99 -o out.onnx --json",
    "apply": "apply {recipes}/torchscript/chain.yaml {hosts}/torchscript.onnx -o out.onnx --no-verify --json",
    "remove, listing": "remove {made}/torchscript/chain.onnx --json",
    "remove, one": "remove {made}/torchscript/chain.onnx model.2.simam -o out.onnx --json",
    "remove, all": "remove {made}/torchscript/chain.onnx --all -o out.onnx --json",
    "verify": (
        "verify {made}/torchscript/chain.onnx --seeds 1 --providers cpu --original {hosts}/torchscript.onnx --json"
    ),
    "sites": "sites {hosts}/torchscript.onnx --json",
    "blocks": "blocks se --json",
    "diff": "diff {hosts}/torchscript.onnx {made}/torchscript/chain.onnx --json",
    "tensorrt check": "tensorrt check {made}/torchscript/chain.onnx --json",
}


def run(name: str, folder: Path) -> dict[str, Any]:
    """What a command line does, run in an empty folder: exit code, the file it writes, and the form of its JSON."""
    folders = {"hosts": corpus.HOSTS, "made": corpus.MADE, "recipes": corpus.RECIPES, "weights": corpus.WEIGHTS}
    arguments = [word.format_map(folders) for word in COMMANDS[name].split()]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, check=False)
    told: dict[str, Any] = {"exit code": done.returncode}
    out = folder / "out.onnx"
    told["out.onnx"] = corpus.sha256(out.read_bytes()) if out.exists() else None
    if "--json" in arguments and done.stdout:
        told["json"] = form(json.loads(done.stdout))
    return told


def form(value: Any) -> Any:
    """JSON with the types of its values in place of them. Lists of things of one form are given by the first."""
    if isinstance(value, dict):
        return {key: form(each) for key, each in value.items()}
    if isinstance(value, list):
        return [form(each) for each in value[:1]]
    return type(value).__name__


def covers(now: Any, before: Any) -> bool:
    """Whether all that was there is there: a later version may add keys, and gives no other type."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(key in now and covers(now[key], before[key]) for key in before)
    if isinstance(before, list) and before:
        return isinstance(now, list) and bool(now) and covers(now[0], before[0])
    return bool(now == before)
