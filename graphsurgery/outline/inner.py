"""InnerPlace: one map inside of a call of a local function, or of a body."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..feature_map import Dimension, float_dtype
from ..graph.bodies import body_name, body_tensors
from ..graph.module_paths import join
from ..messages import attributes
from ..selection.alternatives import instead
from ..selection.sites import SiteFinder
from .outline import Outline

if TYPE_CHECKING:
    from ..selection.interior import Interior
    from .rows import Row


@dataclass(frozen=True)
class InnerPlace:
    """One map [N, C, H, W] that is in no tensor of the main graph."""

    selector: str
    """what names it: ``/model.4/m.0``, ``C2f[1].m.0``, ``tensor:NAME``"""
    type: str
    """of the block, or operator"""
    tensor: str
    """as the function or body calls it"""
    shape: tuple[Dimension, ...]
    dtype: str
    stride: int | None
    kind: str
    """"function", "branches" or "body" """
    function: str | None
    """the name of the local function"""
    node: str
    """the node of the main graph that it is inside of"""
    takes_block: bool
    """whether a block can be put there: in a function that is called once"""
    instead: tuple[str, ...]
    """selectors of the nearest places of the main graph that take a block"""
    insertions: tuple[str, ...] = ()
    """ids of the blocks that are inserted after it already"""

    @property
    def place(self) -> str:
        """How tables say what it is inside of: ``function Stage, /model.4/Stage``."""
        return f"{self.kind}{f' {self.function}' if self.function else ''}, {self.node}"

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {
            **attributes(self, "selector", "type", "tensor", "shape", "dtype", "stride"),
            **attributes(self, "kind", "function", "node"),
            **attributes(self, "takes_block", "instead", "insertions"),
        }


def inner_places(finder: SiteFinder) -> list[InnerPlace]:
    """The maps inside of calls, one for each call, then those inside of bodies."""
    beside = cache(lambda node_index: tuple(instead(finder, node_index)[1]))
    return [*_in_calls(finder, beside), *_in_bodies(finder, beside)]


def _in_calls(finder: SiteFinder, beside: Callable[[int], tuple[str, ...]]) -> Iterator[InnerPlace]:
    """Blocks, their parts, and nodes in no block; of several that give one map, the outermost."""
    inside, interior = finder.inside, finder.interior
    if inside is None or interior is None:
        return
    seen = set[str]()
    for row in Outline(inside).rows(None):
        tensor = row.tensor
        if row.site is None or interior.is_in_the_file(tensor) or tensor in seen:
            continue
        seen.add(tensor)
        origin, position = interior.produced(tensor)
        yield InnerPlace(
            selector=_selector(interior, inside, row),
            type=row.type,
            tensor=origin.node.output[position],
            shape=row.site.shape,
            dtype=row.site.dtype,
            stride=row.stride,
            kind="function",
            function=interior.function_of(origin),
            node=finder.index.label(origin.caller),
            takes_block=interior.takes_block(tensor),
            instead=beside(origin.caller),
            insertions=row.insertions,
        )


def _selector(interior: Interior, inside: SiteFinder, row: Row) -> str:
    """What names the place of a row: its module, else its block or node."""
    if row.path and (path := interior.module(join(row.path.split("/")), row.tensor)):
        return path
    if row.is_node:
        return interior.output(row.tensor)
    return interior.block(inside.blocks.of_type(row.type)[row.number])


def _in_bodies(finder: SiteFinder, beside: Callable[[int], tuple[str, ...]]) -> Iterator[InnerPlace]:
    inside = finder.inside or finder
    for body in body_tensors(inside.model.structure, finder.blocks.origins):
        dtype, shape = float_dtype(body.kind), body.shape
        if dtype is None or shape is None or len(shape) != 4 or not isinstance(shape[1], int):
            continue
        if finder.fits_image(shape):
            calls, _, holder = body.holder
            yield InnerPlace(
                selector=f"tensor:{body.name}",
                type=body.node.op_type,
                tensor=body.name,
                shape=shape,
                dtype=dtype,
                stride=finder.stride_of(shape),
                kind=body_name(holder),
                function=calls[-1].node.op_type if calls else None,
                node=finder.index.label(body.around),
                takes_block=False,
                instead=beside(body.around),
            )
