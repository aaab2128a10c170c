"""Sites: the places in a live model that the entries of a recipe name, as they were seen in a dry run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ..errors import SelectorError, SiteError, concerning
from ..messages import listed
from ..weights.attachment import Place
from .dry_run import Call, DryRun, Seen
from .refusals import Refusals
from .selecting import Chosen, LiveSelection


@dataclass(frozen=True, eq=False)
class LiveSite:
    """One place for a block."""

    path: str
    """of the module that is to hold the block"""
    position: str
    """``"after"``: on what that module gives; ``"before"``: on what it takes"""
    named: str
    """the path of the module that the recipe names"""
    places: tuple[Place, ...]
    maps: tuple[Seen, ...]
    """the map of each call of the module"""
    order: int
    """when, in a forward pass, a block there is called"""
    alike: tuple[str, ...] = ()
    """paths of modules inside of that one which could hold the block as well"""

    @property
    def seen(self) -> Seen:
        """The map of the first call."""
        return self.maps[0]


class LiveSites:
    """Finds sites in one model. SiteError or SelectorError where there is none."""

    def __init__(self, model: nn.Module, selection: LiveSelection, run: DryRun) -> None:
        self._model = model
        self._selection = selection
        self._run = run
        self._refusals = Refusals(model, run)
        self._all: list[LiveSite] = []

    def find(self, chosen: Sequence[Chosen], name: str, position: str, consumers: Sequence[str]) -> list[LiveSite]:
        """The sites after, or before, what the selectors of one entry name, each once, for a block of that name."""
        sites: list[LiveSite] = []
        for each in chosen:
            with concerning(position, SelectorError, SiteError):
                found = list(self._of(each, name, position, sites))
            for site in found:
                narrow = self._narrowed(site, name, consumers) if consumers else site
                self._check_order(narrow)
                sites.append(narrow)
        self._all += sites
        return sites

    def _of(self, chosen: Chosen, name: str, position: str, before: Sequence[LiveSite]) -> Iterator[LiveSite]:
        """The sites of one selector that are not among those of the selectors before it. Of several modules those that
        have no map are left out.
        """
        known, skipped = list(before), list[SiteError]()
        for path in chosen.paths:
            try:
                site = self._site(path, name, position, known)
            except _NoMap as error:
                if chosen.is_one:
                    raise error.reason from None
                skipped.append(error.reason)
                continue
            if site is not None:
                known.append(site)
                yield site
        if len(skipped) == len(chosen.paths):
            verb = "gives" if position == "after" else "takes"
            sentence = f"{len(skipped)} modules match {chosen.selector!r}, and none of them {verb} one feature map"
            raise SiteError(f"{sentence}; the first: {skipped[0].message}")

    def _site(self, path: str, name: str, position: str, known: Sequence[LiveSite]) -> LiveSite | None:
        """The site of a module; None if it is one of the known ones."""
        first = self._selection.first[path]
        outer = path.rpartition(".")[0]
        names = self._selection.names(path)
        calls = self._run.of(first)
        if len(names) > 1:  # under this path, as far as the calls tell
            calls = [call for call in calls if call.parent is not None and call.parent.path == outer]
        if not calls:
            raise _NoMap(self._refusals.never_called(path))
        maps = [self._map(call, position) for call in calls]
        if any(site.position == position and all(map(site.seen.is_same, maps)) for site in known):
            return None
        if len(names) > 1:
            raise self._refusals.shared(path, [name for name in names if name != path])
        seen = maps[0]
        if len({each.shape[1] for each in maps}) > 1:
            channels = listed(sorted({str(each.shape[1]) for each in maps}))
            raise SiteError(f"{self._refusals.called(path)} is called with maps of {channels} channels")
        if position == "after" and (reason := self._refusals.unlike_a_file(calls[0], seen)):
            raise reason
        if reason := self._refusals.vanishes(path) or self._refusals.before_norm(seen):
            raise reason
        host, *others = self._hosts(calls[0], name, seen, position)
        places, alike = _places(host, seen, position), tuple(each.path for each in others)
        return LiveSite(host.path, position, path, places, tuple(maps), _order(host, position), alike)

    def _hosts(self, call: Call, name: str, seen: Seen, position: str) -> list[Call]:
        """The calls of modules that could hold a block of that name: the one given, unless it runs all its children, as
        Sequential does, and those inside of it that give, or take, the same map. SiteError if there are none.
        """
        run, found = self._run, list[Call]()
        for other in [call, *(each for each in run.calls if each.is_within(call))]:
            path, sights = other.path, other.outputs if position == "after" else other.inputs
            alike = len(run.of(path)) == len(run.of(call.path)) and len(self._selection.names(path)) == 1
            if not alike or path in run.runs_children or not any(map(seen.is_same, sights)):
                continue
            if other is not call and position == "before" and len(run.readers(seen, within=call)) > 1:
                break
            reason, taken = self._refusals.vanishes(path), hasattr(self._model.get_submodule(path), name)
            if not found and reason:
                raise reason
            if other is call or not (taken or reason):
                found.append(other)
        if not found:
            raise SiteError(
                f"{self._refusals.called(call.path)} runs every child that it has, so that a block could not be one; "
                "name a module inside of it"
            )
        return found

    def _map(self, call: Call, position: str) -> Seen:
        maps = self._refusals.maps(call.outputs if position == "after" else call.inputs)
        if len(maps) != 1:
            raise _NoMap(self._refusals.no_map(call, position))
        return maps[0]

    @concerning("consumers")
    def _narrowed(self, site: LiveSite, name: str, consumers: Sequence[str]) -> LiveSite:
        """The site in front of the one module, among those that take the map, that ``consumers`` names."""
        calls = {call.path: call for call in self._run.readers(site.seen)}
        readers = {path: self._refusals.called(path) for path in calls}
        chosen = self._selection.choose_consumers(consumers, site.named, readers)
        if len(chosen) > 1:
            raise SiteError(
                f"{listed(chosen)} all take what {site.named} gives, and in a live model a block is for one of them or "
                "for all: give one of them, or none"
            )
        call = calls[chosen[0]]
        if len(self._run.of(call.path)) > 1 or len(self._selection.names(call.path)) > 1:
            raise SiteError(f"{self._refusals.called(call.path)} is called several times, and not only by {site.named}")
        host, *others = self._hosts(call, name, site.seen, "before")
        places, alike = _places(host, site.seen, "before"), tuple(each.path for each in others)
        order = _order(host, "before")
        return replace(site, path=host.path, position="before", places=places, order=order, alike=alike)

    def _check_order(self, site: LiveSite) -> None:
        """SiteError if blocks at one map would come in another order than in a file, where that of the entries counts:
        hooks of an inner module, and those after a module, are called first.
        """
        for other in self._all:
            here = (other.path, other.position) == (site.path, site.position)
            if here or not site.seen.is_same(other.seen):
                continue
            if site.position != other.position:
                overtakes = site.position == "after" and len(self._run.readers(site.seen)) == 1
            else:
                inner, outer = (site, other) if site.position == "after" else (other, site)
                overtakes = inner.path.startswith(f"{outer.path}.")
            if overtakes:
                raise SiteError(
                    f"the block {site.position} {site.path} would come before that {other.position} {other.path}, at "
                    "the same map, although its entry does not; put its entry first, or name one place in both"
                )


def _places(call: Call, seen: Seen, position: str) -> tuple[Place, ...]:
    sights = call.outputs if position == "after" else call.inputs
    return tuple(each.place for each in sights if seen.is_same(each))


def _order(call: Call, position: str) -> int:
    return call.ended if position == "after" else call.began


class _NoMap(Exception):
    """A module without one map: an error if it alone is named."""

    def __init__(self, reason: SiteError) -> None:
        super().__init__(str(reason))
        self.reason = reason
