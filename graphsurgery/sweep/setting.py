"""Setting: what all cells of a sweep have in common, and what each process makes of it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from ..modelfile.model import ModelFile
from ..request import Shapes
from ..selection.sites import SiteFinder
from .detections import Detections
from .drift import Images, Outputs, detections_in
from .outputs import Reader
from .reading import reader


@dataclass(frozen=True, eq=False)
class Setting:
    """What all cells of a sweep have in common."""

    source: Path | bytes
    images: Images
    sizes: Shapes
    macs: int | None
    """of the model without blocks"""
    outputs: Outputs
    """of the model without blocks"""
    joined: tuple[tuple[int, ...], ...] = ()
    """of each output, the channels of what it is joined from"""
    libraries: tuple[str, ...] = ()
    threads: int = 0
    """for one operator while cells are examined; 0 lets onnxruntime choose"""
    token: str = field(default_factory=lambda: uuid4().hex)
    """the same for this setting wherever it was sent, and for no other"""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and self.token == other.token

    def __hash__(self) -> int:
        return hash(self.token)

    @property
    def reader(self) -> Reader | str:
        """How detections are read from the outputs; or why they are not, in a sentence."""
        if self.images.pixels is None:
            return "the model has no image input"
        return reader(self.outputs, *self.images.pixels, self.joined)


@dataclass(frozen=True)
class Ready:
    """What takes longer to make than to use, so that the cells of one process share it."""

    finder: SiteFinder
    """in the model without blocks"""
    read: Reader | None
    found: Sequence[Detections]
    """in the model without blocks, on each image"""


@lru_cache(maxsize=1)
def ready(setting: Setting) -> Ready:
    """Made at the first cell, and kept for the others."""
    told = setting.reader
    read = told if isinstance(told, Reader) else None
    found = detections_in(setting.outputs, read) if read is not None else []
    return Ready(SiteFinder(ModelFile.load(setting.source)), read, found)
