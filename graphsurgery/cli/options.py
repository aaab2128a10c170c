"""The options of commands, derived from their parameters; those that several commands have are explained here.

Parameters
----------
model: MODEL
    An ONNX file. Absent or '-': standard input.
output: FILE
    Where the result goes. '-': standard output, which is also the default when MODEL is standard input.
force:
    Replace an existing output.
in_place:
    Replace MODEL itself.
dry_run:
    Say what would be written, and write nothing.
as_json:
    Print one JSON object instead of text.
quiet:
    Print nothing but errors.
verbose:
    Name everything: nodes, consumers, inputs.
no_verify:
    Do not compare the inserted blocks with their PyTorch modules.
providers: NAME[,NAME]
    Providers of onnxruntime to verify on (cpu, cuda, tensorrt ...); one that is missing is an error. Default: cpu, and
    cuda where it is there.
images: DIR
    Folder of real images for the activations to verify with. Default: a random image.
custom_ops: LIBRARY
    A library (.so, .dll, .dylib) with operators in MODEL that onnxruntime does not have itself, to run it with. May be
    repeated.
memory: GB
    What verifying may take. A block that would take more is compared on a smaller map, and the report says so.
    [default: 2]
version: V
    TensorRT that it is for: 8.6, 10, 11, or 10.9, say.
shapes: NAME:SHAPE
    Sizes of a dynamic input: images:1x3x640x640, or three such shapes, MIN,USUAL,MAX. May be
    repeated.  [default: batches of 1 to 8, 320 to 1280 pixels]
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any

import typer

from ..errors import RequestError, as_flag, option
from ..request import Argument, Declared, Shapes, arguments, checked

_SECTION = "\nParameters\n----------\n"
_ENTRY = re.compile(r"^(\w+):(?: (.+))?\n((?:    .+\n?)+)", re.MULTILINE)
_SHORT = {"module": "-m", "after": "-a", "before": "-b", "output": "-o", "quiet": "-q", "verbose": "-v"}
_LONG = {"as_json": "--json", "every": "--all"}
"""flags that are not the parameter's name with dashes"""


Ranges = Annotated[list[str] | None, Argument(flag="--shapes")]
"""sizes of dynamic inputs for TensorRT, spelled as trtexec does"""


def derived(function: Callable[..., None]) -> Callable[..., None]:
    """A command as typer takes it: its parameters by position are arguments, those by keyword are options.

    A parameter whose type is a dataclass stands for an option for each of its fields; one that another dataclass has,
    too, is one option for both. What help says stands under "Parameters" in the docstring of the command, in that of
    the dataclass or in that of this file.
    """
    own = inspect.signature(function, eval_str=True).parameters
    kinds: dict[str, Any] = {name: each.annotation for name, each in own.items() if is_dataclass(each.annotation)}
    texts: dict[str, tuple[str, str]] = {}
    for doc in (__doc__, *(kind.__doc__ for kind in kinds.values()), function.__doc__):
        texts |= _explained(doc)
    parameters: dict[str, Parameter] = {}
    for name, each in own.items():
        default = MISSING if each.default is Parameter.empty else each.default
        found = arguments(kinds[name]) if name in kinds else {name: Declared.of(each.annotation, default)}
        positional = name not in kinds and each.kind is not Parameter.KEYWORD_ONLY
        parameters |= {key: _parameter(key, declared, positional, texts) for key, declared in found.items()}

    @wraps(function)
    def command(**given: Any) -> None:
        function(**{name: _made(kinds[name], given) if name in kinds else given[name] for name in own})

    command.__doc__ = inspect.cleandoc(function.__doc__ or "").partition(_SECTION)[0]
    command.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    return command


def _explained(doc: str | None) -> dict[str, tuple[str, str]]:
    """The placeholder and the help of each parameter that a docstring explains."""
    found = _ENTRY.findall(inspect.cleandoc(doc or "").partition(_SECTION)[2])
    return {name: (placeholder, " ".join(map(str.strip, lines.splitlines()))) for name, placeholder, lines in found}


def _parameter(name: str, declared: Declared, positional: bool, texts: Mapping[str, tuple[str, str]]) -> Parameter:
    """A parameter as typer reads it: several selectors and settings are an option that may be repeated."""
    argument, several = declared.argument, declared.default in ((), {})
    placeholder, text = texts.get(name, ("", ""))
    metavar = "|".join(argument.choices) or placeholder or None
    text = re.sub(r"``(\w+)=?(\w*)``", lambda found: as_flag(*found.groups()), text)
    if positional:
        info = typer.Argument(metavar=metavar, help=text, show_default=False)
    else:
        flags = [_LONG.get(name) or argument.flag or as_flag(name, ""), *([_SHORT[name]] if name in _SHORT else [])]
        shown = not several and declared.default is not None
        info = typer.Option(*flags, metavar=metavar, help=text, min=argument.minimum, show_default=shown)
    default = None if several else Parameter.empty if declared.default is MISSING else declared.default
    hint = list[str] | None if several else declared.hint
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info])


def _made(kind: Any, given: Mapping[str, Any]) -> Any:
    """A dataclass from what typer read for its fields."""
    return kind(**{name: _value(declared, given[name]) for name, declared in arguments(kind).items()})


def _value(declared: Declared, value: Any) -> Any:
    if value is None:
        return declared.default
    if declared.hint == Shapes:
        return _shapes(value)
    return settings(value) if declared.default == {} else value


@dataclass(frozen=True)
class KnownShapes:
    """The option of a command that has to know the shapes of tensors.

    Parameters
    ----------
    shapes: TENSOR=SHAPE
        The shape of a tensor where the model does not tell it, behind a plugin say: canvas=1x64x80x80, with ? for a
        size that varies. What follows from it is known, too. May be repeated.
    """

    shapes: Shapes = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", checked("shapes", self.shapes, Shapes))


def provider_list(values: list[str] | None) -> list[str] | None:
    """Names from ``--providers cpu,cuda`` and repeated options. RequestError for an unknown one."""
    if values is None:
        return None
    from ..runtime.session import short_name

    return [short_name(name) for value in values for name in value.split(",") if name.strip()]


def settings(pairs: list[str]) -> dict[str, object]:
    """Hyper-parameters from ``--set name=value``. RequestError for anything else, and for a name given twice."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise RequestError(f"{option('settings')} takes name=value, not {pair!r}")
        if name in found:
            raise RequestError(f"{option('settings')} gives {name} twice")
        found[name] = value.strip()
    return found


def _shapes(pairs: list[str]) -> dict[str, object]:
    """Shapes of tensors from ``--shape name=1x64x80x80``; names have whatever they like in them."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, shape = pair.rpartition("=")
        if not equals or not name:
            raise RequestError(f"{option('shapes')} takes TENSOR=1x64x80x80, not {pair!r}", option="shapes")
        if name in found:
            raise RequestError(f"{option('shapes')} gives {name} twice", option="shapes")
        found[name] = shape
    return found
