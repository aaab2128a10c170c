"""`graphsurgery weights`."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from .files import side_target
from .output import Printer, counted, shown

_SUFFIX = ".safetensors"


def weights(checkpoint: str, *, output: str | None = None, force: bool = False, printer: Printer) -> None:
    """List the trained blocks of a checkpoint, or save them for apply.

    The checkpoint holds a model to which graphsurgery.torch attached blocks, as Ultralytics' best.pt does. It is read
    without executing anything in it.

    \b
    graphsurgery weights best.pt -o blocks.safetensors
    graphsurgery apply blocks.safetensors best-without-blocks.onnx -o best.onnx

    The file holds the blocks, their places and hyper-parameters, and by what the rest of the model is known: apply
    refuses any other.

    Parameters
    ----------
    checkpoint: CHECKPOINT
        A .pt or .pth with the whole model in it; or such a .safetensors, to list what it holds.
    output: FILE
        A .safetensors for the blocks. None: list them.
    force:
        Replace an existing file.
    """
    from ..weights.trained_blocks import TrainedBlocks

    if output is not None and Path(output).suffix.lower() != _SUFFIX:
        raise RequestError(f"the blocks go to a {_SUFFIX}, which {output} is not", option="output")
    target = side_target(output, [checkpoint], "file of blocks", force=force) if output is not None else None
    blocks = TrainedBlocks.load(checkpoint)
    if target is not None:
        blocks.save(target)
    for note in blocks.notes:
        printer.note(f"note: {note}")
    rows = [
        (each.id, each.module, f"{each.position} {each.path}", each.gate, str(each.channels), blocks.parameters(each))
        for each in blocks.attachments
    ]
    keys = ("id", "module", "path", "named", "position", "gate", "init", "channels", "size")
    attachments = [
        {
            **{key: getattr(each, key) for key in keys},
            "settings": shown(each.settings),
            "parameters": blocks.parameters(each),
        }
        for each in blocks.attachments
    ]
    modules = len(blocks.rest.modules) if blocks.rest is not None else None
    printer.json({"checkpoint": checkpoint, "output": output, "attachments": attachments, "rest": modules})
    headers = ("id", "block", "where", "gate", "channels", "weights")
    printer.table(headers, [(*row[:-1], f"{row[-1]:,}") for row in rows], optional=("gate", "channels"))
    if blocks.rest is not None:
        printer.lines([f"rest: known by the weights of {counted(len(blocks.rest.modules), 'module')}"])
    if target is not None:
        printer.lines([f"written to {output}"])
