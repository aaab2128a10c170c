"""Every port that is known: read right, told apart, or refused with the way out; none is read as another function
without a word.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery import weights
from graphsurgery.blocks.block import Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.errors import WeightsError, as_flag, spelled
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from graphsurgery.weights.ports import Port, ports_of
from tests.patterns.attention.port_functions import FUNCTIONS

Array = np.ndarray[Any, Any]

SITE = FeatureMap(32, 14, 14, label="the site")
WIDE = {"sge", "shuffle"}
"""blocks of 64 groups"""
SITES = {"": SITE, "not square": FeatureMap(32, 14, 9, label="the site"), "one window": FeatureMap(32, 7, 7, label="s")}
PORTS = [(name, place) for name, block in all_blocks().items() for place in range(len(ports_of(block())))]
OTHER_SHAPES = {
    ("srm", "cfc.weight"): (32, 1, 2),
    ("psablock", "attn.qk.conv.weight"): (64, 32, 1, 1),
    ("psablock", "attn.v.conv.weight"): (32, 32, 1, 1),
    **{("psablock", f"attn.qk.bn.{part}"): (64,) for part in ("weight", "bias", "running_mean", "running_var")},
    **{("psablock", f"attn.v.bn.{part}"): (32,) for part in ("weight", "bias", "running_mean", "running_var")},
    ("ge", "conv.0.bias"): (32,),
    ("irmb", "proj.bias"): (32,),
    **{("mhsa", key): (1, 4, 8, 1, 14) for key in ("rel_h", "rel_h_weight")},
    **{("mhsa", key): (1, 4, 8, 14, 1) for key in ("rel_w", "rel_w_weight")},
}
"""shapes of keys that are no parameter under another name"""
MARKS = (
    *(
        "torch.nn.modules.activation.ReLU",
        "torch.nn.modules.activation.Sigmoid",
        "torch.nn.modules.activation.Hardsigmoid",
    ),
    *("torch.nn.modules.activation.SiLU", "torch.nn.modules.activation.GELU", "torch.nn.modules.activation.Softmax"),
    *(
        "models.common.Hswish",
        "True",
        "False",
        "0",
        "3",
        "8",
        "64",
        "avg_pool",
        "max_pool",
        "efficientnet_pytorch.model.MBConvBlock",
    ),
    *("model.attention.A2Atttention.DoubleAttention", "double_attention_layer.DoubleAttentionLayer"),
    *("model.attention.CBAM.CBAMBlock", "timm.layers.gather_excite.GatherExcite", "src.nn.backbone.hgnetv2.EseModule"),
    *(
        "timm.layers.eca.EcaModule",
        "timm.layers.eca.CecaModule",
        "torch.nn.modules.transformer.TransformerEncoderLayer",
    ),
    *("ultralytics.nn.modules.transformer.AIFI", "ultralytics.nn.modules.transformer.TransformerEncoderLayer"),
    *("ultralytics.nn.modules.block.PSABlock", "cv-attention.GAM.GAM_Attention", "src.zoo.rtdetr.hybrid_encoder.Layer"),
    *("blocks.ParallelPolarizedSelfAttention", "blocks.SequentialPolarizedSelfAttention"),
)
"""values, classes and functions of which each mark of the table has to mean one"""


def port_of(name: str, place: int) -> tuple[type[Block], Port]:
    kind = all_blocks()[name]
    return kind, ports_of(kind())[place]


def label(case: tuple[str, int]) -> str:
    return f"{case[0]}-{case[1]}"


def reader(kind: type[Block], port: Port) -> Block:
    """The block whose parameters a port has: the one that reads it, or the first that reads the same keys."""
    same = [each for each in ports_of(kind()) if each.keys == port.keys and each.reads]
    chosen = port if port.reads else same[0] if same else None
    block = make_block(chosen.reads, chosen.settings) if chosen else make_block("coordatt[timm]")
    if kind.name == "a2":
        return block.with_values(c_m=SITE.channels, c_n=8, reconstruct="conv_reconstruct" in port.keys)
    return block.with_values(extra_params=True) if block.spelled == "ge[timm]" and "gather" in port.keys else block


def arrays_of(kind: type[Block], port: Port, site: FeatureMap) -> dict[str, Array]:
    """Weights under the port's keys, in the order of its layers."""
    rng, block = np.random.default_rng(7), reader(kind, port)
    if port.shapes:
        block = make_block("ela[tiny]")
    shapes, found = block.parameters(site), dict[str, Array]()
    for key in expanded(port.keys):
        official = block.official_key(key)
        shape = OTHER_SHAPES.get((kind.name, key)) or shapes.get(official) or shapes.get(_in_ours(key))
        if shape is None:
            continue
        if key.endswith("running_var"):
            values = rng.uniform(0.5, 2.0, shape)
        else:
            values = rng.normal(0.3, 1.0, shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        found[key] = values.astype(np.float32)
    return found


def _in_ours(key: str) -> str:
    """A key of CA_Block in timm's names."""
    return re.sub(r"F_([hw])", r"conv_\1", key.replace("conv_1x1", "conv1")).replace("bn.", "bn1.")


def expanded(keys: str) -> list[str]:
    """The keys that a row of the table stands for, in its order, stars as the numbers from 0 on."""
    found = []
    for word in keys.split():
        parts = re.split(r"\{([^{}]*)\}", word.rstrip("?"))
        choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
        for written in map("".join, product(*choices)):
            found += (
                [written.replace("*", str(number), 1).replace("*", str(number)) for number in range(5)]
                if "*" in written
                else [written]
            )
    return found


def x_of(site: FeatureMap) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(0.2, 1.0, (2, site.channels, *site.size)))


