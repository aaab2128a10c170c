"""Make one real exported detector: `python make.py NAME VARIANT OUT.onnx`. Runs in a process of its own.

Models are built from the YAML files inside the ultralytics package, with seeded weights; nothing is downloaded and a
guard stops any attempt to reach the network. Ultralytics is AGPL-3.0: what this script writes is for local tests only.

A model straight from its YAML has BatchNorm statistics of 0 and 1, so activations die out after a few layers. The
statistics are therefore measured on seeded images, and then jittered, so that no two channels look alike and every site
carries values of ordinary size.

Any change of this file, a comment included, makes the cache throw the exports away (tests/exports/__init__.py).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SEED = 20
SIZE = 640  # pixels: height and width of the example image
KEPT: list[Any] = []  # operator libraries: a kernel is withdrawn when its library object is collected


def isolate(settings: str) -> None:
    """Keep ultralytics off the network and off pip, and its settings in the folder `settings`."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=settings, YOLO_VERBOSE="false")

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(args[1], tuple)):
            raise OSError(f"an export must not use the network ({event} {args[-1]!r})")

    sys.addaudithook(refuse)


def declare_torchvision_operators() -> None:
    """Declare `torchvision::nms` where torchvision's compiled library does not load.

    The torchvision wheel that pip finds beside a CPU build of torch can be one for CUDA. Importing it then fails,
    because it registers a shape function for an operator nobody has declared. The declaration alone is enough: no
    export runs the operator.
    """
    import importlib.util

    import torch

    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in Path(folder).glob("_C*.*"):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
    if not hasattr(torch.ops.torchvision, "nms"):
        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def build(name: str) -> Any:
    """Return the detection model `name` ("yolov8n", "yolo11n", "rtdetr-l") with seeded weights, in evaluation mode."""
    import torch
    from ultralytics import RTDETR, YOLO

    torch.manual_seed(SEED)
    model = (RTDETR if name.startswith("rtdetr") else YOLO)(f"{name}.yaml").model.eval()
    randomise_norms(model)
    return model


def randomise_norms(model: Any) -> None:
    """Draw the scale and shift of every BatchNorm, and set its statistics to what then arrives at it, with a jitter."""
    import torch
    from torch import nn

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    coarse = [nn.functional.interpolate(torch.rand(1, 3, n, n), size=(256, 256), mode="bilinear") for n in (8, 32)]
    images = torch.cat([*coarse, torch.rand(1, 3, 256, 256)])  # smooth ones, and the noise that tests like to feed
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.7, 1.3)
            norm.bias.normal_(0.0, 0.2)
            norm.momentum = 1.0  # the running statistics become those of this one batch
            norm.train()
        model(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


def speed_up_float16_convolutions() -> None:
    """Compute this process's float16 convolutions in float32: the trace is the same, a CPU is about 20 times faster."""
    import torch

    def convolve(x: Any, weight: Any, kernel: Any, bias: Any, stride: Any, padding: Any) -> Any:
        wide = (x.float(), weight.float(), None if bias is None else bias.float())
        return torch.ops.aten.mkldnn_convolution(*wide, padding, stride, [1, 1], 1).to(x.dtype)

    library = torch.library.Library("aten", "IMPL")
    library.impl("_slow_conv2d_forward", convolve, "CPU")
    KEPT.append(library)


SETTINGS: dict[str, dict[str, Any]] = {
    "torchscript": {"simplify": False},
    "simplified": {"simplify": True},
    "half": {"simplify": True, "quantize": 16},
    "half-converted": {"simplify": True, "quantize": 16},
    "dynamic": {"simplify": True, "dynamic": True},
    "dynamo": {"simplify": False},
    "dynamo-external": {"simplify": False},
}


def exporter(variant: str, out: Path) -> Any:
    """Return Ultralytics' exporter, set for `variant`, writing to `out` (and, for external data, `out` + ".data")."""
    import torch
    from ultralytics.engine.exporter import Exporter

    class Variant(Exporter):  # type: ignore[misc]
        """Ultralytics prepares the model (fused, head in export mode); only the last step is named and varied here."""

        def export_onnx(self, prefix: str = "") -> str:
            self.file = out
            if variant.startswith("dynamo"):
                program = torch.onnx.export(
                    self.model, (self.im,), dynamo=True, input_names=["images"], output_names=["output0"], verbose=False
                )
                program.save(str(out), external_data=variant == "dynamo-external")
                return str(out)
            if variant != "half":
                return str(super().export_onnx(prefix))
            # On a GPU Ultralytics traces the model in float16; on a CPU it converts the float32 graph, which is the
            # variant "half-converted". Here as on a GPU, so that the graph is float16 from its input to its output.
            self.model, self.im, self.args.quantize = self.model.half(), self.im.half(), None
            speed_up_float16_convolutions()
            return str(super().export_onnx(prefix))

    settings = {"format": "onnx", "imgsz": SIZE, "batch": 1, "data": None, "device": "cpu", "verbose": False}
    return Variant(overrides={**settings, **SETTINGS[variant]})


def main(name: str, variant: str, out: Path) -> None:
    """Write the export to `out`; a file that onnx's checker refuses is an error."""
    with tempfile.TemporaryDirectory() as settings:
        isolate(settings)
        declare_torchvision_operators()
        exporter(variant, out.resolve())(model=build(name))
    import onnx

    if variant != "half-converted":  # onnxruntime's converter appends its Casts behind their consumers
        onnx.checker.check_model(str(out))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
