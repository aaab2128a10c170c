"""Outline: a model as a detector's author thinks of it: its blocks in order, and how they are wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..modelfile.model import ModelFile
from ..selection.sites import SiteFinder
from .edges import Edge
from .nesting import Nesting
from .row_builder import RowBuilder

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource
    from ..modelfile.record import Insertion
    from .rows import Row
    from .standing import StandingBlock


def outline(model: ModelSource) -> Outline:
    """The blocks of a model in order, the places to insert after them, and how they are wired.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``.

    Returns
    -------
    Outline
        Its :meth:`~Outline.rows`, and a picture: in a notebook it is shown as one.

    Raises
    ------
    ModelError
        If the model cannot be read.

    Examples
    --------
    >>> blocks = gsx.outline("yolov8n.onnx")                           # doctest: +SKIP
    >>> [row.name for row in blocks.rows() if row.is_advisable]        # doctest: +SKIP
    >>> Path("yolov8n.svg").write_text(blocks.as_svg())                # doctest: +SKIP
    """
    return Outline(SiteFinder(ModelFile.load(model)))


class Outline:
    """The rows of one model, and their picture."""

    def __init__(self, finder: SiteFinder, found: Sequence[StandingBlock] = ()) -> None:
        """``found``: blocks that an exporter wrote, which are to be shown, too."""
        self._index = finder.index
        self._tree = finder.blocks
        self._builder = RowBuilder(finder, found)

    @property
    def is_empty(self) -> bool:
        """Whether no block was recognised."""
        return not self._tree.blocks

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing to show: no block, and no node that gives a map."""
        return not self._nesting.units

    @property
    def name(self) -> str:
        """How messages call the model."""
        return self._index.model.name

    def insertions(self) -> dict[str, Insertion]:
        """The blocks that stand in the model, by id."""
        return self._builder.insertions

    def standing(self) -> list[StandingBlock]:
        """Every block that stands in the model: inserted, rewritten, in the place of something, found."""
        return self._builder.standing

    def rows(self, depth: int | None = 1) -> list[Row]:
        """Outermost blocks and single nodes in the order of the graph, each followed by its parts, down to a depth.

        A part behind which a block is inserted is there at any depth, and so is what it is a part of.
        """
        return list(self._nesting.rows(depth))

    def hidden(self, depth: int) -> int:
        """How many parts lie deeper and are not among the rows."""
        return self._nesting.hidden(depth)

    def edges(self) -> list[Edge]:
        """How the outermost rows are wired, in the order of their targets; rows by name, what lies between left out."""
        return self._nesting.edges()

    # ------------------------------------------------------------------ pictures

    def as_svg(self, *, depth: int | None = 1, title: str | None = None, marks: Mapping[str, str] | None = None) -> str:
        """The picture of the blocks and how they are wired.

        Parameters
        ----------
        depth:
            Levels to draw: 1 is whole blocks, 2 their parts in them ...; None is all. What is inserted inside of a
            block is drawn there at any depth.
        title:
            Default: the name of the file.
        marks:
            Tensor -> a short text that is written on the block that gives it.

        Returns
        -------
        str
            SVG that needs no other file.

        Raises
        ------
        RequestError
            If there is nothing to draw.
        """
        from .picture import draw

        nesting, insertions = self._drawn
        if not nesting.units:
            raise RequestError(f"{self.name} cannot be drawn: there is neither a block nor a map of the image in it")
        return draw(self.name if title is None else title, nesting.level(depth), insertions, marks or {})

    def as_html(self, *, depth: int | None = 1, title: str | None = None) -> str:
        """The same as a page; pointing at a box shows its tensor, its consumers and whether a block does well there."""
        from .picture import page

        return page(self.name if title is None else title, self.as_svg(depth=depth, title=title))

    def as_png(self, *, depth: int | None = 1, title: str | None = None) -> bytes:
        """The same as pixels, two for each of the SVG. MissingDependency without the extra ``pictures``."""
        from .picture import rasterise

        return rasterise(self.as_svg(depth=depth, title=title), "png")

    def as_pdf(self, *, depth: int | None = 1, title: str | None = None) -> bytes:
        """The same as a page of its size. MissingDependency without the extra ``pictures``."""
        from .picture import rasterise

        return rasterise(self.as_svg(depth=depth, title=title), "pdf")

    def __repr__(self) -> str:
        rows = self.rows()
        return f"<Outline of {self.name}: {len(rows)} places, {sum(row.is_advisable for row in rows)} advisable>"

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows()))

    def _repr_html_(self) -> str | None:
        return None if self.is_bare else self.as_svg()

    @cached_property
    def _nesting(self) -> Nesting:
        return Nesting(self._builder)

    @cached_property
    def _drawn(self) -> tuple[Nesting, dict[str, Insertion]]:
        """What a picture shows: blocks in functions stand where the calls of these are written out."""
        finder = self._builder.finder
        inner = any(insertion.function is not None for insertion in finder.model.insertions())
        if not inner or finder.inside is None:
            return self._nesting, self.insertions()
        builder = RowBuilder(finder.inside)
        return Nesting(builder), builder.insertions
