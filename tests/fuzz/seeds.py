"""What the fuzzer starts from: small models as many exporters and tools write them, with and without insertions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, helper

import graphsurgery as gsx
from graphsurgery.errors import GraphSurgeryError, GraphSurgeryWarning
from graphsurgery.modelfile.model import ModelFile
from tests import models
from tests.exports import dialects

HOSTS = Path(__file__).parents[1] / "compatibility" / "hosts"
EXTERNAL = "external.data"
"""the file beside the model that one seed keeps its weights in"""

MODULES = ("simam", "se", "eca", "cbam", "ge[theta]", "nam[channel+spatial]", "coordatt", "srm")
_RECORDED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "torchscript": ("se", {"gate": "residual", "settings": {"reduction": 2}}),
    "dynamo": ("simam", {}),
    "caffe2": ("eca", {}),
    "paddle": ("nam", {}),
    "half": ("cbam", {"settings": {"reduction": 2}}),
    "uint8": ("se", {"qdq": "int8", "settings": {"reduction": 2}}),
    "subgraphs": ("simam", {}),
    "kitchen_sink": ("srm", {}),
    "external": ("ge[theta]", {}),
    "calls": ("eca", {"gate": "residual"}),
}
"""seed -> what is inserted in it to make another one: records of many kinds"""


@dataclass(frozen=True)
class Seed:
    """A model, and the places where the tool itself says that blocks can go."""

    name: str
    data: bytes
    selectors: tuple[str, ...]
    ids: tuple[str, ...]
    """of the insertions in it"""


def _functions() -> ModelProto:
    """The small detector whose Conv-SiLU stages are calls of local functions, one inside of the other."""
    made = models.detector(opset=17)
    silu = helper.make_function(
        "torch.nn.modules.activation",
        "SiLU",
        ["x"],
        ["y"],
        [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    call = helper.make_node("SiLU", ["x"], ["y"], domain=silu.domain)
    pooled = helper.make_node("AveragePool", ["y"], ["z"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    pooled.attribute.append(onnx.AttributeProto(name="ceil_mode", ref_attr_name="ceil", type=onnx.AttributeProto.INT))
    stage = helper.make_function(
        "demo",
        "Stage",
        ["x"],
        ["z"],
        [call, pooled],
        [helper.make_opsetid("", 17), helper.make_opsetid(silu.domain, 1)],
        attributes=["ceil"],
    )
    made.functions.extend([silu, stage])
    made.opset_import.extend([helper.make_opsetid(silu.domain, 1), helper.make_opsetid("demo", 1)])
    kept = []
    for node in made.graph.node:
        if node.op_type == "Sigmoid":
            continue
        if node.op_type == "Mul":
            node.CopyFrom(
                helper.make_node("Stage", [node.input[0]], list(node.output), node.name, domain="demo", ceil=0)
            )
        kept.append(node)
    made = ModelProto.FromString(made.SerializeToString())
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


_MADE: Mapping[str, Callable[[], ModelProto]] = {
    "numbered": lambda: dialects.numbered(models.detector()).model,
    "blank": lambda: dialects.blank(models.detector()).model,
    "caffe2": lambda: dialects.caffe2(models.detector(opset=9)).model,
    "tf-scopes": lambda: dialects.tf_scopes(models.detector()).model,
    "paddle": lambda: dialects.paddle(models.detector(opset=11)).model,
    "calls": _functions,
    "loop": lambda: models.with_if(shadowed=True),
}


def _of(name: str, data: bytes) -> Seed:
    model = ModelFile.load(data, folder=HOSTS)
    try:
        places = [site.path or f"tensor:{site.tensor}" for site in gsx.sites(model)]
    except GraphSurgeryError:
        places = []
    return Seed(name, data, tuple(places), tuple(each.id for each in model.insertions()))


@cache
def seeds() -> tuple[Seed, ...]:
    """Every seed, in an order of their names."""
    plain = {path.stem: path.read_bytes() for path in sorted(HOSTS.glob("*.onnx"))}
    plain |= {name: build().SerializeToString() for name, build in _MADE.items()}
    found = [_of(name, data) for name, data in sorted(plain.items())]
    by_name = {seed.name: seed for seed in found}
    for name, (module, options) in _RECORDED.items():
        seed = by_name[name]
        model = ModelFile.load(seed.data, folder=HOSTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GraphSurgeryWarning)
            edited = gsx.insert(model, module, after=list(seed.selectors[1:3]), **options)
        found.append(_of(f"{name}+{module}", edited.to_bytes()))
    return tuple(found)
