"""Where there are no features: images, borders, tokens, predictions."""

from __future__ import annotations

from ...block import RecognisedBlock
from ..nearby import first_features, leaves_plane, maps_upstream
from ..objection import Objection, Spot

_FEATURES = 8
"""the channels of feature maps are a multiple of it, those of boxes, scores and classes mostly are not"""
_SCORES = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "ArgMax"})
_COMBINING = frozenset({"Resize", "Add"})
"""what is made of the masks of several strides"""
_DEEPEST = 6
"""sums and resized maps upstream"""


def image(spot: Spot) -> Objection | None:
    features = first_features(spot) if spot.root in spot.survey.prepared else ()
    if not features:
        return None
    what = "the image itself" if spot.node_index is None else "the image, brought into another form"
    return Objection(
        "the image",
        f"this is {what}: there are no features in it before the first convolution",
        features,
        "to insert behind the first features",
    )


def padded(spot: Spot) -> Objection | None:
    if spot.op != "Pad" or spot.node_index is None or not spot.tree.is_map(spot.view.inputs(spot.node_index)[0]):
        return None
    return Objection(
        "padded",
        "this is a map with a border around it for the operator that reads it, and a block would take the border for a "
        "part of the map",
        (spot.outlet(spot.view.inputs(spot.node_index)[0]),),
        "to insert in front of the padding",
    )


def tokens(spot: Spot) -> Objection | None:
    """A map all of whose consumers are off the plane and in the same block: an attention's qkv, a head's exits."""
    tree = spot.tree
    block = tree.holding(spot.node_index) if spot.node_index is not None else None
    if block is None or not spot.consumers:
        return None
    if not all(p in block.nodes and leaves_plane(spot, p) for p in spot.consumers):
        return None
    whole = (spot.outlet(block.root),) if tree.is_map(block.root) else ()
    return Objection(
        "read as tokens only",
        "this is read only as tokens, by the attention or the decoding that it is a part of; "
        "a block belongs behind or in front of the whole",
        whole or maps_upstream(spot),
    )


def scores(spot: Spot) -> Objection | None:
    """What the last convolution of a known head gives, or what is made of it."""
    if spot.node_index is None or spot.tree.role_of(spot.node_index) != "head":
        return None
    last = spot.op in _SCORES or (spot.is_bare and not _is_feature_output(spot))
    return _predicted(spot) if last and not spot.survey.gates.is_computed_with(spot.root) else None


def _is_feature_output(spot: Spot) -> bool:
    """Whether a map is the only one of its stride that the model gives, and as wide as features are: a pyramid's."""
    if spot.consumers or spot.leaf is None or _is_narrow(spot.leaf):
        return False
    roots = dict.fromkeys(map(spot.view.root, spot.view.index.outputs))
    stride = spot.tree.stride(spot.root)
    return sum(spot.tree.stride(root) == stride for root in roots if spot.tree.is_map(root)) == 1


def _is_narrow(convolution: RecognisedBlock) -> bool:
    width = convolution.facts.get("channels_out")
    return isinstance(width, int) and width % _FEATURES != 0


def predictions(spot: Spot) -> Objection | None:
    """What the last convolution of a network gives that has no known head, and what is resized or added up of it."""
    view, consumers = spot.view, spot.consumers
    if not _are_predicted(spot, _DEEPEST) or spot.survey.gates.is_computed_with(spot.root):
        return None
    last = all(view.op(p) in _SCORES or view.op(p) in _COMBINING or leaves_plane(spot, p) for p in consumers)
    return _predicted(spot) if last else None


def _are_predicted(spot: Spot, depth: int) -> bool:
    """Whether a map is what convolutions without activation give, by its channels or by what reads it no features."""
    view, node_index = spot.view, spot.node_index
    if spot.is_bare and spot.leaf is not None:
        decoded = bool(spot.consumers) and all(view.op(p) in _SCORES or leaves_plane(spot, p) for p in spot.consumers)
        return decoded or _is_narrow(spot.leaf)
    if node_index is None or spot.op not in _COMBINING or not depth:
        return False
    return all(_are_predicted(Spot(spot.survey, name), depth - 1) for name in view.inputs(node_index))


def _predicted(spot: Spot) -> Objection:
    return Objection(
        "predictions",
        "these are predictions (scores, boxes or masks) that nothing computes further with, and no features",
        maps_upstream(spot),
    )
