"""`graphsurgery tensorrt check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from ..errors import RequestError
from ..messages import brief
from .files import open_model
from .options import Ranges
from .output import Printer


def check(
    model: str | None = None,
    *,
    version: str = "10",
    dla: str | None = None,
    precision: str = "fp32",
    plugin: list[str] | None = None,
    parser: str = "auto",
    build: bool = False,
    shapes: Ranges = None,
    require_parser: bool = False,
    require_tensorrt: bool = False,
    printer: Printer,
) -> None:
    """Check every node of a model against what TensorRT takes.

    TensorRT need not be installed. Where NVIDIA's parser is (pip install "graphsurgery[parser]": Linux, no GPU needed),
    it is asked, too; and so is an installed TensorRT with a GPU. Ends with 1 if the model would be refused, or computed
    otherwise.

    \b
    graphsurgery tensorrt check yolov8n-simam.onnx --version 8.6
    graphsurgery tensorrt check yolov8n-simam.onnx --dla orin --precision fp16
    graphsurgery tensorrt check yolov8n-simam.onnx --version 11 --build

    Parameters
    ----------
    dla: NAME
        Also what runs on a DLA: orin.
    precision: P
        What the engine is to run in: fp32, fp16 or int8.
    plugin: NAME
        A plugin that is loaded where the model is built, or a file with a name on each line. May be repeated; those
        of TensorRT's own library are known.
    parser: P
        NVIDIA's parser, of TensorRT for RTX. auto: where it is installed; rtx: it has to be; none: it is not asked.
        What it refuses is an error for version 11 and a warning for earlier ones.
    build:
        Have NVIDIA's builder make an engine, which is not kept.
    require_parser:
        End with 3 if NVIDIA's parser gives no verdict here.
    require_tensorrt:
        End with 3 if TensorRT's own parser cannot be asked here.
    """
    from ..tensorrt.check import check as run
    from ..tensorrt.parser import verdict

    opened = open_model(model)
    installed = verdict(opened, required=require_tensorrt)
    report = run(
        opened,
        version,
        dla=dla,
        precision=precision,
        plugin=_names(plugin or ()),
        parser=parser,
        build=build,
        require_parser=require_parser,
        shapes=shapes or (),
        installed=installed,
    )
    printer.report(report)
    if report.stops:
        raise typer.Exit(1)


def _names(given: Sequence[str]) -> list[str]:
    """Names of plugins: what is given, and the lines of files among it. RequestError for what is neither."""
    names: list[str] = []
    for each in given:
        is_file = Path(each).is_file()
        try:
            lines = Path(each).read_text(encoding="utf-8-sig").splitlines() if is_file else [each]
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{each} is no list of plugins: {error}", option="plugin") from None
        found = [line.strip() for line in lines if not is_file or (line.strip() and not line.strip().startswith("#"))]
        if wrong := [name for name in found if not name.isidentifier()]:
            if is_file:
                raise RequestError(f"{each} is no list of plugins: it has the line {brief(wrong[0])}", option="plugin")
            raise RequestError(f"{each or 'nothing'} is neither a file nor the name of an operator", option="plugin")
        names += found
    return names
