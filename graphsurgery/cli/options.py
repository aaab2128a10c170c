"""Arguments and options that several commands have, those that Request declares, and how their text is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any

import typer

from ..errors import RequestError, as_flag, option, spelled
from ..request import Declared, Request, arguments


def of_request(command: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for every field of Request, in place of its ``**asked``."""
    own = [
        each for each in inspect.signature(command, eval_str=True).parameters.values() if each.kind != each.VAR_KEYWORD
    ]
    asked = [_parameter(name, declared) for name, declared in arguments().items()]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*asked, *own)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(name: str, declared: Declared) -> inspect.Parameter:
    """A field of Request as typer reads it: several selectors and settings are an option that may be repeated."""
    argument, several = declared.argument, declared.default in ((), {})
    info = typer.Option(
        *(argument.flags or [as_flag(name, "")]),
        metavar="|".join(argument.choices) or argument.metavar,
        help=spelled(argument.help, as_flag),
        min=argument.minimum,
        show_default=declared.default not in ((), {}, None),
    )
    default = None if several else inspect.Parameter.empty if declared.default is MISSING else declared.default
    hint = list[str] | None if several else declared.hint
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info])


def request_of(given: dict[str, Any]) -> Request:
    """What typer read for the fields of Request, as one."""
    read = {name: value if value is not None else arguments()[name].default for name, value in given.items()}
    return Request(**{**read, "settings": settings(given["settings"])})


Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="An ONNX file. Absent or '-': standard input.", show_default=False),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Where the result goes. '-': standard output, which is also the default when MODEL is standard input.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
InPlace = Annotated[bool, typer.Option("--in-place", help="Replace MODEL itself.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Name everything: nodes, consumers, inputs.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not compare the inserted blocks with their PyTorch modules.")
]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--providers",
        metavar="NAME[,NAME]",
        help="Providers of onnxruntime to verify on (cpu, cuda, tensorrt ...); one that is missing is an error. "
        "Default: cpu, and cuda where it is there.",
        show_default=False,
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Folder of real images for the activations to verify with. Default: a random image.",
        show_default=False,
    ),
]

TensorRTVersion = Annotated[
    str, typer.Option("--version", metavar="V", help="TensorRT that it is for: 8.6, 10, 11, or 10.9, say.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shapes",
        metavar="NAME:SHAPE",
        help="Sizes of a dynamic input: images:1x3x640x640, or three such shapes, MIN,USUAL,MAX. May be repeated.  "
        "[default: batches of 1 to 8, 320 to 1280 pixels]",
        show_default=False,
    ),
]


def provider_list(values: list[str] | None) -> list[str] | None:
    """Names from ``--providers cpu,cuda`` and repeated options. RequestError for an unknown one."""
    if values is None:
        return None
    from ..runtime.session import short_name

    return [short_name(name) for value in values for name in value.split(",") if name.strip()]


def settings(pairs: list[str] | None) -> dict[str, object]:
    """Hyper-parameters from ``--set name=value``. RequestError for anything else, and for a name given twice."""
    found: dict[str, object] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise RequestError(f"{option('settings')} takes name=value, not {pair!r}")
        if name in found:
            raise RequestError(f"{option('settings')} gives {name} twice")
        found[name] = value.strip()
    return found
