"""The rules: what speaks against a place, one function each, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ...modelfile.limits import OLDEST_OPSET
from .functions import NORMALISING, POINTWISE, SCALING, Function
from .objection import Objection, Spot

_INTEGERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
_GATES = ("Sigmoid", "HardSigmoid", "Tanh")
_FUSED_WITH = POINTWISE | NORMALISING | {"BatchNormalization"}
"""operators that TensorRT computes together with a pointwise one behind them"""
_JOINING = {"Add": "a sum", "Mul": "a product"}
_ALONE = {"Mul": "a scale", "Add": "a shift", "BatchNormalization": "a normalisation"}
_NORM = "BatchNormalization"
_FAR = 200
"""nodes that are looked at for a better place"""
_MOST = 6
"""maps upstream of a tensor"""
_FEATURES = 8
"""the channels of feature maps are a multiple of it, those of boxes, scores and classes mostly are not"""

_SCORES = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "ArgMax"})
_COMBINING = frozenset({"Resize", "Add"})
"""what is made of the masks of several strides"""
_DEEPEST = 6
"""sums and resized maps upstream"""

Rule: TypeAlias = Callable[[Spot], "Objection | None"]


# ---------------------------------------------------------------------- no block can work there


def _too_old(spot: Spot) -> Objection | None:
    opset = spot.view.index.model.standard_opset
    if opset is None or opset >= OLDEST_OPSET:
        return None
    return Objection(
        f"opset {opset}",
        f"the model uses opset {opset}, and blocks are written with the operators of opset {OLDEST_OPSET} and later; "
        "export it again, or convert it with onnx.version_converter",
    )


def _unused(spot: Spot) -> Objection | None:
    if spot.view.is_used(spot.tensor):
        return None
    return Objection("changes nothing", "no output of the model depends on this, so a block here changes nothing")


def _integers(spot: Spot) -> Objection | None:
    node = spot.view.index.producing(spot.tensor)
    if node is None or not (node.op_type in _INTEGERS or node.op_type.startswith("QLinear")):
        return None
    better = spot.outlet(spot.root)
    return Objection(
        "quantised integers",
        "this holds quantised integers, and a block computes in floats",
        (better,) if better != spot.tensor else (),
        "behind the DequantizeLinear",
    )


def _constant(spot: Spot) -> Objection | None:
    if spot.root in spot.view.values:
        return None
    return Objection(
        "the same for every image",
        "this is computed from weights and sizes alone and is the same for every image",
    )


# ---------------------------------------------------------------------- no features


def _image(spot: Spot) -> Objection | None:
    features = _first_features(spot) if spot.root in spot.survey.prepared else ()
    if not features:
        return None
    what = "the image itself" if spot.node_index is None else "the image, brought into another form"
    return Objection(
        "the image",
        f"this is {what}: there are no features in it before the first convolution",
        features,
        "to insert behind the first features",
    )


def _padded(spot: Spot) -> Objection | None:
    if spot.op != "Pad" or spot.node_index is None or not spot.tree.is_map(spot.view.inputs(spot.node_index)[0]):
        return None
    return Objection(
        "padded",
        "this is a map with a border around it for the operator that reads it, and a block would take the border for a "
        "part of the map",
        (spot.outlet(spot.view.inputs(spot.node_index)[0]),),
        "to insert in front of the padding",
    )


def _no_map(spot: Spot) -> Objection | None:
    if spot.tree.is_map(spot.root):
        return None
    holding = spot.tree.holding(spot.node_index) if spot.node_index is not None else None
    head = holding if holding is not None and holding.role == "head" else None
    return Objection(
        "not a map",
        "this is no map of the image: its values are tokens, sizes, means or boxes, and not one for every position",
        tuple(map(spot.view.outlet, head.entries)) if head is not None else _maps_upstream(spot),
    )


# ---------------------------------------------------------------------- inside of something


def _inside_convolution(spot: Spot) -> Objection | None:
    if not spot.is_inside_convolution or spot.leaf is None:
        return None
    return _between("activation" if spot.leaf.facts.get("activation") else "normalisation", spot.outlet(spot.leaf.root))


def _gate(spot: Spot) -> Objection | None:
    product = spot.survey.gates.product(spot.root)
    if product is None:
        return None
    return Objection(
        "inside a gate",
        "this only makes the gate of an attention that is in the model already",
        (spot.outlet(product),),
        "to insert behind the whole",
    )


def _inside_function(spot: Spot) -> Objection | None:
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


def _before_function(spot: Spot) -> Objection | None:
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


def _before_sum(spot: Spot) -> Objection | None:
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


def _only_tokens(spot: Spot) -> Objection | None:
    """A map all of whose consumers are off the plane and in the same block: an attention's qkv, a head's exits."""
    tree = spot.tree
    block = tree.holding(spot.node_index) if spot.node_index is not None else None
    if block is None or not spot.consumers or not all(p in block.nodes and _leaves(spot, p) for p in spot.consumers):
        return None
    whole = (spot.outlet(block.root),) if tree.is_map(block.root) else ()
    return Objection(
        "read as tokens only",
        "this is read only as tokens, by the attention or the decoding that it is a part of; "
        "a block belongs behind or in front of the whole",
        whole or _maps_upstream(spot),
    )


def _scores(spot: Spot) -> Objection | None:
    """What the last convolution of a known head gives, or what is made of it."""
    if spot.node_index is None or spot.tree.role_of(spot.node_index) != "head":
        return None
    last = spot.is_bare or spot.op in _SCORES
    return _predicted(spot) if last and not spot.survey.gates.is_computed_with(spot.root) else None


def _predictions(spot: Spot) -> Objection | None:
    """What the last convolution of a network gives that has no known head, and what is resized or added up of it."""
    view, consumers = spot.view, spot.consumers
    if spot.survey.gates.is_computed_with(spot.root) or not _are_predicted(spot, _DEEPEST):
        return None
    last = all(view.op(p) in _SCORES or view.op(p) in _COMBINING or _leaves(spot, p) for p in consumers)
    return _predicted(spot) if last else None


def _are_predicted(spot: Spot, depth: int) -> bool:
    """Whether a map is what convolutions without activation give, by its channels or by what reads it no features."""
    view, node_index = spot.view, spot.node_index
    if spot.is_bare and spot.leaf is not None:
        width = spot.leaf.facts.get("channels_out")
        narrow = isinstance(width, int) and width % _FEATURES != 0
        decoded = bool(spot.consumers) and all(view.op(p) in _SCORES or _leaves(spot, p) for p in spot.consumers)
        return narrow or decoded
    if node_index is None or spot.op not in _COMBINING or not depth:
        return False
    return all(_are_predicted(Spot(spot.survey, name), depth - 1) for name in view.inputs(node_index))


def _before_quantisation(spot: Spot) -> Objection | None:
    index, better = spot.view.index, spot.outlet(spot.root)
    consumers = {index.nodes[p].op_type for p in index.consumers.get(spot.tensor, ())} - {"Shape", "Size"}
    if better == spot.tensor or consumers != {"QuantizeLinear"}:
        return None
    return Objection(
        "before quantisation",
        "this is quantised next, and TensorRT computes what lies between DequantizeLinear and QuantizeLinear as one",
        (better,),
        "behind the DequantizeLinear",
    )


RULES: Sequence[Rule] = (
    *(_too_old, _unused, _integers, _constant),
    *(_image, _padded, _inside_convolution, _no_map),
    *(
        _inside_function,
        _gate,
        _only_tokens,
        _scores,
        _before_sum,
        _before_function,
        _predictions,
        _before_quantisation,
    ),
)
"""Every rule; what a later one says supposes that those before it have nothing to say."""


# ---------------------------------------------------------------------- what they have in common


def _between(kind: str, better: str, what: str = "a convolution") -> Objection:
    return Objection(
        f"before the {kind}",
        f"this is between {what} and its {kind}, where it keeps TensorRT from fusing the two",
        (better,),
        f"to insert behind the {kind}",
    )


def _predicted(spot: Spot) -> Objection:
    return Objection(
        "predictions",
        "these are predictions (scores, boxes or masks) that nothing computes further with, and no features",
        _maps_upstream(spot),
    )


def _leaves(spot: Spot, node_index: int) -> bool:
    """Whether a node leaves the plane, and not for the mean of a gate."""
    view = spot.view
    return not any(map(spot.tree.is_map, view.outputs(node_index))) and not view.op(node_index).startswith(
        ("Global", "Reduce")
    )


def _maps_upstream(spot: Spot) -> tuple[str, ...]:
    """The nearest maps that a tensor is made of."""
    view, found, pending, seen = spot.view, list[str](), [spot.root], {spot.root}
    while pending and len(seen) < _FAR and len(found) < _MOST:
        node_index = view.producer(pending.pop(0))
        for name in view.inputs(node_index) if node_index is not None and node_index in view.active else ():
            if name not in seen:
                seen.add(name)
                if spot.tree.is_map(name):
                    found.append(spot.outlet(name))
                else:
                    pending.append(name)
    return tuple(found)


def _first_features(spot: Spot) -> tuple[str, ...]:
    """What the first operators give that compute features of an image."""
    view, pending, seen, found = spot.view, [spot.root], {spot.root}, list[str]()
    while pending and len(seen) < _FAR:
        for node_index in view.consumers(pending.pop(0)):
            leaf = spot.tree.innermost(node_index)
            for name in [leaf.root] if leaf is not None else view.outputs(node_index):
                if name in seen:
                    continue
                seen.add(name)
                if name in spot.survey.prepared:
                    pending.append(name)
                else:
                    found.append(spot.outlet(name))
    return tuple(found)
