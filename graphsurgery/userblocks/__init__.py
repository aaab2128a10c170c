"""Blocks that a user brings: an ONNX file (``./myblock.onnx``), or a PyTorch module (``mypkg.blocks:MyAttention``).

Both are Blocks like those of the catalogue, made from what the user names or, later, from the record of an insertion.
(A block class of the user's own, in a package of the entry-point group, is a block of the catalogue: see block.py.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..blocks.block import Block
from ..blocks.registry import catalogue_block
from ..errors import BlockError
from . import importing

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_file(spelled: str) -> bool:
    """Whether a block's name is that of an ONNX file."""
    return spelled.strip().lower().endswith(".onnx")


def is_module(spelled: str) -> bool:
    """Whether a block's name is that of a PyTorch module, ``package.module:Class``."""
    return _MODULE.fullmatch(spelled.strip()) is not None


def make_block(spelled: str, settings: Mapping[str, object] | None = None) -> Block:
    """The block that a user names with its hyper-parameters. BlockError if there is no such thing.

    ``simam`` or ``ge[theta]`` is one of the catalogue, ``./myblock.onnx`` and ``mypkg.blocks:MyAttention`` are the
    user's own.
    """
    return make(spelled, settings or {}) or catalogue_block(spelled, settings)


def make(spelled: str, settings: Mapping[str, object]) -> Block | None:
    """The block, if it is one of a user's; None for the name of a block of the catalogue. Raises BlockError."""
    if is_file(spelled):
        from .onnx_block import onnx_block

        return onnx_block(spelled.strip(), settings)
    if is_module(spelled):
        from .torch_block import torch_block

        return torch_block(spelled.strip(), settings)
    return None


def asked_for(spelled: str) -> None:
    """Note that the user named this block, so that its module may be imported. BlockError if it cannot be."""
    if is_module(spelled):
        trust([spelled])
        importing.load(spelled.strip())


def trust(names: Iterable[str]) -> None:
    """Let PyTorch modules be imported. BlockError for a name that is not of the form package.module:Class."""
    for name in names:
        if not is_module(name):
            raise BlockError(f"{name!r} does not name a PyTorch module; write it as in mypkg.blocks:MyAttention")
        importing.allow(name.strip())
