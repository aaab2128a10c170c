"""A command of the command line: options given twice are refused, and progress is shown while it runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from ..errors import GraphSurgeryWarning, RequestError
from .options import derived
from .output import Printer


class SeveralBlocks(RequestError):
    """Several blocks for one `insert`: below the sentence stands what to do instead."""


class Command(TyperCommand):
    """A command whose options take effect, or are refused: none is overwritten by a later one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, after every option was seen to be given as often as it may be."""
        options = [each for each in self.params if isinstance(each, TyperOption)]
        Printer.flags = {each.name or "": max(each.opts, key=len) for each in options}
        given = self._given(ctx, args)
        if not given.get("help"):
            self.check(given)
        return super().parse_args(ctx, args)

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise RequestError if an option that takes one value has several.

        ``given`` is all that was given, by parameter: a list for an option with values, True for a flag.
        """
        for option in self.params:
            values = given.get(option.name or "")
            if isinstance(option, TyperOption) and isinstance(values, list) and not option.multiple and len(values) > 1:
                flag, said = max(option.opts, key=len), ", ".join(map(str, values))
                raise RequestError(
                    f"{flag} takes one value and was given {len(values)}: {said}; for each of them, run the command "
                    "once",
                    option=option.name,
                )

    def _given(self, ctx: Any, args: list[str]) -> Mapping[str, Any]:
        """What is given for each parameter; for an option that takes a value, as often as it is given."""
        parser = self.make_parser(ctx)
        options = {id(each): each for table in (parser._short_opt, parser._long_opt) for each in table.values()}
        for option in options.values():
            if option.action == "store":
                option.action = "append"
        values, _, _ = parser.parse_args(list(args))
        return dict(values)

    def invoke(self, ctx: Any) -> Any:
        """Run the command: with progress on standard error, or without a word if it is to be quiet."""
        from .progress import progress

        if ctx.params.get("quiet"):
            warnings.filterwarnings("ignore", category=GraphSurgeryWarning)  # until main ends
        with nullcontext() if ctx.params.get("quiet") else progress(self.name or ""):
            return super().invoke(ctx)


def add(app: typer.Typer, function: Callable[..., None], cls: type[Command] = Command) -> None:
    """Add a command to an application or a group."""
    app.command(cls=cls)(derived(function))
