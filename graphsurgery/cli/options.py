"""Arguments and options that several commands have, and how their text is read."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from ..errors import GraphSurgeryWarning, RequestError


def _hush(quiet: bool) -> bool:
    if quiet:
        warnings.filterwarnings("ignore", category=GraphSurgeryWarning)  # until main ends
    return quiet


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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.", callback=_hush)]
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
            raise RequestError(f"--set takes name=value, not {pair!r}")
        if name in found:
            raise RequestError(f"--set gives {name} twice")
        found[name] = value.strip()
    return found
