"""Every block's weights out of ONNX files of PyTorch's exporters, which fold, rename and repeat them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from graphsurgery import weights
from graphsurgery.blocks.block import Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.errors import WeightsError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from graphsurgery.weights import refold
from tests import models

Array = np.ndarray[Any, Any]
SITE = FeatureMap(64, 14, 21, batch=1)
SETTINGS: dict[str, dict[str, object]] = {"shuffle": {"groups": 8}}
LOST = {
    "srm": "cfc",
    "mhsa[botnet]": "pos_embed.height_rel, pos_embed.width_rel",
    "mhsa[lucidrains]": "pos_emb.height, pos_emb.width",
    "cga[block]": "mixer.m.attn.attention_biases",
    "cga[unit]": "attn.attention_biases",
    "dattention[table]": "rpe_table",
}
"""blocks with a parameter that stands in no layer, and is a constant of another form in the file"""
LOST_BY_DYNAMO = {block: keys for block, keys in LOST.items() if block != "dattention[table]"}
LOST_BY_DYNAMO |= dict.fromkeys(("swin[window]", "swin[shifted]"), "attn.relative_position_bias_table")
LOST_BY_DYNAMO |= dict.fromkeys(("focused[flatten]", "focused[cswin]"), "scale")
"""It computes what depends on weights alone, as the softplus of a scale, and leaves a table that the map reads."""
QUICK = ("cbam[official]", "bam[official]", "coordatt[timm]", "ela[base]", "aifi[ultralytics]", "swin[window]", "lct")


class Attended(torch.nn.Module):
    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attn = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.attn(torch.relu(x))
        return result


def blocks() -> Iterator[Block]:
    for name, each in all_blocks().items():
        for variant in each.variants or (None,):
            block = each(variant, **SETTINGS.get(name, {}))
            if block.parameters(SITE):
                yield block


def trained(block: Block, eps: float | None = None) -> torch.nn.Module:
    """The block's module with no parameter at its first value."""
    torch.manual_seed(7)
    if eps is not None and block.has_epsilon:
        block = block.with_values(bn_eps=eps)
    module = block.module(SITE).eval()
    with torch.no_grad():
        for key in block.parameters(SITE):
            value = module.state_dict()[key]
            value.copy_(
                torch.rand_like(value) + 0.5 if key.endswith("running_var") else value + torch.randn_like(value) / 8
            )
    return module


def export(module: torch.nn.Module, path: Path, *, dynamo: bool) -> Path:
    x = (torch.ones(1, *(SITE.channels, *SITE.size)),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(Attended(module).eval(), x, path, dynamo=True, verbose=False, external_data=False)
        else:
            torch.onnx.export(Attended(module).eval(), x, path, dynamo=False, opset_version=17)
    return path


def read(path: Path, block: Block, prefix: str = "attn", **given: object) -> weights.Fitted:
    part = weights.part(weights.read(path), prefix, block, SITE)
    return weights.fitted(block, SITE, part, given)


def same_function(made: weights.Fitted, module: torch.nn.Module) -> None:
    """The weights give what the exported module gives; BatchNorms were folded in float32."""
    ours = made.block.module(SITE).eval()
    load_weights(ours, made.arrays)
    x = torch.randn(1, SITE.channels, *SITE.size, dtype=torch.float64)
    with torch.inference_mode():
        expected = module.double()(x)
        assert torch.allclose(ours(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: block.spelled)
def test_every_block_from_torchscript(tmp_path: Path, block: Block) -> None:
    module = trained(block)
    path = export(module, tmp_path / "a.onnx", dynamo=False)
    read_or_told(path, block, module, LOST)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=[] if block.spelled in QUICK else [pytest.mark.long], id=block.spelled)
        for block in blocks()
    ],
)
def test_every_block_from_dynamo(tmp_path: Path, block: Block) -> None:
    module = trained(block)
    path = export(module, tmp_path / "a.onnx", dynamo=True)
    read_or_told(path, block, module, LOST_BY_DYNAMO)


def read_or_told(path: Path, block: Block, module: torch.nn.Module, lost: dict[str, str]) -> None:
    if block.spelled in lost:
        lost_is_told(path, block, lost[block.spelled])
    else:
        same_function(read(path, block), module)


