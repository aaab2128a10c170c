"""Activations: the tensors that arrive at the sites when the model runs, up to there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from ..errors import CannotRun, NoKernel, RequestError
from ..feature_map import Array
from ..graph.index import GraphIndex
from ..modelfile.fields import GRAPH_INPUT, INITIALIZER, NODE, Edit
from ..request import Shapes
from ..runtime.sample_inputs import graph_inputs, image_feeds, is_numeric, random_feeds
from ..runtime.session import session

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile

Kept = TypeVar("Kept")

IMAGE_SIDES = (640, 320)
"""Height and width for a model whose image size is dynamic: the second if it does not run at the first."""


@dataclass(frozen=True)
class Activations:
    """What the model gave: one entry per image, or the reason why there is none."""

    images: list[tuple[str, dict[str, Array]]] = field(default_factory=list)
    """(name of the image, tensor name -> value)"""
    failure: str = ""
    """with options as errors.py marks them"""


def activations(
    model: ModelFile,
    tensors: Sequence[tuple[str, int]],
    images: Path | None = None,
    shapes: Shapes = MappingProxyType({}),
) -> Activations:
    """Run the part of a model that leads to some tensors, on the CPU, and fetch them.

    ``tensors``: (name, element type). ``images``: a folder (see :func:`.sample_inputs.image_feeds`), or None for one
    random image. ``shapes``: sizes for inputs that leave them open. A model that does not run, or that nobody can feed,
    gives a ``failure``. Raises RequestError and MissingDependency for bad images.
    """
    return Activations(*run_on(model, tensors, images, dict, shapes))


def run_on(
    model: ModelFile,
    tensors: Sequence[tuple[str, int]],
    images: Path | None,
    of: Callable[[dict[str, Array]], Kept],
    shapes: Shapes,
) -> tuple[list[tuple[str, Kept]], str]:
    """The same for those who need less than the tensors: of each image, its name and what ``of`` makes of them (tensor
    name -> value); and the failure.
    """
    part = upstream(model, tensors)
    try:
        inputs = graph_inputs(part.structure, shapes)
        ready = session(part.to_bytes(), "cpu", folder=part.folder, frugal=True)
    except (RequestError, NoKernel, CannotRun) as error:  # the first: an input that nobody can make up
        return [], error.message
    failure, names = "", [name for name, _ in tensors]
    for size in IMAGE_SIDES if any(each.is_image and None in each.shape for each in inputs) else IMAGE_SIDES[:1]:
        try:
            feeds = image_feeds(inputs, images, size) if images else [("a random image", random_feeds(inputs, size))]
            return [(name, of(dict(zip(names, ready.run(feed), strict=True)))) for name, feed in feeds], ""
        except (NoKernel, CannotRun) as error:
            failure = failure or error.message
    return [], failure


def upstream(model: ModelFile, tensors: Sequence[tuple[str, int]]) -> ModelFile:
    """The model with only these outputs, and without the nodes and weights that do not lead to them.

    So a model can be looked into even if what follows (a TensorRT plugin for NMS, say) is unknown to onnxruntime. Of
    the inputs that do not lead to them, those that are no tensors of numbers are left out as well.
    """
    index = GraphIndex(model)
    used = {node_index for name, _ in tensors for node_index in index.ancestors(name)}
    needed = {name for name, _ in tensors}.union(*map(index.reads, used))
    inputs = enumerate(model.structure.graph.input)
    unused = [(GRAPH_INPUT, i) for i, value in inputs if value.name not in needed and not is_numeric(value)]
    needed |= index.inputs.keys()  # an initializer that is an input too, as IR 3 has it, gives its value
    unused += [(NODE, node_index) for node_index in range(len(index.nodes)) if node_index not in used]
    unused += [(INITIALIZER, i) for name, i in index.initializers.items() if name not in needed]
    return model.edited(Edit(replaced=dict.fromkeys(unused))).with_outputs(tensors)
