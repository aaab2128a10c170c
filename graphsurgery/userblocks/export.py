"""A PyTorch module as an ONNX model, by whichever of torch's exporters can. Imports torch."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import onnx
import torch

from ..entry_points import ForeignError, foreign_code
from ..errors import BlockError
from ..feature_map import FeatureMap
from ..messages import one_line

_NEWEST_TRACED = 20
"""the newest opset that the TorchScript exporter writes"""
_OLDEST_DYNAMO = 18
_STAND_IN = (2, 20, 24)
"""batch, height and width to trace with where the site's are dynamic"""


def exported(module: torch.nn.Module, feature: FeatureMap, opset: int, label: str) -> onnx.ModelProto:
    """The module, in evaluation mode, at the site's sizes, in an opset as near to the wanted one as the exporter goes.

    The TorchScript exporter, then the one based on torch.export. BlockError if neither takes the module, or if it does
    not keep the shape of its input.
    """
    dtype = torch.float64 if feature.dtype == "float64" else torch.float32
    module = module.to(dtype).eval()
    sizes = (feature.batch, feature.height, feature.width)
    batch, height, width = (a if a is not None else b for a, b in zip(sizes, _STAND_IN, strict=True))
    x = torch.linspace(-1, 1, batch * feature.channels * height * width, dtype=dtype)
    x = x.reshape(batch, feature.channels, height, width)
    _check(module, x, label)
    axes = {axis: name for axis, name, size in zip((0, 2, 3), "nhw", sizes, strict=True) if size is None}
    export = partial(torch.onnx.export, module, (x,), input_names=["x"], output_names=["y"])
    reasons = []
    for attempt in (_traced, _by_dynamo):
        try:
            with quietly(), foreign_code():
                return attempt(export, axes, opset)
        except ForeignError as error:  # the exporters raise all kinds
            reasons.append(next(iter(str(error.raised).strip().splitlines()), type(error.raised).__name__))
    raise BlockError(f"{label} cannot be exported to ONNX: {reasons[0][:200]}")


def _check(module: torch.nn.Module, x: torch.Tensor, label: str) -> None:
    try:
        with torch.inference_mode(), foreign_code():
            y = module(x)
    except ForeignError as error:
        raise BlockError(f"{label} fails on a map {list(x.shape)}: {one_line(error.raised)[:200]}") from None
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        what = list(y.shape) if isinstance(y, torch.Tensor) else f"a {type(y).__name__}"
        raise BlockError(f"a block keeps the shape of its input; {label} makes {what} of {list(x.shape)}")


def _traced(export: Callable[..., Any], axes: dict[int, str], opset: int) -> onnx.ModelProto:
    written = io.BytesIO()
    export(
        written,
        opset_version=min(opset, _NEWEST_TRACED),
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,  # keeps the weights under their own names: no folding of BatchNorms
        do_constant_folding=False,
        dynamic_axes={"x": axes, "y": axes} if axes else None,
    )
    return onnx.load_from_string(written.getvalue())


def _by_dynamo(export: Callable[..., Any], axes: dict[int, str], opset: int) -> onnx.ModelProto:
    shapes = ({axis: torch.export.Dim(name) for axis, name in axes.items()},) if axes else None
    program = export(opset_version=max(opset, _OLDEST_DYNAMO), dynamo=True, dynamic_shapes=shapes, verbose=False)
    model: onnx.ModelProto = program.model_proto
    return model


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters print, some of it from C++: standard output may be where the result goes."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), _nowhere(1), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _nowhere(descriptor: int) -> Iterator[None]:
    """Let a file descriptor lead nowhere for a while; one that is closed stays so."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    try:
        kept = os.dup(descriptor)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(nowhere)
