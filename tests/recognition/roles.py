"""How many roles of detectors that are not YOLO-like are right.

`python -m tests.recognition.roles [NAME ...]` prints, per model, the right, absent and wrong roles. The truth is what
the modules of the PyTorch model gave on one image: the tensors of the export that hold the same values. It is compared
with the roles that are recognised in the export as it is, and without a single name.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.sites import SiteFinder
from tests.recognition.families import faces, others
from tests.recognition.families.packages import BUILDERS, Packaged
from tests.recognition.families.parts import vary_norms
from tests.recognition.randomise import randomise

REBUILT: dict[str, Callable[[], Any]] = {
    "retinaface": faces.RetinaFace,
    "yunet": faces.YuNet,
    "scrfd-mobile": lambda: faces.SCRFD(True),
    "scrfd-resnet": lambda: faces.SCRFD(False),
    "ultraface": faces.UltraFace,
    "nanodet-plus": others.NanoDetPlus,
    "shufflenet-fpn": others.ShuffleFPN,
    "ppocr-det": others.PPOCRDet,
    "ppocr-det-lk": lambda: others.PPOCRDet(False),
    "rtmdet": others.RTMDet,
    "retinanet": others.Dense,
    "retinanet-mobile": lambda: others.Dense(mobile=True),
    "fcos": lambda: others.Dense(centre=True),
    "ssd-mobile": others.SSD,
    "ssd-mobile-4": lambda: others.SSD(4),
}
MODELS: dict[str, Callable[[], Any]] = {**REBUILT, **BUILDERS}
ROLES = ("p2", "p3", "p4", "p5", "p6", "p7", "n2", "n3", "n4", "n5", "n6", "n7")
SIZES = {"tv-ssd300-vgg16": 300, "tv-ssdlite320-mobilenet": 320, "hf-dfine": 256}
SIZE = 128


@dataclass
class Score:
    """What was recognised of one model."""

    name: str
    right: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The figure of the model."""
        whole = len(self.right) + len(self.absent) + len(self.wrong)
        parts = [f"{what} {', '.join(each)}" for what in ("absent", "wrong") if (each := getattr(self, what))]
        return f"{self.name}: {len(self.right)} of {whole} roles right" + (f" ({'; '.join(parts)})" if parts else "")


@cache
def exported(name: str) -> tuple[onnx.ModelProto, dict[str, frozenset[str]]]:
    """The export of a model, and its true roles: each with the tensors of the export that hold its values."""
    import torch

    from tests.exports import make_zoo

    make_zoo.declare_operators()
    torch.manual_seed(0)
    built = MODELS[name]()
    packaged = built if isinstance(built, Packaged) else Packaged(built, {})
    model = packaged.model.eval()
    vary_norms(model)
    marks = dict(packaged.marks)
    if hasattr(model, "marks"):
        marks |= {role: f"marks.{role}" for role, _ in model.marks.named_children()}
    seen: dict[str, Any] = {}
    for role, path in marks.items():
        model.get_submodule(path).register_forward_hook(_keep(seen, role))
    image = torch.rand(1, 3, SIZES.get(name, SIZE), SIZES.get(name, SIZE))
    with torch.no_grad():
        model(image)
    values = {role: value.detach().numpy() for role, value in seen.items()}
    written = io.BytesIO()
    torch.onnx.export(model, (image,), written, dynamo=False, opset_version=17, input_names=["images"])
    found = onnx.load_from_string(written.getvalue())
    return found, _same(found, image.numpy(), values)


def _keep(seen: dict[str, Any], role: str) -> Callable[..., None]:
    def hook(_module: Any, _given: Any, found: Any) -> None:
        seen.setdefault(role, found if not isinstance(found, (tuple, list)) else found[0])

    return hook


def _same(model: onnx.ModelProto, image: Any, values: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """role -> the tensors of a model that hold its values."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    made = [name for node in model.graph.node for name in node.output if name]
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    there = dict(zip(made, session.run(made, {session.get_inputs()[0].name: image}), strict=True))
    found = {}
    for role, value in values.items():
        same = (name for name, other in there.items() if other.shape == value.shape and _close(other, value))
        found[role] = frozenset(same)
        assert found[role], f"{role} is not in the export"
    return found


def _close(one: Any, other: Any) -> bool:
    """Whether two tensors hold the same values, but for rounding: deep maps of random weights can be very small."""
    return bool(np.abs(one - other).max() <= 1e-4 * np.abs(other).max())


def score(name: str, *, randomised: bool = True) -> Score:
    """Compare the roles that are recognised in an export with the true ones."""
    model, true = exported(name)
    new: Mapping[str, str] = {}
    if randomised:
        model, new = randomise(model)
    finder = SiteFinder(ModelFile.load(model))
    result = Score(name)
    known = finder.blocks.ROLES
    for role in ROLES:
        names = {new.get(tensor, tensor) for tensor in true.get(role, ())}
        found = finder.blocks.role(role) if role in known else []
        given = {finder.blocks.view.root(tensor) for tensor in found} | set(found)
        if not names and not found:
            continue
        # below the first marked level the source does not say what a stage is
        if not names and not _denied(role, true):
            continue
        kind = "right" if names & given and len(found) == 1 else "wrong" if found else "absent"
        getattr(result, kind).append(role)
    return result


def _denied(role: str, true: Mapping[str, object]) -> bool:
    """Whether the source has levels of this kind, and this is none of them: a stage deeper than its backbone."""
    same = [other for other in true if other[0] == role[0]]
    return bool(same) and role > max(same)


def main(arguments: list[str]) -> None:
    total = {"right": 0, "absent": 0, "wrong": 0}
    for name in arguments or MODELS:
        for randomised in (False, True):
            result = score(name, randomised=randomised)
            for kind in total:
                total[kind] += len(getattr(result, kind))
            print(("without names " if randomised else "named ") + result.line, flush=True)
    whole = sum(total.values())
    print(f"{whole} roles: {total['right']} right, {total['absent']} absent, {total['wrong']} wrong")


if __name__ == "__main__":
    main(sys.argv[1:])
