"""docs/recognition.md names every pattern there is, and its example is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from graphsurgery.entry_points import loaded
from graphsurgery.graph.index import GraphIndex
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition import HeadPattern, Pattern
from graphsurgery.recognition.graph_view import View
from graphsurgery.recognition.matcher import Matcher
from graphsurgery.recognition.strides import Strides
from tests.patterns.detector.graphs import graph

PAGE = (Path(__file__).parents[3] / "docs" / "recognition.md").read_text()
GROUP = "graphsurgery.detectors"


def test_every_type_and_alias_is_in_the_table() -> None:
    patterns = [*loaded(GROUP).values(Pattern), *loaded(GROUP).values(HeadPattern)]
    missing = {name for pattern in patterns for name in pattern.names if f"`{name}`" not in PAGE}
    assert not missing


def test_the_example_is_a_pattern() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    body = "a = Conv <pads = [1,1,1,1]> (x, w) b = Relu(a) c = Conv <pads = [1,1,1,1]> (b, w) d = Relu(c) y = Add(x, d)"
    view = View(GraphIndex(ModelFile.load(graph(body, w=(8, 8, 3, 3)))))
    found = list(Matcher(view, Strides(view), [*loaded(GROUP).values(Pattern), scope["SHORTCUT"]]).ending_at("y"))
    assert "MyBottleneck" in [block.type for block in found]
