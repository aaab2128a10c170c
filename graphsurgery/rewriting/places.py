"""Places where something stands that a block can replace: found blocks, and modules whose nodes form a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import SelectorError, SiteError, concerning
from ..feature_map import Dimension, FeatureMap
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
        finder, part = self._finder, found.part
        index = finder.index if part.function is None else GraphIndex(graph_of(finder.model, part.function))
        module = finder.tree.modules.get(join(found.place.split("/")))
        shape = _shape(part.feature)
        output = part.output in index.outputs
        site = Site(
            tensor=part.input,
            shape=shape,
            dtype=part.feature.dtype,
            path=module.display if module else None if found.place.startswith("tensor:") else found.place,
            type=module.type if module else None,
            stride=finder.stride_of(shape),
            consumers=tuple(index.label(n) for n in index.consumers.get(part.output, ())),
            graph_output=output,
            position=IN_PLACE_OF,
            function=part.function,
        )
        return Standing(site, part, found)

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
        there = Boundary.of(finder.index, module.nodes)
        if isinstance(there, str):
            raise SiteError(f"{site.label} {there}")
        shapes = [finder.shapes.lookup(name) for name in (there.input, there.output)]
        if there.output != site.tensor or shapes[0] != shapes[1]:
            raise SiteError(
                f"{site.label} takes {finder.shaped(there.input, there.input)} and gives "
                f"{finder.shaped(there.output, there.output)}; a block can stand only in the place of what keeps the "
                "shape of its input"
            )
        kept = {"warnings": (), "others": (), "rewired": frozenset()}
        place = replace(site, tensor=there.input, position=IN_PLACE_OF, **kept)
        return Standing(place, Part(tuple(sorted(there.nodes)), there.input, there.output, site.feature))


def _shape(feature: FeatureMap) -> tuple[Dimension, ...]:
    return feature.batch, feature.channels, feature.height, feature.width