def expected(kind: type[Block], port: Port, arrays: dict[str, Array], site: FeatureMap) -> torch.Tensor:
    """What the port's class gives, from its formula; for the only known port of some keys what its block's module
    gives.
    """
    functions = FUNCTIONS.get(kind.name, {})
    function = functions.get(port.function) or functions.get(port.source)
    if function is not None:
        return function({key: torch.from_numpy(values).double() for key, values in arrays.items()}, x_of(site))
    return given(weights.fitted(make_block(port.reads, port.settings), site, checkpoint(arrays), port.settings), site)


def given(fitted: weights.Fitted, site: FeatureMap) -> torch.Tensor:
    module = fitted.block.module(site)
    load_weights(module, fitted.arrays)
    with torch.no_grad():
        y: torch.Tensor = module.double().eval()(x_of(site))
    return y


def checkpoint(arrays: dict[str, Array], description: dict[str, str] | None = None) -> weights.Checkpoint:
    return weights.Checkpoint("w.pt", arrays, description=description or {})


def read(asked: str, site: FeatureMap, arrays: dict[str, Array]) -> weights.Fitted | WeightsError:
    try:
        return weights.fitted(make_block(asked), site, checkpoint(arrays), {})
    except WeightsError as error:
        return error


def is_close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-6 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("case", PORTS, ids=label)
def test_every_port(case: tuple[str, int]) -> None:
    """By the bare name, and by the name that reads such keys: the right function, a warning that names the port, or an
    error that names what reads it.
    """
    kind, port = port_of(*case)
    site = replace(SITES[port.where], channels=128 if kind.name in WIDE else SITE.channels)
    arrays = arrays_of(kind, port, site)
    wanted, outcomes = expected(kind, port, arrays, site), list[str]()
    first = next(each for each in ports_of(kind()) if each.keys == port.keys).reads
    for asked in dict.fromkeys([kind.name, first or port.named or kind.name]):
        if outcomes and outcomes[0] != "refused":
            break  # naming the variant is a choice then
        fitted = read(asked, site, arrays)
        if isinstance(fitted, WeightsError):
            said = [spelled(fitted.message, as_flag), *fitted.candidates]
            assert asked == kind.name, said
            assert not port.reads or any(port.reads in each for each in said), said
            outcomes.append("refused")
            continue
        right = is_close(given(fitted, site), wanted)
        # an option that hardly anyone sets has others beside it that are named
        told = [line for line in fitted.warnings if ("are also those of" if port.rare else port.source) in line]
        assert right or told, f"{asked} reads {port.source} as another function without a word: {fitted.warnings}"
        outcomes.append("read right" if right else "told")
    if not port.reads:
        return
    fitted = weights.fitted(make_block(port.reads, port.settings), site, checkpoint(arrays), port.settings)
    assert is_close(given(fitted, site), wanted), "what the warning proposes is another function"
    # the first of several is what the keys were always read as: naming it does not say that it is meant
    others = [each for each in ports_of(kind()) if each.keys == port.keys and each is not port]
    if port.reads != first and all(each.reads for each in others):
        assert not any("are also those of" in line for line in fitted.warnings)


def marks_of(port: Port) -> dict[str, str]:
    """What a pickled module of a port's class says of itself."""
    mark = port.marks[0]
    said = {path: [text for text in MARKS if re.fullmatch(value, text)] for path, value in mark.items()}
    assert all(said.values()), f"no example of {mark}"
    return {path: found[0] for path, found in said.items()}


MARKED = [case for case in PORTS if port_of(*case)[1].marks]


@pytest.mark.parametrize("case", MARKED, ids=label)
def test_a_pickled_module_tells_what_it_is(case: tuple[str, int]) -> None:
    """By the bare name it is read as what it is; another variant or setting that was asked for is an error, and so is a
    class that no block is.
    """
    kind, port = port_of(*case)
    site = replace(SITES[port.where], channels=128 if kind.name in WIDE else SITE.channels)
    arrays = arrays_of(kind, port, site)
    part = checkpoint(arrays, marks_of(port))
    if not port.reads:
        with pytest.raises(WeightsError, match="no block is that function"):
            weights.fitted(make_block(kind.name), site, part, {})
        return
    fitted = weights.fitted(make_block(kind.name), site, part, {})
    assert fitted.block.spelled == make_block(port.reads).spelled
    assert is_close(given(fitted, site), expected(kind, port, arrays, site))
    assert not any("are also those of" in line for line in fitted.warnings)
    changed = fitted.block.spelled != make_block(kind.name).spelled or any(
        value != make_block(kind.name).values[name] for name, value in port.settings.items()
    )
    assert any(port.source in line and "read as" in line for line in fitted.warnings) == changed
    for other in ports_of(kind()):
        if other.keys == port.keys and other.reads and (other.reads, other.settings) != (port.reads, port.settings):
            with pytest.raises(WeightsError, match=re.escape(port.source)) as error:
                weights.fitted(make_block(other.reads, other.settings), site, part, other.settings)
            assert "reads it" in error.value.message or "leave it out, or give" in error.value.message


def test_what_the_table_proposes() -> None:
    """Every row names a block, a variant and settings that there are, and says where it was read; rows with the same
    keys say what sets them apart.
    """
    for name, place in PORTS:
        kind, port = port_of(name, place)
        assert not port.reads or make_block(port.reads, port.settings)
        assert not port.named or make_block(port.named)
        assert port.at
        beside = [each for each in ports_of(kind()) if each.keys == port.keys]
        assert port.function or len({(each.reads, *each.settings.items()) for each in beside}) == 1, port.source


def test_every_block_with_weights_has_ports() -> None:
    assert sorted(name for name, kind in all_blocks().items() if kind().has_weights and not ports_of(kind())) == []
