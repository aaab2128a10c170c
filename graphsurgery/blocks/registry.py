"""The installed blocks, by name.

The engine knows no block by name: it looks them up in the packages that the entry-point group ``graphsurgery.patterns``
names, its own catalogue among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import isabstract
from types import GenericAlias, ModuleType
from typing import NamedTuple

from .. import entry_points
from ..errors import BlockError, MissingDependency
from ..messages import nearest_titles
from .block import Block

ENTRY_POINTS = "graphsurgery.patterns"


@cache
def block_class(name: str) -> type[Block]:
    """The block of that name. BlockError, with the nearest names, if none is installed or two are; MissingDependency if
    it may be in a package that lacks another one.
    """
    if (found := _in_its_own_file(name)) is not None:
        return found
    registry = _registry()
    if name in registry.blocks:
        _tell()
        return registry.blocks[name]
    if name in registry.disputed:
        raise BlockError(registry.disputed[name])
    lost = "; ".join(map(str, registry.broken))
    near = nearest_titles(name, {each: block.title for each, block in registry.blocks.items()})
    if lost and not near:
        lacks = any(each.lacks for each in registry.broken)
        kind = MissingDependency if lacks else BlockError
        raise kind(f"there is no block {name!r} among those that can be loaded; {lost}")
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(registry.blocks)}"
    message = f"there is no block {name!r}; {hint}{f' ({lost})' if lost else ''}"
    raise BlockError(message, candidates=near or tuple(registry.blocks))


def catalogue_block(spelled: str, settings: Mapping[str, object] | None = None) -> Block:
    """The installed block that a user names, ``simam`` or ``ge[theta]``, with its hyper-parameters. BlockError if there
    is no such thing.
    """
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[([^\[\]]+)\])?\s*", spelled)
    if match is None:
        raise BlockError(f"{spelled!r} is not a block's name; write it as in simam or 'ge[theta]'")
    name, variant = match.groups()
    return block_class(name)(variant, **dict(settings or {}))


def _in_its_own_file(name: str) -> type[Block] | None:
    """The block of that name from the file of that name, so that one insertion need not load the whole catalogue; None
    where there is no such file, and where there are several catalogues, which have to be held against each other.
    """
    module = entry_points.module_of_the_only(ENTRY_POINTS, name)
    return next((block for block in _blocks_in(module) if getattr(block, "name", "") == name), None) if module else None


def all_blocks() -> dict[str, type[Block]]:
    """Every installed block by name, in alphabetical order.

    An entry point names a module with Block subclasses in it, or a package whose modules have them.
    GraphSurgeryWarning, once, for a package that cannot be loaded, and for a name that several blocks have; then none
    of them is among these.
    """
    _tell()
    return dict(_registry().blocks)


class _Registry(NamedTuple):
    blocks: dict[str, type[Block]]
    disputed: dict[str, str]
    """name of a block that several packages bring -> what to say of it"""
    broken: tuple[entry_points.Broken, ...]


@cache
def _registry() -> _Registry:
    catalogues = entry_points.loaded(ENTRY_POINTS)
    broken = list(catalogues.broken)
    offers: dict[str, dict[type[Block], str]] = {}
    for package, module in catalogues.modules:
        for block in _blocks_in(module):
            if fault := _fault(block):
                broken.append(entry_points.Broken(f"{module.__name__}.{block.__name__}", package, fault))
            elif hasattr(block, "name"):
                offers.setdefault(block.name, {})[block] = f"{package} ({module.__name__})"
    blocks = {name: next(iter(offered)) for name, offered in sorted(offers.items()) if len(offered) == 1}
    disputed = {
        name: f"there are {len(offered)} blocks called {name!r}, from {' and '.join(offered.values())}; uninstall one"
        for name, offered in offers.items()
        if len(offered) > 1
    }
    return _Registry(blocks, disputed, tuple(broken))


def _blocks_in(module: ModuleType) -> Iterator[type[Block]]:
    for value in vars(module).values():
        plain = isinstance(value, type) and not isinstance(value, GenericAlias)  # list[int] is both in Python 3.10
        if plain and issubclass(value, Block) and value.__module__ == module.__name__:
            yield value


def _fault(block: type[Block]) -> str:
    """Why a class is no block; "" for a block, and for what is only meant as a base of blocks."""
    if not hasattr(block, "name"):
        return "" if isabstract(block) else "it has no name"
    return f"it has no {' and no '.join(sorted(block.__abstractmethods__))}" if isabstract(block) else ""


@cache
def _tell() -> None:
    """Warn, once, of what is wrong with the installed packages."""
    registry = _registry()
    entry_points.tell([*map(str, registry.broken), *registry.disputed.values()])


def forget() -> None:
    """Look at the installed packages again when a block is next asked for."""
    for each in (block_class, _registry, _tell):
        each.cache_clear()
