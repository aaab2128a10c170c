"""What a detector is fed with: random images, or real ones from a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from ..errors import RequestError, concerning
from ..feature_map import Array
from ..messages import one_line, shape_text
from ..modelfile import limits
from ..request import Shapes
from .providers import imported

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy")
LIMIT = 16
"""How many images of a folder are used: the first ones by name."""
PADDING = 114
"""Grey level (0 ... 255) around a letterboxed image, as YOLO pads."""


@dataclass(frozen=True)
class GraphInput:
    """One input of a model. ``shape``: sizes, with None for dynamic ones."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    @property
    def is_image(self) -> bool:
        """Whether it looks like a batch of images: rank 4, floating point or bytes."""
        return len(self.shape) == 4 and (self.dtype.kind in "fV" or self.dtype == np.uint8)

    @property
    def channels_last(self) -> bool:
        """NHWC, as TensorFlow exports have it."""
        return self.shape[3] in (1, 3) and self.shape[1] not in (1, 3)

    def concrete(self, size: int) -> tuple[int, ...]:
        """The shape with every dynamic size settled: 1 for the batch, 3 for channels, ``size`` for height and width.

        RequestError where a value of that shape would not fit into the memory.
        """
        settled = (1, size, size, 3) if self.is_image and self.channels_last else (1, 3, size, size)
        if not self.is_image:
            settled = (1,) * len(self.shape)  # type: ignore[assignment]
        shape = tuple(known if known else other for known, other in zip(self.shape, settled, strict=True))
        if prod(shape) > limits.INPUT_ELEMENTS:
            raise RequestError(
                f"the model's input {self.name} has the shape {shape_text(shape)}; at most {limits.INPUT_ELEMENTS:,} "
                "elements are made up for it"
            )
        return shape


def graph_inputs(model: onnx.ModelProto, shapes: Shapes = MappingProxyType({})) -> list[GraphInput]:
    """The inputs to feed: those that are not initializers. Raises RequestError for one that is no tensor.

    ``shapes``: sizes for what inputs leave open, by their names.
    """
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name in given:
            continue
        if not is_numeric(value):
            raise RequestError(f"the model's input {value.name} is not a tensor of numbers")
        tensor = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        known = shapes.get(value.name, (None,) * len(tensor.shape.dim))
        pairs = zip(tensor.shape.dim, known, strict=False)
        sizes = tuple(d.dim_value if d.dim_value > 0 else k if isinstance(k, int) else None for d, k in pairs)
        inputs.append(GraphInput(value.name, dtype, sizes))
    return inputs


def is_numeric(value: onnx.ValueInfoProto) -> bool:
    """Whether a value is a tensor of numbers: neither a sequence, an optional or a map, nor one of strings."""
    nothing = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
    kind = value.type.tensor_type.elem_type
    is_tensor = value.type.WhichOneof("value") == "tensor_type"
    return is_tensor and kind in onnx.TensorProto.DataType.values() and kind not in nothing


def random_feeds(inputs: Sequence[GraphInput], size: int, seed: int = 0) -> dict[str, Array]:
    """A random value for every input: images uniform over 0 ... 1, or 0 ... 255 for bytes. See :func:`_side_value`."""
    rng = np.random.default_rng(seed)
    images = [each for each in inputs if each.is_image]
    sides = [each.concrete(size)[1:3] if each.channels_last else each.concrete(size)[2:] for each in images]
    feeds: dict[str, Array] = {}
    for each in inputs:
        shape = each.concrete(size)
        if each not in images:
            feeds[each.name] = _side_value(each, shape, sides[0] if sides else (size, size), rng)
        elif each.dtype == np.uint8:
            feeds[each.name] = rng.integers(0, 256, shape, np.uint8)
        else:
            feeds[each.name] = rng.random(shape).astype(each.dtype)
    return feeds


def image_feeds(inputs: Sequence[GraphInput], folder: Path, size: int) -> Iterator[tuple[str, dict[str, Array]]]:
    """(file name, value of every input) for the first :data:`LIMIT` images of a folder, in the order of their names.

    A picture is turned upright, converted to RGB, scaled to fit the input with its proportions kept, centred on grey,
    and given as RGB over 0 ... 1 (0 ... 255 for a byte input) in the input's layout, NCHW or NHWC. A model that wants
    another normalisation can be given ``.npy`` arrays, which are used as they are: [C,H,W] or [N,C,H,W] in the shape
    of the input, in any size where that is dynamic. Inputs beside the image get the values of :func:`random_feeds`.
    Raises RequestError for a folder without images, an unreadable file, an array of another shape and a model without
    an image input, MissingDependency without Pillow.
    """
    image_input = next((each for each in inputs if each.is_image), None)
    if image_input is None:
        raise RequestError(
            "the model has no image input (a 4-D tensor of floats or bytes) to put images into", option="images"
        )
    with concerning("images"):
        for path in image_paths(folder):
            if path.suffix.lower() == ".npy":
                value = _array(path, image_input)
                sized = [replace(each, shape=value.shape) if each is image_input else each for each in inputs]
                feeds = random_feeds(sized, size)
            else:
                feeds = random_feeds(inputs, size)
                value = _picture(path, feeds[image_input.name], image_input.channels_last)
            yield path.name, {**feeds, image_input.name: value}


