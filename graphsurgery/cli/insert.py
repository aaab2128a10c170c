"""`graphsurgery insert`."""

from __future__ import annotations

from typing import Any

import typer

from . import options
from .several import InsertCommand


@options.of_request
def insert(
    model: options.Model = None,
    output: options.Output = None,
    force: options.Force = False,
    in_place: options.InPlace = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    no_verify: options.NoVerify = False,
    providers: options.Providers = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **asked: Any,
) -> None:
    """Put an attention block after modules of a model, or before them.

    The result is compared with PyTorch before it gets its name, where torch and onnxruntime are installed.

    \b
    graphsurgery insert yolov8n.onnx --module simam --after /model.8 -o yolov8n-simam.onnx
    graphsurgery insert --module se --set reduction=8 --after /model.8 < in.onnx > out.onnx
    graphsurgery insert yolov8n.onnx --module se --after role:p4 --consumers Concat -o neck.onnx
    """
    from .files import destination
    from .inserting import Checking, run

    request = options.request_of(asked)
    place = destination(model, output, force=force, in_place=in_place, dry=dry_run)
    images = asked["images"] if not (no_verify and asked["qdq_scale"] == "images") else None
    checking = Checking(not no_verify, options.provider_list(providers), images, as_json, quiet, verbose)
    run([request], model, place, checking)


def add_to(app: typer.Typer) -> None:
    """Add the command, which says what to do instead where it is given several blocks."""
    app.command(cls=InsertCommand)(insert)
