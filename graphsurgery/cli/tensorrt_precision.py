"""`graphsurgery tensorrt precision`."""

from __future__ import annotations

from ..errors import OutputError
from .files import open_model, side_target
from .output import Printer


def precision(
    model: str | None = None,
    *,
    version: str = "10",
    format: str | None = None,
    output: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    printer: Printer,
) -> None:
    """Show in which type each inserted node runs.

    First whether the model builds, and whether the blocks are safe in FP16 and INT8. The types are those of the file,
    which TensorRT 11 runs as they are. For the conversion to float16, or the flags of TensorRT 8.6 and 10, --format
    writes the list of the nodes that should stay in float32.

    \b
    graphsurgery tensorrt precision yolov8n-simam.onnx
    graphsurgery tensorrt precision yolov8n-simam.onnx --format autocast -o nodes.txt

    Parameters
    ----------
    format: F
        Write the list of nodes that should stay in float32, for autocast or trtexec, instead of the table.
    output: FILE
        Where the list goes.
    """
    from ..modelfile.saving import write_whole
    from ..tensorrt.check import check
    from ..tensorrt.precision import inserted_types, lines, node_list

    if output is not None and format is None:
        raise OutputError("-o takes the list of --format, and no format was given")
    target = side_target(output, [model], "list", force=force) if output is not None else None
    opened = open_model(model)
    types = inserted_types(opened)
    text = node_list(types, format) if format is not None else ""
    if target is not None and not dry_run:
        write_whole(target, text.encode())
    answers = check(opened, version).summary
    nodes = [vars(each) for each in types]
    printer.json({"model": opened.name, "summary": answers.to_json(), "nodes": nodes, "list": text or None})
    if format is None:
        printer.lines([*answers.lines(), ""])
        marks = {True: "keep float32", False: ""}
        rows = [(t.insertion, t.node, t.operator, t.runs_in, t.gives, marks[t.float32]) for t in types]
        printer.table(("insertion", "node", "operator", "runs in", "gives", ""), rows, optional=("gives", "operator"))
        printer.lines(lines(types))
        return
    if target is None:
        printer.lines(text.splitlines())
    elif dry_run:
        printer.lines([f"nothing was written; it would go to {output}"])
    for line in lines(types):
        printer.note(line)
