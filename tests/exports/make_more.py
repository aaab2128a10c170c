"""More of Ultralytics' models: `python make_more.py NAME VARIANT OUT.onnx`, with the list of modules beside OUT.onnx.

Everything is done as make.py does it. The variants are those of make.py and

    dynamo-raw   torch.onnx.export(dynamo=True, optimize=False): no constant is folded, nothing merged
    modules      no ONNX file, the list of modules alone: for the models that make.py exports
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.exports import make, modulelist

END_TO_END = ("yolov10n", "yolo26n")


def main(name: str, variant: str, out: Path) -> None:
    """Write the export to `out` and the modules of what was exported beside it."""
    with tempfile.TemporaryDirectory() as settings:
        make.isolate(settings)
        make.declare_torchvision_operators()
        exporter = make.exporter(variant if variant in make.SETTINGS else "dynamo", out)
        if name in END_TO_END:
            exporter.args.nms = False  # the head that needs no suppression: what these models are for
        plain = exporter.export_onnx

        def export_onnx(prefix: str = "") -> str:
            import torch

            modulelist.write(exporter.model, make.SIZE, out.parent)
            if variant == "dynamo-raw":
                names = {"input_names": ["images"], "output_names": ["output0"]}
                program = torch.onnx.export(
                    exporter.model, (exporter.im,), dynamo=True, optimize=False, verbose=False, **names
                )
                program.save(str(out), external_data=False)
            if variant in ("modules", "dynamo-raw"):
                return str(out)
            return str(plain(prefix))

        exporter.export_onnx = export_onnx
        exporter(model=make.build(name))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve())
