"""Where a block could do nothing, or could not compute."""

from __future__ import annotations

from ....modelfile.limits import OLDEST_OPSET
from ..nearby import maps_upstream
from ..objection import Objection, Spot

_INTEGERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})


def too_old(spot: Spot) -> Objection | None:
    opset = spot.view.index.model.standard_opset
    if opset is None or opset >= OLDEST_OPSET:
        return None
    return Objection(
        f"opset {opset}",
        f"the model uses opset {opset}, and blocks are written with the operators of opset {OLDEST_OPSET} and later; "
        "export it again, or convert it with onnx.version_converter",
    )


def unused(spot: Spot) -> Objection | None:
    if spot.view.is_used(spot.tensor):
        return None
    return Objection("changes nothing", "no output of the model depends on this, so a block here changes nothing")


def integers(spot: Spot) -> Objection | None:
    index = spot.view.index
    kind = index.operators[index.producer[spot.tensor]] if spot.tensor in index.producer else ""
    if kind not in _INTEGERS and not kind.startswith("QLinear"):
        return None
    better = spot.outlet(spot.root)
    return Objection(
        "quantised integers",
        "this holds quantised integers, and a block computes in floats",
        (better,) if better != spot.tensor else (),
        "behind the DequantizeLinear",
    )


def constant(spot: Spot) -> Objection | None:
    if spot.root in spot.view.values:
        return None
    return Objection(
        "the same for every image",
        "this is computed from weights and sizes alone and is the same for every image",
    )


def no_map(spot: Spot) -> Objection | None:
    if spot.tree.is_map(spot.root):
        return None
    holding = spot.tree.holding(spot.node_index) if spot.node_index is not None else None
    head = holding if holding is not None and holding.role == "head" else None
    return Objection(
        "not a map",
        "this is no map of the image: its values are tokens, sizes, means or boxes, and not one for every position",
        tuple(map(spot.view.outlet, head.entries)) if head is not None else maps_upstream(spot),
    )


def before_quantisation(spot: Spot) -> Objection | None:
    index, better = spot.view.index, spot.outlet(spot.root)
    if better == spot.tensor:
        return None
    consumers = {index.operators[p] for p in index.consumers.get(spot.tensor, ())} - {"Shape", "Size"}
    if consumers != {"QuantizeLinear"}:
        return None
    return Objection(
        "before quantisation",
        "this is quantised next, and TensorRT computes what lies between DequantizeLinear and QuantizeLinear as one",
        (better,),
        "behind the DequantizeLinear",
    )
