"""The outputs of Ultralytics' heads: how their exporter has the model run, and what stands in which column.

A head is known by the names of its classes, so that nothing of the package is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import nn

from ...feature_map import Array
from .layout import Layout, Quantity, Table, Unit, as_rows, by_scale, flat, transposed

_PACKAGE = "ultralytics."
_ONE_OUTPUT = {"Detect", "RTDETRDecoder", "Classify"}
"""the heads whose outputs are known"""


def head_of(model: nn.Module) -> nn.Module | None:
    """The head of a network of Ultralytics; None for any other model."""
    heads = [module for module in model.modules() if kinds(module) & _ONE_OUTPUT]
    return heads[-1] if heads else None


def kinds(module: nn.Module) -> set[str]:
    """The names of a module's classes that are Ultralytics' own."""
    return {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith(_PACKAGE)}


Setting = Callable[[nn.Module], None]


def ways(model: nn.Module, outputs: Sequence[Array], dynamic: bool) -> Iterator[tuple[str, Setting]]:
    """The ways in which a file with such outputs may have been exported: each in words, and as a change of a model."""
    head = head_of(model)
    if head is not None:
        rows = outputs[0].shape[1] if outputs and outputs[0].ndim == 3 else 0
        exporting = partial(_exporting, rows=rows, dynamic=dynamic)
        if getattr(head, "one2one_cv2", None) is None:
            yield "run as Ultralytics exports it", partial(exporting, end2end=None)
        else:
            yield "run as Ultralytics exports it end to end", partial(exporting, end2end=True)
            yield "run as Ultralytics exports its one-to-many head", partial(exporting, end2end=False)
    yield "as it is called", lambda module: None


def _exporting(model: nn.Module, *, rows: int, dynamic: bool, end2end: bool | None) -> None:
    """Set a model as Ultralytics' exporter does. ``rows``: of the file, which a head that chooses gives so many of."""
    head: Any = head_of(model)
    head.export, head.format = True, "onnx"
    if hasattr(head, "dynamic"):
        head.dynamic = dynamic
    if end2end is not None:
        head.end2end = end2end
    if end2end or "RTDETRDecoder" in kinds(head):
        head.max_det = rows


def layout_of(
    model: nn.Module, names: Sequence[str], outputs: Sequence[Array], chosen: Sequence[bool], image: tuple[int, int]
) -> Layout | None:
    """How the outputs of a network of Ultralytics are read; None where that is not known.

    ``chosen``: see :func:`.layout.by_scale`. ``image``: height and width of the input.
    """
    head: Any = head_of(model)
    if head is None or not outputs:
        return None
    found = _detections(head, outputs[0], image)
    if found is None:
        return None
    table, columns = found
    rest, lines = by_scale(names[1:], outputs[1:], chosen[1:], first=1)
    if len(outputs) == 2 and kinds(head) & {"Segment", "YOLOESegment"}:
        rest = [Table((1,), (Quantity("mask prototypes", Unit.OWN, slice(None)),), flat)]
        lines = [f"{names[1]}: mask prototypes, by their own scale"]
    known = f"the model's head is Ultralytics' {type(head).__name__}"
    return Layout((table, *rest), known, (f"{names[0]}: {columns}", *lines))


def _detections(head: Any, output: Array, image: tuple[int, int]) -> tuple[Table, str] | None:
    """The table of a head's first output, and what it is in words; None for an output of another shape."""
    classes, height, width = int(head.nc) if hasattr(head, "nc") else 0, *image
    if "Classify" in kinds(head):
        return Table((0,), (Quantity("scores", Unit.SCORES, slice(None)),), flat), "scores of the classes"
    if output.ndim != 3:
        return None
    transformer = "RTDETRDecoder" in kinds(head)
    size = (width, height, width, height) if transformer else (1.0,) * 4
    boxes = Quantity("boxes", Unit.PIXELS, slice(0, 4), size)
    ratio = ", given as shares of the image's size and compared in pixels" if transformer else " in pixels"
    if not (head.end2end if not transformer else hasattr(head, "postprocess")):
        scores = Quantity("scores", Unit.SCORES, slice(4, 4 + classes))
        more, words = _extras(head, 4 + classes)
        which = f"scores of {classes} classes (4-{3 + classes})" if classes > 1 else "score (4)"
        text = f"boxes (0-3){ratio}, {which}{words}"
        if transformer:
            return _checked(Table((0,), (boxes, scores), as_rows, matched=True), output.shape[2], text)
        return _checked(Table((0,), (boxes, scores, *more), transposed), output.shape[1], text)
    score, label = Quantity("scores", Unit.SCORES, slice(4, 5)), Quantity("classes", Unit.EXACT, slice(5, 6))
    more, words = ((), "") if transformer else _extras(head, 6)
    text = f"boxes (0-3){ratio}, score (4), class (5){words}; rows chosen by score, in any order"
    table = Table((0,), (boxes, score, label, *more), as_rows, matched=True, ranked=4)
    return _checked(table, output.shape[2], text)


def _extras(head: Any, start: int) -> tuple[tuple[Quantity, ...], str]:
    """What stands behind the scores."""
    names = kinds(head)
    if names & {"Segment", "YOLOESegment"}:
        stop = start + int(head.nm)
        return (
            Quantity("mask coefficients", Unit.OWN, slice(start, stop)),
        ), f", mask coefficients ({start}-{stop - 1})"
    if "OBB" in names:
        stop = start + int(head.ne)
        return (Quantity("angle", Unit.OWN, slice(start, stop)),), f", angle ({start})"
    if "Pose" in names:
        points, values = (int(each) for each in head.kpt_shape)
        stop = start + points * values
        places = tuple(start + values * point + axis for point in range(points) for axis in (0, 1))
        found = [Quantity("keypoints", Unit.PIXELS, places)]
        if values == 3:
            found.append(Quantity("visibility", Unit.SCORES, slice(start + 2, stop, 3)))
        return tuple(found), f", keypoints ({start}-{stop - 1}) in pixels{' and visibility' if values == 3 else ''}"
    return (), ""


def _checked(table: Table, width: int, text: str) -> tuple[Table, str] | None:
    """Table and text, if the columns of the table are all that the output has."""
    covered = {i for each in table.quantities for i in _indexes(each, width)}
    return (table, text) if covered == set(range(width)) else None


def _indexes(quantity: Quantity, width: int) -> Sequence[int]:
    columns = quantity.columns
    if not isinstance(columns, slice):
        return columns
    return range(columns.start or 0, columns.stop if columns.stop is not None else width, columns.step or 1)
