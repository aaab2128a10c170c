"""Real exported models for the tests: `export("yolov8n", "simplified")` is the path of an ONNX file.

Each file is made once, by a script in a process of its own, and kept in a cache outside the tree that git tracks: the
folder in GRAPHSURGERY_EXPORTS, or graphsurgery/exports in the user's cache folder (about 4 GB when all are made; it may
be deleted at any time). A file is looked up by the versions of the packages that shape it and by the script's text.
`python -m tests.exports` makes them all and prints what they are.

    make.py       three of Ultralytics' models as NAMES x VARIANTS
    make_more.py  MORE x VARIANTS: more of Ultralytics' models; and the variant dynamo-raw of all of them
    make_zoo.py   ZOO x ZOO_VARIANTS: models of other makers, and small ones written here
    make_classifiers.py  CLASSIFIERS x ZOO_VARIANTS: torchvision's and timm's, with attention and without
    derive.py     DERIVED: what other tools make of the exports above

Exporters that cannot be run here are spoken by dialects.py. `modules(name)` lists the modules of the PyTorch model.

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
from dataclasses import dataclass
from pathlib import Path

from tests.exports import modulelist

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

MORE = ("yolov5n", "yolov10n", "yolo12n", "yolo26n")
"""Ultralytics' models too, exported as VARIANTS; yolov10n and yolo26n with their end-to-end heads."""
ZOO = {
    "rtdetr-r18": "RT-DETR of Hugging Face transformers on ResNet-18-vd",
    "yolox-tiny": "YOLOX: CSPDarknet, PAFPN, decoupled head",
    "yolox-nano": "the same with depthwise separable convolutions",
    "ppyoloe": "PP-YOLOE: CSPRepResNet with fused RepVGG blocks and ESE, CSPPAN, ET-head",
    "rtmdet": "RTMDet: CSPNeXt with channel attention, CSPNeXtPAFPN, SepBN head",
    "yolov5-anchors": "YOLOv5's anchor-based head on a small backbone and neck of its C3",
    "mobilenet_v2": "torchvision",
    "mobilenet_v3_large": "torchvision",
    "resnet18": "torchvision",
    "resnet50": "torchvision",
    "efficientnet_b0": "timm",
    "mobilenetv3-features": "timm, features_only: five feature maps and no classifier",
}
CLASSIFIERS = (
    *("tv-mobilenet_v3_small", "tv-efficientnet_b0", "tv-regnet_y_400mf"),
    *("timm-mobilenetv3_small_050", "timm-efficientnet_b0", "timm-regnety_002"),
    *("seresnet18", "ecaresnet26t", "gcresnext26ts", "skresnet18"),
    *("cbam-resnet18", "gc-resnet18", "coord-resnet18", "ese_vovnet19b_dw", "swin"),
    *("vgg11_bn", "densenet121", "shufflenet_v2", "squeezenet", "mnasnet", "googlenet"),
    *("convnext", "repvgg", "starnet", "poolformer"),
)
"""Of torchvision and timm; those of the last two lines have no attention."""
ZOO_VARIANTS = {variant: VARIANTS[variant] for variant in ("torchscript", "simplified", "dynamo")}
RAW = {"dynamo-raw": "torch.onnx.export(dynamo=True, optimize=False): nothing folded or merged"}
DERIVED = {
    "qdq": "simplified",
    "qoperator": "simplified",
    "dynamic-int8": "simplified",
    "onnxsim": "torchscript",
    "ort-extended": "simplified",
    "dynamo-optimised": "dynamo",
}
"""What derive.py makes, and of which variant."""

_HERE = Path(__file__).parent
_MAKE = _HERE / "make.py"
_MAKE_MORE = _HERE / "make_more.py"
_MAKE_ZOO = _HERE / "make_zoo.py"
_MAKE_CLASSIFIERS = _HERE / "make_classifiers.py"
_DERIVE = _HERE / "derive.py"
_PACKAGES = ("torch", "torchvision", "ultralytics", "onnx", "onnxscript", "onnxslim", "onnxruntime")
_TIMEOUT = 900  # seconds; the slowest takes about 30 on two cores


