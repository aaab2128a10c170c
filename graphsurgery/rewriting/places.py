"""Places where something stands that a block can replace: found blocks, and modules whose nodes form a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import SelectorError, SiteError, concerning
from ..find import Found, find
from ..graph.index import GraphIndex
from ..graph.module_paths import join
from ..graph.part import Part
from ..insertion.replacing import Boundary
from ..messages import listed
from ..modelfile.function_body import graph_of
from ..modelfile.record import IN_PLACE_OF
from ..selection.sites import Site, SiteFinder


@dataclass(frozen=True)
class Standing:
    """Something that a block can stand in the place of."""

    site: Site
    part: Part
    found: Found | None = None
    """what it is, where that was found"""


class Standings:
    """What stands in one model."""

    def __init__(self, finder: SiteFinder, found: Sequence[Found] | None = None) -> None:
        self._finder = finder
        self.found = find(finder.model) if found is None else found
        self._at = {(each.part.function, each.part.output): each for each in self.found}

    def of(self, found: Found) -> Standing:
        """The place of a found block."""
        return Standing(self._site(found.part, found.place), found.part, found)

    def _site(self, part: Part, place: str) -> Site:
        """The site of a part at a place, a module path or ``tensor:NAME``."""
        finder = self._finder
        index = finder.index if part.function is None else GraphIndex(graph_of(finder.model, part.function))
        module = finder.tree.modules.get(join(place.split("/")))
        feature = part.feature
        shape = (feature.batch, feature.channels, feature.height, feature.width)
        return Site(
            tensor=part.input,
            shape=shape,
            dtype=feature.dtype,
            path=module.display if module else None if place.startswith("tensor:") else place,
            type=module.type if module else None,
            stride=finder.stride_of(shape),
            consumers=tuple(index.label(n) for n in index.consumers.get(part.output, ())),
            graph_output=part.output in index.outputs,
            position=IN_PLACE_OF,
            function=part.function,
        )

    def at(self, selectors: Sequence[str], option: str) -> list[Standing]:
        """What selectors name: found blocks, by their places or as modules are named, and else modules with one map
        entering and one leaving. ``option``: where the selectors were given. SelectorError and SiteError for others.
        """
        chosen: dict[tuple[tuple[str, ...] | None, str], Standing] = {}
        with concerning(option, SelectorError, SiteError):
            for selector in selectors:
                for each in self._named(selector):
                    chosen.setdefault((each.part.function, each.part.output), each)
        return list(chosen.values())

    def chosen(self, selectors: Sequence[str], option: str) -> list[Found]:
        """The found blocks among what selectors name. SiteError where one names something else."""
        standing = self.at(selectors, option)
        for each in standing:
            if each.found is None:
                known = [found.place for found in self.found]
                said = f"those that were found are {listed(known, 6)}" if known else "none was found in this model"
                raise SiteError(f"{each.site.label} is no attention that was found; {said}", option=option)
        return [each.found for each in standing if each.found]

    def _named(self, selector: str) -> Iterator[Standing]:
        if places := [each for each in self.found if each.place == selector.strip().strip("/")]:
            yield from map(self.of, places)
            return
        for site in self._finder.find([selector]):
            found = self._at.get((site.function, site.tensor))
            yield self.of(found) if found else self._module(site)

    def _module(self, site: Site) -> Standing:
        """A module as a part. SiteError where it is none."""
        finder = self._finder
        module = finder.tree.modules.get(join(site.path.split("/"))) if site.path else None
        if site.function is not None or module is None:
            raise SiteError(f"{site.label} is no attention that was found, and no module that could be taken out whole")
        index = finder.index
        inserted = [index.insertion_of[n].id for n in module.nodes if n in index.insertion_of]
        there = Boundary.of(index, [n for n in module.nodes if n not in index.insertion_of])
        if isinstance(there, str):
            why = f"has the insertion {inserted[0]} in it; take that out first" if inserted else there
            raise SiteError(f"{site.label} {why}")
        if finder.shapes.lookup(there.input) != finder.shapes.lookup(there.output):
            raise SiteError(
                f"{site.label} takes {finder.shaped(there.input, there.input)} and gives "
                f"{finder.shaped(there.output, there.output)}; a block can stand only in the place of what keeps the "
                "shape of its input"
            )
        part = Part(tuple(sorted(there.nodes)), there.input, there.output, site.feature)
        return Standing(self._site(part, site.path or ""), part)
