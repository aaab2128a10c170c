"""Write the models that the corpus inserts into, and the weights and the ONNX block that its recipes name.

`python -m tests.compatibility.hosts` writes those that are missing; the ones that are there stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import ModelProto
from PIL import Image
from safetensors.numpy import save_file

from tests import models
from tests import quantised as small
from tests.compatibility import corpus
from tests.models import node, value, weight


def chain(opset: int, ir_version: int) -> ModelProto:
    """x -> Conv -> Relu -> Conv -> y in operators that every opset has."""
    shape = (1, 8, 8, 8)
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], "/model.0/Conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", ["c0"], ["r0"], "/model.0/Relu"),
        node("Conv", ["r0", "w1"], ["y"], "/model.1/Conv", kernel_shape=[1, 1]),
    ]
    weights = [weight("w0", (8, 3, 3, 3)), weight("w1", (8, 8, 1, 1))]
    return models.model(
        nodes, [value("x", (1, 3, 8, 8))], [value("y", shape)], weights, opset=opset, ir_version=ir_version
    )


def external() -> None:
    """The small detector with its weights in a file beside it."""
    onnx.save(
        models.detector(),
        str(corpus.HOSTS / "external.onnx"),
        save_as_external_data=True,
        location="external.data",
        size_threshold=64,
    )


BUILDERS: dict[str, Callable[[], ModelProto | bytes | None]] = {
    "torchscript": models.detector,
    "dynamo": lambda: models.detector(style="dynamo", opset=18, ir_version=10),
    "namespace": lambda: models.detector(style="namespace", opset=18),
    "nameless": lambda: models.detector(style="none"),
    "half": lambda: models.detector(dtype=np.float16),
    "bfloat16": lambda: models.detector(dtype=ml_dtypes.bfloat16, opset=22, ir_version=10),
    "dynamic": lambda: models.detector(image=("batch", 3, "height", "width")),
    "narrow": lambda: chain(17, 8),
    "ir3": lambda: chain(9, 3),
    "opset11": lambda: chain(11, 6),
    "opset13": lambda: chain(13, 7),
    "opset21": lambda: chain(21, 10),
    "kitchen_sink": lambda: models.kitchen_sink(runnable=True),
    "subgraphs": models.with_if,
    "uint8": lambda: small.quantised(small.fork(), "uint8"),
    "symmetric": lambda: small.quantised(small.fork(), "symmetric"),
    "half_int8": lambda: small.half_quantised(21),
    "external": external,
}


def squeeze() -> ModelProto:
    """A block of the user's own as an ONNX file: x * sigmoid(W mean(x) + b), for 16 channels and any size."""
    shape = ("N", 16, "H", "W")
    nodes = [
        node("GlobalAveragePool", ["x"], ["mean"]),
        node("Conv", ["mean", "fc.weight", "fc.bias"], ["logits"], kernel_shape=[1, 1]),
        node("Sigmoid", ["logits"], ["gate"]),
        node("Mul", ["x", "gate"], ["y"]),
    ]
    weights = [weight("fc.weight", (16, 16, 1, 1)), weight("fc.bias", (16,))]
    return models.model(nodes, [value("x", shape)], [value("y", shape)], weights)


def squeeze_excite(prefix: str = "", channels: int = 16, hidden: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    """Weights of an SE block, as this package names them."""
    shapes = {
        "fc1.weight": (hidden, channels, 1, 1),
        "fc1.bias": (hidden,),
        "fc2.weight": (channels, hidden, 1, 1),
        "fc2.bias": (channels,),
    }
    return {prefix + key: onnx.numpy_helper.to_array(weight(key, shape)) for key, shape in shapes.items()}


def port() -> dict[str, torch.Tensor]:
    """Weights of an SE block as the common PyTorch ports name and shape them: two Linear layers without biases."""
    own = squeeze_excite()
    names = {"fc1.weight": "fc.0.weight", "fc2.weight": "fc.2.weight"}
    return {f"model.2.se.{new}": torch.from_numpy(own[old][:, :, 0, 0].copy()) for old, new in names.items()}


def gated() -> dict[str, np.ndarray[Any, Any]]:
    """Weights of an SE block behind a residual gate that training has opened."""
    return {**squeeze_excite("block."), "alpha": np.array([0.25], np.float32)}


def images() -> None:
    """Two images of noise, for the scales that are measured."""
    for number, pixels in enumerate(small.images(2), start=1):
        picture = (pixels[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(picture).save(corpus.IMAGES / f"{number}.png")


def write(path: Path, save: Callable[[], object]) -> None:
    """Write a file that is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save()


def main() -> None:
    for name, build in BUILDERS.items():
        path = corpus.HOSTS / f"{name}.onnx"
        if not path.exists() and (made := build()) is not None:
            path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString(deterministic=True))
    write(corpus.OWN / "squeeze.onnx", lambda: onnx.save(squeeze(), str(corpus.OWN / "squeeze.onnx")))
    write(corpus.IMAGES / "1.png", images)
    folder = corpus.WEIGHTS
    write(folder / "se.npz", lambda: np.savez(folder / "se.npz", **squeeze_excite()))
    prefixed = squeeze_excite("model.2.se.")
    write(folder / "se.safetensors", lambda: save_file(prefixed, folder / "se.safetensors"))
    write(folder / "port.pt", lambda: torch.save(port(), folder / "port.pt"))
    write(folder / "gated.npz", lambda: np.savez(folder / "gated.npz", **gated()))


if __name__ == "__main__":
    main()
