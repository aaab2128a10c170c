"""Blocks as a user names them: the registry, variants, typed hyper-parameters, and third parties' blocks."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery import entry_points
from graphsurgery.blocks import registry
from graphsurgery.blocks.block import Block, Setting
from graphsurgery.blocks.registry import all_blocks, block_class, forget
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.template.template import Template
from graphsurgery.userblocks import make_block

# ---------------------------------------------------------------------- the catalogue


def test_the_catalogue() -> None:
    assert {"simam", "se", "ge", "nam"} <= set(all_blocks())
    assert list(all_blocks()) == sorted(all_blocks())
    assert all(name == found.name for name, found in all_blocks().items())


@pytest.mark.parametrize("name", sorted(all_blocks()))
def test_every_block_says_what_it_is(name: str) -> None:
    found = block_class(name)
    for text in (found.title, found.paper, found.reference, found.formula, found.untrained):
        assert text.strip()
    assert all(line.strip() for line in found.variants.values())
    assert all(setting.doc.strip() for setting in found.settings)
    names = [setting.name for setting in found.settings]
    assert len(names) == len(set(names))
    assert all(set(setting.variants or ()) <= set(found.variants) for setting in found.settings)
    for setting in found.settings:  # a default is a value that could be given
        assert setting.read(setting.default, name) == setting.default


@pytest.mark.parametrize(
    ("spelled", "name", "variant"),
    [
        ("simam", "simam", None),
        ("ge", "ge", "theta-minus"),
        ("ge[theta]", "ge", "theta"),
        (" ge [ theta-plus ] ".replace("[ ", "[").replace(" ]", "]"), "ge", "theta-plus"),
        ("nam", "nam", "channel"),
        ("nam[channel+spatial]", "nam", "channel+spatial"),
    ],
)
def test_names_and_variants(spelled: str, name: str, variant: str | None) -> None:
    found = make_block(spelled)
    assert (found.name, found.variant) == (name, variant)
    assert make_block(found.spelled).variant == variant


@pytest.mark.parametrize(
    ("spelled", "message"),
    [
        ("simm", "there is no block 'simm'; did you mean simam"),
        ("xyzzy", "there is no block 'xyzzy'; there are .*simam"),
        ("SimAM", "there is no block 'SimAM'"),
        ("simam[x]", "simam has no variant 'x'; it has no variants"),
        ("ge[theta+]", r"ge has no variant 'theta\+'; it has the variants theta-minus, theta, theta-plus"),
        ("ge[]", r"'ge\[\]' is not a block's name; write it as in simam or 'ge\[theta\]'"),
        ("ge[theta", "is not a block's name"),
        ("ge[a][b]", "is not a block's name"),
        ("", "is not a block's name"),
        ("two words", "is not a block's name"),
    ],
)
def test_names_that_are_none(spelled: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        make_block(spelled)


# ---------------------------------------------------------------------- hyper-parameters

WHOLE = Setting("width", int, 16, "", minimum=1)
OPTIONAL = Setting("hidden", int, None, "", minimum=1)
NUMBER = Setting("eps", float, 1e-5, "", above=0)
FLAG = Setting("bias", bool, True, "")
SMALL = Setting("e_lambda", float, 1e-4, "", minimum=1e-8)
CHOICE = Setting("extent", int, 0, "", choices=(0, 2, 4))
WORD = Setting("activation", str, "relu", "", choices=("relu", "gelu"))


@pytest.mark.parametrize(
    ("setting", "given", "read"),
    [
        (WHOLE, "8", 8),
        (WHOLE, 8, 8),
        (WHOLE, "8.0", 8),
        (WHOLE, np.int64(8), 8),
        (OPTIONAL, None, None),
        (OPTIONAL, "3", 3),
        (NUMBER, "1e-3", 1e-3),
        (NUMBER, " 0.5 ", 0.5),
        (NUMBER, 2, 2.0),
        (FLAG, False, False),
        (FLAG, "false", False),
        (FLAG, "NO", False),
        (FLAG, "off", False),
        (FLAG, "0", False),
        (FLAG, 0, False),
        (FLAG, "True", True),
        (FLAG, "yes", True),
        (FLAG, "on", True),
        (FLAG, 1, True),
        (SMALL, 1e-8, 1e-8),
        (CHOICE, "4", 4),
        (WORD, "gelu", "gelu"),
    ],
)
def test_a_value_is_read_as_its_type(setting: Setting, given: object, read: object) -> None:
    found = setting.read(given, "se")
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("setting", "given", "message"),
    [
        (WHOLE, "eight", "width of se is a whole number, not 'eight'"),
        (WHOLE, 1.5, "width of se is a whole number, not 1.5"),
        (WHOLE, True, "width of se is a whole number, not True"),
        (WHOLE, None, "width of se is a whole number, not None"),
        (WHOLE, "", "width of se is a whole number, not ''"),
        (WHOLE, "inf", "width of se is a whole number"),
        (WHOLE, [1], "width of se is a whole number"),
        (WHOLE, 0, "width of se is at least 1, not 0"),
        (OPTIONAL, -1, "hidden of se is at least 1, not -1"),
        (NUMBER, "nan", "eps of se is a number, not 'nan'"),
        (NUMBER, False, "eps of se is a number, not False"),
        (NUMBER, 0, "eps of se is greater than 0, not 0"),
        (NUMBER, "-1e-3", "eps of se is greater than 0, not -1e-3"),
        (SMALL, "9e-9", "e_lambda of se is at least 1e-08, not 9e-9"),
        (FLAG, "maybe", "bias of se is true or false, not 'maybe'"),
        (FLAG, 2, "bias of se is true or false, not 2"),
        (FLAG, None, "bias of se is true or false, not None"),
        (CHOICE, 3, "extent of se is one of 0, 2, 4, not 3"),
        (WORD, "silu", "activation of se is one of relu, gelu, not silu"),
        (WORD, 1, "activation of se is one of relu, gelu, not 1"),
        (WORD, None, "activation of se is one of relu, gelu, not None"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(setting: Setting, given: object, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        setting.read(given, "se")


@pytest.mark.parametrize(
    ("spelled", "settings", "message"),
    [
        ("simam", {"lambda": 1}, "simam has no hyper-parameter 'lambda'; the known ones are e_lambda"),
        ("se", {"ratio": 4}, "se has no hyper-parameter 'ratio'; the known ones are reduction, hidden, bias"),
        ("ge", {"hidden": 4}, r"ge\[theta-minus\] has no hyper-parameter 'hidden'; the known ones are extent$"),
        ("nam", {"e_lambda": 4}, r"nam\[channel\] has no hyper-parameter 'e_lambda'; the known ones are bn_eps"),
    ],
)
def test_an_unknown_one_is_refused_with_the_known_ones(spelled: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        make_block(spelled, settings)


def test_with_values_keeps_the_rest() -> None:
    found = make_block("ge[theta-plus]", {"extent": "4", "bn_eps": "1e-3"}).with_values(hidden=7)
    assert found.spelled == "ge[theta-plus]"
    assert found.values == {"extent": 4, "hidden": 7, "bn_eps": 1e-3}


def test_records_leave_out_settings_that_came_later_where_they_have_their_defaults() -> None:
    """So the bytes of a record stay what they were, and versions of before can read it."""
    assert make_block("se").recorded_values() == {"reduction": 16, "hidden": None, "bias": True}
    assert make_block("se", {"gate": "hard-sigmoid"}).recorded_values()["gate"] == "hard-sigmoid"
    assert "groups" in make_block("sk[official]").recorded_values()
    assert "groups" not in make_block("sk[timm]").recorded_values()
    assert make_block("sk[timm]", {"groups": 4}).recorded_values()["groups"] == 4


def test_has_weights_is_about_the_variant() -> None:
    known = {spelled: make_block(spelled).has_weights for spelled in ("simam", "se", "ge", "ge[theta]", "nam")}
    assert known == {"simam": False, "se": True, "ge": False, "ge[theta]": True, "nam": True}


@pytest.mark.parametrize(("found", "official"), [("l1.weight", "fc1.weight"), ("fc.2.bias", "fc2.bias"), ("x", "x")])
def test_keys_found_in_the_field(found: str, official: str) -> None:
    assert make_block("se").official_key(found) == official


# ---------------------------------------------------------------------- initial weights, site by site


def two_sites() -> ModelFile:
    """x -> /model.0/Relu -> /model.1/Relu -> y, 32 channels."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32, 6, 6]) for name in ("x", "y", "a")]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="/model.0/Relu"),
        helper.make_node("Relu", ["a"], ["b"], name="/model.1/Relu"),
        helper.make_node("Sigmoid", ["b"], ["y"], name="/model.2/Sigmoid"),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:2])
    return ModelFile.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def weights_of(model: ModelFile) -> dict[str, np.ndarray]:
    proto = model.proto()
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if "weight" in tensor.name}


