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
from tests.recognition.families import damoyolo, faces, fastestdet, others, pyramids, yaml_models, yolov7
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
    "yolov7": yolov7.YOLOv7,
    "yolov7-tiny": yolov7.YOLOv7Tiny,
    "damoyolo": damoyolo.DAMOYOLO,
    "damoyolo-csp": lambda: damoyolo.DAMOYOLO(True),
    "fastestdet": fastestdet.FastestDet,
    "efficientdet": pyramids.EfficientDet,
    "centernet": pyramids.CenterNet,
    "yolof": pyramids.YOLOF,
    "picodet": pyramids.PicoDet,
    "gold-yolo": pyramids.GoldYOLO,
    "vitdet": pyramids.ViTDet,
}
YAML = yaml_models.builders()
MODELS: dict[str, Callable[[], Any]] = {**REBUILT, **BUILDERS}
ROLES = ("p2", "p3", "p4", "p5", "p6", "p7", "n2", "n3", "n4", "n5", "n6", "n7")
SIZES = {
    "tv-ssd300-vgg16": 300,
    "tv-ssdlite320-mobilenet": 320,
    "hf-dfine": 256,
    **dict.fromkeys(YAML, yaml_models.SIZE),
}
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


VARIANTS = ("torchscript", "dynamo", "onnxsim", "onnxslim")


@cache
def exported(name: str, variant: str = "torchscript") -> tuple[onnx.ModelProto, dict[str, frozenset[str]]]:
    """The export of a model, and its true roles: each with the tensors of the export that hold its values."""
    import torch

    from tests.exports import make_zoo

    make_zoo.declare_operators()
    torch.manual_seed(0)
    built = {**MODELS, **YAML}[name]()
    packaged = built if isinstance(built, Packaged) else Packaged(built, {})
    model = packaged.model.eval()
    vary_norms(model)
    marks = dict(packaged.marks)
    if hasattr(model, "marks"):
        marks |= {role: f"marks.{role}" for role, _ in model.marks.named_children()}
    seen: dict[str, Any] = {}
    for role, path in marks.items():
        module, _, which = path.rstrip("]").partition("[")
        model.get_submodule(module).register_forward_hook(_keep(seen, role, int(which or 0)))
    image = torch.rand(1, 3, SIZES.get(name, SIZE), SIZES.get(name, SIZE))
    with torch.no_grad():
        model(image)
    values = {role: value.detach().numpy() for role, value in seen.items()}
    found = _written(model, image, variant)
    return found, _same(found, image.numpy(), values)


def _written(model: Any, image: Any, variant: str) -> onnx.ModelProto:
    """A model as an exporter writes it, passed through a simplifier if the variant is called so."""
    import torch

    if variant == "dynamo":
        program = torch.onnx.export(model, (image,), dynamo=True, input_names=["images"], verbose=False)
        return program.model_proto
    written = io.BytesIO()
    torch.onnx.export(model, (image,), written, dynamo=False, opset_version=17, input_names=["images"])
    found = onnx.load_from_string(written.getvalue())
    if variant == "onnxsim":
        import onnxsim

        found, _ = onnxsim.simplify(found)
    elif variant == "onnxslim":
        import onnxslim

        found = onnxslim.slim(found)
    return found


def _keep(seen: dict[str, Any], role: str, which: int) -> Callable[..., None]:
    def hook(_module: Any, _given: Any, found: Any) -> None:
        maps = getattr(found, "feature_maps", list(found.values()) if isinstance(found, dict) else found)
        seen.setdefault(role, maps[which] if isinstance(maps, (tuple, list)) else maps)

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


def score(name: str, *, randomised: bool = True, variant: str = "torchscript") -> Score:
    """Compare the roles that are recognised in an export with the true ones."""
    model, true = exported(name, variant)
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
    return not true or (bool(same) and role > max(same))


def main(arguments: list[str]) -> int:
    """Print the figures of models; 1 where a role is wrong. ``--variant NAME`` in front: another exporter."""
    variant = "torchscript"
    if arguments[:1] == ["--variant"]:
        variant, arguments = arguments[1], arguments[2:]
    total = {"right": 0, "absent": 0, "wrong": 0}
    for name in arguments or MODELS:
        for randomised in (False, True):
            result = score(name, randomised=randomised, variant=variant)
            for kind in total:
                total[kind] += len(getattr(result, kind))
            print(("without names " if randomised else "named ") + result.line, flush=True)
    whole = sum(total.values())
    print(f"{whole} roles: {total['right']} right, {total['absent']} absent, {total['wrong']} wrong")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
