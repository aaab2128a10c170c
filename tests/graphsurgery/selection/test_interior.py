"""Places inside of local functions and of branches: found, with their sizes, each call by itself."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from graphsurgery.errors import SelectorError, SiteError
from graphsurgery.messages import shape_text
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.inner import InnerPlace, inner_places
from graphsurgery.selection.sites import SiteFinder

TWO_DOMAINS = """<ir_version: 9, opset_import: ["":17, "a":1, "b":1]>
g (float[1,8,64,64] x) => (float[1,8,16,16] y) {
  [first] u = b.Stage(x, w)
  [second] v = b.Stage(u, w)
  y = Relu(v)
}
<opset_import: ["":17], domain: "a">
Pool <stride: ints = [2, 2]> (x) => (y) { [pool] p = MaxPool <kernel_shape: ints = [2, 2], strides: ints = @stride> (x)
  y = Relu(p) }
<opset_import: ["":18, "a":1], domain: "b">
Stage (x, w) => (y) { [__conv__Conv] c = Conv <pads = [1, 1, 1, 1]> (x, w)
  n = a.Pool(c)
  [__last__Conv] y = Conv <pads = [1, 1, 1, 1]> (n, w) }
<opset_import: ["":17], domain: "b">
Unused (x) => (y) { [never] t = Neg(x)
  y = Relu(t) }
"""
"""a function called twice, on maps of two sizes; one in it, of another domain; one with another version of ONNX's own
operators, one with a default that a size depends on, and one that nothing calls"""

OVERLOADS = """<ir_version: 10, opset_import: ["":17, "a":1]>
g (float[1,8,64,64] x) => (float[1,8,64,64] y) {
  [one] u = a.F:p(x)
  [two] v = a.F:q(u)
  y = Relu(v)
}
<opset_import: ["":17], domain: "a", overload: "p">
F (x) => (y) { deep = Relu(x)
  y = Neg(deep) }
<opset_import: ["":17], domain: "a", overload: "q">
F (x) => (y) { deep = Exp(x)
  y = Neg(deep) }
"""

BRANCHES = """<ir_version: 9, opset_import: ["":17]>
g (float[1,8,64,64] x, bool c) => (float[1,8,64,64] y) {
  s = Conv <pads = [1, 1, 1, 1]> (x, w)
  [choice] r = If(c) <
    then_branch = t () => (float[1,8,64,64] t1) {
      [small] t0 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (s, w)
      t1 = Resize(t0, , scales)
    },
    else_branch = e () => (float[1,8,64,64] e1) { e1 = Exp(s) }>
  y = Relu(r)
}
"""


def built(text: str) -> ModelProto:
    """The parser takes no slash in a name."""
    made = parser.parse_model(text)
    for node in (node for function in made.functions for node in function.node):
        node.name = node.name.replace("__", "/")
    made.graph.initializer.append(numpy_helper.from_array(np.full((8, 8, 3, 3), 0.01, np.float32), "w"))
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    return made


def finder(text: str) -> SiteFinder:
    return SiteFinder(ModelFile.load(built(text)))


def listed(text: str) -> dict[str, InnerPlace]:
    return {place.selector: place for place in inner_places(finder(text))}


def told(here: SiteFinder, selector: str) -> str:
    with pytest.raises((SelectorError, SiteError)) as error:
        here.find([selector])
    return str(error.value)


def test_each_call_of_a_function_has_places_of_its_own_sizes() -> None:
    found = listed(TWO_DOMAINS)
    assert {name: (place.shape, place.stride) for name, place in found.items()} == {
        "/first/conv": ((1, 8, 64, 64), 1),
        "/first/Pool#1": ((1, 8, 32, 32), 2),
        "op:Stage[0]//op:MaxPool[0]": ((1, 8, 32, 32), 2),
        "/second/conv": ((1, 8, 32, 32), 2),
        "/second/Pool#1": ((1, 8, 16, 16), 4),
        "op:Stage[1]//op:MaxPool[0]": ((1, 8, 16, 16), 4),
    }
    assert {place.function for place in found.values()} == {"Stage", "Pool"}
    assert [found[f"/{call}/conv"].tensor for call in ("first", "second")] == ["c", "c"]


@pytest.mark.parametrize("text", [TWO_DOMAINS, BRANCHES], ids=["two-domains", "branches"])
def test_what_is_listed_is_understood_and_refused_with_places_that_take_a_block(text: str) -> None:
    here, found = finder(text), listed(text)
    assert found
    for selector, place in found.items():
        said = told(here, selector)
        assert "where no block can be put" in said
        assert shape_text(place.shape) in said
        assert place.instead
        assert all(other in said for other in place.instead)
        assert [site.tensor for site in here.find(place.instead)] == [each[len("tensor:") :] for each in place.instead]


def test_overloads_are_told_apart() -> None:
    found = listed(OVERLOADS)
    assert {name: (place.type, place.node, place.takes_block) for name, place in found.items()} == {
        "op:F[0]//op:Relu[0]": ("Relu", "one", True),
        "op:F[1]//op:Exp[0]": ("Exp", "two", True),
    }
    here = finder(OVERLOADS)
    assert [site.function for site in here.find(found)] == [("a", "F", "p"), ("a", "F", "q")]
    said = told(here, "tensor:deep")
    assert said.startswith(
        "2 functions have a tensor 'deep'; name one: op:F[0]//op:Relu[0] [1, 8, 64, 64], op:F[1]//op:E"
    )


def test_what_a_call_gives_is_a_place_under_the_name_that_it_has_inside() -> None:
    (site,) = finder(TWO_DOMAINS).find(["/second/last"])
    assert (site.tensor, site.shape, site.graph_output) == ("v", (1, 8, 16, 16), False)
    (site,) = SiteFinder(ModelFile.load(built(TWO_DOMAINS))).find(["/second/conv"], position="before")
    assert (site.tensor, site.consumers) == ("u", ("second",))


def test_branches_are_maps_with_sizes() -> None:
    found = listed(BRANCHES)
    assert {name: (place.type, place.shape, place.kind) for name, place in found.items()} == {
        "tensor:t0": ("Conv", (1, 8, 32, 32), "branches"),
        "tensor:t1": ("Resize", (1, 8, 64, 64), "branches"),
        "tensor:e1": ("Exp", (1, 8, 64, 64), "branches"),
    }
    assert "its shape there is [1, 8, 32, 32]; what the node puts out can be named: tensor:r" in told(
        finder(BRANCHES), "node:small"
    )


def test_branches_in_a_function() -> None:
    body = BRANCHES[BRANCHES.index("  s = Conv") : BRANCHES.index("  y = Relu")]
    text = f"""<ir_version: 9, opset_import: ["":17, "a":1]>
