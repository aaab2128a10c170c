"""Advice: why a place is not a good one for a block, though a block could be put there."""

from __future__ import annotations

from dataclasses import dataclass

from ..modelfile.operators import operator
from .block import RecognisedBlock
from .blocktree import BlockTree

_INTEGERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
_CONVOLUTIONS = ("Conv", "DWConv")
_GATES = ("Sigmoid", "HardSigmoid", "Tanh")


@dataclass(frozen=True)
class Objection:
    """What speaks against a place."""

    short: str
    """a few words, for a table"""
    sentence: str
    """the reason, and the better place where there is one"""


def objection(tree: BlockTree, tensor: str) -> str | None:
    """Why a tensor is no good place for a block, in one sentence; None where nothing speaks against it."""
    found = examine(tree, tensor)
    return found.sentence if found else None


def examine(tree: BlockTree, tensor: str) -> Objection | None:
    """The same with a few words for a table."""
    view, root = tree.view, tree.view.root(tensor)
    if not view.is_used(tensor):
        return Objection("changes nothing", "no output of the model depends on this, so a block here changes nothing")
    if _holds_integers(tree, tensor):
        better = view.outlet(root)
        hint = f"; use tensor:{better} behind the DequantizeLinear" if better != tensor else ""
        return Objection("quantised integers", f"this holds quantised integers, and a block computes in floats{hint}")
    node_index = view.producer(root)
    leaf = tree.innermost(node_index) if node_index is not None else None
    if leaf is not None and root != leaf.root and not leaf.parts and leaf.type in _CONVOLUTIONS:
        return _between("activation" if leaf.facts.get("activation") else "normalisation", _name(tree, leaf))
    if not tree.is_map(root):
        return Objection(
            "not a map",
            "this is no map of the image: its values are tokens, sizes, means or boxes, and not one for every position",
        )
    if leaf is not None and root == leaf.root and (found := _before_sum(tree, leaf)):
        return found
    if node_index is not None and _only_tokens(tree, root, node_index):
        return Objection(
            "read as tokens only",
            "this is read only as tokens, by the attention or the decoding that it is a part of; "
            "a block belongs behind or in front of the whole",
        )
    return _sandwiched(tree, tensor, root)


def _holds_integers(tree: BlockTree, tensor: str) -> bool:
    node = tree.view.index.producing(tensor)
    return node is not None and (operator(node) in _INTEGERS or operator(node).startswith("QLinear"))


def _between(kind: str, better: str) -> Objection:
    return Objection(
        f"before the {kind}",
        f"this is between a convolution and its {kind}, where it keeps TensorRT from fusing the two; "
        f"use {better} to insert behind the {kind}",
    )


def _before_sum(tree: BlockTree, leaf: RecognisedBlock) -> Objection | None:
    view, consumers = tree.view, tree.view.consumers(leaf.root)
    bare = leaf.type in _CONVOLUTIONS and not leaf.facts.get("activation")
    if not bare or len(consumers) != 1 or view.is_output(leaf.root):
        return None
    if view.op(consumers[0]) in _GATES:  # an activation of its own where nothing is multiplied by it
        return _between("activation", f"tensor:{view.outlet(view.outputs(consumers[0])[0])}")
    if view.op(consumers[0]) != "Add" or len(view.inputs(consumers[0])) < 2:
        return None
    around = tree.innermost(consumers[0])
    hint = f"; use {_name(tree, around)} to insert behind the sum" if around is not None else ""
    return Objection(
        "before the sum",
        "this is between a convolution without activation and the sum that it goes into, which TensorRT computes "
        f"as one{hint}",
    )


def _only_tokens(tree: BlockTree, root: str, node_index: int) -> bool:
    """Whether all consumers of a map are off the plane and in the same block: an attention's qkv, a head's exits."""
    view, block = tree.view, tree.holding(node_index)
    consumers = view.consumers(root)
    return (
        block is not None
        and bool(consumers)
        and all(
            p in block.nodes
            and not any(tree.is_map(name) for name in view.outputs(p))
            and not view.op(p).startswith(("Global", "Reduce"))  # a gate's mean
            for p in consumers
        )
    )


def _sandwiched(tree: BlockTree, tensor: str, root: str) -> Objection | None:
    index, better = tree.view.index, tree.view.outlet(root)
    consumers = {operator(index.nodes[p]) for p in index.consumers.get(tensor, ())} - {"Shape", "Size"}
    if better == tensor or consumers != {"QuantizeLinear"}:
        return None
    return Objection(
        "before quantisation",
        "this is quantised next, and TensorRT computes what lies between DequantizeLinear and QuantizeLinear as one; "
        f"use tensor:{better} behind the DequantizeLinear",
    )


def _name(tree: BlockTree, block: RecognisedBlock) -> str:
    return tree.display(block) or f"tensor:{block.output}"
