from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsurgery
from graphsurgery.errors import BlockError, InsertionError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.fields import Edit
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.packed import pack, unpack
from graphsurgery.modelfile.record import KEY, Insertion, read_insertions
from graphsurgery.userblocks import make_block
from graphsurgery.userblocks.inserted import block_of, module_of, weights_of
from tests import models

Array = np.ndarray[Any, Any]

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("simam", {}),
    ("simam", {"e_lambda": 0.5}),
    ("se", {"reduction": 4}),
    ("se", {"hidden": 3, "bias": False}),
    *(("ge", {"extent": extent}) for extent in (0, 2, 4, 8)),
    *(("ge[theta]", {"extent": extent}) for extent in (0, 2, 4, 8)),
    *(("ge[theta-plus]", {"extent": extent, "hidden": 5}) for extent in (0, 2, 4)),
    ("ge[theta]", {"extent": 2, "bn_eps": 1e-3}),
    ("nam", {}),
    ("nam", {"bn_eps": 1e-3}),
    ("nam[channel+spatial]", {}),
]


def trained(module: str, settings: dict[str, object], feature: FeatureMap) -> dict[str, Array]:
    """Weights as training might leave them: nothing is 0, 1 or symmetric."""
    rng = np.random.default_rng(5)
    found = {}
    for key, shape in make_block(module, settings).parameters(feature).items():
        values = (
            rng.uniform(0.5, 1.5, size=shape)
            if "running_var" in key or key.endswith("weight")
            else rng.normal(size=shape)
        )
        found[key] = values.astype(np.float32)
    return found


def with_weights(
    tmp_path: Path, module: str, settings: dict[str, object], **arguments: Any
) -> tuple[ModelFile, dict[str, Array]]:
    made = models.detector(dtype=arguments.pop("dtype", np.float32), **arguments.pop("made", {}))
    arrays = trained(module, settings, FeatureMap(16, 8, 8))
    if arrays:
        np.savez(tmp_path / "w.npz", **arrays)  # type: ignore[arg-type]
        arguments["weights"] = tmp_path / "w.npz"
    edited = graphsurgery.insert(made, module, after="/model.2", settings=settings, **arguments)
    models.valid(edited.to_bytes())
    edited.save(tmp_path / "edited.onnx")
    return ModelFile.load(tmp_path / "edited.onnx"), arrays


@pytest.fixture
def edited() -> ModelFile:
    return graphsurgery.insert(models.detector(), "se", after=["/model.2", "/model.0"], settings={"reduction": 4})


# ---------------------------------------------------------------------- what is written can be read


def test_the_record_of_an_insertion(edited: ModelFile) -> None:
    first, second = ModelFile.load(edited.to_bytes()).insertions()
    assert first == edited.insertions()[0]
    assert (first.id, second.id) == ("model.2.se", "model.0.se")
    assert (first.module, first.init, first.gate, first.target) == ("se", "default", "none", "tensorrt")
    assert first.settings == {"reduction": 4, "hidden": None, "bias": True}
    assert block_of(first).recorded_values() == first.settings
    assert first.feature == FeatureMap(16, 8, 8, "float32", 1, "model.2.se")
    assert (first.site.path, first.site.tensor, first.site.stride) == ("/model.2", "/model.2/act/Mul_output_0", 4)
    assert first.site.shape == (1, 16, 8, 8)
    assert first.original == second.original == ModelFile.load(models.detector()).digest()


def test_the_text_is_the_same_every_time(edited: ModelFile) -> None:
    for insertion in edited.insertions():
        key, text = insertion.to_entry()
        assert key == KEY + insertion.id
        assert text.isascii()
        assert read_insertions(edited.structure)[[i.id for i in edited.insertions()].index(insertion.id)] == insertion
        assert {p.key: p.value for p in edited.proto().metadata_props}[key] == text


def test_names_that_are_not_ascii() -> None:
    made = models.chain("Relu", "Neg")
    for proto in made.graph.node:
        proto.name = f"/größe.{proto.name}/{proto.op_type}"
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = "温度"
    edited = graphsurgery.insert(made, "simam", after="größe.n0")
    (insertion,) = ModelFile.load(edited.to_bytes()).insertions()
    assert (insertion.id, insertion.site.tensor) == ("größe.n0.simam", "温度")
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == made.SerializeToString()


