"""`graphsurgery insert`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def insert(
    module: Annotated[
        str,
        typer.Option(
            "--module",
            "-m",
            metavar="NAME",
            help="The block: simam, se, 'ge[theta]' ...; or one of your own: ./myblock.onnx, mypkg.blocks:MyAttention.",
        ),
    ],
    after: Annotated[
        list[str] | None,
        typer.Option(
            "--after",
            "-a",
            metavar="SELECTOR",
            help="Where: /model.8, '/model.{4,6,8}', '/model.*/cv2', 'C2f[-1]', 'C2f[*].m.0', role:p5, 'op:Conv[17]', "
            "node:NAME, tensor:NAME. May be repeated; the block goes to every place that is named.",
            show_default=False,
        ),
    ] = None,
    before: Annotated[
        list[str] | None,
        typer.Option(
            "--before",
            "-b",
            metavar="SELECTOR",
            help="In place of --after: in front of the modules named, and of nothing else that reads the same tensor.",
            show_default=False,
        ),
    ] = None,
    consumers: Annotated[
        list[str] | None,
        typer.Option(
            "--consumers",
            metavar="SELECTOR",
            help="With --after: only these readers of the tensor read the block: modules, blocks, role:neck, "
            "'op:Concat[0]', node:NAME, output:NAME. May be repeated.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyper-parameter of the block.", show_default=False),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            metavar="default|identity",
            help="Weights: the module's own initialisation, or such that the model's output stays as it is.",
        ),
    ] = "default",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the initialisation.")] = 0,
    gate: Annotated[
        str,
        typer.Option(
            metavar="none|residual",
            help="residual: y = x + a * (block(x) - x) with a = 0, which leaves the model's output as it is.",
        ),
    ] = "none",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:PREFIX]",
            help="Trained weights: best.pt:model.8.attn, .pth, .safetensors, .npz, .onnx.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="tensorrt|onnxruntime|dla",
            help="The runtime to write the block for. dla: as far as possible for a DLA of NVIDIA's Orin.",
        ),
    ] = "tensorrt",
    precision: Annotated[
        str,
        typer.Option(
            metavar="safe|site|fp32|fp16",
            help="At a site in half precision: statistics in float32 between Casts, everything in the site's type, "
            "or everything in float32. fp16: the block in float16 at a float32 site, of an INT8 model say.",
        ),
    ] = "safe",
    lowering: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The formulation of the block. Default: the best for the target.", show_default=False
        ),
    ] = None,
    qdq: Annotated[
        str,
        typer.Option(
            metavar="none|int8",
            help="int8: QuantizeLinear and DequantizeLinear behind the block, so that what reads it keeps its "
            "quantised input. For models with such pairs.",
        ),
    ] = "none",
    qdq_scale: Annotated[
        str,
        typer.Option(
            metavar="site|images",
            help="Where the scale of these comes from: that of the site, or what the block gives on --images DIR.",
        ),
    ] = "site",
    output: options.Output = None,
    force: options.Force = False,
    in_place: options.InPlace = False,
    as_json: options.Json = False,
    no_verify: options.NoVerify = False,
    providers: options.Providers = None,
    images: options.Images = None,
    quiet: options.Quiet = False,
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
    to_verify_with = images if not (no_verify and qdq_scale == "images") else None
    checking = Checking(not no_verify, options.provider_list(providers), to_verify_with, quiet)
    from ..request import Request

    request = Request(
        module=module,
        after=tuple(after or ()),
        before=tuple(before or ()),
        consumers=tuple(consumers or ()),
        settings=options.settings(pairs),
        init=init,
        seed=seed,
        gate=gate,
        weights=weights,
        target=target,
        precision=precision,
        lowering=lowering,
        qdq=qdq,
        qdq_scale=qdq_scale,
        images=images,
    )
    run([request], model, place, checking, as_json=as_json)