def test_every_site_gets_its_own_weights_and_the_same_ones_again() -> None:
    sites = ("/model.0", "/model.1")
    once, again, other = (
        weights_of(graphsurgery.insert(two_sites(), "se", after=sites, seed=seed)) for seed in (0, 0, 1)
    )
    assert set(once) == {f"model.{n}.se.fc{m}.weight" for n in (0, 1) for m in (1, 2)}
    assert not np.array_equal(once["model.0.se.fc1.weight"], once["model.1.se.fc1.weight"])
    for name, values in once.items():
        np.testing.assert_array_equal(values, again[name])
        assert not np.array_equal(values, other[name])


def test_weights_of_a_site_do_not_depend_on_what_else_is_asked_for() -> None:
    both = weights_of(graphsurgery.insert(two_sites(), "se", after=("/model.0", "/model.1")))
    one = weights_of(graphsurgery.insert(two_sites(), "se", after="/model.1"))
    assert all(np.array_equal(both[name], values) for name, values in one.items())


# ---------------------------------------------------------------------- third parties


class Halve(Block):
    """y = x / 2, as somebody else's package could bring it."""

    name = "halve"
    title = paper = reference = formula = untrained = "half"

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        return t.mul(t.x, t.scalar(0.5, "half"))

    def module(self, feature: FeatureMap) -> Any:
        raise NotImplementedError


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """An installed package ``others.halve`` beside the catalogue."""
    module = types.ModuleType("others_halve")
    monkeypatch.setitem(sys.modules, "others_halve", module)
    ours = list(entry_points.entry_points(group=registry.ENTRY_POINTS))
    theirs = EntryPoint("others", "others_halve", registry.ENTRY_POINTS)
    monkeypatch.setattr(entry_points, "entry_points", lambda group: [*ours, theirs])
    forget()
    yield module
    forget()


def bring(module: types.ModuleType, name: str, base: type[Block] = Halve) -> type[Block]:
    found = type("Brought", (base,), {"name": name, "__module__": module.__name__})
    vars(module)["Brought"] = found
    return found


def test_a_block_of_another_package_is_found(third_party: types.ModuleType) -> None:
    brought = bring(third_party, "halve")
    assert all_blocks()["halve"] is brought
    assert "simam" in all_blocks()
    model = graphsurgery.insert(two_sites(), "halve", after="/model.0")
    assert [node.op_type for node in model.proto().graph.node] == ["Relu", "Mul", "Relu", "Sigmoid"]
    with pytest.raises(BlockError, match=r"halve has no hyper-parameter 'a'; it has none"):
        make_block("halve", {"a": 1})
    with pytest.raises(BlockError, match="gate='residual'"):
        make_block("halve").identity(FeatureMap(4, 4, 4))


def test_what_a_module_only_imports_is_not_its_block(third_party: types.ModuleType) -> None:
    vars(third_party).update(Block=Block, Halve=Halve)
    assert "halve" not in all_blocks()


def test_listing_the_catalogue_needs_no_torch() -> None:
    code = (
        "import sys; from graphsurgery.blocks import registry; registry.all_blocks(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
