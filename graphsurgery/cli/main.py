"""The command line: one file a command, thin over the API. This file puts them together and turns errors into text.

Exit codes: 0 done; 1 a check failed; 2 the request is wrong; 3 this machine lacks something that was asked for;
130 interrupted; 141 whoever read the output stopped reading; 129, 131, 143 ended by another signal (see process/).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import (
    EnvironmentLacks,
    GraphSurgeryError,
    GraphSurgeryWarning,
    RequestError,
    SelectorError,
    SiteError,
    spelled,
)
from ..messages import printable
from .command import SeveralBlocks, add
from .output import STOPPED_READING, Printer, flag, silence

_COMPLETION = "_GRAPHSURGERY_COMPLETE"
"""set by the shell that asks for completions"""
_INTERRUPTED = 128 + 2

_COMMANDS = (
    *("insert", "remove", "sites", "info", "blocks", "verify", "bench", "apply", "adopt", "weights", "diff", "remap"),
    *("sweep", "find", "rewrite", "tensorrt"),
)
"""each is a function in the file of its name"""


def application(first: str | None = None) -> typer.Typer:
    """The command line; where its first word is known, with that command alone, or none but their names.

    typer takes its time for every command that it is given with its options.
    """
    app = typer.Typer(
        name="graphsurgery",
        help="Put attention blocks into detectors that are exported to ONNX, and prove that the result is right.",
        epilog="Exit codes: 0 done; 1 a check failed; 2 the request is wrong; 3 something asked for is missing here.",
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in _COMMANDS:
        if first in (None, name):
            module = importlib.import_module(f".{name}", __package__)
            module.add_to(app) if hasattr(module, "add_to") else add(app, getattr(module, name))
        elif first not in _COMMANDS:
            app.command(name)(_named(name))
    return app


def _named(name: str) -> Callable[[], None]:
    """A command as help lists it: without its options."""

    def command() -> None:
        raise AssertionError("only named")

    command.__doc__ = getattr(importlib.import_module(f".{name}", __package__), name).__doc__
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"graphsurgery {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our warnings as a line on standard error; those of other packages are for programmers."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=GraphSurgeryWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if isinstance(message, GraphSurgeryWarning):
                _say(f"warning: {printable(spelled(message.message, flag))}")
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


@_plain_warnings()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. ``arguments`` default to those of the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name from a model must not end the program on an ASCII terminal
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else list(arguments)
    Printer.last, Printer.flags = None, {}
    try:
        first = None if _COMPLETION in os.environ else words[0] if words else ""
        code = application(first)(args=words, prog_name="graphsurgery", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return STOPPED_READING
    except Exception as error:
        failure = _failure(error)
        if failure is None:
            raise
        printer = Printer.current(words)
        if not printer.done:
            printer.json({}, failure)
        return _told(failure)


def _failure(error: Exception) -> GraphSurgeryError | None:
    """What went wrong as an error of ours; None for a bug."""
    if isinstance(error, GraphSurgeryError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return RequestError(f"{where}{error.strerror or error}")
    if isinstance(error, MemoryError):
        return EnvironmentLacks("there is not enough memory on this machine")
    if hasattr(error, "format_message"):  # what typer itself has to say about the arguments
        named = getattr(error, "option_name", None) or ""
        option = getattr(getattr(error, "param", None), "name", None) or named.lstrip("-").replace("-", "_") or None
        candidates = getattr(error, "possibilities", None) or ()
        return UsageError(_usage(error.format_message()), option=option, candidates=candidates)
    return None


class UsageError(RequestError):
    """Words on the command line that it does not take."""


def _usage(message: str) -> str:
    """A sentence of typer's as one of ours."""
    words = " ".join(message.split()).rstrip(".")
    words = re.sub(r"is not a valid int(eger)?( range)?$", "is not a whole number", words)
    return words[:1].lower() + words[1:]


def _told(error: GraphSurgeryError) -> int:
    """The exit code. Below the sentence can stand the selector with a mark under its wrong part, or what to do."""
    message = spelled(error.message, flag)
    lines = message.split("\n") if isinstance(error, SelectorError | SiteError | SeveralBlocks) else [message]
    _say("error: " + "\n".join(map(printable, lines)))
    return error.exit_code


def _say(text: str) -> None:
    if sys.stderr is not None:
        try:
            print(f"graphsurgery: {text}", file=sys.stderr)
        except OSError:
            silence(sys.stderr)