g (float[1,8,64,64] x, bool c) => (float[1,8,64,64] y) {{
  [call] r = a.F(x, c, w, scales)
  y = Relu(r)
}}
<opset_import: ["":17], domain: "a">
F (x, c, w, scales) => (r) {{
{body}}}
"""
    found = listed(text)
    assert {name: (place.shape, place.kind, place.function, place.node) for name, place in found.items()} == {
        "op:F[0]//Conv[0]": ((1, 8, 64, 64), "function", "F", "call"),
        "tensor:t0": ((1, 8, 32, 32), "branches", "F", "call"),
        "tensor:t1": ((1, 8, 64, 64), "branches", "F", "call"),
        "tensor:e1": ((1, 8, 64, 64), "branches", "F", "call"),
    }
    said = told(finder(text), "tensor:t0")
    assert "inside the branches of the node 'choice' (If) in the local function 'F', where no block can be put" in said
    assert "its shape there is [1, 8, 32, 32]; what the node puts out can be named: tensor:r [1, 8, 64, 64]" in said


def test_a_block_that_begins_in_front_of_a_call_and_ends_in_it() -> None:
    text = """<ir_version: 9, opset_import: ["":17, "a":1]>
g (float[1,8,64,64] x) => (float[1,8,64,64] y) {
  c = Conv <pads = [1, 1, 1, 1]> (x, w)
  [call] y = a.F(c)
}
<opset_import: ["":17], domain: "a">
F (c) => (y) { s = Sigmoid(c)
  m = Mul(c, s)
  y = Neg(m) }
"""
    (place,) = listed(text).values()
    assert (place.selector, place.type, place.takes_block) == ("op:F[0]//op:Mul[0]", "Conv", True)
    (site,) = finder(text).find([place.selector])
    assert (site.tensor, site.function) == ("m", ("a", "F", ""))


def test_a_function_that_nothing_calls_is_no_place() -> None:
    assert told(finder(TWO_DOMAINS), "node:never").endswith(
        "it is inside the local function 'Unused', where no block can be put; the main graph does not call it\n"
        "  node:never\n       ^^^^^"
    )


def test_names_of_the_main_graph_come_first() -> None:
    """In the function there is a tensor u as well."""
    here = finder(TWO_DOMAINS.replace("n = a.Pool(c)", "u = a.Pool(c)").replace("(n, w)", "(u, w)"))
    (site,) = here.find(["tensor:u"])
    assert site.shape == (1, 8, 32, 32)
    assert told(here, "/first/Pool#1").startswith("the module '/first/Pool#1' gives [1, 8, 32, 32] inside")


def test_functions_without_an_end_are_left_alone() -> None:
    text = OVERLOADS.replace("deep = Exp(x)", "deep = a.F:q(x)")
    assert inner_places(finder(text)) == []
    assert "no module of the model matches '/one/deep'" in told(finder(text), "/one/deep")
