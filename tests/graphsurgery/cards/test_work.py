"""What a card says that a block takes: weights that are learned, multiply-accumulates, and the largest tensor.

The figures are those of the ONNX nodes. The second counts are PyTorch's own, of the modules, and onnxruntime's tensors.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graphsurgery.blocks.block import Block
from graphsurgery.cards import cards, known
from graphsurgery.cards.facts import Facts
from graphsurgery.cards.listing import in_order_of_demand, variants
from graphsurgery.userblocks import Trust, make_block
from tests.patterns.attention.harness import build

BLOCKS = [block for kind in in_order_of_demand() for block in variants(kind)]
every_variant = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.spelled)

REWRITTEN = {
    "a2": "the convolutions around the attention are applied to what is gathered",
    "acmix": "each tile of the map is multiplied with all that is around it, of which neighbours are a part",
    "aifi[efficient-additive]": "the weighted sum of the queries is a product",
    "bra": "the routing has convolutions of its own, of the means of the windows",
    "cbam[official]": "the second layer is applied once, to the sum of both hidden vectors",
    "cbam[timm]": "the same",
    "cbam[yolo-port]": "the same",
    "cbam[cv-attention]": "the same",
    "cbam[external-attention]": "the same",
    "cot[external-attention]": "the mean over the taps is taken of the weights",
    "cot[cotnet]": "neighbours are copied by a convolution",
    "eca": "the convolution over the channels is a product with a band matrix",
    "ema": "means of a convolved map are convolutions of means",
    "focused[cswin]": "two depthwise convolutions are one",
    "gc": "the weighted mean is a mean of products",
    "ge[theta]": "the convolution over the whole map is a mean of products",
    "ge[theta-plus]": "the same",
    "lsk": "the mean over both maps is that of two means",
    "mhsa[botnet]": "the position terms are spread by a product",
    "mhsa[lucidrains]": "the positions are added to the keys",
    "mlca": "cells are averaged and spread by products",
    "msda": "neighbours are copied by convolutions",
    "polarized": "what is pooled is pooled before it is projected",
    "scsa": "four kernels are one of the widest",
    "sge": "sums over a group's channels are convolutions",
    "sk[paper]": "the choice between two is one convolution",
    "sk[official]": "the same",
    "sk[timm]": "the same",
}
"""block or variant -> why its template takes another number of multiply-accumulates than its module"""


@every_variant
def test_what_is_learned_is_what_the_module_learns(block: Block) -> None:
    site = block.example()
    learned = {key: tuple(value.shape) for key, value in block.module(site).named_parameters()}
    shapes, facts = block.parameters(site), Facts(block)
    assert {key: shape for key, shape in shapes.items() if key not in block.buffers(site)} == learned
    assert facts.parameters == sum(map(prod, learned.values()))
    assert facts.parameters + facts.buffers == sum(map(prod, shapes.values()))


@every_variant
def test_multiply_accumulates_are_those_that_torch_counts(block: Block) -> None:
    site, images = block.example(), 2
    module = block.module(site).to("meta").train()
    x = torch.empty(images, site.channels, site.height or 0, site.width or 0, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(x)
    counted, stated = counter.get_total_flops() / 2 / images, known.facts(block)["macs"]
    if {block.name, block.spelled} & set(REWRITTEN):
        assert stated != counted, f"{block.spelled} is no longer rewritten"
    else:
        assert stated == counted, "if the template does it in another way on purpose, say how in REWRITTEN"


@every_variant
def test_the_figures_are_those_of_the_tensors_that_there_are(block: Block) -> None:
    """onnxruntime gives every tensor between the nodes, the sizes of which nobody has inferred."""
    site, stated = block.example(), known.facts(block)
    built = build(block.spelled, feature=site)
    model, last = built.model, built.subgraph.output
    for name in [name for node in model.graph.node for name in node.output if name != last]:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    tensors = run(model, np.zeros((1, site.channels, site.height or 0, site.width or 0), np.float32))
    sizes = {name: value.size for name, value in tensors.items() if name not in ("x", last, *built.constants)}
    assert max(sizes.values(), default=0) == prod(stated["largest_tensor"] or [0])
    tensors |= {name: np.empty(tuple(tensor.dims)) for name, tensor in built.constants.items()}
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "DeformConv"):
            first, second = (tensors.get(name, np.empty(0)) for name in (*node.input, "")[:2])
            taps = first.shape[-1] if node.op_type == "MatMul" else second[0].size
            macs += tensors[node.output[0]].size * taps
        assert node.op_type not in ("Gemm", "ConvTranspose", "Einsum"), "count it"
    assert macs == stated["macs"]


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {"x": x, **dict(zip(names, session.run(names, {"x": x}), strict=True))}


# ---------------------------------------------------------------------- cards


def test_a_card_tells_statistics_from_parameters() -> None:
    assert "  512 parameters and 512 values of statistics, 0 multiply-accumulates, " in "\n".join(
        cards.Card("nam").lines()
    )
    assert "and 0 values" not in "".join(cards.Card("se").lines())


def test_a_card_says_where_code_and_paper_differ() -> None:
    card = cards.Card("simam")
    (remark,) = card.to_json()["remarks"]
    assert "the divisor HW - 1, as in the authors' code; the paper writes 1 / M" in remark
    assert f"- Remark: {remark}." in list(card.markdown())
    assert any(line.startswith("  remarks    the variance has the divisor HW - 1") for line in card.lines())
    assert card.to_json()["settings"][1]["choices"] == ["HW-1", "HW"]


def test_every_fact_of_the_catalogue_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """`blocks` tries nothing: that took two seconds."""

    def tried(block: Block) -> dict[str, Any]:
        raise AssertionError(f"{block.spelled} was tried")

    monkeypatch.setattr(known, "tried", tried)
    for block in BLOCKS:
        known.facts(block)


def test_facts_that_an_earlier_version_wrote_are_found_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {key: value for key, value in known.facts(make_block("se")).items() if key not in known.KEYS}
    monkeypatch.setattr(known, "_written", lambda package: {"se": old})
    assert known.facts(make_block("se")) == Facts(make_block("se")).to_json()


class Counted(torch.nn.Module):
    """One parameter of two values, one buffer of three."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("kept", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.sum() * self.kept.sum()


def test_buffers_of_a_module_of_the_users_own() -> None:
    spelled = f"{__name__}:Counted"
    block = make_block(spelled, trust=Trust.in_blocks([spelled]))
    assert block.buffers(block.example()) == {"kept"}
