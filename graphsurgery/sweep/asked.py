"""What a sweep is asked for: its cells, whether their blocks are there, and the places of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import userblocks
from ..errors import GraphSurgeryError, RequestError, option
from ..request import Argument, Request, Settings, checked
from ..rewriting import Standings
from ..selection.sites import Site, SiteFinder
from .figures import reason_of
from .grid import Cell, combinations, grid

_OF_PLACES = ("path", "type", "tensor", "shape", "stride")


def requested(
    names: Sequence[str], places: Sequence[str], together: object, settings: Settings, common: Mapping[str, Any]
) -> list[Cell]:
    """The cells. ``settings``: of the blocks, see :func:`_settings_of`; ``common``: arguments of every request.
    RequestError if blocks or places are missing or wrong.
    """
    path = checked("together", together, str | None, Argument(words="is the path of a YAML file"))
    if path is None and not (names and places):
        missing = option("after") if names else option("module")
        raise RequestError(f"say which blocks at which places: {missing} is missing")
    if bool(names) != bool(places):
        raise RequestError(f"{option('module')} and {option('after')} go together")
    cells = grid(_settings_of(names, settings), places, common)
    return cells + (combinations(Path(path), common) if path is not None else [])


def _settings_of(names: Sequence[str], given: Settings) -> Mapping[str, Settings]:
    """The settings of each block: ``reduction`` is for all that have it, ``se.reduction`` for one. RequestError for one
    that no block has.
    """
    trust, found, used = userblocks.Trust.in_blocks(names), {}, set()
    for name in dict.fromkeys(names):
        has = userblocks.make_block(name, trust=trust).values if given else {}
        own: dict[str, object] = {}
        for key, value in sorted(given.items(), key=lambda item: "." in item[0]):  # for one beats for all
            block, _, setting = key.rpartition(".")
            if (not block and setting in has) or block in (name, name.partition("[")[0]):
                own[setting] = value
                used.add(key)
        found[name] = own
    if unused := [key for key in given if key not in used]:
        raise RequestError(f"no block of the sweep has the hyper-parameter {unused[0]!r}", option="settings")
    return found


def check_blocks(cells: Sequence[Cell]) -> None:
    """BlockError for a block that there is not."""
    trust = userblocks.Trust.in_blocks(each.module for cell in cells for each in cell.requests)
    different = {(each.module, str(each.settings)): each for cell in cells for each in cell.requests}
    for request in different.values():
        userblocks.make_block(request.module, request.settings, trust)


def _sites(finder: SiteFinder, request: Request) -> list[Site]:
    if request.in_place_of:
        return [each.site for each in Standings(finder).at(request.in_place_of, "in_place_of")]
    position = "before" if request.before else "after"
    return finder.find(request.before or request.after, position=position, consumers=request.consumers)


def columns(finder: SiteFinder, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The places of each column; or, of one that names none, the "reason". The error of the first if all do not."""
    errors = []
    found: list[dict[str, Any]] = []
    for place, cell in {cell.place: cell for cell in cells}.items():
        try:
            sites = [site for each in cell.requests for site in _sites(finder, each)]
        except GraphSurgeryError as error:
            errors.append(error)
            found.append({"place": place, "places": [], "reason": reason_of(error)})
            continue
        places = [{n: v for n, v in each.to_json().items() if n in _OF_PLACES} for each in sites]
        found.append({"place": place, "places": places, "reason": ""})
    if len(errors) == len(found):
        errors[0].concern("after")
        raise errors[0]
    return found
