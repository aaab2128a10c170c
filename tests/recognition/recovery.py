"""How many of a model's blocks are recovered by structure alone.

`python -m tests.recognition.recovery [NAME[:VARIANT] ...]` prints it; without a name, that of all families. The truth
is the module list of the PyTorch model that was exported, with the tensors that leave its modules in the named export.
Recognition sees the same file without a single name.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from graphsurgery.entry_points import loaded
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition import BlockTree, HeadPattern, Pattern, recognise
from tests.exports import export
from tests.exports.dialects import DIALECTS, dialect
from tests.recognition.built import built
from tests.recognition.families.recovered import MODELS
from tests.recognition.randomise import randomise
from tests.recognition.truth import TrueBlock, blocks_of, truth

GROUP = "graphsurgery.detectors"
SAME = {
    "PSA": "C2PSA",  # YOLOv10's: a C2PSA with one block
    "CSPLayer": "C3",  # YOLOX's is one; RTMDet's has a gate more
    "CSPStage": "CSPResStage",  # PP-YOLOE's neck: without the gate
    "CSPNeXtBlock": "Bottleneck",
    "RepResidual": "Bottleneck",  # PP-YOLOE's, fused
    "BottleneckBlock": "ResNetBottleneck",
    "SPPBottleneck": "SPP",
    "DWConv": "Conv",  # which of the two a depthwise convolution is called differs from author to author
    "RepVggBlock": "Conv",  # fused
    "GhostModule": "GhostConv",
    "v10Detect": "Detect",
    "YOLOXHead": "Detect",
    "PPYOLOEHead": "Detect",
    "RTMDetSepBNHead": "Detect",
    "RTDetrDecoder": "RTDETRDecoder",
    "DetrDecoder": "DETRDecoder",
}
"""Names of one structure: in the truth or of the pattern -> as compared."""
NOT_ONLY_MODULES = frozenset({"Conv", "Concat", "Upsample"})
"""Types that are also found where no module of the class is: bare nn.Conv2d, torch.cat in a forward()."""
IN_A_FORWARD = {"yolov10n": frozenset({"PSABlock"})}
"""Blocks whose body stands in another module's forward(): YOLOv10's PSA has one."""
HEADS = frozenset({"Detect", "RTDETRDecoder", "DETRDecoder"})
"""Types that are compared without their tensor: what leaves a head is quantised, or is more than one tensor."""


@dataclass(frozen=True)
class Recovery:
    """What was found of one model, as multisets of (type, tensor)."""

    name: str
    true: Counter[tuple[str, str]]
    found: Counter[tuple[str, str]]

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Modules that were not recognised."""
        return list((self.true - self.found).elements())

    @property
    def invented(self) -> list[tuple[str, str]]:
        """Blocks of a type that the truth distinguishes, recognised where no such module is."""
        known = NOT_ONLY_MODULES | IN_A_FORWARD.get(self.name.partition(" ")[0], frozenset())
        return [block for block in (self.found - self.true).elements() if block[0] not in known]

    @property
    def line(self) -> str:
        """The figure of the model."""
        right = self.true & self.found
        kinds = Counter(kind for kind, _ in self.true.elements())
        hits = Counter(kind for kind, _ in right.elements())
        parts = ", ".join(f"{kind} {hits[kind]}/{count}" for kind, count in sorted(kinds.items()))
        return f"{self.name}: {right.total()} of {self.true.total()} blocks, {len(self.invented)} invented ({parts})"


def recovery(name: str, variant: str = "simplified", *, randomised: bool = True) -> Recovery:
    """Recognise an export, without its names unless told otherwise, and compare with the modules it was made from."""
    model = dialect(name, variant).model if variant in DIALECTS else onnx.load(export(name, variant))
    result = compare(f"{name} {variant}", model, truth(name, variant), randomised=randomised)
    if variant == "functions":  # the last convolution of a module that is a call cannot be told from the call
        wholes = {tensor for kind, tensor in result.true if kind != "Conv"}
        true = {(kind, t): n for (kind, t), n in result.true.items() if kind != "Conv" or t not in wholes}
        return replace(result, true=Counter(true))
    return result


def family_recovery(name: str) -> Recovery:
    """The same of a model that is built here (families/recovered.py)."""
    export = built(name)
    return compare(name, export.model, blocks_of(GraphIndex(ModelFile.load(export.model)), export.modules))


def compare(label: str, model: onnx.ModelProto, blocks: Sequence[TrueBlock], *, randomised: bool = True) -> Recovery:
    """Recognise a model, without its names unless told otherwise, and compare with the blocks that it has."""
    new = {tensor: tensor for node in model.graph.node for tensor in node.output}
    if randomised:
        model, new = randomise(model)
    tree = tree_of(model)
    patterns = (*loaded(GROUP).values(Pattern), *loaded(GROUP).values(HeadPattern))
    known = {SAME.get(kind, kind) for pattern in patterns for kind in pattern.names}
    root = tree.view.root  # a module's last node can be one that only passes on
    true = Counter(_compared(block.type, root(new.get(block.tensor, ""))) for block in blocks)
    true = Counter({block: count for block, count in true.items() if block[0] in known})
    found = Counter(_compared(block.type, block.root) for block in tree.everything())
    if not any(kind in HEADS for kind, _ in true):  # the head's class has another name, or several tensors leave it
        found = Counter({block: count for block, count in found.items() if block[0] not in HEADS})
    return Recovery(label, true, found)


def _compared(kind: str, tensor: str) -> tuple[str, str]:
    kind = SAME.get(kind, kind)
    return kind, "" if kind in HEADS else tensor


def tree_of(model: onnx.ModelProto) -> BlockTree:
    """The blocks of a model, from its structure alone."""
    index = GraphIndex(ModelFile.load(model))
    return recognise(index, ShapeTable(index))


def main(arguments: list[str]) -> None:
    for argument in arguments or MODELS:
        name, _, variant = argument.partition(":")
        result = family_recovery(name) if name in MODELS and not variant else recovery(name, variant or "simplified")
        print(result.line)
        for what, blocks in (("missing", result.missing), ("invented", result.invented)):
            for kind, tensor in blocks[:10]:
                print(f"  {what}: {kind} {tensor}")


if __name__ == "__main__":
    main(sys.argv[1:])
