"""Real exported detectors for the tests: `export("yolov8n", "simplified")` is the path of an ONNX file.

Each file is made once, by make.py in a process of its own, and kept in a cache outside the tree that git tracks: the
folder in GRAPHSURGERY_EXPORTS, or graphsurgery/exports in the user's cache folder (about 1 GB when all are made; it may
be deleted at any time). A file is looked up by the versions of the packages that shape it and by the text of make.py.
`python -m tests.exports` makes them all and prints what they are.

Tests must not write to the files: copy one first.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("yolov8n", "yolo11n", "rtdetr-l")
VARIANTS = {
    "torchscript": "TorchScript exporter, as Ultralytics gives it with simplify=False",
    "simplified": "the same passed through onnxslim: Ultralytics' default",
    "half": "float16 from input to output, as Ultralytics traces it on a GPU; simplified",
    "half-converted": "float16 as Ultralytics makes it on a CPU: float32 input and output, nodes out of order",
    "dynamic": "dynamic batch, height and width; simplified",
    "dynamo": "torch.onnx.export(dynamo=True), weights in the file",
    "dynamo-external": "the same with the weights in a file beside it",
}
UNSORTED = frozenset({"half-converted"})
"""Variants whose nodes are not in topological order: onnxruntime takes them, onnx's checker does not."""

_MAKE = Path(__file__).with_name("make.py")
_PACKAGES = ("torch", "torchvision", "ultralytics", "onnx", "onnxscript", "onnxslim", "onnxruntime")
_TIMEOUT = 900  # seconds; the slowest takes about 30 on two cores


def export(name: str, variant: str) -> Path:
    """Return the path of model `name` exported as `variant`, made now if the cache has none.

    Raises ValueError for a name or variant that does not exist, and RuntimeError with the exporter's last words.
    """
    if name not in NAMES or variant not in VARIANTS:
        raise ValueError(f"no export {name!r} {variant!r}; names: {', '.join(NAMES)}; variants: {', '.join(VARIANTS)}")
    cache = _cache()
    folder = cache / f"{name}-{variant}"
    path = folder / f"{name}.onnx"
    if not path.exists():
        with _locked(cache / f"{name}-{variant}.lock"):
            if not path.exists():
                _make(name, variant, folder)
    return path


def seconds(path: Path) -> float:
    """Return how long the export at `path` took, in seconds."""
    return float(json.loads((path.parent / "made.json").read_text())["seconds"])


def _cache() -> Path:
    """Return the folder of the exports that this script makes with these packages."""
    root = os.environ.get("GRAPHSURGERY_EXPORTS")
    if not root:
        root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphsurgery" / "exports")
    key = hashlib.sha256(_MAKE.read_bytes())
    for package in _PACKAGES:
        key.update(f"{package} {_version(package)}\n".encode())
    return Path(root).resolve() / key.hexdigest()[:12]


def _version(package: str) -> str:
    """Return the installed version of `package`; ultralytics also comes as a wheel of another name."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "ultralytics":
            raise
        return importlib.metadata.version("ultralytics-opencv-headless")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: two workers that want one export make it once. Released if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(name: str, variant: str, folder: Path) -> None:
    """Run make.py beside `folder` and rename the result to it, so that a folder is there whole or not at all."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    started = time.monotonic()
    try:
        command = [sys.executable, str(_MAKE), name, variant, str(scratch / f"{name}.onnx")]
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the export of {name} as {variant} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        (scratch / "made.json").write_text(json.dumps({"seconds": round(time.monotonic() - started, 1)}) + "\n")
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
