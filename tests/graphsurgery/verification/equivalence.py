"""Equivalence: whether a wrong version of a block computes the block's function all the same, in float64.

Nothing of what `verify` does is used: onnx.reference evaluates both blocks, converted to float64, one after the other,
on inputs of every size and either sign, with the weights in the file, and with random ones of which each layer in turn
is louder, softer or turned around, so that both sides of every kink and bound are reached.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from graphsurgery.errors import ParityFailed
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.record import Insertion
from graphsurgery.template.template import Template
from graphsurgery.userblocks.inserted import block_of
from graphsurgery.verification.cutout import cut_out

Arrays = dict[str, np.ndarray[Any, Any]]
_SIZES = (1.0, -1.0, 1e-4, 1e-2, 0.1, 30.0, 1e3)
_GAINS = (-1.0, 1e-2, 30.0, -30.0)
_APART = 1e-4
_LAYERS = 6
"""of (layer, gain) at most"""


class Conv(OpRun):
    """In onnx.reference it takes minutes where the kernels are large; PyTorch has one in float64, too."""

    op_domain = ""

    def _run(self, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> tuple[Any]:
        pads = attributes["pads"] or [0] * 4
        top, left, bottom, right = pads
        padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
        found = torch.nn.functional.conv2d(
            padded,
            torch.from_numpy(np.array(weight)),
            None if bias is None else torch.from_numpy(np.array(bias)),
            stride=list(attributes["strides"] or [1, 1]),
            dilation=list(attributes["dilations"] or [1, 1]),
            groups=attributes["group"] or 1,
        )
        return (found.numpy(),)


class Erf(OpRun):
    """onnx.reference has one that is written in Python."""

    op_domain = ""

    def _run(self, x: Any) -> tuple[Any]:
        return (torch.special.erf(torch.from_numpy(x)).numpy(),)


def difference(right: onnx.ModelProto, wrong: onnx.ModelProto, record: Insertion) -> float:
    """A |wrong - right| that is more than float64's rounding, else the largest; infinity for no such block.

    Relative to the largest |right| there, or 1e-3.
    """
    try:
        blocks = [cut_out(ModelFile.load(model), record) for model in (right, wrong)]
    except ParityFailed:
        return np.inf
    if blocks[0].input != blocks[1].input:
        return np.inf
    one, other = (in_float64(block.model) for block in blocks)
    feature = record.feature
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((2, feature.channels, *feature.size)) + rng.standard_normal((2, feature.channels, 1, 1))
    images = [size * noise[:1] for size in _SIZES] + [np.full_like(noise[:1], 0.7), 1.0 + 1e-3 * noise[1:]]
    worst = 0.0
    for number, weights in enumerate(_weights(record, ModelFile.load(right), one)):
        evaluators = [
            ReferenceEvaluator(with_initializers(model, weights), new_ops=[Conv, Erf]) for model in (one, other)
        ]
        for image in images if number < 2 else images[:2]:
            expected, found = (_run(evaluator, blocks[0].input, image) for evaluator in evaluators)
            if expected is None or not np.isfinite(expected).all():
                continue
            if found is None or found.shape != expected.shape or not np.isfinite(found).all():
                return np.inf
            size = max(float(np.abs(expected).max()), 1e-3)
            worst = max(worst, float(np.abs(found - expected).max()) / size)
            if worst > _APART:
                return worst
    return worst


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in the place of float32."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    return wide


def with_initializers(model: onnx.ModelProto, arrays: Mapping[str, Any]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].astype(np.float64), tensor.name))
    return changed


def _run(evaluator: ReferenceEvaluator, name: str, image: Any) -> Any:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return evaluator.run(None, {name: image})[0]  # type: ignore[index]
    except Exception:  # whatever its operators raise
        return None


def _weights(record: Insertion, model: ModelFile, block: onnx.ModelProto) -> Iterator[Arrays]:
    """The weights of the block in the file, and random ones, as initializers of a block that its template wrote."""
    yield {}
    held = {tensor.name: tuple(tensor.dims) for tensor in block.graph.initializer}
    keys = {key.rpartition(".")[0] for key in block_of(record).parameters(record.feature)}
    if not keys:
        return
    rng = np.random.default_rng(6)
    plain, again = _written(record, model, 1, {}), _written(record, model, 2, {})
    changing = {name for name in plain if plain[name].shape == again[name].shape and (plain[name] != again[name]).any()}
    assert all(held.get(name) == plain[name].shape for name in changing), "the template gave its constants other names"
    every = [dict.fromkeys(keys, gain) for gain in (1.0, 0.03, 30.0)]
    each = [{key: gain} for gain in _GAINS for key in sorted(keys)]
    for gains in (*every, *(each[i] for i in rng.permutation(len(each))[:_LAYERS])):
        written = _written(record, model, 1, gains)
        yield {name: written[name] for name in changing}


def _written(record: Insertion, model: ModelFile, seed: int, gains: Mapping[str, float]) -> Arrays:
    rng = np.random.default_rng(seed)
    block = block_of(record)
    weights = {}
    for key, values in block.initial(record.feature, rng).items():
        noise = rng.standard_normal(values.shape) / np.sqrt(np.prod(values.shape[1:]))
        if re.search("running_var$", key):
            weights[key] = values * rng.uniform(0.5, 2.0, values.shape)
        else:
            weights[key] = (values + noise) * gains.get(key.rpartition(".")[0], 1.0)
    template = Template(
        record.feature,
        opset=model.opset,
        weight_scope=record.id,
        target=record.target,
        precision=record.precision,
        weights={key: values.astype(np.float32) for key, values in weights.items()},
        x=record.site.tensor,
    )
    subgraph = template.export(block.emit(template, record.lowering), ir_version=8)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in subgraph.initializers}
