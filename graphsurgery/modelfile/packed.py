"""Data packed into the text of a record: compressed, then base64."""

from __future__ import annotations

import base64
import zlib


def pack(data: bytes) -> str:
    """The same data gives the same text."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpack(text: str, most: int) -> bytes:
    """The data in such a text. ValueError for what is none, and for more than ``most`` bytes: a megabyte of zeros is a
    kilobyte of text.
    """
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(base64.b64decode(text), most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) > most or not inflater.eof:
        raise ValueError(f"it holds more than {most} bytes, or is cut off")
    return data
