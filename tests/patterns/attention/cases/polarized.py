"""Polarized self-attention, for the tests of every block."""

from __future__ import annotations

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("polarized", {}),
    ("polarized[s]", {}),
    ("polarized[external-p]", {}),
    ("polarized[external-s]", {}),
]
_BEHIND_ONE = {"conv_q_right.weight", "conv_v_right.weight", "conv_up.0.weight", "conv_up.0.bias", "conv_up.1.weight"}
INERT = {"ch_wq.bias"} | _BEHIND_ONE
"""A bias of logits, which no softmax sees. With 12 channels the LayerNorm of s is over one; tested with more."""