@pytest.mark.parametrize("image", [("N", 3, "H", "W"), (None, 3, None, None), (-1, 3, 32, 32)])
def test_dynamic_sizes_are_kept(image: models.Shape) -> None:
    edited = graphsurgery.insert(models.detector(image=image), "simam", after="/model.2")
    (insertion,) = ModelFile.load(edited.to_bytes()).insertions()
    assert insertion.site.shape[1] == 16
    assert (insertion.feature.height, insertion.feature.batch) == (8 if image[2] == 32 else None, None)


# ---------------------------------------------------------------------- weights come back from the file


@pytest.mark.parametrize("gate", ["none", "residual"])
@pytest.mark.parametrize(("module", "settings"), BLOCKS, ids=str)
def test_weights_come_back(tmp_path: Path, module: str, settings: dict[str, object], gate: str) -> None:
    model, arrays = with_weights(tmp_path, module, settings, gate=gate)
    (insertion,) = model.insertions()
    found = weights_of(insertion, model)
    assert list(found) == [*arrays, *(["alpha"] if gate == "residual" else [])]
    for key, values in arrays.items():
        assert found[key].dtype == np.float64
        assert found[key].shape == values.shape
        if "gather.conv" in key:  # folded, and rounded once in between
            assert np.allclose(found[key], values, rtol=2e-7, atol=0), key
        else:
            assert np.array_equal(found[key], values), key
    assert insertion.parameters == sum(values.size for values in arrays.values()) + (gate == "residual")


@pytest.mark.parametrize(("module", "settings"), BLOCKS, ids=str)
def test_weights_come_back_from_half_precision(tmp_path: Path, module: str, settings: dict[str, object]) -> None:
    model, arrays = with_weights(tmp_path, module, settings, dtype=np.float16)
    found = weights_of(model.insertions()[0], model)
    for key, values in arrays.items():
        stored = {"data"} & set(model.insertions()[0].stored[key])
        rounded = values if stored else values.astype(np.float16)
        if "gather.conv" in key:
            assert np.allclose(found[key], values, rtol=1e-3, atol=0), key
        else:
            assert np.array_equal(found[key], rounded.astype(np.float64)), key


@pytest.mark.parametrize(("module", "settings"), BLOCKS, ids=str)
def test_weights_come_back_from_constant_nodes(tmp_path: Path, module: str, settings: dict[str, object]) -> None:
    model, arrays = with_weights(tmp_path, module, settings, made={"opset": 9, "ir_version": 3})
    assert model.insertions()[0].initializers == ()
    for key, values in weights_of(model.insertions()[0], model).items():
        assert np.allclose(values, arrays[key], rtol=2e-7, atol=0), key


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize(("module", "settings"), BLOCKS, ids=str)
def test_weights_come_back_in_every_lowering(
    tmp_path: Path, module: str, settings: dict[str, object], target: str
) -> None:
    feature = FeatureMap(16, 8, 8)
    for lowering in make_block(module, settings).lowerings(feature, 17):
        model, arrays = with_weights(tmp_path, module, settings, target=target, lowering=lowering)
        assert model.insertions()[0].lowering == lowering
        for key, values in weights_of(model.insertions()[0], model).items():
            assert np.allclose(values, arrays[key], rtol=2e-7, atol=0), (lowering, key)
        (tmp_path / "edited.onnx").unlink()


def test_double_precision_is_kept(tmp_path: Path) -> None:
    arrays = {key: values.astype(np.float64) / 3 for key, values in trained("nam", {}, FeatureMap(16, 8, 8)).items()}
    np.savez(tmp_path / "w.npz", **arrays)  # type: ignore[arg-type]
    edited = graphsurgery.insert(models.detector(dtype=np.float64), "nam", after="/model.2", weights=tmp_path / "w.npz")
    assert all(
        np.array_equal(values, arrays[key]) for key, values in weights_of(edited.insertions()[0], edited).items()
    )


def test_a_channel_whose_batchnorm_is_zero_has_lost_its_weights(tmp_path: Path) -> None:
    edited = graphsurgery.insert(models.detector(), "ge[theta]", after="/model.2", init="identity")
    found = weights_of(edited.insertions()[0], edited)
    assert not found["gather.norm1.weight"].any()
    assert not found["gather.conv1.weight"].any()


