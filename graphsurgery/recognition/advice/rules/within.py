"""Where a block would tear apart what belongs together: a convolution and its activation, a function, a gate, a sum."""

from __future__ import annotations

from ..functions import NORMALISING, POINTWISE, SCALING, Function
from ..objection import Objection, Spot

_GATES = ("Sigmoid", "HardSigmoid", "Tanh")
_FUSED_WITH = POINTWISE | NORMALISING | {"BatchNormalization"}
"""operators that TensorRT computes together with a pointwise one behind them"""
_JOINING = {"Add": "a sum", "Mul": "a product"}
_ALONE = {"Mul": "a scale", "Add": "a shift", "BatchNormalization": "a normalisation"}
_NORM = "BatchNormalization"


def convolution(spot: Spot) -> Objection | None:
    if not spot.is_inside_convolution or spot.leaf is None:
        return None
    outlet = spot.outlet(spot.leaf.root)
    if (affine := _affine_behind(spot)) is not None:
        return _between(affine, outlet, "an activation" if affine == "scale" else "a scale")
    return _between("activation" if spot.leaf.facts.get("activation") else "normalisation", outlet)


def _affine_behind(spot: Spot) -> str | None:
    """ "scale" or "shift" in front of one of a learnable affine block, which some convolutions have behind theirs."""
    view, consumers = spot.view, spot.consumers
    if len(consumers) != 1 or spot.is_bare or spot.op == _NORM or spot.survey.functions.around(spot.root) is not None:
        return None
    (consumer,) = consumers
    alone = len(view.inputs(consumer)) == 1
    return {"Mul": "scale", "Add": "shift"}.get(view.op(consumer)) if alone else None


def function(spot: Spot) -> Objection | None:
    found = spot.survey.functions.around(spot.root)
    if found is None:
        return None
    article = "an" if found.kind.startswith("a") else "a"
    return Objection(
        f"inside {article} {found.kind}",
        f"this is inside of {article} {found.kind} that is written out as single operators",
        (spot.outlet(found.result),),
        f"to insert behind the {found.kind}",
    )


def gate(spot: Spot) -> Objection | None:
    product = spot.survey.gates.product(spot.root)
    if product is None:
        return None
    return Objection(
        "inside a gate",
        "this only makes the gate of an attention that is in the model already",
        (spot.outlet(product),),
        "to insert behind the whole",
    )


def longer_sum(spot: Spot) -> Objection | None:
    """A convolution without activation, a sum or a normalisation in front of the sum that all of it goes into."""
    view, consumers = spot.view, spot.consumers
    is_sum = spot.op == "Add" and spot.node_index is not None and len(view.inputs(spot.node_index)) > 1
    if len(consumers) != 1 or view.is_output(spot.root) or not (spot.is_bare or is_sum or spot.op == _NORM):
        return None
    (consumer,) = consumers
    if view.op(consumer) in _GATES and spot.is_bare:  # an activation of its own where nothing is multiplied by it
        return _between("activation", spot.outlet(view.outputs(consumer)[0]))
    if view.op(consumer) != "Add" or len(view.inputs(consumer)) < 2:
        return None
    what = "a convolution without activation" if spot.is_bare else "a sum" if is_sum else "a normalisation"
    return Objection(
        "before the sum",
        f"this is between {what} and the sum that it goes into, which TensorRT computes as one",
        (spot.outlet(view.outputs(consumer)[0]),),
        "to insert behind the sum",
    )


def longer_function(spot: Spot) -> Objection | None:
    """A sum in front of its ReLU, a product in front of its hard-swish, x + 3 in front of what clips it."""
    view, may_be = spot.view, spot.is_bare or spot.op in _FUSED_WITH or _is_normalised(spot)
    found = spot.survey.functions.behind(spot.root) if may_be else None
    if found is None or (spot.is_bare and not spot.survey.functions.is_one_activation(found)):
        return None
    scales = SCALING.issuperset(map(view.op, found.nodes))
    if scales and not _goes_on(spot, found):
        return None
    kind = "activation" if not scales else "shift" if spot.op in ("Mul", "Div") else "scale"
    return _between(kind, spot.outlet(found.result), _called(spot))


def _goes_on(spot: Spot, scaled: Function) -> bool:
    """Whether a number belongs to what is before it: the shift behind a scale, the 1/6 behind x + 3 that is clipped."""
    view, node_index = spot.view, spot.node_index
    if node_index is None or len(view.inputs(node_index)) != 1:
        return False
    if _is_normalised(spot):
        return True
    if spot.op in ("Mul", "Div"):
        return all(view.op(p) in ("Add", "Sub") for p in scaled.nodes)
    before = view.producer(view.inputs(node_index)[0])
    shifted = before is not None and before in view.active and len(view.inputs(before)) == 1
    return spot.op == "Clip" and shifted and before is not None and view.op(before) == "Add"


def _is_normalised(spot: Spot) -> bool:
    """Whether a normalisation gives a map, in the shape of before where it was given another one for it."""
    view, op, node_index = spot.view, spot.op, spot.node_index
    if op in ("Reshape", "Transpose") and node_index is not None:
        node_index = view.producer(view.inputs(node_index)[0])
        op = view.op(node_index) if node_index is not None and node_index in view.active else ""
    return op in NORMALISING


def _called(spot: Spot) -> str:
    """How a message calls what is before an activation, a scale or a shift."""
    if spot.is_bare:
        return "a convolution"
    if _is_normalised(spot):
        return "a normalisation"
    alone = spot.node_index is not None and len(spot.view.inputs(spot.node_index)) == 1
    return (_ALONE if alone else _JOINING).get(spot.op, "an operator")


def _between(kind: str, better: str, what: str = "a convolution") -> Objection:
    return Objection(
        f"before the {kind}",
        f"this is between {what} and its {kind}, where it keeps TensorRT from fusing the two",
        (better,),
        f"to insert behind the {kind}",
    )
