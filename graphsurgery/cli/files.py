"""Where a command's model comes from and where its result goes. All that can be refused is refused before any work."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import ModelError, OutputError, RequestError
from ..process.numpy_threads import load_numpy
from .output import STOPPED_READING

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.target import Target

_STDIN, _STDOUT = 0, 1
DASH = "-"
STANDARD_OUTPUT = (DASH, "/dev/stdout")
"""how -o names it"""


def is_standard(argument: str | None) -> bool:
    """Whether a MODEL argument means standard input."""
    return argument is None or argument == DASH


def open_model(argument: str | None) -> ModelFile:
    """The model of a MODEL argument. A regular file as standard input is referred to, a pipe is read into memory.

    External data of a model on standard input is looked for in the current folder. Raises RequestError and ModelError.
    """
    load_numpy()
    from ..modelfile.model import ModelFile
    from ..modelfile.source import FileSource

    if argument is not None and argument != DASH:
        return ModelFile.load(Path(argument))
    _check_standard_input()
    try:
        source = FileSource.adopt(_STDIN, "standard input")
    except IsADirectoryError:
        raise ModelError("standard input is a directory, not a model file") from None
    except OSError as error:
        raise ModelError(f"standard input cannot be read: {error.strerror or error}") from None
    return ModelFile.from_source(source, folder=Path(), name="standard input")


def named(argument: str | None, reader: str) -> str:
    """The path of a model that another program reads, from its file. RequestError for standard input."""
    if argument is None or argument == DASH:
        raise RequestError(f"{reader} reads a file: name the model")
    return argument


def side_target(output: str, inputs: Sequence[str | None], what: str, *, force: bool) -> Target:
    """Where something that is no model goes, ``what`` it is: a picture, say. OutputError if it must not go there.

    ``inputs`` are the MODEL arguments, which must not be replaced by it.
    """
    from ..modelfile.target import check_target

    path = Path(output)
    if any(_is_input(each, path) for each in inputs):
        raise OutputError(f"{output} is the model itself; give the {what} another name")
    return check_target(path, force=force, watched=True)


def _check_standard_input() -> None:
    try:
        terminal = os.isatty(_STDIN)
        os.fstat(_STDIN)
    except OSError:
        raise RequestError("no model was given, and standard input is closed") from None
    if terminal:
        raise RequestError("no model was given: name an ONNX file, or send one to standard input")


@dataclass(frozen=True)
class Destination:
    """Where a result goes."""

    target: Target | None
    """None: standard output"""
    dry: bool = False
    """whether nothing is written"""

    @property
    def path(self) -> Path | None:
        """The file, as it was given; None: standard output."""
        return None if self.target is None else self.target.path

    @property
    def is_standard_output(self) -> bool:
        """Whether standard output carries the result, so that nothing else may be printed there."""
        return self.path is None and not self.dry

    @property
    def sentence(self) -> str:
        """Where the result went, or would go."""
        if self.dry:
            return f"nothing was written; it would go to {self.path}" if self.path else "nothing was written"
        return f"written to {'standard output' if self.path is None else self.path}"

    @property
    def label(self) -> str:
        """How the result is called: its path as it was given, or '-'."""
        return DASH if self.path is None else str(self.path)

    def deliver(self, model: ModelFile, check: Callable[[ModelFile], None] | None = None) -> None:
        """Write the model, whole or not at all. ``check`` looks at what was written before it gets its name."""
        from ..modelfile.model import ModelFile
        from ..modelfile.saving import staged, write_stream

        if self.target is None or self.dry:
            if check:
                check(model)
            if self.dry:
                return
            if sys.stdout is not None:
                sys.stdout.flush()
            try:
                write_stream(model, _STDOUT)
            except BrokenPipeError:
                raise typer.Exit(STOPPED_READING) from None
            return
        with staged(model, self.target) as temporary:
            if check:
                # where the model came from: copies of external data have not got their names yet
                written = ModelFile.load(temporary, folder=model.folder)
                written.name = self.target.path.name
                check(written)


@dataclass(frozen=True)
class Output:
    """The options of a command that writes a model."""

    output: str | None = None
    force: bool = False
    in_place: bool = False
    dry_run: bool = False

    def destination(self, argument: str | None, read: Sequence[str] = ()) -> Destination:
        """Where the result of working on the MODEL ``argument`` goes, or would go.

        OutputError if it must not go there: to a file that is ``read``, a recipe or weights say.
        """
        output = DASH if self.output in STANDARD_OUTPUT else self.output
        if self.in_place:
            return replace(_in_place(argument, output), dry=self.dry_run)
        if self.dry_run and (output is None or output == DASH):
            return Destination(None, dry=True)
        if output is None and not is_standard(argument):
            message = "say where the result goes: -o FILE, or --in-place to replace the model"
            raise OutputError(message, option="output")
        if output is None or output == DASH:
            _check_standard_output(argument, asked=output == DASH)
            return Destination(None)
        load_numpy()
        from ..modelfile.target import check_target

        path = Path(output)
        if _is_input(argument, path):
            raise OutputError(f"{output} is the model itself; use --in-place to replace it", option="output")
        if any(_is_input(each, path) for each in read):
            raise OutputError(f"{output} is what is read here; give the result another name", option="output")
        return Destination(check_target(path, force=self.force, watched=True), self.dry_run)


def _in_place(argument: str | None, output: str | None) -> Destination:
    if argument is None or argument == DASH:
        raise OutputError("standard input cannot be replaced in place; give -o FILE")
    if output is not None and (output == DASH or not _is_input(argument, Path(output))):
        raise OutputError("give -o FILE or --in-place, not both")
    load_numpy()
    from ..modelfile.target import check_target

    return Destination(check_target(Path(argument), force=True, watched=True))


def _is_input(argument: str | None, path: Path) -> bool:
    """Whether a path is the input model, links followed."""
    from ..modelfile.target import same_file

    if argument is not None and argument != DASH:
        return same_file(Path(argument), path)
    try:
        return os.path.samestat(os.fstat(_STDIN), path.stat())
    except OSError:
        return False


def _check_standard_output(argument: str | None, *, asked: bool) -> None:
    try:
        status = os.fstat(_STDOUT)
    except OSError:
        raise OutputError("standard output is closed; give -o FILE") from None
    if os.isatty(_STDOUT):
        hint = "a model is not text: " if asked else "say where the result goes: "
        raise OutputError(f"{hint}give -o FILE, or send standard output to a file or a pipe")
    if not stat.S_ISREG(status.st_mode):
        return
    path = Path(argument) if argument is not None and argument != DASH else None
    try:
        same = os.path.samestat(status, path.stat() if path else os.fstat(_STDIN))
    except OSError:
        return
    if same:
        raise OutputError("standard output is the model itself; use --in-place to replace it")
