"""The calibrated start: each channel behind a block gets back the mean and deviation that it has without blocks.

The statistics are those of real images, without labels: one pass over them for the model as it was, and one for each
place, in the order of the model, since what arrives at a place depends on the blocks before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..blocks.calibrated_module import CalibratedBlock
from ..blocks.calibration import Moments, lost, scale_and_shift
from ..errors import RequestError
from ..runtime.sample_inputs import GraphInput, image_feeds
from ..weights.attachment import Attachment, Place
from .dry_run import arguments, tensors_in
from .hooks import replaced
from .untouched import untouched


class Calibration:
    """Calibrates the blocks of a model on images. RequestError if the images, or the example, do not do.

    ``places``: the attachments to calibrate, in the order of the model, each with its folder of images. Made while no
    block is attached; :meth:`fit` is called when all are.
    """

    def __init__(self, model: nn.Module, example: object, places: Sequence[tuple[Attachment, str]]) -> None:
        self._model = model
        self._places = places
        self._inputs = {folder: list(_inputs(example, Path(folder))) for folder in {each for _, each in places}}
        self._before = [Moments() for _ in places]
        for folder in self._inputs:
            with ExitStack() as undo:
                for (attachment, own), found in zip(places, self._before, strict=True):
                    if own == folder:
                        undo.callback(_watch(model, attachment, found))
                self._run(folder)

    def fit(self) -> dict[str, tuple[str, ...]]:
        """Measure what each block gives, and set its scale and shift; what the user should know, by the block's id."""
        notes: dict[str, tuple[str, ...]] = {}
        for (attachment, folder), before in zip(self._places, self._before, strict=True):
            block = next(
                each for each in self._model.get_submodule(attachment.id).modules() if isinstance(each, CalibratedBlock)
            )
            after = Moments()
            handle = block.block.register_forward_hook(lambda module, args, y, after=after: after.add(_moments(y)))
            try:
                self._run(folder)
            finally:
                handle.remove()
            scale, shift = scale_and_shift(before, after, attachment.id)
            with torch.no_grad():
                block.scale.copy_(torch.from_numpy(scale))
                block.shift.copy_(torch.from_numpy(shift))
            notes[attachment.id] = lost(before, after)
        return notes

    def _run(self, folder: str) -> None:
        with untouched(self._model):
            for name, (args, kwargs) in self._inputs[folder]:
                try:
                    self._model(*args, **kwargs)
                except Exception as error:  # whatever the user's code raises
                    reason = " ".join(str(error).split())[:200]
                    raise RequestError(f"the model fails on {name}: {reason}", option="images") from None


def _moments(x: Tensor) -> Moments:
    """Of one map [N, C, H, W], computed where it is."""
    x = x.detach().double()
    mean = x.mean((0, 2, 3), keepdim=True)
    squares = (x - mean).square().sum((0, 2, 3))
    return Moments(x.numel() // x.shape[1], mean.flatten().cpu().numpy(), squares.cpu().numpy())


def _watch(model: nn.Module, attachment: Attachment, found: Moments) -> Callable[[], None]:
    """Add the map at a place to what was found, while nothing is attached there, whenever its module is called;
    returns how to stop.
    """
    module, place = model.get_submodule(attachment.path), attachment.places[0]
    if attachment.position == "after":
        return module.register_forward_hook(lambda module, args, output: found.add(_moments(_at(output, place)))).remove

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken: dict[int | str, Any] = dict(enumerate(args))
        found.add(_moments(_at({**taken, **kwargs}, place)))

    return module.register_forward_pre_hook(before, with_kwargs=True).remove


def _at(value: Any, place: Place) -> Tensor:
    for step in place:
        value = value[step]
    found: Tensor = value
    return found


def _inputs(example: object, folder: Path) -> Iterator[tuple[str, tuple[tuple[Any, ...], dict[str, Any]]]]:
    """(file name, arguments) for each image of a folder: the example with the image in place of its own."""
    found = next(((place, x) for place, x in tensors_in(example) if x.dim() in (3, 4) and x.is_floating_point()), None)
    if found is None:
        raise RequestError(
            "the example has no image [N, C, H, W] to put those of the folder in its place", option="example"
        )
    place, x = found
    shape = tuple(x.shape) if x.dim() == 4 else (1, *x.shape)
    own = GraphInput("image", np.dtype(np.float32), shape)
    for name, feeds in image_feeds([own], folder, shape[-1]):
        picture = torch.from_numpy(feeds["image"]).reshape(x.shape).to(x.device, x.dtype)
        yield name, arguments(replaced(example, place, lambda _, picture=picture: picture))  # type: ignore[misc]
