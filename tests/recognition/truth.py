"""The truth that recognition is judged by: which blocks a PyTorch model has, and the tensors that leave them.

It comes from the list of modules that the exporter's script wrote beside the file, and from the names and metadata that
the exporter left in it: never from the structure of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import onnx
from onnx import NodeProto

from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.module_paths import ModuleTree
from graphsurgery.modelfile.model import ModelFile
from tests.exports import DERIVED, dialects, export, modules

PARTS = (
    *("Sequential", "ModuleList", "ModuleDict", "Identity"),
    *("RTDetrFrozenBatchNorm2d", "GELUActivation", "SiLUActivation"),
    *("BatchNormAct2d", "SelectAdaptivePool2d", "FrozenBatchNorm2d"),
)
"""Classes that are no blocks: containers, and single layers of other packages than torch."""
PLAIN = ("Upsample",)
"""Classes of torch.nn that count as blocks."""
CLASSES = {
    "transformers.RTDetrCSPRepLayer": "RepC3",
    "transformers.RTDetrRepVggBlock": "RepConv",
    "transformers.RTDetrAIFILayer": "AIFI",
    "transformers.RTDetrConvNormLayer": "Conv",
    "transformers.RTDetrResNetConvLayer": "Conv",
    "transformers.RTDetrResNetBasicLayer": "BasicBlock",
    "transformers.RTDetrResNetBottleNeckLayer": "BottleneckBlock",
    "torchvision.BasicBlock": "BasicBlock",
    "torchvision.Bottleneck": "BottleneckBlock",
    "torchvision.InvertedResidual": "InvertedResidual",
    "torchvision.SqueezeExcitation": "SE",
    "torchvision.Conv2dNormActivation": "Conv",
    "timm.InvertedResidual": "InvertedResidual",
    "timm.DepthwiseSeparableConv": "InvertedResidual",
    "timm.models.cspnext.DepthwiseSeparableConv": None,
    "timm.SqueezeExcite": "SE",
    "timm.ConvBnAct": "Conv",
    "timm.ConvNormAct": "Conv",
    "timm.ConvBNAct": "Conv",
    "timm.LightConvBNAct": "LightConv",
    "timm.HighPerfGpuBlock": "HGBlock",
    "timm.StemV2": "HGStem",
    "timm.Bottleneck": "ResNetBottleneck",
    "timm.BottleneckBlock": "ResNetBottleneck",
    "timm.CspNextLayer": "CSPLayer",
    "timm.CspNextBlock": "CSPNeXtBlock",
    "timm.MobileOneBlock": "RepConv",
    "timm.UniversalInvertedResidual": "InvertedResidual",
    "transformers.HGNetV2ConvLayer": "Conv",
    "transformers.HGNetV2ConvLayerLight": "LightConv",
    "transformers.HGNetV2BasicLayer": "HGBlock",
    "transformers.HGNetV2Embeddings": "HGStem",
    "transformers.ResNetConvLayer": "Conv",
    "transformers.ResNetShortCut": "Conv",
    "transformers.ResNetBottleNeckLayer": "ResNetBottleneck",
    "transformers.RfDetrC2FLayer": "C2f",
    "transformers.RfDetrRepVggBlock": "Bottleneck",
    "transformers.RfDetrConvNormLayer": "Conv",
    "transformers.DFineConvNormLayer": "Conv",
    "transformers.DFineRepNCSPELAN4": "RepNCSPELAN4",
    "transformers.DFineCSPRepLayer": "RepC3",
    "transformers.DFineRepVggBlock": "RepConv",
    "transformers.DFineSCDown": "SCDown",
    "transformers.DFineAIFILayer": "AIFI",
    "tests.ShuffleUnit": "ShuffleV2Block",
    "tests.SPPBottleneck": "SPP",
    "tests.RepResidual": "Bottleneck",
    "tests.RepVggBlock": "Conv",
    "tests.EffectiveSE": "ESE",
}
"""What a class is called here, where it is called otherwise by its maker."""


CLAMPS = ("Relu", "Clip")
"""What the range of 8 bits does by itself: where a file has 8-bit tensors, these are not in it any more."""


class TrueBlock(NamedTuple):
    """One module: its type as selectors name it, its path in the PyTorch model, the one tensor that leaves it."""

    type: str
    path: str
    tensor: str


def block_type(kind: str) -> str | None:
    """Return the type of a module of class `kind` ("ultralytics.nn.modules.block.C2f"); None for what is no block."""
    package, name = kind.partition(".")[0], kind.rpartition(".")[2]
    if name in PARTS or (package == "torch" and name not in PLAIN):
        return None
    return CLASSES[kind] if kind in CLASSES else CLASSES.get(f"{package}.{name}", name)


@cache
def truth(name: str, variant: str) -> tuple[TrueBlock, ...]:
    """Return the blocks of model `name` in the order of its modules, with their tensors in the export `variant`.

    `variant` is one of tests.exports or one of tests.exports.dialects. A module that several tensors leave, or none
    (it was folded away), is not in the list. In a quantised file the tensor is the one that QuantizeLinear reads, and
    where there is none any more (qoperator) the 8-bit tensor in its place.
    """
    if variant in dialects.DIALECTS:
        tensors = dialects.dialect(name, variant).tensors
        return _found(truth(name, dialects.SOURCE), lambda tensor: tensors.get(tensor))
    if variant in DERIVED:
        there = {name for node in _nodes(name, variant) for name in node.output}
        before = {node.output[0]: node.input[0] for node in _nodes(name, DERIVED[variant]) if node.op_type in CLAMPS}

        def now(tensor: str) -> str | None:
            spellings = (tensor, f"{tensor}_quantized", f"{before.get(tensor)}_quantized")
            return next((name for name in spellings if name in there), None)

        return _found(truth(name, DERIVED[variant]), now)
    index = GraphIndex(ModelFile.load(export(name, variant)))
    return blocks_of(index, ((module.path, module.kind) for module in modules(name)))


def blocks_of(index: GraphIndex, modules: Iterable[tuple[str, str]]) -> tuple[TrueBlock, ...]:
    """Return the blocks that an export's names or metadata tell, of modules given by path and class."""
    tree = ModuleTree(index)
    typed = ((block_type(kind), path) for path, kind in modules)
    wanted = ((kind, path) for kind, path in typed if kind and path in tree.modules)
    leaving = ((kind, path, _leaving(index, tree.modules[path].nodes)) for kind, path in wanted)
    return tuple(TrueBlock(kind, path, tensors[0]) for kind, path, tensors in leaving if len(tensors) == 1)


def _found(blocks: Iterable[TrueBlock], now: Callable[[str], str | None]) -> tuple[TrueBlock, ...]:
    """Return the blocks whose tensors are still there, under the names that `now` gives."""
    return tuple(block._replace(tensor=tensor) for block in blocks if (tensor := now(block.tensor)))


def _leaving(index: GraphIndex, nodes: Iterable[int]) -> list[str]:
    """Return the tensors that the nodes make of the model's input and that are read elsewhere."""
    inside = set(nodes)
    made = [
        (name, index.consumers.get(name, ()))
        for p in sorted(inside & set(index.active))
        for name in index.nodes[p].output
    ]
    return [name for name, readers in made if name in index.outputs or any(p not in inside for p in readers)]


def _nodes(name: str, variant: str) -> Iterable[NodeProto]:
    return onnx.load(export(name, variant), load_external_data=False).graph.node
