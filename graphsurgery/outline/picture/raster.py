"""PNG and PDF of a picture, by CairoSVG, which is an extra."""

from __future__ import annotations

import re
from importlib import import_module
from math import sqrt
from typing import Any

from ...errors import MissingDependency, RequestError

_SCALE = 2.0
"""pixels of a PNG for each of the SVG"""
_SIDE, _AREA = 32_000, 100_000_000
"""pixels that a PNG may have: cairo draws on no longer side, and takes four bytes for each"""
_SIZE = re.compile(r'<svg [^>]*?width="([0-9.]+)" height="([0-9.]+)"')


def rasterise(picture: str, kind: str) -> bytes:
    """An SVG picture as ``"png"`` or ``"pdf"``. MissingDependency where CairoSVG is not installed; RequestError if it
    is too large for pixels.
    """
    convert = converter(kind)
    return bytes(convert(bytestring=picture.encode(), scale=_scale(picture) if kind == "png" else 1.0))


def _scale(picture: str) -> float:
    """How many pixels stand for one of the SVG: fewer where it is large, but no less than one."""
    found = _SIZE.match(picture)
    assert found is not None
    wide, high = map(float, found.groups())
    scale = min(_SCALE, _SIDE / max(wide, high), sqrt(_AREA / (wide * high)))
    if scale < 1:
        size = f"{wide:,.0f} x {high:,.0f}"
        raise RequestError(f"a picture of {size} is too large for PNG; SVG, HTML and PDF have no limit")
    return scale


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
