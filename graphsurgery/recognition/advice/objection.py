"""Objection: what speaks against a place; Spot: the place, as the rules look at it; Survey: the model around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..blocktree import BlockTree
from .functions import Functions
from .gates import Gates
from .preparation import prepared


@dataclass(frozen=True, slots=True)
class Objection:
    """What speaks against a place."""

    short: str
    """a few words, for a table"""
    reason: str
    """the whole reason, a sentence without an end"""
    better: tuple[str, ...] = ()
    """tensors that may be better places, the nearest first: what speaks against them is still to be asked"""
    ending: str = ""
    """what to say behind the better place: ``to insert behind the activation``"""


class Survey:
    """What the rules look at in one model, each worked out when first needed."""

    def __init__(self, tree: BlockTree) -> None:
        self.tree = tree
        self.functions = Functions(tree.view)
        self.gates = Gates(tree)

    @cached_property
    def prepared(self) -> set[str]:
        """The images, and what is made of them before anything computes features."""
        return prepared(self.tree.view)


class Spot:
    """One tensor, and what the rules ask of it."""

    def __init__(self, survey: Survey, tensor: str) -> None:
        self.survey = survey
        self.tree = survey.tree
        self.view = view = survey.tree.view
        """the model that it is in"""
        self.tensor = tensor
        self.root = view.root(tensor)
        """the tensor upstream of what only passes this one on"""
        self.node_index = view.producer(self.root)
        """the node that produces it"""
        self.op = view.op(self.node_index) if self.node_index is not None else ""
        """the operator of that; "" for an input of the model"""
        self.consumers = view.consumers(self.root)
        """the nodes that consume its values"""
        self.leaf = self.tree.innermost(self.node_index) if self.node_index is not None else None
        """the smallest block that its producer is in"""
        in_convolution = self.leaf is not None and "kernel" in self.leaf.facts and not self.leaf.parts
        ends = self.leaf is not None and self.leaf.root == self.root
        self.is_bare = in_convolution and ends and self.leaf is not None and not self.leaf.facts.get("activation")
        """whether it is the output of a convolution, normalised or not, that has no activation"""
        self.is_inside_convolution = in_convolution and not ends
        """whether it is between a convolution and the normalisation or activation that belongs to it"""

    def outlet(self, root: str) -> str:
        """The tensor in the file after which a block is inserted for a root."""
        return self.view.outlet(root)
