"""`graphsurgery insert`."""

from __future__ import annotations

from typing import Any

from . import options


@options.of_request
def insert(
    model: options.Model = None,
    output: options.Output = None,
    force: options.Force = False,
    in_place: options.InPlace = False,
    as_json: options.Json = False,
    no_verify: options.NoVerify = False,
    providers: options.Providers = None,
    quiet: options.Quiet = False,
    **asked: Any,
) -> None:
    """Put an attention block behind modules of a model, or in front.

    The result is compared with PyTorch before it gets its name, where torch and onnxruntime are installed.

    \b
    graphsurgery insert yolov8n.onnx --module simam --after /model.8 -o yolov8n-simam.onnx
    graphsurgery insert --module se --set reduction=8 --after /model.8 < in.onnx > out.onnx
    graphsurgery insert yolov8n.onnx --module se --after role:p4 --consumers Concat -o neck.onnx
    """
    from .files import destination
    from .inserting import Checking, run

    place = destination(model, output, force=force, in_place=in_place)
    images = asked["images"] if not (no_verify and asked["qdq_scale"] == "images") else None
    checking = Checking(not no_verify, options.provider_list(providers), images, quiet)
    run([options.request_of(asked)], model, place, checking, as_json=as_json)
