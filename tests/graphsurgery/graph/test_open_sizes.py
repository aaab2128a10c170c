"""open_sizes: what a model computes of shapes are numbers once its inputs have sizes."""

from __future__ import annotations

import onnx
import pytest

from graphsurgery.graph.constants import Constants
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.open_sizes import at_sizes, shapes_to_try
from graphsurgery.modelfile.model import ModelFile

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[n, 3, h, w] image, float[8, 3, 1, 1] weight) => (float[n, m] y, float[p, q, r, s] z)
<int64[1] rest = {-1}>
{
    map = Conv <strides = [2, 2]> (image, weight)
    height = Shape <start = 2, end = 3> (map)
    both = Mul (height, height)
    count = Size (map)
    sizes = Concat <axis = 0> (both, rest)
    y = Reshape (map, sizes)
    z = Add (map, map)
}
"""


def index_of(text: str) -> GraphIndex:
    return GraphIndex(ModelFile.load(onnx.parser.parse_model(text)))


def test_what_is_open_is_tried_at_two_choices() -> None:
    first, second = shapes_to_try(index_of(TEXT))
    assert first == {"image": (1, 3, 256, 192)}
    assert second == {"image": (2, 3, 192, 256)}


@pytest.mark.parametrize(
    ("shape", "tried"),
    [
        ("1, 3, 8, 8", []),
        ("n, 3, 8, 8", [(1, 3, 8, 8), (2, 3, 8, 8)]),
        ("n, h, w, 3", [(1, 256, 192, 3), (2, 192, 256, 3)]),
        ("n, 7", [(1, 7), (2, 7)]),
    ],
)
def test_other_inputs(shape: str, tried: list[tuple[int, ...]]) -> None:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => (float[a, b, c, d] y) {{ y = Relu (x) }}'
    assert [each["x"] for each in shapes_to_try(index_of(text))] == tried


def test_sizes_are_what_depends_on_shapes_alone() -> None:
    assert index_of(TEXT).sizes == {"height", "both", "count", "sizes"}


def test_sizes_become_constants_and_the_nodes_stay() -> None:
    index = index_of(TEXT)
    settled = GraphIndex(at_sizes(index.model, {"image": (1, 3, 320, 256)}))
    constants = Constants(settled)
    values = {name: constants.value(name) for name in ("height", "both", "count")}
    assert {name: value.tolist() for name, value in values.items() if value is not None} == {
        "height": [160],
        "both": [25600],
        "count": 8 * 160 * 128,
    }
    assert settled.named_outputs == index.named_outputs
    assert not settled.sizes
