"""`graphsurgery verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ParityFailed
from . import options


def verify(
    model: options.Model = None,
    providers: options.Providers = None,
    images: options.Images = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Random inputs for each magnitude.")] = 3,
    original: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The model before the insertions, to compare the rest with.", show_default=False
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PKG.MOD:CLASS",
            help="A PyTorch module of your own that may be imported to compare with. May be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Compare every inserted block with its PyTorch module.

    Each is cut out as it stands in the file; one that came from an ONNX file is compared with that. Ends with 1 if one
    of them does not agree, or if the rest of the model is not what it was; with 3 if torch, onnxruntime or a provider
    that was asked for is missing.

    \b
    graphsurgery verify yolov8n-simam.onnx --providers cpu,cuda --original yolov8n.onnx
    """
    from pathlib import Path

    from .. import api
    from .files import open_model
    from .output import Printer, aside

    names = options.provider_list(providers)
    opened = open_model(model)
    with aside():
        report = api.verify(
            opened,
            providers=names,
            images=images,
            seeds=seeds,
            original=Path(original) if original is not None else None,
            trust=trust or (),
        )
    failed = None
    try:
        report.require()
    except ParityFailed as error:
        failed = error
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json(report.to_json(), failed)
    printer.lines(report.lines())
    if verbose:
        printer.lines(f"{each.id}: compared on {', '.join(each.inputs)}" for each in report.insertions)
    if failed:
        raise failed
