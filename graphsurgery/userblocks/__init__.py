"""Blocks that a user brings: an ONNX file (``./myblock.onnx``), or a PyTorch module (``mypkg.blocks:MyAttention``).

Both are Blocks like those of the catalogue, made from what the user names or, later, from the record of an insertion.
(A block class of the user's own, in a package of the entry-point group, is a block of the catalogue: see
blocks/registry.py.)
"""

from __future__ import annotations

from collections.abc import Mapping

from ..blocks.block import Block
from ..blocks.nothing import NOTHING, Nothing
from ..blocks.registry import catalogue_block
from ..errors import concerning
from .importing import NO_TRUST, Trust, is_module

__all__ = ["NO_TRUST", "Trust", "is_file", "is_module", "make_block", "user_block"]


def is_file(spelled: str) -> bool:
    """Whether a block's name is that of an ONNX file."""
    return spelled.strip().lower().endswith((".onnx", ".ort"))


@concerning("module")
def make_block(spelled: str, settings: Mapping[str, object] | None = None, trust: Trust = NO_TRUST) -> Block:
    """The block that a user, or a record, names.

    Parameters
    ----------
    spelled:
        ``"simam"`` or ``"ge[theta]"`` of the catalogue; ``"./myblock.onnx"`` and ``"mypkg.blocks:MyAttention"`` are
        the user's own.
    settings:
        Hyper-parameters by name; of a block from a file that was inserted before, what the record holds.
    trust:
        The PyTorch modules that the block may import, when it is first used.

    Raises
    ------
    BlockError
        If there is no such block, variant or hyper-parameter.
    """
    if spelled == NOTHING:
        return Nothing()
    return user_block(spelled, settings or {}, trust) or catalogue_block(spelled, settings)


def user_block(spelled: str, settings: Mapping[str, object], trust: Trust = NO_TRUST) -> Block | None:
    """The block, if it is one of a user's; None for the name of a block of the catalogue. Raises BlockError."""
    if is_file(spelled):
        from .onnx_block import onnx_block

        return onnx_block(spelled.strip(), settings)
    if is_module(spelled):
        from .torch_block import TorchBlock

        return TorchBlock(spelled.strip(), settings, trust)
    return None
