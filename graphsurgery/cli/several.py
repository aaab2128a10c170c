"""Several blocks for one `insert`: what to do instead, written out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..request import Shapes, arguments
from .command import Command, SeveralBlocks
from .files import DASH, STANDARD_OUTPUT
from .output import flag

_COMMA = re.compile(r",(?![^\[]*\])")  # not one inside of the brackets of a variant


class InsertCommand(Command):
    """`insert`: it takes one block."""

    def check(self, given: Mapping[str, Any]) -> None:
        """As for every command, with a recipe and the commands for each block where there are several."""
        super().check({name: value for name, value in given.items() if name != "module"})
        modules = [module for text in given.get("module", []) for module in _blocks(text)]
        if len(modules) > 1:
            flags = [max(each.opts, key=len) for each in self.params if given.get(each.name or "") is True]
            raise SeveralBlocks(_instead(modules, given, flags), option="module")
        super().check(given)


def _blocks(text: str) -> list[str]:
    """The blocks that one value of ``--module`` names. A file's name may have commas in it."""
    if "," in text:
        from ..userblocks import is_file

        if is_file(text):
            return [text]
    return [part.strip() for part in _COMMA.split(text) if part.strip()]


def _instead(modules: Sequence[str], given: Mapping[str, Any], flags: Sequence[str]) -> str:
    import yaml

    asked = [(name, value) for name in arguments() if name != "module" for value in given.get(name, [])]
    entries = [{"module": module, **_keys(asked)} for module in modules]
    recipe = yaml.safe_dump(entries, default_flow_style=None, sort_keys=False, width=1000).splitlines()
    source = given.get("model") or DASH
    target = given.get("output", [DASH if source == DASH else "out.onnx"])[-1]
    between = [_numbered(target, number) for number in range(1, len(modules))]
    starts = [source] * len(modules) if "--dry-run" in flags else [source, *between]
    options = [word for name, value in asked for word in (flag(name, ""), value)]
    how = [*(word for value in given.get("providers", []) for word in ("--providers", value)), *flags]
    commands = []
    for module, start, end in zip(modules, starts, [*between, target], strict=True):
        files = [source] if "--in-place" in flags else [start, "-o", end]
        commands.append(_line("insert", files, ["--module", module, *options, *how]))
    files = [source] if "--in-place" in flags else [source, "-o", target]
    lines = ["# recipe.yaml", *recipe, "", _line("apply", ["recipe.yaml", *files], how), "", "# or", *commands]
    said = f"insert puts in one block, not {len(modules)} ({', '.join(modules)})"
    sentence = f"{said}: apply a recipe, or insert one after the other"
    return "\n".join([sentence, *(f"  {line}".rstrip() for line in lines)])


def _keys(asked: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The keys of a recipe's entry for the options that are given."""
    found: dict[str, Any] = {}
    for name, value in asked:
        default = arguments()[name].default
        if default == {}:
            is_shape = arguments()[name].hint == Shapes
            setting, _, text = value.rpartition("=") if is_shape else value.partition("=")
            found.setdefault(name, {})[setting] = text
        elif default == () and name in found:
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        else:
            found[name] = int(value) if isinstance(default, int) and str(value).isdecimal() else value
    return found


def _numbered(target: str, number: int) -> str:
    path = Path("out.onnx" if target in STANDARD_OUTPUT else target)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def _line(command: str, files: Sequence[str], options: Sequence[str]) -> str:
    import shlex

    return f"graphsurgery {command} {shlex.join([*files, *options])}"
