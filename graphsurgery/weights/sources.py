"""Sources: which public class weights are of, where their keys are those of several that are not the same function.

A pickled checkpoint says it: its class, or what is in it. A state_dict does not; then the block is read as it was asked
for, and what else it may be is said. See ports.py for what is known of public code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from ..blocks.block import Block
from ..blocks.registry import catalogue_block
from ..errors import GraphSurgeryError, WeightsError, option
from ..feature_map import FeatureMap
from ..messages import listed
from . import hints, host
from .checkpoint import COUNTER, Checkpoint, Fitted
from .ports import SITES, Port, ports_of
from .settings_conflict import spelled
from .variants import same_function

Fit = Callable[[Block], Fitted]
"""fits a block to a part of a file; WeightsError where that cannot be"""

_OWN = "graphsurgery."
_MOST = 4


@dataclass(frozen=True)
class Reading:
    """The block that weights are read as, and how that was found."""

    block: Block
    notes: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    """the classes that they may be of, where the file does not tell which"""


def tells(block: Block, feature: FeatureMap, part: Checkpoint) -> bool:
    """Whether a file says which of the known ports of a block its weights are of."""
    return any(each.mark_in(part.description) is not None for each in _fitting(block, feature, part))


def resolve(block: Block, feature: FeatureMap, part: Checkpoint, given: Mapping[str, object], fit: Fit) -> Reading:
    """The block as the file wants it, where it tells which class its weights are of.

    ``given`` are the hyper-parameters that the user asked for; ``fit`` fits a block to the same part. WeightsError
    where what the user named is another function at the site than the pickled class, and where no block is that.
    """
    ports = tuple(each for each in _fitting(block, feature, part) if each.reads or _departs(each, block, feature))
    marked = tuple(each for each in ports if each.mark_in(part.description) is not None)
    if part.exported:  # which has not all of its keys, and so does not tell one variant from another
        marked = tuple(each for each in marked if _is_of(each, block))
    if _one_reading(marked):
        return _read_as(marked[0], block, feature, part, given, fit)
    common = tuple(each for each in ports if not each.rare)
    if not marked and _one_reading(common) and (found := _by_keys(common[0], block, feature, part, given, fit)):
        return found
    ours = part.description.get("", "").startswith(_OWN)
    return Reading(block, ports=marked or (() if ours else common))


def doubts(
    reading: Reading,
    result: Fitted,
    feature: FeatureMap,
    source: str,
    given: Mapping[str, object],
    fit: Fit,
) -> list[str]:
    """A warning that names the classes whose weights have the same keys and whose function at the site is another one;
    nothing where the user said which it is.

    ``result``: what ``fit`` gave for the block of the reading.
    """
    by_name = _is_chosen(reading, fit)
    others: dict[tuple[str, str], list[str]] = {}
    for port in reading.ports:
        if not _is_settled(port, result.block, given, by_name=by_name) and _differs(port, result, feature, fit):
            others.setdefault((port.function, _way(port, result.block)), []).append(port.source)
    if not others:
        return []
    clauses = [
        f"{listed(sources, _MOST, ' and')}, which {function}{f': {way}' if way else ' (no block is that)'}"
        for (function, way), sources in others.items()
    ]
    return [f"the keys in {source} are also those of {'; of '.join(clauses)}; they are read as {result.block.spelled}"]


def _fitting(block: Block, feature: FeatureMap, part: Checkpoint) -> tuple[Port, ...]:
    """The ports whose keys a file has, if need be beside those of the module around the block."""
    if "" in part.inserted:  # its record says what it is
        return ()
    found = tuple(each for each in ports_of(block) if each.fits(part))
    if found or part.exported:
        return found
    inside = _without_host(block, feature, part)
    return tuple(each for each in ports_of(block) if each.fits(inside))


def _without_host(block: Block, feature: FeatureMap, part: Checkpoint) -> Checkpoint:
    """A part without the layers of the module around the block, in whichever of its variants it is."""
    for variant in (block, *hints.variants(block)):
        if own := host.own_keys(variant, feature, part.arrays):
            return replace(part, arrays={key: part.arrays[key] for key in own.values()})
    return part


def _one_reading(ports: Collection[Port]) -> bool:
    """Whether there are ports, and all of them are one function that a block is, or one class."""
    return len({(each.reads or each.source, *each.settings.items()) for each in ports}) == 1


def _is_of(port: Port, block: Block) -> bool:
    """Whether a port is a block in its variant, whatever its settings."""
    return bool(port.reads) and catalogue_block(port.reads).spelled == block.spelled


def _by_keys(
    port: Port, block: Block, feature: FeatureMap, part: Checkpoint, given: Mapping[str, object], fit: Fit
) -> Reading | None:
    """The block that keys tell which only one function has: in another variant where a bare name does not read them, or
    with other settings where none of them is the block's own. None where they do not tell.
    """
    told = f"the keys in {part.name} are those of {port.source}" + (f", which {port.function}" * bool(port.function))
    if _is_of(port, block):
        own = part.arrays if port.fits(part) else _without_host(block, feature, part).arrays
        if any(block.official_key(key) == key for key in own if not key.endswith(COUNTER)):
            return None
        values = {name: value for name, value in port.settings.items() if name not in given}
        changed = any(block.values[name] != value for name, value in values.items())
        return Reading(block.with_values(**values), (f"{told}: read as {_way(port, block)}",) * changed)
    if block.named or not port.reads or part.exported:
        return None
    try:
        fit(block)
    except GraphSurgeryError:
        known = catalogue_block(port.reads).values
        if unknown := [name for name in given if name not in known]:
            raise WeightsError(f"{told}: {_way(port, block)} reads them, which has no {unknown[0]}") from None
        other = catalogue_block(port.reads, {**given, **port.settings})
        return Reading(other, (f"{told}: read as {_way(port, block)}",))
    return None


def _read_as(
    port: Port, block: Block, feature: FeatureMap, part: Checkpoint, given: Mapping[str, object], fit: Fit
) -> Reading:
    """The block that a pickled module is."""
    mark = port.mark_in(part.description) or {}
    why = ", ".join(f"its {path or 'class'} is {part.description[path]}" for path in mark)
    told = f"{part.name} {'holds' if '' in mark else 'has the parts of'} {port.source} ({why})"
    told += f", which {port.function}" if port.function else ""
    if not port.reads:
        package, _, kind = part.description.get("", "").rpartition(".")
        itself = option("module", f"{package}:{kind}" if package else "mypkg.blocks:MyAttention")
        raise WeightsError(f"{told}, and no block is that function; insert the class itself: {itself}")
    wanted = catalogue_block(port.reads)
    same = block.spelled == wanted.spelled
    kept = {name: value for name, value in given.items() if name in wanted.values or not block.named}
    read = block.with_values(**port.settings) if same else wanted.with_values(**{**kept, **port.settings})
    refused = [name for name, value in port.settings.items() if name in given and block.values.get(name) != value]
    if refused or (block.named and not same):
        if _agree(fit, block, read, feature):
            return Reading(block)
        if not same:
            message = f"{told}, and is not {block.spelled}: {_way(port, block)} reads it"
            raise WeightsError(message, candidates=[wanted.spelled])
        asked = option("settings", f"{refused[0]}={given[refused[0]]}")
        raise WeightsError(f"{told}; {asked} was asked for: leave it out, or give {_way(port, block)}")
    changed = not same or read.values != block.values
    return Reading(read, (f"{told}: read as {_way(port, block)}",) if changed else ())


def _agree(fit: Fit, one: Block, other: Block, feature: FeatureMap) -> bool:
    """Whether two blocks are one function with the weights that are fitted to them."""
    try:
        return same_function(fit(one), fit(other), feature)
    except GraphSurgeryError:  # one of them does not fit
        return False


def _way(port: Port, block: Block) -> str:
    """How to ask for a port's function, where what was asked for is a block; "" where nothing is it."""
    if not port.reads:
        return ""
    known = block if _is_of(port, block) else catalogue_block(port.reads)
    differing = {name: value for name, value in port.settings.items() if known.values[name] != value}
    chosen = [option("settings", f"{name}={spelled(value)}") for name, value in differing.items()]
    return " ".join([*([] if known is block and chosen else [option("module", port.reads)]), *chosen])