def lost_is_told(path: Path, block: Block, keys: str) -> None:
    with pytest.raises(WeightsError) as error:
        read(path, block)
    assert str(error.value).startswith(
        f"a.onnx:attn does not fit {block.spelled} at the site: it lacks {keys}, which its exporter folded into "
        "constants of its own; take the weights from the checkpoint that was exported"
    )


@pytest.mark.parametrize("spelled", ["cbam", "bam", "sk[external-attention]", "ge[theta]", "coordatt"])
def test_a_folded_batch_norm_is_exact_whatever_its_epsilon(tmp_path: Path, spelled: str) -> None:
    """The layer as it is in the file, and a BatchNorm whose factor is exactly 1 in float64."""
    module = trained(make_block(spelled), 1e-3)
    path = export(module, tmp_path / "a.onnx", dynamo=False)
    for eps in (1e-5, 1e-3):
        made = read(path, make_block(spelled, {"bn_eps": eps}), bn_eps=eps)
        same_function(made, module)
        assert any("the exporter of a.onnx:attn folded" in each for each in made.warnings)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    norm = [key for key in made.arrays if key.endswith("running_var")][-1].removesuffix(".running_var")
    assert made.arrays[f"{norm}.weight"].dtype == np.float64
    assert not made.arrays[f"{norm}.running_mean"].any()
    assert any(np.array_equal(made.arrays[f"{norm}.bias"], values) for values in stored.values())


def test_a_second_call_is_not_another_layer(tmp_path: Path) -> None:
    """fc1 called twice is fc1 and fc1_1; conv0_1 of MSCA is a layer of its own, and has to be in the file."""

    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = torch.nn.Conv2d(64, 4, 1), torch.nn.Conv2d(4, 64, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
            return x * sum(self.fc2(torch.relu(self.fc1(each))) for each in pooled).sigmoid()

    path = export(Shared().eval(), tmp_path / "a.onnx", dynamo=False)
    assert any("fc1_1" in node.name for node in onnx.load(path).graph.node)
    made = read(path, make_block("se"))
    assert set(made.arrays) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    model = onnx.load(path)
    for node in model.graph.node:
        if "fc1_1" in node.name:
            node.input[1] = "onnx::Conv_99"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 64, 1, 1), np.float32), "onnx::Conv_99"))
    onnx.save(model, path)
    with pytest.raises(WeightsError, match=r"it has fc1_1\.weight, which the block does not"):
        read(path, make_block("se"))


@pytest.mark.parametrize("bias", ["distinct", "shared", "none"])
@pytest.mark.parametrize("gemm", [None, 0, 1], ids=["MatMul", "Gemm", "Gemm transB"])
def test_q_k_and_v_of_an_attention(tmp_path: Path, bias: str, gemm: int | None) -> None:
    """As TorchScript writes them, as onnxsim rewrites that, and with biases of zeros shared or left out."""
    block = make_block("aifi[ultralytics]", {"hidden": 32})
    module = trained(block)
    with torch.no_grad():
        if bias != "distinct":
            module.ma.in_proj_bias.zero_()
    path = export(module, tmp_path / "a.onnx", dynamo=False)
    model = onnx.load(path)
    if gemm is not None:
        to_gemm(model, gemm)
    if bias == "none":
        without_zeros(model)
    onnx.save(model, path)
    same_function(read(path, block), module)


