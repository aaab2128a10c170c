"""How many variants of the catalogue are found and proven in a file that an exporter wrote.

`python -m tests.find.recovery [BLOCK ...]` prints the table: each variant's PyTorch module between two convolutions,
exported by TorchScript and by dynamo.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from graphsurgery.blocks.block import Block
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.find import Found, find
from graphsurgery.modelfile.model import ModelFile

WAYS = ("torchscript", "dynamo")
FEATURE = FeatureMap(64, 16, 16, batch=1)
SETTINGS = {"sge": {"groups": 8}, "shuffle": {"groups": 8}, "scsa": {"head_num": 8}}
"""what a block has to have at that map"""
OPSET = 18


@dataclass(frozen=True)
class Outcome:
    """What was found of one variant in one export."""

    block: Block
    way: str
    found: tuple[Found, ...]
    error: str = ""

    @property
    def proven(self) -> bool:
        """Whether the block was found as itself, or as one that is the same function there."""
        return len(self.found) == 1 and self.found[0].proven

    @property
    def exact(self) -> bool:
        """Whether it was found under its own name."""
        return self.proven and self.found[0].block is not None and self.found[0].block.spelled == self.block.spelled


def variants(names: tuple[str, ...] = ()) -> Iterator[Block]:
    """Every variant of the catalogue, with settings that it can have on the map."""
    for name, each in sorted(all_blocks().items()):
        for variant in each.variants or (None,):
            if not names or name in names or each(variant).spelled in names:
                yield each(variant, **SETTINGS.get(name, {}))


class Net(nn.Module):
    """A convolution, the block, and another convolution."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, channels, 3, padding=1)
        self.block = block
        self.after = nn.Conv2d(channels, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        after: torch.Tensor = self.after(self.block(self.before(image)))
        return after


def trained(block: Block, feature: FeatureMap, seed: int = 0) -> nn.Module:
    """A block's module with weights none of which is at its first value."""
    torch.manual_seed(seed)
    module = block.module(feature).eval()
    rng = np.random.default_rng(seed)
    state = module.state_dict()
    with torch.no_grad():
        for key in block.parameters(feature):
            values = state[key]
            noise = torch.from_numpy(rng.uniform(0.3, 0.8, tuple(values.shape))).to(values.dtype)
            if key.endswith("running_var"):
                values.mul_(0.5 + noise)
            elif values.dim() < 2 or sum(size > 1 for size in values.shape) < 2:
                sign = torch.from_numpy(np.resize([1.0, -1.0], values.numel())).reshape(values.shape).to(values.dtype)
                values.add_(noise * sign * 0.5)
            else:
                values.add_(0.05 * torch.from_numpy(rng.standard_normal(tuple(values.shape))).to(values.dtype))
    return module


def exported(module: nn.Module, way: str, feature: FeatureMap, opset: int = OPSET) -> bytes:
    """A net with the module, as an exporter writes it."""
    net = Net(module, feature.channels).float().eval()
    image = torch.rand(1, 3, *feature.size)
    written = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if way == "dynamo":
            program = torch.onnx.export(net, (image,), dynamo=True, opset_version=opset, verbose=False)
            return program.model_proto.SerializeToString()  # type: ignore[union-attr]
        torch.onnx.export(net, (image,), written, dynamo=False, opset_version=opset)
    return written.getvalue()


def recovered(block: Block, way: str, feature: FeatureMap = FEATURE) -> Outcome:
    """A variant exported, and what is found in the file."""
    try:
        block.check(feature)
        data = exported(trained(block, feature), way, feature)
    except BlockError as error:
        return Outcome(block, way, (), f"not at {feature.channels}x{feature.height}x{feature.width}: {error.message}")
    except Exception as error:  # exporters raise whatever comes up
        return Outcome(block, way, (), f"not exported: {str(error).splitlines()[0][:120]}")
    return Outcome(block, way, tuple(find(ModelFile.load(data))))


def main(names: tuple[str, ...]) -> None:
    """Print the table and its sums."""
    torch.set_num_threads(1)
    outcomes = []
    for block in variants(names):
        for way in WAYS:
            outcome = recovered(block, way)
            outcomes.append(outcome)
            what = ", ".join(
                f"{each.block.spelled if each.block else each.note} {'proven' if each.proven else 'alike'}"
                for each in outcome.found
            )
            mark = "ok" if outcome.exact else "same" if outcome.proven else "MISS"
            print(f"{mark:5} {block.spelled:28} {way:12} {outcome.error or what or 'nothing'}", flush=True)
    proven = sum(each.proven for each in outcomes)
    print(f"{proven} of {len(outcomes)} found and proven, {sum(each.exact for each in outcomes)} under their own names")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
