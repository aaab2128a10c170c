"""The command line: one file a command, thin over the API. This file puts them together and turns errors into text.

Exit codes: 0 done; 1 a check failed; 2 the request is wrong; 3 this machine lacks something that was asked for;
130 interrupted; 141 whoever read the output stopped reading; 143 terminated.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import GraphSurgeryError, GraphSurgeryWarning, SelectorError, SiteError, as_flag, spelled
from ..messages import printable
from .apply import apply
from .bench import bench
from .blocks import blocks
from .diff import diff
from .insert import insert
from .output import STOPPED_READING, silence
from .remove import remove
from .sites import sites
from .tensorrt import group as tensorrt
from .verify import verify

_INTERRUPTED = 128 + 2
_TERMINATED = 128 + 15

_COMMANDS = {command.__name__: command for command in (insert, remove, sites, blocks, verify, bench, apply, diff)}
_GROUP = "tensorrt"


def application(first: str = "") -> typer.Typer:
    """The command line, or as much of it as is needed when its first word is known: typer takes its time for each."""
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
    for command in [_COMMANDS[first]] if first in _COMMANDS else [] if first == _GROUP else _COMMANDS.values():
        app.command()(command)
    if first not in _COMMANDS:
        app.add_typer(tensorrt(), name=_GROUP)
    return app


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
                _say(f"warning: {printable(spelled(message.message, as_flag))}")
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
    with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us there handles signals
        signal.signal(signal.SIGTERM, _terminated)
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        code = application(*words[:1])(args=words, prog_name="graphsurgery", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except GraphSurgeryError as error:
        return _told(
            spelled(error.message, as_flag), error.exit_code, marked=isinstance(error, SelectorError | SiteError)
        )
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return STOPPED_READING
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _told(f"{where}{error.strerror or error}", 2)
    except MemoryError:
        return _told("there is not enough memory on this machine", 3)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _told(_usage(error.format_message()), 2)  # what typer itself has to say about the arguments


def _usage(message: str) -> str:
    """A sentence of typer's as one of ours."""
    words = " ".join(message.split()).rstrip(".")
    return words[:1].lower() + words[1:]


def _told(message: str, code: int, *, marked: bool = False) -> int:
    """``marked``: below the sentence stand the selector and a mark under its wrong part."""
    lines = message.split("\n") if marked else [message]
    _say("error: " + "\n".join(map(printable, lines)))
    return code


def _say(text: str) -> None:
    if sys.stderr is not None:
        try:
            print(f"graphsurgery: {text}", file=sys.stderr)
        except OSError:
            silence(sys.stderr)


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(_TERMINATED)  # an exception, so that temporary files are cleaned up
