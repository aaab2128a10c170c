"""`graphsurgery remap`."""

from __future__ import annotations

from pathlib import Path

from ..errors import OutputError, RequestError, option
from .files import DASH, side_target
from .output import Printer


def remap(
    checkpoint: str,
    layout: str,
    *,
    output: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    fresh: list[str] | None = None,
    printer: Printer,
) -> None:
    """Renumber the weights of a checkpoint for an edited YAML.

    Ultralytics loads weights by the number of the layer. One inserted layer, and those behind it get nothing, or the
    weights of another. Here the layers of the two are found by what they are and what they read.

    \b
    graphsurgery remap yolov8n.pt yolov8n-simam.yaml -o yolov8n-simam.pt
    YOLO("yolov8n-simam.yaml").load("yolov8n-simam.pt")        # in Python: all pretrained weights

    The modules in the YAML need not be installed, and nothing in the checkpoint is executed.

    Parameters
    ----------
    checkpoint: OLD
        A checkpoint, or model, of Ultralytics.
    layout: NEW
        The YAML that OLD was built from, with layers inserted and 'from' renumbered.
    fresh: N
        A layer of NEW that is new, where it could be one of OLD as well. May be repeated.
    """
    from ..modelfile.saving import write_whole
    from ..weights.remapping import remap as renumber

    if output is None and not dry_run:
        raise OutputError("say where the result goes: -o FILE")
    if output == DASH:
        raise OutputError("a checkpoint goes to a file, not to standard output: -o FILE")
    target = side_target(output, [checkpoint, layout], "result", force=force) if output is not None else None
    found = renumber(Path(checkpoint), Path(layout), [_number(each) for each in fresh or ()])
    if target is not None and not dry_run:
        write_whole(target, found.data)
    label = None if dry_run else output
    printer.json({"checkpoint": checkpoint, "layout": layout, "output": label, **found.to_json()})
    printer.lines(found.lines())
    where = f"; it would go to {output}" if output is not None else ""
    printer.lines([f"nothing was written{where}" if dry_run else f"written to {output}"])


def _number(layer: str) -> int:
    if not layer.isdecimal():
        raise RequestError(f"{option('fresh')} takes the number of a layer, not {layer!r}")
    return int(layer)
