"""PNG and PDF of a picture, by CairoSVG, which is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...errors import MissingDependency

_SCALE = 2.0
"""pixels of a PNG for each of the SVG"""


def rasterise(picture: str, kind: str) -> bytes:
    """An SVG picture as ``"png"`` or ``"pdf"``. MissingDependency where CairoSVG is not installed."""
    convert = converter(kind)
    if kind == "png":
        return bytes(convert(bytestring=picture.encode(), scale=_SCALE))
    return bytes(convert(bytestring=picture.encode()))


def converter(kind: str) -> Any:
    """The function of CairoSVG that writes ``"png"`` or ``"pdf"``."""
    what = f"a picture as {kind.upper()}"
    try:
        cairosvg = import_module("cairosvg")
    except ImportError:
        raise MissingDependency(f'{what} needs the extra pictures: pip install "graphsurgery[pictures]"') from None
    except OSError:  # the package is there, and what it is a binding of is not
        raise MissingDependency(
            f"{what} needs the library cairo beside the extra pictures, for example by apt-get install libcairo2"
        ) from None
    return getattr(cairosvg, f"svg2{kind}")
