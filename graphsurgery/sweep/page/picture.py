"""The picture of a detector with the places of a report marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ...errors import RequestError
from ...modelfile.model import ModelFile
from ...outline import outline


def marked_picture(model: ModelFile, report: Mapping[str, Any]) -> str:
    """The SVG, in which each block has the numbers of the places of the report that it is in; "" if there is nothing
    to draw.
    """
    numbers: defaultdict[str, list[str]] = defaultdict(list)
    for number, column in enumerate(report["columns"], 1):
        for site in column["places"]:
            numbers[site["tensor"]].append(str(number))
    try:
        return outline(model).as_svg(marks={tensor: ", ".join(found) for tensor, found in numbers.items()})
    except RequestError:
        return ""
