"""Attachment: one block in a live model, as plain data that its hook carries into copies, pickles and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from ..blocks.block import Block
from ..errors import WeightsError
from ..feature_map import FeatureMap
from ..modelfile import limits
from ..modelfile.record import POSITIONS
from ..request import GATES, INITS, fits
from ..userblocks import NO_TRUST, Trust, is_file, make_block
from .checkpoint import without_wrapper

FORMAT = 1
"""of the plain data; a later graphsurgery that adds to it in a way that this one would misread has a higher one"""

_OF_SELECTORS = set("*?[]{}:")
"""what a selector has in it that is no path of a module"""

Place: TypeAlias = tuple[int | str, ...]
"""Where a tensor stands in what a module takes or gives: () is the whole of it, (0, "low") what lies under "low" in the
first of several. What a module takes begins with the position of an argument, or its keyword."""


@dataclass(frozen=True)
class Attachment:
    """One block in a live model."""

    path: str
    """of the module that the block is a child of, in the model that it was attached to: ``model.8``"""
    named: str
    """of the module that the recipe names, which a file has the block at: the same, but for one that runs all its
    children, as Sequential does, and with ``consumers``"""
    name: str
    """of the child: ``se``"""
    position: str
    """``"after"``: the block reads what the module gives; ``"before"``: what it takes"""
    places: tuple[Place, ...]
    """where the block's map stands in that"""
    module: str
    """the block, ``ge[theta]`` say"""
    settings: Mapping[str, object]
    """its hyper-parameters in force"""
    gate: str
    """``"none"`` or ``"residual"``"""
    init: str
    """``"default"``, ``"identity"``, ``"calibrated"``, or ``"weights"`` for those of a file"""
    channels: int
    size: tuple[int, int] | None
    """height and width of the map, for a block that works at one size only"""
    entry: Mapping[str, object]
    """of the recipe, as it was given"""

    @property
    def id(self) -> str:
        """What the keys of its weights begin with, which are in the model's ``state_dict``: ``model.8.se``."""
        return f"{self.path}.{self.name}"

    @property
    def is_sound(self) -> bool:
        """Whether :func:`graphsurgery.torch.attach` can have made it: a block from an ONNX file it cannot."""
        texts, size = (self.id, self.named, self.module), list(self.size or (1, 1))
        known = self.position in POSITIONS and self.gate in GATES and self.init in (*INITS, "weights")
        measured = self.channels > 0 and len(size) == 2 and min(size) > 0
        named = bool(self.name) and "." not in self.name and max(map(len, texts)) <= limits.CHECKPOINT_KEY
        plain = _is_plain([*texts, dict(self.settings), dict(self.entry)])
        return known and measured and named and plain and bool(self.places) and not is_file(self.module)

    @property
    def is_placed(self) -> bool:
        """Whether the entry, the position, and the two paths say the same place."""
        before, consumers = bool(self.entry.get("before")), bool(self.entry.get("consumers"))
        inside = consumers or self.path == self.named or self.path.startswith(f"{self.named}.")
        agreed = before or consumers if self.position == "before" else not before
        return agreed and inside and not set(self.named) & _OF_SELECTORS

    @property
    def feature(self) -> FeatureMap:
        """What a block needs to know of the place."""
        height, width = self.size or (None, None)
        return FeatureMap(self.channels, height, width, label=self.path)

    def block(self, trust: Trust = NO_TRUST) -> Block:
        """The block with its hyper-parameters. BlockError if there is none of that name here."""
        return make_block(self.module, self.settings, trust)

    def placed(self, host: str) -> Attachment:
        """The same in a model around the one that it was attached to, where its module has the path ``host``. Wrappers
        such as DataParallel are no part of a path. WeightsError if it is not the attachment of such a module.
        """
        outer = host.removesuffix(self.path)
        if outer + self.path != host or not (outer == "" or outer.endswith(".")):
            raise WeightsError(f"the attachment {self.id} is on the module {host!r}, which is another one")
        around = without_wrapper(outer)
        return replace(self, path=around + self.path, named=around + self.named)

    def to_json(self) -> dict[str, Any]:
        """Plain data, from which :meth:`from_json` makes it again."""
        plain = asdict(self)
        plain.update(format=FORMAT, places=[list(place) for place in self.places])
        plain.update(size=list(self.size) if self.size else None)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> Attachment:
        """From such data in ``where``. WeightsError if a newer graphsurgery wrote it, or nobody did."""
        try:
            if type(plain["format"]) is not int:
                raise TypeError
            if plain["format"] > FORMAT:
                raise WeightsError(f"{where} was written by a newer graphsurgery; this one cannot read its attachments")
            values = {key: plain[key] for key in cls.__dataclass_fields__}
            values["places"] = tuple(tuple(place) for place in values["places"])
            values["size"] = tuple(values["size"]) if values["size"] else None
            found = cls(**values)
        except (KeyError, TypeError):
            raise WeightsError(f"the attachments in {where} are damaged") from None
        if not fits(found, cls) or not found.is_sound:
            raise WeightsError(f"the attachments in {where} are damaged")
        return found


def check_count(attachments: Collection[object], where: str) -> None:
    """WeightsError for more attachments than a model can have."""
    if len(attachments) > limits.ATTACHMENTS:
        raise WeightsError(
            f"{where} has {len(attachments):,} blocks attached; more than {limits.ATTACHMENTS:,} no model has"
        )


def _is_plain(values: object) -> bool:
    """Whether it is data that a file can hold: JSON in UTF-8."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True
