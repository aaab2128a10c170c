"""`graphsurgery blocks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options

if TYPE_CHECKING:
    from ..block import Block, Setting

_CHANNELS, _SIZE = 256, 20


def blocks(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A block, to see all about it.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the blocks that can be inserted, or show one of them.

    \b
    graphsurgery blocks
    graphsurgery blocks ge
    """
    from ..block import all_blocks, block_class, make_block
    from .output import Printer

    printer = Printer(as_json=as_json)
    if name is not None:
        variant = make_block(name).variant if "[" in name else None
        block = block_class(name.partition("[")[0].strip())
        printer.json(_json(block, variant))
        printer.lines(_card(block, variant))
        return
    known = all_blocks().values()
    printer.json({"blocks": [_json(block) for block in known]})
    rows = [(block.name, ", ".join(block.variants) or "-", block.title) for block in known]
    printer.table(("block", "variants", "title"), rows)


def _variants(block: type[Block], only: str | None) -> list[Block]:
    return [block(variant) for variant in ([only] if only else block.variants or [None])]


def _parameters(block: Block) -> dict[str, list[int]]:
    from ..featuremap import FeatureMap

    shapes = block.parameters(FeatureMap(_CHANNELS, _SIZE, _SIZE))
    return {key: list(shape) for key, shape in shapes.items()}


def _json(block: type[Block], variant: str | None = None) -> dict[str, Any]:
    """Keys: see docs/command-line.md. ``weights`` are those of a site of 256 channels, 20 x 20."""
    return {
        "name": block.name,
        "title": block.title,
        "paper": block.paper,
        "reference": block.reference,
        "formula": block.formula,
        "untrained": block.untrained,
        "variants": dict(block.variants),
        "settings": [
            {
                "name": setting.name,
                "type": setting.type.__name__,
                "default": setting.default,
                "doc": setting.doc,
                "minimum": setting.minimum,
                "above": setting.above,
                "choices": list(setting.choices) if setting.choices is not None else None,
            }
            for setting in block.settings
        ],
        "weights": {each.spelled: _parameters(each) for each in _variants(block, variant)},
    }


def _card(block: type[Block], variant: str | None) -> Iterator[str]:
    yield f"{block.name}: {block.title}"
    yield f"  paper      {block.paper}"
    yield f"  reference  {block.reference}"
    yield f"  formula    {block.formula}"
    yield f"  untrained  {block.untrained}"
    if block.variants:
        yield "variants (the first is what the bare name means)"
        yield from (f"  {block.name}[{name}]: {text}" for name, text in block.variants.items())
    yield "hyper-parameters (--set NAME=VALUE)" if block.settings else "no hyper-parameters"
    yield from (f"  {_setting(setting)}" for setting in block.settings)
    for each in _variants(block, variant):
        parameters = _parameters(each)
        yield f"weights of {each.spelled} at {_CHANNELS} x {_SIZE} x {_SIZE}" + ("" if parameters else ": none")
        yield from (f"  {key} {shape}" for key, shape in parameters.items())


def _setting(setting: Setting) -> str:
    kind = {int: "whole number", float: "number", bool: "true or false"}[setting.type]
    limits = [f"at least {setting.minimum:g}"] if setting.minimum is not None else []
    limits += [f"greater than {setting.above:g}"] if setting.above is not None else []
    limits += [f"one of {', '.join(map(str, setting.choices))}"] if setting.choices is not None else []
    default = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
    default = "not set" if default is None else f"default {default}"
    return f"{setting.name} ({', '.join([kind, *limits, default])}): {setting.doc}"
