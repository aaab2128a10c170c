"""To ONNX: the rest of a model by Ultralytics' own exporter, the blocks by graphsurgery, and the whole compared."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ...modelfile.model import ModelFile
from ...recipe import apply
from ...userblocks import is_module
from ..detaching import attachments, detach
from ..files import trained_blocks
from ..parity import QuantityReport, WholeReport, compare
from . import guard
from .blocks import channels_of

_COLOURS = 3
"""channels of the pictures that come with Ultralytics"""
_NEAR = {"px": 5e-3, "score": 1e-5}
"""what boxes and scores may be off in any case"""
_TIMES = 4.0
"""how often the noise floor is permitted: the largest of many errors scatters"""
_MOST = 20.0
"""times :data:`_NEAR` that no noise floor excuses"""


def export_with_blocks(yolo: Any, export: Callable[..., Any], keywords: Mapping[str, Any], images: Path | None) -> str:
    """Export a model of which ``export`` is Ultralytics' own method. Returns the path of the file.

    ParityFailed, and no file, if it does not compute what the model does.
    """
    from ultralytics.utils import ASSETS, LOGGER

    attached: nn.Module = yolo.model
    rest = copy.deepcopy(attached)
    detach(rest)
    guard.remove_guard(rest)
    path, blocks = _named(attached), trained_blocks(attached)
    own = [each.module for each in attachments(attached) if is_module(each.module)]

    def exported(folder: str, **changed: Any) -> tuple[ModelFile, str]:
        rest.pt_path = f"{folder}/{path.name}"  # type: ignore[assignment]  # beside which Ultralytics writes
        with _in_place_of_the_model(yolo, rest):
            base = Path(export(**{**keywords, **changed}))
        return apply(blocks, base, trust=own), base.name

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        file, name = exported(folder)
        # a file that ends in NMS gives other boxes than the model: then the same one without is compared
        compared = exported(other, nms=None)[0] if keywords.get("nms") else file
        pictures = images or (ASSETS if channels_of(attached) == _COLOURS else None)
        report = compare(compared, attached, pictures, providers="cpu", against="the model")
        if not _agrees(report):
            report.require()
        file.save(path.parent / name, force=True)
    for line in report.lines():
        LOGGER.info(line)
    LOGGER.info(f"graphsurgery: {len(report.inserted)} blocks inserted, saved as {path.parent / name}")
    return str(path.parent / name)


def _agrees(report: WholeReport) -> bool:
    """Whether a file is right to the last place that matters.

    Scores near 0 may be off by a larger share, as onnxruntime's own sigmoid is; and all by some times what
    Ultralytics' export of the rest alone is, within limits.
    """
    compared = not report.mismatch and not report.weights and bool(report.quantities)
    return report.passed or (compared and all(map(_is_near, report.quantities)))


def _is_near(each: QuantityReport) -> bool:
    near = _NEAR.get(each.unit, 0.0)
    return each.passed or each.error <= min(max(near, _TIMES * (each.floor or 0.0)), _MOST * near)


def export_as_it_is(yolo: Any, export: Callable[..., Any], keywords: Mapping[str, Any]) -> str:
    """Export a model with its blocks by Ultralytics alone."""
    model = copy.deepcopy(yolo.model)
    guard.remove_guard(model)  # some formats look at the architecture
    with _in_place_of_the_model(yolo, model):
        return str(export(**keywords))


@contextmanager
def _in_place_of_the_model(yolo: Any, model: nn.Module) -> Iterator[None]:
    kept = yolo.model
    yolo.model = model
    try:
        yield
    finally:
        yolo.model = kept


def _named(model: Any) -> Path:
    """The checkpoint beside which Ultralytics writes the export of a model; in the current folder without one."""
    if path := getattr(model, "pt_path", None):
        return Path(path)
    architecture = getattr(model, "yaml_file", None) or model.yaml.get("yaml_file", "model")
    return Path(Path(architecture).with_suffix(".pt").name)