def export(name: str, variant: str) -> Path:
    """Return the path of model `name` exported as `variant`, made now if the cache has none.

    Raises ValueError for a name or variant that does not exist, and RuntimeError with the exporter's last words.
    """
    if variant not in variants(name):
        names = ", ".join((*NAMES, *MORE, *ZOO, *CLASSIFIERS))
        raise ValueError(
            f"no export {name!r} {variant!r}; names: {names}; variants: {', '.join([*VARIANTS, *RAW, *DERIVED])}"
        )
    return _folder(name, variant) / f"{name}.onnx"


def variants(name: str) -> tuple[str, ...]:
    """Return the variants that model `name` can be exported as; none for a name that does not exist."""
    if name in ZOO or name in CLASSIFIERS:
        return (*ZOO_VARIANTS, *DERIVED)
    return (*VARIANTS, *RAW, *DERIVED) if name in (*NAMES, *MORE) else ()


def modules(name: str) -> list[modulelist.Module]:
    """Return the modules of the PyTorch model that was exported, in the order of `named_modules()`."""
    variants(name) or export(name, "")
    return modulelist.read(_folder(name, "modules" if name in NAMES else "simplified"))


def seconds(path: Path) -> float:
    """Return how long the export at `path` took, in seconds."""
    return float(json.loads((path.parent / "made.json").read_text())["seconds"])


@dataclass(frozen=True)
class _Recipe:
    """How a file is made: a script, and what its result depends on."""

    script: Path
    reads: tuple[Path, ...] = ()
    packages: tuple[str, ...] = _PACKAGES
    source: Path | None = None

    def cache(self) -> Path:
        """Return the folder of the exports that this script makes with these packages."""
        root = os.environ.get("GRAPHSURGERY_EXPORTS")
        if not root:
            root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphsurgery" / "exports")
        key = hashlib.sha256(b"".join(path.read_bytes() for path in (self.script, *self.reads)))
        for package in self.packages:
            key.update(f"{package} {_version(package)}\n".encode())
        if self.source:
            key.update(self.source.parent.parent.name.encode())
        return Path(root).resolve() / key.hexdigest()[:12]


def _recipe(name: str, variant: str) -> _Recipe:
    shared = (_HERE / "modulelist.py",)
    if variant in DERIVED:
        return _Recipe(_DERIVE, packages=(*_PACKAGES[3:], "onnxsim"), source=export(name, DERIVED[variant]))
    if name in ZOO:
        files = (_MAKE, *shared, *sorted((_HERE / "zoo").glob("*.py")))
        return _Recipe(_MAKE_ZOO, files, (*_PACKAGES, "timm", "transformers"))
    if name in CLASSIFIERS:
        return _Recipe(_MAKE_CLASSIFIERS, (_MAKE, _MAKE_ZOO, *shared), (*_PACKAGES, "timm"))
    if name in NAMES and variant in VARIANTS:
        return _Recipe(_MAKE)
    return _Recipe(_MAKE_MORE, (_MAKE, *shared))


def _folder(name: str, variant: str) -> Path:
    """Return the folder that holds what was made for a name and variant."""
    recipe = _recipe(name, variant)
    cache = recipe.cache()
    folder = cache / f"{name}-{variant}"
    if not folder.exists():
        with _locked(cache / f"{name}-{variant}.lock"):
            if not folder.exists():
                _make(recipe, name, variant, folder)
    return folder


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


def _make(recipe: _Recipe, name: str, variant: str, folder: Path) -> None:
    """Run the script beside `folder` and rename the result to it, so that a folder is there whole or not at all."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    started = time.monotonic()
    try:
        what = [variant, str(recipe.source)] if recipe.source else [name, variant]
        command = [sys.executable, str(recipe.script), *what, str(scratch / f"{name}.onnx")]
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
