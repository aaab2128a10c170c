"""What an exporter has folded away, as parameters that give the same function again.

An exporter in evaluation mode multiplies a BatchNorm into the layer before it and leaves out a bias of zeros. The
layer that the file has, and a BatchNorm that does nothing but add the folded bias, compute exactly what the file
computes; what the two were before cannot be known, and need not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from ..blocks.block import Array, Block

Given = dict[str, tuple[str, Array]]
"""official key -> (key in the file, values)"""
Shapes = Mapping[str, tuple[int, ...]]
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_EPSILON_1D = 1e-5


def unfolded(block: Block, wanted: Shapes, given: Given, unbiased: frozenset[str]) -> Given:
    """The parameters with those of folded BatchNorms, and with biases that were left out, as far as the file tells.

    ``wanted``: the block's parameters in order, each BatchNorm after its layer. ``unbiased``: official paths of
    layers without a bias in the file.
    """
    given = dict(given)
    for norm, layer in folded(wanted, given).items():
        weight, bias = given[f"{layer}.weight"][1], f"{layer}.bias"
        count = wanted[f"{norm}.weight"]
        key, shift = given.get(bias, (bias, np.zeros(count, np.float32)))
        if (bias not in given and layer not in unbiased) or shift.shape != count or weight.shape[:1] != count:
            continue
        given.pop(bias, None)
        # its own epsilon in float64, so that the factor is exactly 1
        scale = np.sqrt(1.0 + _epsilon(block, len(wanted[f"{layer}.weight"])))
        parts = (np.full(count, scale), shift, np.zeros(count), np.ones(count))
        given |= {f"{norm}.{part}": (key, values) for part, values in zip(_BATCH_NORM, parts, strict=True)}
        if bias in wanted:
            given[bias] = (key, np.zeros(wanted[bias], np.float32))
    for key, shape in wanted.items():
        layer, _, part = key.rpartition(".")
        if part == "bias" and key not in given and layer in unbiased:
            given[key] = (key, np.zeros(shape, np.float32))
    return given


def placed(wanted: Shapes, given: Given) -> dict[str, str]:
    """Paths of layers in the file -> paths of the block's layers, where the file leaves out scopes in between.

    TorchScript names a layer by the modules whose forward was called: of a.b.conv that is a.conv where b was not. One
    is the other if no third is a candidate.
    """
    missing = {_path(key) for key in wanted if key.endswith(".weight") and len(wanted[key]) > 1 and key not in given}
    extra = {_path(key) for key in given if key.endswith(".weight") and key not in wanted}
    pairs = [(e, m) for e in extra for m in missing if _is_shortened(e.split("."), m.split("."))]
    files, blocks = Counter(e for e, _ in pairs), Counter(m for _, m in pairs)
    return {e: m for e, m in pairs if files[e] == blocks[m] == 1}


def renamed(given: Given, places: Mapping[str, str]) -> Given:
    """The parameters with those of misplaced layers in their places."""
    moved = {f"{e}.{part}": f"{m}.{part}" for e, m in places.items() for part in ("weight", "bias")}
    return {moved.get(key, key): value for key, value in given.items()}


def _path(key: str) -> str:
    return key.rpartition(".")[0]


def _is_shortened(short: list[str], whole: list[str]) -> bool:
    """Whether a path is another one with scopes left out before the last."""
    steps = iter(whole)
    return short[-1] == whole[-1] and all(scope in steps for scope in short)


def notes(wanted: Shapes, before: Given, after: Given, source: str) -> list[str]:
    """Warnings about BatchNorms that were put back."""
    norms = {norm: layer for norm, layer in folded(wanted, before).items() if f"{norm}.weight" in after}
    if not norms:
        return []
    listed = ", ".join(f"{norm} into {layer}" for norm, layer in norms.items())
    return [f"the exporter of {source} folded {listed}: each such BatchNorm adds the folded bias and does nothing else"]


def folded(wanted: Shapes, given: Mapping[str, object]) -> dict[str, str]:
    """BatchNorms of which the file has nothing -> the layer before each, which it has.

    Where two have the same, the order of the parameters is not that of the layers, and neither is given.
    """
    norms = {
        norm: layer
        for norm, layer in _followed(wanted)
        if f"{layer}.weight" in given and not any(f"{norm}.{each}" in given for each in _BATCH_NORM)
    }
    return _once(norms)


def unbiased(wanted: Shapes, given: Given) -> Given:
    """The parameters with biases that the block does not have taken off the means of the BatchNorms behind them: a
    convolution of another implementation may have one there, which changes nothing.
    """
    given = dict(given)
    for bias, mean in superfluous_biases(wanted, {key: values.shape for key, (_, values) in given.items()}).items():
        (_, shift), (key, values) = given.pop(bias), given[mean]
        given[mean] = (key, values.astype(np.float64) - shift)
    return given


def superfluous_biases(wanted: Shapes, given: Shapes) -> dict[str, str]:
    """Biases that weights of these shapes have and the block does not -> the mean of the BatchNorm behind each."""
    pairs = {f"{layer}.bias": f"{norm}.running_mean" for norm, layer in _once(dict(_followed(wanted))).items()}
    return {
        bias: mean
        for bias, mean in pairs.items()
        if bias in given and bias not in wanted and given[bias] == given.get(mean) == wanted[mean]
    }


def _followed(wanted: Shapes) -> Iterator[tuple[str, str]]:
    """(BatchNorm, the layer before it) in the order of the parameters."""
    layer = ""
    for key, shape in wanted.items():
        path, _, part = key.rpartition(".")
        if part == "weight" and len(shape) > 1:
            layer = path
        if part == "running_var":
            yield path, layer


def _once(norms: Mapping[str, str]) -> dict[str, str]:
    """Those of some BatchNorms whose layer is no other's."""
    times = Counter(norms.values())
    return {norm: layer for norm, layer in norms.items() if times[layer] == 1}


def _epsilon(block: Block, rank: int) -> float:
    """The epsilon of the BatchNorm after a layer. One after a linear layer is a BatchNorm1d, which keeps torch's."""
    return float(block.values.get("bn_eps") or _EPSILON_1D) if rank == 4 else _EPSILON_1D