@concerning("images")
def image_paths(folder: Path) -> list[Path]:
    """The images of a folder that will be used. Raises RequestError."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise RequestError(f"the image folder {folder} {what}")
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise RequestError(f"the image folder {folder} cannot be read: {error.strerror}") from None
    if not paths:
        raise RequestError(f"the folder {folder} has no images ({', '.join(SUFFIXES)})")
    return paths[:LIMIT]


def _side_value(each: GraphInput, shape: tuple[int, ...], image: Sequence[int], rng: np.random.Generator) -> Array:
    """A value for an input beside the image, by its name: PaddleDetection's ``im_shape`` [N, 2] and RT-DETR's
    ``orig_target_sizes`` [N, 2] are the height and width of the image, scale factors and masks 1. Else numbers are
    uniform over 0 ... 1, and integers 0, which is a valid index everywhere.
    """
    name = each.name.lower()
    if "scale" in name or "mask" in name:
        return np.ones(shape, each.dtype)
    if ("shape" in name or "size" in name) and shape and shape[-1] == 2:
        return np.broadcast_to(np.array(image), shape).astype(each.dtype)
    if each.dtype.kind in "iub":
        return np.zeros(shape, each.dtype)
    return rng.random(shape).astype(each.dtype)


def _array(path: Path, image: GraphInput) -> Array:
    """The array in a file, for the image input of a model."""
    try:
        value = np.load(path, mmap_mode="r", allow_pickle=False)  # the shape is looked at before anything is read
    except Exception as error:  # numpy hands on what zipfile, mmap and its parser of headers raise
        raise RequestError(f"{path} cannot be read as an array: {one_line(error)}") from None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        what = f"{value.dtype} values" if isinstance(value, np.ndarray) else "several arrays"
        raise RequestError(f"{path} cannot be read as an array of numbers: it has {what}")
    if value.ndim == len(image.shape) - 1:
        value = value[None]
    batch, *known = (len(value), *image.shape[1:]) if image.shape[0] is None else image.shape
    fits = value.ndim == len(image.shape) and all(
        own in (None, given) for own, given in zip(known, value.shape[1:], strict=True)
    )
    if not fits or len(value) not in (1, batch) or 0 in value.shape:
        raise RequestError(f"{path} has shape {list(value.shape)}, but the model's input is {shape_text(image.shape)}")
    shape = replace(image, shape=(batch, *value.shape[1:])).concrete(0)  # nothing is read that would be too large
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise RequestError(f"{path} has values that are infinite or not a number")
    return np.ascontiguousarray(np.broadcast_to(value, shape)).astype(image.dtype)


def _picture(path: Path, template: Array, channels_last: bool) -> Array:
    pillow, operations = (
        imported(module, "Pillow, which images are read with,", 'pip install "graphsurgery[images]"')
        for module in ("PIL.Image", "PIL.ImageOps")
    )
    shape = template.shape if channels_last else (template.shape[0], *template.shape[2:], template.shape[1])
    try:
        with pillow.open(path) as opened:
            if opened.width * opened.height > limits.PIXELS:
                raise ValueError(f"it has {opened.width} x {opened.height} pixels, more than {limits.PIXELS:,}")
            upright = operations.exif_transpose(opened)
            grey = _grey_levels(upright, opened.format)
            eight = upright if grey is None else pillow.fromarray(grey)
            picture = eight.convert("L" if shape[3] == 1 else "RGB")
            pixels = _letterboxed(picture, shape[1], shape[2])
    # each format of Pillow's raises what its parser stumbles over; ultralytics, once imported, replaces Image.open by
    # one that wants a further package for what it cannot read
    except Exception as error:
        raise RequestError(f"{path} cannot be read as an image: {one_line(error)}") from None
    if pixels.shape[2] != shape[3]:
        raise RequestError(f"{path} gives {pixels.shape[2]} channels, but the model's input has {shape[3]}")
    layout = pixels if channels_last else pixels.transpose(2, 0, 1)
    scaled = layout if template.dtype == np.uint8 else layout.astype(np.float32) / 255.0
    return np.ascontiguousarray(np.broadcast_to(scaled, template.shape)).astype(template.dtype)


def _grey_levels(picture: Image.Image, format: str | None) -> npt.NDArray[np.uint8] | None:
    """A picture of more than 8 bits a pixel in 8, which Pillow would cut off at 255; None for other pictures.

    ValueError where nobody says which value is white.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and format == "PNG"):
        return (np.asarray(picture) >> 8).astype(np.uint8)
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, and nothing says which value is white; give it as an array, .npy")
    return None


def _letterboxed(picture: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """[height, width, channels]: the picture scaled to fit, in the middle of a grey field."""
    scale = min(height / picture.height, width / picture.width)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    pixels = np.asarray(picture.resize(inner))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    field = np.full((height, width, pixels.shape[2]), PADDING, np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    field[top : top + inner[1], left : left + inner[0]] = pixels
    return field