class Mixed(torch.nn.Module):
    """Attention from x to x, or from its left half to all of it."""

    def __init__(self, crossed: bool) -> None:
        super().__init__()
        self.ma, self.crossed = torch.nn.MultiheadAttention(64, 4), crossed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).permute(2, 0, 1)
        query = tokens[: len(tokens) // 2] if self.crossed else tokens
        result: torch.Tensor = self.ma(query, tokens, tokens, need_weights=False)[0]
        return result


@pytest.mark.parametrize("crossed", [False, True])
def test_one_layer_for_several_of_q_k_and_v(tmp_path: Path, crossed: bool) -> None:
    """PyTorch computes those of one tensor together, splits them along an axis of their own, and exports that."""
    module = Mixed(crossed).eval()
    torch.nn.init.normal_(module.ma.in_proj_bias)
    arrays = weights.read(export(module, tmp_path / "a.onnx", dynamo=False)).arrays
    assert np.array_equal(arrays["attn.ma.in_proj_weight"], module.ma.in_proj_weight.detach().numpy())
    assert np.array_equal(arrays["attn.ma.in_proj_bias"], module.ma.in_proj_bias.detach().numpy())


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_linear_layer_as_a_gemm(tmp_path: Path, transposed: int) -> None:
    """Its weight is [out, in], however the file stores it; square, so that no shape tells."""
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    stored = onnx.numpy_helper.from_array(weight if transposed else weight.T.copy(), "onnx::Gemm_7")
    node = helper.make_node("Gemm", ["x", "onnx::Gemm_7"], ["y"], "/attn/fc/Gemm", transB=transposed)
    model = models.model([node], [models.value("x", (1, 4))], [models.value("y", (1, 4))], [stored])
    onnx.save(model, tmp_path / "a.onnx")
    assert np.array_equal(weights.read(tmp_path / "a.onnx").arrays["attn.fc.weight"], weight)


def to_gemm(model: onnx.ModelProto, transposed: int) -> None:
    """q, k and v as a Gemm each; shapes do not matter, nothing runs it."""
    nodes = {output: node for node in model.graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        product = next((nodes[name] for name in node.input if name in nodes), None)
        if node.op_type == "Add" and "/ma/" in node.name and product is not None and product.op_type == "MatMul":
            bias = next(name for name in node.input if name not in nodes)
            weight = onnx.numpy_helper.to_array(tensors[product.input[1]])
            weight = weight.T if transposed else weight
            new = f"{product.name}_weight"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(weight), new))
            inputs = [product.input[0], new, bias]
            node.CopyFrom(helper.make_node("Gemm", inputs, list(node.output), product.name, transB=transposed))
            model.graph.node.remove(product)


def without_zeros(model: onnx.ModelProto) -> None:
    """Leave out what adds zeros, as optimisers do."""
    nodes = {output: node for node in model.graph.node for output in node.output}
    zeros = {each.name for each in model.graph.initializer if not onnx.numpy_helper.to_array(each).any()}
    for node in list(model.graph.node):
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] in zeros:
            del node.input[2:]
        if node.op_type == "Add" and zeros.intersection(node.input):
            product = next(nodes[name] for name in node.input if name in nodes)
            product.output[0] = node.output[0]
            model.graph.node.remove(node)


def test_equal_parameters_that_are_stored_once(tmp_path: Path) -> None:
    """TorchScript's exporter writes equal values once, and Identity nodes for the others."""
    tensors = {"a.fc1.weight": np.ones((4, 64, 1, 1)), "a.fc1.bias": np.ones(4), "a.fc2.weight": np.ones((64, 4, 1, 1))}
    values = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    values.append(onnx.numpy_helper.from_array(np.ones(64, np.float32), "b.norm.weight"))
    nodes = [
        helper.make_node("Identity", ["b.norm.weight"], ["onnx::Conv_9"], "Identity_0"),
        helper.make_node("Conv", ["x", "a.fc1.weight", "a.fc1.bias"], ["h"], "/a/fc1/Conv"),
        helper.make_node("Conv", ["h", "a.fc2.weight", "onnx::Conv_9"], ["y"], "/a/fc2/Conv"),
    ]
    made = models.model(nodes, [models.value("x", (1, 64, 8, 8))], [models.value("y", (1, 64, 8, 8))], values)
    onnx.save(made, tmp_path / "a.onnx")
    assert read(tmp_path / "a.onnx", make_block("se"), "a").arrays["fc2.bias"].tolist() == [1.0] * 64


def test_batch_norms_whose_layers_are_not_known() -> None:
    """Only a block whose parameters stand in the order of its layers tells which BatchNorm is behind which."""
    weight, norm = (4, 4, 1, 1), {f"{part}": (4,) for part in ("weight", "bias", "running_mean", "running_var")}
    convs = {"conv1.weight": weight, "conv2.weight": weight}
    norms = [{f"bn{number}.{part}": shape for part, shape in norm.items()} for number in (1, 2)]
    given = {key: (key, np.ones(weight)) for key in convs} | {f"conv{n}.bias": ("", np.ones(4)) for n in (1, 2)}
    assert refold.folded(convs | norms[0] | norms[1], given) == {}
    ordered = {"conv1.weight": weight} | norms[0] | {"conv2.weight": weight} | norms[1]
    assert refold.folded(ordered, given) == {"bn1": "conv1", "bn2": "conv2"}
    wrong = given | {"conv1.bias": ("", np.ones(3))}
    restored = refold.unfolded(make_block("se"), ordered, wrong, frozenset())
    assert "bn2.weight" in restored
    assert "bn1.weight" not in restored
    assert "conv1.bias" in restored
