"""Part: some nodes of a graph with one feature map entering and one of the same shape leaving."""

from __future__ import annotations

from dataclasses import dataclass

from ..feature_map import FeatureMap


@dataclass(frozen=True)
class Part:
    """Nodes that nobody else reads, but for what leaves.

    Constants (initializers, Constant nodes) that only the part reads belong to it, and are found from the nodes.
    """

    nodes: tuple[int, ...]
    """indexes in the graph, each after those that it reads"""
    input: str
    """the tensor [N, C, H, W] that enters; see ``channels_last``"""
    output: str
    """the one that leaves, of the same shape, see ``gives_tokens``; the last node gives it"""
    feature: FeatureMap
    """what both are"""
    function: tuple[str, ...] | None = None
    """key of the local function whose nodes these are; None in the main graph"""
    channels_last: bool = False
    """whether both are [N, H, W, C], as they stand"""
    gives_tokens: bool = False
    """whether what leaves is [N, H * W, C]: that map with its positions in one row; only with ``channels_last``"""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of what enters, as it stands; None where a size is open."""
        batch, channels, height, width = self.feature.shape
        return (batch, height, width, channels) if self.channels_last else self.feature.shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of what leaves, likewise."""
        return (self.feature.batch, self.feature.area, self.feature.channels) if self.gives_tokens else self.shape
