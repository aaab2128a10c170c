"""Blocks that were trained in a model, for an export of the rest of it: whether it is that, and what goes where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx

from ..blocks.block import Array, Block
from ..errors import BaseDiffers, InsertionError, WeightsError, option
from ..feature_map import FeatureMap
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..messages import listed
from ..modelfile.model import ModelFile
from ..request import Request
from ..template.residual_gate import GATE_KEY
from ..weights import onnx_file, widened
from ..weights.around import CALIBRATION
from ..weights.attachment import Attachment
from ..weights.rest import FLOAT16, LEAST, Comparison
from ..weights.trained_blocks import TrainedBlocks
from .start import Start

_BFLOAT16 = 2.0**-8
_AROUND = "block."
"""what the keys of a block begin with in the module of a gate or a calibration around it"""


def check_free(blocks: TrainedBlocks, model: ModelFile) -> None:
    """InsertionError for a model that has one of the blocks already, from here or from an exporter."""
    insertions = {each.id for each in model.insertions()}
    index = GraphIndex(model)
    modules = ModuleTree(index).modules
    for each in blocks.attachments:
        own = {each.id, f"{each.named}.{each.name}"}
        if own & insertions:
            raise InsertionError(f"{model.name} has the block {each.id} already; give the model without it")
        if own & modules.keys() or any(name.startswith(f"{each.id}.") for name in index.names):
            raise InsertionError(
                f"{model.name} has the block {each.id} already, as its exporter wrote it; export the model with its "
                "blocks detached"
            )


def check_base(blocks: TrainedBlocks, model: ModelFile) -> Comparison:
    """Hold a model against the rest of the one that blocks were trained in.

    Reads the weights of the model. BaseDiffers if it is not that rest, or cannot be told to be.
    """
    whatever = f"{option('ignore_rest', True)} puts the blocks in all the same"
    if blocks.rest is None:
        raise BaseDiffers(
            f"{blocks.name} does not say what the rest of the trained model is, so that nothing tells whether "
            f"{model.name} is that; write the file anew, or {whatever}"
        )
    if insertions := [each.id for each in model.insertions()]:
        raise BaseDiffers(
            f"{model.name} has insertions that the trained model has not ({listed(insertions)}); give the model "
            f"without them, or {whatever}"
        )
    export = onnx_file.of_model(model, model.name)
    types = {each.data_type for each in model.structure.graph.initializer}
    rounding = _BFLOAT16 if onnx.TensorProto.BFLOAT16 in types else FLOAT16
    found = blocks.rest.compare(export.arrays, export.epsilons, rounding, unbiased=export.unbiased, spare=export.spare)
    if differing := found.differing:
        first, others = differing[0], len(differing) - 1
        more = f", and so are those of {others} more of {len(found.distances)} modules compared" if others else ""
        raise BaseDiffers(
            f"{model.name} is not the rest of the model that the blocks of {blocks.name} were trained in: the weights "
            f"of {first} are others ({_away(found.distances[first], found.tolerance)}){more}; export the trained model "
            f"with its blocks detached, or {whatever}"
        )
    if found.share < LEAST:
        raise BaseDiffers(
            f"nothing tells whether {model.name} is the rest of the model that the blocks of {blocks.name} were "
            f"trained in: the weights of {found.compared} of its {found.modules} modules are there by name, and "
            f"these are {found.share:.0%} of all; export it from PyTorch with names and float weights, or {whatever}"
        )
    return found


def _away(distance: float, tolerance: float) -> str:
    if not np.isfinite(distance):
        return "of another size, or not finite"
    return f"away by {distance:.2g} of their length, where rounding explains {tolerance:.2g}"


def in_order(attachments: Iterable[Attachment]) -> list[Attachment]:
    """Attachments in an order in which those at one tensor come as their hooks are called: those after a module first,
    and of these the ones further inside; those before a module from the outside in.
    """

    def place(attachment: Attachment) -> tuple[bool, int]:
        depth = attachment.path.count(".")
        return (True, depth) if attachment.position == "before" else (False, -depth)

    return sorted(attachments, key=place)


def request_of(attachment: Attachment) -> Request:
    """The place of an attachment in a file. RequestError if there can be none."""
    place, entry = (attachment.named,), attachment.entry
    where = {"before": place} if entry.get("before") else {"after": place, "consumers": entry.get("consumers") or ()}
    request = Request(attachment.module, settings=attachment.settings, gate=attachment.gate, **where)
    return request.labelled(attachment.id)


def starter(blocks: TrainedBlocks, attachment: Attachment) -> Callable[[Block, FeatureMap], Start]:
    """How the block of an attachment begins at a feature map: with its weights. They raise WeightsError."""
    state = {key: widened(values) for key, values in blocks.weights_of(attachment).items()}

    def start(block: Block, feature: FeatureMap) -> Start:
        arrays = _fitting(state, attachment, block, feature, blocks.name)
        return Start(block, lambda seed, id: arrays, "weights")

    return start


def _fitting(
    state: Mapping[str, Array], attachment: Attachment, block: Block, feature: FeatureMap, name: str
) -> dict[str, Array]:
    """The weights of a block by official key, and those of what stands around it."""
    made = f"the weights of {attachment.id} in {name} are made for"
    if attachment.channels != feature.channels:
        raise WeightsError(f"{feature.label} has {feature.channels} channels; {made} {attachment.channels}")
    if attachment.size and (feature.height, feature.width) != attachment.size:
        height, width = attachment.size
        here = f"{feature.height or '?'}x{feature.width or '?'}"
        raise WeightsError(f"the map of {feature.label} has the size {here}; {made} {height}x{width}")
    wanted, inner = dict[str, tuple[str, tuple[int, ...]]](), ""
    if attachment.gate == "residual":
        wanted[GATE_KEY], inner = (GATE_KEY, (1,)), _AROUND
    if attachment.init == "calibrated":
        wanted |= {f"{inner}{name}": (key, (feature.channels,)) for name, key in CALIBRATION.items()}
        inner += _AROUND
    wanted |= {inner + key: (key, shape) for key, shape in block.parameters(feature).items()}
    found: dict[str, Array] = {}
    for key, (official, shape) in wanted.items():
        whole = f"{attachment.id}.{key}"
        if key not in state:
            raise WeightsError(f"{name} lacks {whole}")
        if state[key].shape != shape:
            raise WeightsError(f"{whole} in {name} has the shape {list(state[key].shape)}; it has to be {list(shape)}")
        if state[key].dtype.kind != "f":
            raise WeightsError(f"{whole} in {name} is of {state[key].dtype}; it has to be of floating-point numbers")
        if not np.isfinite(state[key]).all():
            raise WeightsError(f"{whole} in {name} has values that are not finite")
        found[official] = state[key]
    floats = (key for key, values in state.items() if values.dtype.kind not in "iub")
    if extra := sorted(key for key in floats if key not in wanted):
        raise WeightsError(f"{name} has {listed(extra)} for {attachment.id}, which {block.spelled} does not")
    return found
