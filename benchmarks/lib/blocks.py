"""The blocks whose templates are timed, each as its PyTorch module and as the template of the same weights."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphsurgery.blocks import Block, BlockError
from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.cards.listing import in_order_of_demand
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template
from graphsurgery.userblocks import make_block

Size = tuple[int, int, int]
"""Channels, height and width."""

OPSET = 17
SIZES = ((64, 80, 80), (128, 40, 40), (256, 20, 20))
_QUADRATIC_UP_TO = 1600
"""positions: a number for each pair of them is gigabytes on the largest map"""
_SETTINGS: dict[str, dict[str, object]] = {"shuffle": {"groups": 8}}
"""Settings other than the defaults: the default of 64 groups does not go with 64 channels."""
_PUBLISHED_AS_OURS = (
    *("cbam[timm]", "coordatt[timm]", "coordatt[timm-simple]", "ela[timm]", "mhsa[lucidrains]", "sk[timm]"),
)
"""Variants whose published code computes them as our modules do, unlike that of the other variants."""
_NEWER = (
    *("irmb", "shsa*", "seam*", "psablock[area]", "dattention*", "bra*", "cga*", "lka*", "clo", "cot*", "msda"),
    *("focused*", "acmix", "aifi[efficient-additive]", "aifi[hilo]", "parnet"),
)
REARRANGED = (
    *("focused*", "msda", "acmix", "cot*", "psablock[area]", "seam[multi]", "cga*", "aifi[hilo]"),
    *("aifi[efficient-additive]", "dattention*", "irmb", "bra*"),
)
"""Of the newer ones those whose published form has shape arithmetic, permutations or pooled branches."""
SETS = {"all": ("*",), "newer": _NEWER}
"""What may be timed together, as patterns of ``matches``."""


def _configurations() -> Iterator[tuple[str, dict[str, object]]]:
    """(block with variant, settings): those of the first catalogue with settings of their own, then all the others."""
    yield "simam", {}
    yield "se", {}
    yield "se", {"bias": False}
    for variant in ("theta-minus", "theta", "theta-plus"):
        for extent in (0, 2, 4, 8):
            yield f"ge[{variant}]", {"extent": extent}
    for extent in (0, 2, 4, 8):
        yield "ge[timm]", {"extent": extent}
        yield "ge[timm]", {"extent": extent, "extra_params": True}
    for kind in in_order_of_demand():
        if kind.name not in ("simam", "se", "ge"):
            for count, variant in enumerate(kind.variants or ("",)):
                yield f"{kind.name}[{variant}]" if count else kind.name, _SETTINGS.get(kind.name, {})


CONFIGURATIONS = tuple(_configurations())


def sizes_of(configuration: int, sizes: Sequence[Size]) -> list[Size]:
    """The sizes at which a configuration is timed."""
    block = make_block(*CONFIGURATIONS[configuration])
    most = _QUADRATIC_UP_TO if block.quadratic else math.inf
    return [size for size in sizes if feature(size).area <= most and _possible(block, feature(size))]


def _possible(block: Block, site: FeatureMap) -> bool:
    try:
        block.check(site)
    except BlockError:
        return False
    return True


def forms(configuration: int) -> tuple[str, ...]:
    """The forms of a module that differ, "own" and, where published.py has another one of the block, "published"."""
    name = CONFIGURATIONS[configuration][0]
    differs = name.split("[")[0] in _with_published_form() and name not in _PUBLISHED_AS_OURS
    return ("published", "own") if differs else ("own",)


@cache
def _with_published_form() -> frozenset[str]:
    """The functions of published_*.py, each named after a block; read off the source, since they import torch."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.glob("published_*.py"))
    return frozenset(node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef))


def label(configuration: int) -> str:
    """How tables call a configuration."""
    name, settings = CONFIGURATIONS[configuration]
    return " ".join([name, *(f"{key}={value}" for key, value in settings.items())])


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a label, or the block that it begins with, is one of the patterns, or fits one (``cbam*``)."""
    block = name.split()[0]
    return any(pattern in (name, block) or fnmatchcase(block, pattern) for pattern in patterns)


def feature(size: Size, batch: int = 1) -> FeatureMap:
    channels, height, width = size
    return FeatureMap(channels, height, width, "float32", batch)


def weights(configuration: int, size: Size) -> dict[str, np.ndarray[Any, Any]]:
    """Weights as training leaves them: BatchNorms with statistics, scales and shifts of their own."""
    name, settings = CONFIGURATIONS[configuration]
    rng = np.random.default_rng(0)
    found = make_block(name, settings).initial(feature(size), rng)
    for key, values in found.items():
        if key.endswith("running_var"):
            found[key] = np.asarray(rng.uniform(0.5, 2.0, values.shape), np.float32)
        elif values.ndim < 2 or not values.any():  # normalisations, biases, and layers that start at zero
            found[key] = np.asarray(values + 0.2 * rng.standard_normal(values.shape), np.float32)
    return found


def module(configuration: int, size: Size) -> Any:
    """The PyTorch module in float32 and evaluation mode."""
    name, settings = CONFIGURATIONS[configuration]
    made = make_block(name, settings).module(feature(size))
    load_weights(made, weights(configuration, size))
    return made.float().eval()


def template(configuration: int, size: Size, target: str, batch: int = 1) -> bytes:
    """The block as graphsurgery writes it for a target, as a model of its own."""
    name, settings = CONFIGURATIONS[configuration]
    block, place = make_block(name, settings), feature(size, batch)
    t = Template(place, opset=OPSET, target=target, weights=weights(configuration, size))
    output = block.emit(t, block.choose(t, block.lowerings(place, OPSET)))
    subgraph = t.export(output, ir_version=8)
    values = [onnx.helper.make_tensor_value_info(n, place.onnx_type, [batch, *size]) for n in ("x", subgraph.output)]
    graph = onnx.helper.make_graph(subgraph.nodes, "block", values[:1], values[1:], subgraph.initializers)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model: bytes = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model