@pytest.mark.parametrize("gate", ["none", "residual"])
@pytest.mark.parametrize(("module", "settings"), BLOCKS, ids=str)
def test_the_module_has_the_weights_of_the_file(
    tmp_path: Path, module: str, settings: dict[str, object], gate: str
) -> None:
    import torch

    model, arrays = with_weights(tmp_path, module, settings, gate=gate)
    twin = module_of(model.insertions()[0], model)
    assert not twin.training
    state = twin.state_dict()
    prefix = "block." if gate == "residual" else ""
    for key, values in arrays.items():
        assert state[prefix + key].dtype == torch.float64
        assert np.allclose(state[prefix + key].numpy(), values, rtol=2e-7, atol=0), key
    if gate == "residual":
        assert state["alpha"].tolist() == [0.0]
    assert twin(torch.zeros(1, 16, 8, 8, dtype=torch.float64)).shape == (1, 16, 8, 8)


# ---------------------------------------------------------------------- records that are not right


def rows(of: list[list[Any]]) -> dict[str, Any]:
    """Rows of a parameter that lie in a tensor of their own."""
    return {"rows": of, "initializer": "model.2.se.fc1.weight", "transposed": False, "factor": 1.0}


def test_what_is_packed_unpacks_to_no_more_than_is_wanted() -> None:
    assert unpack(pack(bytes(1000)), 1000) == bytes(1000)
    for text in (pack(bytes(1001)), pack(bytes(1 << 22)), pack(bytes(1000))[:-8], "", "?", "é", "AAAA"):
        with pytest.raises((ValueError, TypeError)):
            unpack(text, 1000)


def test_the_weights_of_the_others_are_not_unpacked(edited: ModelFile) -> None:
    """What the block does not have is not looked at."""
    stored = json.loads(edited.insertions()[0].to_entry()[1])["stored"]
    model = altered(edited, {"stored": {**stored, "more": {"data": "?", "dtype": "|O", "shape": [1 << 62]}}})
    assert set(weights_of(model.insertions()[0], model)) == set(stored)


def altered(edited: ModelFile, change: dict[str, Any] | None = None, text: str | None = None) -> ModelFile:
    key, old = edited.insertions()[0].to_entry()
    if text is None:
        text = json.dumps({**json.loads(old), **(change or {})})
    return ModelFile.load(edited.edited(Edit(metadata={key: text})).to_bytes())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        '{"format":1}',
        '{"format":1,"site":{}}',
        '{"format":1,"site":7}',
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_told(edited: ModelFile, text: str) -> None:
    for act in (graphsurgery.remove, ModelFile.insertions, lambda m: graphsurgery.insert(m, "simam", after="/model.1")):
        with pytest.raises(InsertionError, match=r"the record of model\.2\.se in the model's metadata is damaged"):
            act(altered(edited, text=text))


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": 7},
        {"nodes": "abc"},
        {"nodes": [1, 2]},
        {"initializers": None},
        {"stored": []},
        {"stored": {"fc1.weight": 7}},
        {"settings": 3},
        {"value_info": [[]]},
        {"output_tensor": 3},
        {"site": None},
        {"module": 5},
        {"unknown": 1},
        {"original": None},
        {"parameters": "many"},
        {"gate": "open"},
        {"target": "coreml"},
        {"precision": "int4"},
        {"parameters": 2**70, "nodes": [None]},
    ],
    ids=str,
)
def test_a_record_of_other_types_is_damaged(edited: ModelFile, change: dict[str, Any]) -> None:
    with pytest.raises(InsertionError, match=r"the record of model\.2\.se in the model's metadata is damaged"):
        altered(edited, change).insertions()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 16, 8]},
        {"shape": [1, None, 8, 8]},
        {"shape": 7},
        {"dtype": "int8"},
        {"tensor": None},
        {"consumers": "x"},
        {"position": "beside"},
        {"position": 3},
        {"others": [1]},
        {"shape": [1, 0, 8, 8]},
        {"shape": [1, -16, 8, 8]},
        {"shape": [1, 2**40, 8, 8]},
        {"shape": [1, 16, 2**40, 8]},
        {"shape": [1, 16, 2**20, 2**20]},
        {"shape": [1, 16, 0, 8]},
        {"shape": [True, 16, 8, 8]},
    ],
    ids=str,
)
def test_a_site_of_other_types_is_damaged(edited: ModelFile, change: dict[str, Any]) -> None:
    site = json.loads(edited.insertions()[0].to_entry()[1])["site"]
    with pytest.raises(InsertionError, match=r"the record of model\.2\.se in the model's metadata is damaged"):
        altered(edited, {"site": {**site, **change}}).insertions()


