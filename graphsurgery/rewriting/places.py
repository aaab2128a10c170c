"""Places where something stands that a block can replace: found blocks, and modules whose nodes form a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import SelectorError, SiteError, concerning
from ..find import Found, find
from ..graph.index import GraphIndex
from ..graph.module_paths import join
from ..graph.part import Part
from ..insertion.replacing import CHANNELS_LAST, Boundary
from ..messages import listed
from ..modelfile.function_body import graph_of
from ..modelfile.record import IN_PLACE_OF
from ..selection.sites import Site, SiteFinder

_OF_ONE = ("tensor:", "node:", "op:")
"""what selectors that name no module begin with"""


@dataclass(frozen=True)
class Standing:
    """Something that a block can stand in the place of."""

    site: Site
    part: Part
    found: Found | None = None
    """what it is, where that was found"""


class Standings:
    """What stands in one model. Attention is looked for only where no module answers."""

    def __init__(self, finder: SiteFinder) -> None:
        self._finder = finder

    @cached_property
    def found(self) -> list[Found]:
        """The found blocks, in the order of the model."""
        return find(self._finder.model)

    @cached_property
    def _at(self) -> dict[tuple[tuple[str, ...] | None, str], Found]:
        return {(each.part.function, each.part.output): each for each in self.found}

    def of(self, found: Found) -> Standing:
        """The place of a found block."""
        return Standing(self._site(found.part, found.place), found.part, found)

    def _site(self, part: Part, place: str) -> Site:
        """The site of a part at a place, a module path or ``tensor:NAME``."""
        finder = self._finder
        index = finder.index if part.function is None else GraphIndex(graph_of(finder.model, part.function))
        module = finder.tree.modules.get(join(place.split("/")))
        if part.shape[1] is None:
            raise SiteError(f"{place} {CHANNELS_LAST}")
        return Site(
            tensor=part.input,
            shape=part.shape,
            dtype=part.feature.dtype,
            path=module.display if module else None if place.startswith("tensor:") else place,
            type=module.type if module else None,
            stride=finder.stride_of(part.feature.shape),
            consumers=tuple(index.label(n) for n in index.consumers.get(part.output, ())),
            graph_output=part.output in index.outputs,
            position=IN_PLACE_OF,
            function=part.function,
        )

    def at(self, selectors: Sequence[str], option: str) -> list[Standing]:
        """What selectors name: modules with one map entering and one of its shape leaving, and found blocks by their
        places or by what they give. ``option``: where the selectors were given. SelectorError and SiteError for others.
        """
        chosen: dict[tuple[tuple[str, ...] | None, str], Standing] = {}
        with concerning(option, SelectorError, SiteError):
            for selector in selectors:
                for each in self._standing(selector):
                    chosen.setdefault((each.part.function, each.part.output), each)
        return list(chosen.values())

    def _standing(self, selector: str) -> Iterator[Standing]:
        try:
            sites = self._finder.find([selector])
        except (SelectorError, SiteError):
            if not (places := self._placed(selector)):
                raise
            yield from map(self.of, places)
            return
        for site in sites:
            why = "is no attention that was found, and no module"
            if not selector.strip().startswith(_OF_ONE):
                module = self._module(site)
                if isinstance(module, Standing):
                    yield module
                    continue
                why = module
            if (found := self._at.get((site.function, site.tensor))) is None:
                raise SiteError(f"{site.label} {why}")
            yield self.of(found)

    def chosen(self, selectors: Sequence[str], option: str) -> list[Found]:
        """The found blocks among what selectors name, in the order of the model. SelectorError, and SiteError where one
        names something else.
        """
        named = list[Found]()
        with concerning(option, SelectorError, SiteError):
            for each in self._named(selectors):
                if isinstance(each, Site):
                    known = [found.place for found in self.found]
                    said = f"those that were found are {listed(known, 6)}" if known else "none was found in this model"
                    raise SiteError(f"{each.label} is no attention that was found; {said}")
                named.append(each)
        return [found for found in self.found if any(found is each for each in named)]

    def _named(self, selectors: Sequence[str]) -> Iterator[Found | Site]:
        """Found blocks, and the sites after what is none."""
        for selector in selectors:
            if places := self._placed(selector):
                yield from places
            else:
                for site in self._finder.find([selector]):
                    yield self._at.get((site.function, site.tensor), site)

    def _placed(self, selector: str) -> list[Found]:
        return [each for each in self.found if each.place == selector.strip().strip("/")]

    def _module(self, site: Site) -> Standing | str:
        """A module as a part; where it is none, the reason, as the end of a sentence."""
        finder, index = self._finder, self._finder.index
        module = finder.tree.modules.get(join(site.path.split("/"))) if site.path else None
        if site.function is not None or module is None:
            return "is no attention that was found, and no module that could be taken out whole"
        inserted = [index.insertion_of[n].id for n in module.nodes if n in index.insertion_of]
        there = Boundary.of(index, [n for n in module.nodes if n not in index.insertion_of])
        if isinstance(there, str):
            return f"has the insertion {inserted[0]} in it; take that out first" if inserted else there
        if finder.shapes.lookup(there.input) != finder.shapes.lookup(there.output):
            return (
                f"takes {finder.shaped(there.input, there.input)} and gives "
                f"{finder.shaped(there.output, there.output)}; a block can stand only in the place of what keeps the "
                "shape of its input"
            )
        part = Part(tuple(sorted(there.nodes)), there.input, there.output, site.feature)
        return Standing(self._site(part, site.path or ""), part)