def _is_chosen(reading: Reading, fit: Fit) -> bool:
    """Whether naming the variant was a choice between ports: not where the keys can be read by no other name, and the
    variant is the one that they have always been read as.
    """
    block = reading.block
    if not block.named or not reading.ports:
        return False
    if block.variant == next(iter(block.variants), None) or reading.ports[0].reads != block.spelled:
        return True
    try:
        fit(type(block)())
    except GraphSurgeryError:
        return False
    return True


def _is_settled(port: Port, block: Block, given: Mapping[str, object], *, by_name: bool) -> bool:
    """Whether the user said what tells the port from the block: its variant, or one of the settings that differ."""
    if any(name in given for name, value in port.settings.items() if block.values.get(name, value) != value):
        return True
    return by_name and block.spelled not in (port.reads, port.named)


def _differs(port: Port, result: Fitted, feature: FeatureMap, fit: Fit) -> bool:
    """Whether the port's function at a feature map is another one than that of the block."""
    if not port.reads:
        return _departs(port, result.block, feature)
    known = catalogue_block(port.reads)
    values = {name: value for name, value in result.block.values.items() if name in known.values}
    try:
        other = fit(known.with_values(**values | dict(port.settings)))
    except GraphSurgeryError:  # it cannot be at this site
        return False
    return not same_function(result, other, feature)


def _departs(port: Port, block: Block, feature: FeatureMap) -> bool:
    """Whether a class that no block is has a function of its own at a feature map."""
    return not port.where or SITES[port.where](block, feature)