def test_a_record_without_a_position_is_of_a_block_for_all_readers(edited: ModelFile) -> None:
    """As records were written before a block could stand in front of some of the readers."""
    site = json.loads(edited.insertions()[0].to_entry()[1])["site"]
    del site["position"], site["others"]
    assert altered(edited, {"site": site}).insertions() == edited.insertions()


def test_a_record_of_a_later_version(edited: ModelFile) -> None:
    with pytest.raises(InsertionError, match="was written by a later version of graphsurgery"):
        altered(edited, {"format": 99}).insertions()


def test_the_edition_of_the_forms_is_recorded_where_it_matters() -> None:
    made = models.detector()
    for module, edition in (("simam", 1), ("lsk", 2)):
        edited = graphsurgery.insert(made, module, after="/model.2")
        (record,) = edited.insertions()
        assert record.edition == edition
        _, text = record.to_entry()
        assert json.loads(text).get("edition", 1) == edition
        assert json.loads(text)["format"] == {1: 1, 2: 4}[edition]
        with pytest.raises(InsertionError, match="is damaged"):
            altered(edited, {"format": 4, "edition": 3}).insertions()
        with pytest.raises(InsertionError, match="was written by a later version of graphsurgery"):
            altered(edited, {"format": 3, "edition": 2}).insertions()


@pytest.mark.parametrize(
    "stored",
    [
        {"fc1.weight": {"initializer": "gone"}},
        {"fc1.weight": {"initializer": "model.2.se.fc1.bias"}},
        {"fc1.weight": {"data": "???", "dtype": "<f4", "shape": [4]}},
        {"fc1.weight": {"data": "", "dtype": "<f4", "shape": [4]}},
        {"fc1.weight": {"initializer": "model.2.se.fc1.weight", "divided_by": "gone", "eps": 1.0, "factor": 1.0}},
        {"fc1.weight": {}},
        {"fc1.weight": {"data": pack(bytes(1 << 22)), "dtype": "<f4", "shape": [1 << 20]}},
        {"fc1.weight": {"data": pack(bytes(256)), "dtype": "<f4", "shape": [4, 16]} | {"dtype": "|O"}},
        {"fc1.weight": {"data": pack(bytes(252)), "dtype": "<f4", "shape": [4, 16]}},
        {"fc1.weight": {"data": pack(bytes(256))[:8], "dtype": "<f4", "shape": [4, 16]}},
        {"fc1.weight": {"parts": [rows([[0, 10**12]])]}},
        {"fc1.weight": {"parts": [rows([[-1, 4]])]}},
        {"fc1.weight": {"parts": [rows([[3, 1]])]}},
        {"fc1.weight": {"parts": [rows([[0, 4]] * 10**4)]}},
        {"fc1.weight": {"parts": [rows([[0.5, 1]])]}},
        {"fc1.weight": {"parts": [rows([["a", "b"]])]}},
        {"fc1.weight": {"parts": 7}},
    ],
    ids=lambda stored: repr(stored)[:80],
)
def test_weights_that_are_not_where_the_record_says(edited: ModelFile, stored: dict[str, Any]) -> None:
    whole = {**json.loads(edited.insertions()[0].to_entry()[1])["stored"], **stored}
    model = altered(edited, {"stored": whole})
    with pytest.raises(InsertionError, match=r"the weights of model\.2\.se are not in the model as its record says"):
        weights_of(model.insertions()[0], model)


def test_a_block_that_is_not_installed_can_still_be_removed(edited: ModelFile) -> None:
    model = altered(edited, {"module": "attention-of-tomorrow"})
    with pytest.raises(BlockError, match="there is no block 'attention-of-tomorrow'"):
        block_of(model.insertions()[0])
    assert graphsurgery.remove(model).to_bytes() == models.detector().SerializeToString()


def test_metadata_of_others_is_no_record() -> None:
    made = models.detector()
    for key in ("graphsurgery", "graphsurgery.insertions", "Graphsurgery.insertion.a", ""):
        made.metadata_props.add(key=key, value="{}")
    assert ModelFile.load(made).insertions() == []


def test_renaming_is_of_the_names_only(edited: ModelFile) -> None:
    first: Insertion = edited.insertions()[0]
    assert first.renamed() == first
    assert first.renamed(site={"other": "new"}, output={"other": "new"}) == first
    renamed = first.renamed(site={first.site.tensor: "s"}, output={first.output_tensor: "o"})
    assert (renamed.site.tensor, renamed.output_tensor) == ("s", "o")
    assert renamed.nodes == first.nodes
