"""The inspector's JSON, in the forms that the documents of 8.6, 10 and 11 show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graphsurgery.errors import RequestError
from graphsurgery.tensorrt.inspector import Layer, became, layers, types

NODES = ["/model.8/simam/InstanceNormalization", "/model.8/simam/Mul", "/model.8/simam/Sigmoid"]


def tensor(kind: str, *, split: bool = False) -> dict[str, Any]:
    if split:
        return {"Name": "t", "Location": "Device", "Dimensions": [1, 8], "Format": "Row major linear", "Datatype": kind}
    return {
        "Name": "t",
        "Location": "Device",
        "Dimensions": [1, 8],
        "Format/Datatype": f"Row major linear {kind} format",
    }


def engine(*, split: bool = False) -> str:
    half, full = ("Half", "Float") if split else ("FP16", "FP32")
    listed = [
        {
            "Name": "/model.8/cv2/conv/Conv + PWN(/model.8/cv2/act/Sigmoid, /model.8/cv2/act/Mul)",
            "LayerType": "CaskConvolution",
            "Inputs": [tensor(half, split=split)],
            "Outputs": [tensor(half, split=split)],
            "TacticName": "sm80_xmma_fprop",
            "Metadata": "",
        },
        {
            "Name": "__myl_NormMulSig_0",
            "LayerType": "kgen",
            "Inputs": [tensor(half, split=split), "scale"],
            "Outputs": [tensor(full, split=split)],
            "Metadata": "\u001e".join(f"[ONNX Layer: {name}]" for name in NODES),
        },
    ]
    ends = {"I/O Tensors": [{"Name": "x", "DataType": "Float"}]} if split else {"Bindings": ["x", "y"]}
    return json.dumps({"Layers": listed, **ends})


@pytest.mark.parametrize("split", [False, True])
def test_layers(split: bool) -> None:
    first, second = layers(engine(split=split))
    assert first == Layer(
        "/model.8/cv2/conv/Conv + PWN(/model.8/cv2/act/Sigmoid, /model.8/cv2/act/Mul)",
        "CaskConvolution",
        ("FP16",),
        ("/model.8/cv2/conv/Conv", "/model.8/cv2/act/Sigmoid", "/model.8/cv2/act/Mul"),
    )
    assert (second.type, second.runs_in, second.nodes) == ("kgen", ("FP16", "FP32"), tuple(NODES))


def test_what_a_block_became() -> None:
    found = layers(engine())
    assert [layer.type for layer in became(found, NODES[:1])] == ["kgen"]
    assert [layer.type for layer in became(found, ["/model.8/cv2/act/Mul"])] == ["CaskConvolution"]
    assert became(found, ["/model.8/cv2/act"]) == []


def test_types_are_counted() -> None:
    assert types(layers(engine())) == {"FP16": 1, "mixed": 1}


def test_names_alone() -> None:
    """Without detailed verbosity."""
    (layer,) = layers(json.dumps({"Layers": ["{ForeignNode[/a/Mul.../a/Sigmoid]}"], "Bindings": []}))
    assert (layer.type, layer.runs_in, layer.nodes) == (None, (), ("/a/Mul", "/a/Sigmoid"))
    assert types([layer]) == {"?": 1}


@pytest.mark.parametrize(
    ("stated", "kind"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format.", "INT8"),
        ("Channel major FP16 format where channel % 8 == 0", "FP16"),
        ("Row major linear BFloat16 format", "BF16"),
        ("Row major linear FP32", "FP32"),
        ("Row major Int32 format", "INT32"),
        ("Row major INT64 format", "INT64"),
        ("Bool", "BOOL"),
        ("N/A due to dynamic shapes", None),
    ],
)
def test_types_as_they_are_spelled(stated: str, kind: str | None) -> None:
    entry = {"Name": "a", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": stated}], "Outputs": []}
    (layer,) = layers(json.dumps({"Layers": [entry]}))
    assert layer.runs_in == ((kind,) if kind else ())


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": [1]}', '{"Layers": [{"LayerType": "x"}]}'])
def test_something_else(text: str) -> None:
    with pytest.raises(RequestError, match="not the JSON"):
        layers(text)
