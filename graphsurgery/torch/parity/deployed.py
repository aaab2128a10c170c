"""The deployed side: a file in onnxruntime, what it is fed with, and which outputs depend on a choice by score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ...errors import CannotRun, InsertionError, ModelError, RequestError
from ...feature_map import Array
from ...graph.index import GraphIndex
from ...graph.validity import fault
from ...graph.written_out import without_calls
from ...insertion.removal import remove
from ...modelfile.model import ModelFile
from ...modelfile.operators import operator
from ...runtime.quantised_types import element_types, halves, is_quantised
from ...runtime.sample_inputs import graph_inputs, image_feeds, random_feeds
from ...runtime.session import session

_SIDES = (640, 320)
"""height and width for a file whose image size is dynamic: the second if it does not run at the first"""
_CHOICES = frozenset({"TopK", "NonMaxSuppression"})

Image = tuple[str, dict[str, Array]]
"""what an image is called, and the value of every input"""


class Deployed:
    """A file that is run whole."""

    def __init__(self, model: ModelFile) -> None:
        """RequestError for a file that computes something else than the module that it was exported from."""
        model = without_calls(model)
        self.model = model
        self.index = GraphIndex(model)
        if found := fault(self.index):
            raise ModelError(found)
        if is_quantised(model.structure):
            raise RequestError(
                f"{model.name} is quantised and computes something else than the module does; compare the file from "
                "before that"
            )
        self.inputs = graph_inputs(model.structure)
        self._sessions: dict[str, object] = {}

    @cached_property
    def outputs(self) -> list[str]:
        """The names of its outputs."""
        return list(self.index.outputs)

    @cached_property
    def dynamic(self) -> bool:
        """Whether the size of its image is open."""
        return any(each.is_image and None in each.shape[2:] for each in self.inputs)

    @cached_property
    def in_half(self) -> str:
        """ "fp16" or "bf16" where it computes in half precision, "" else."""
        return min(halves(self.model.structure), default="")

    @property
    def suppresses(self) -> bool:
        """Whether there is a NonMaxSuppression in it."""
        return any(operator(node) == "NonMaxSuppression" for node in self.index.nodes)

    def chosen(self) -> list[bool]:
        """Of each output, whether it depends on a choice by score."""
        nodes = self.index.nodes
        return [any(operator(nodes[n]) in _CHOICES for n in self.index.ancestors(name)) for name in self.outputs]

    def run(self, feeds: dict[str, Array], provider: str) -> list[Array]:
        """All outputs, in their order. CannotRun, NoKernel and MissingProvider where it does not run."""
        if provider not in self._sessions:
            types = element_types(self.model.structure)
            whole, folder = self.model.to_bytes(), self.model.folder
            self._sessions[provider] = session(whole, provider, folder=folder, types=types, frugal=True)
        found: list[Array] = self._sessions[provider].run(feeds)  # type: ignore[attr-defined]
        return found

    def images(self, folder: Path | None, seeds: int) -> list[Image]:
        """What it is fed with: the images of a folder, or as many random ones. RequestError for a bad folder."""
        sizes = _SIDES if self.dynamic else _SIDES[:1]
        for size in sizes:
            found = self._images(folder, seeds, size)
            try:
                self.run(found[0][1], "cpu")
                return found
            except CannotRun:
                if size == sizes[-1]:
                    raise
        raise AssertionError("there is a size")

    def _images(self, folder: Path | None, seeds: int, size: int) -> list[Image]:
        if folder is not None:
            return list(image_feeds(self.inputs, folder, size))
        return [
            ("a random image" if seeds == 1 else f"random image {seed + 1}", random_feeds(self.inputs, size, seed))
            for seed in range(seeds)
        ]

    def image_size(self, feeds: dict[str, Array]) -> tuple[int, int]:
        """Height and width of the first input that is an image; (0, 0) without one."""
        for each in self.inputs:
            if each.is_image:
                shape: Sequence[int] = feeds[each.name].shape
                return (shape[1], shape[2]) if each.channels_last else (shape[2], shape[3])
        return 0, 0

    def bare(self) -> Deployed | str:
        """The file without its insertions, or why there is none."""
        insertions = self.model.insertions()
        if not insertions:
            return f"{self.model.name} has no insertions to take out"
        try:
            return Deployed(remove(self.model))
        except (InsertionError, ModelError) as error:
            return error.message
