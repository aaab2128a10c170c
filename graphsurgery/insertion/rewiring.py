"""Rewire the nodes of a model: give other names to the tensors that they read and write."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph.index import GraphIndex
from ..modelfile.fields import NODE, Edit
from ..modelfile.wire import rename_inputs, rename_outputs


def rename_tensors(
    edit: Edit, index: GraphIndex, inputs: Mapping[int, Mapping[str, str]], outputs: Mapping[str, str]
) -> None:
    """Add to an edit: other names for what nodes read (node index -> old name -> new name), captures of their
    subgraphs included, and for tensors where they are produced (old name -> new name).
    """
    model, renamed = index.model, _encoded(outputs)
    for node_index, names in inputs.items():
        edit.replaced[NODE, node_index] = rename_inputs(model.content(NODE, node_index), _encoded(names))
    for tensor in outputs:
        node_index = index.producer[tensor]
        node = edit.replaced.get((NODE, node_index)) or model.content(NODE, node_index)
        edit.replaced[NODE, node_index] = rename_outputs(node, renamed)


def with_names(node: bytes, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> bytes:
    """A NodeProto with other names for some of the tensors that it reads and gives."""
    return rename_outputs(rename_inputs(node, _encoded(inputs)), _encoded(outputs))


def _encoded(names: Mapping[str, str]) -> dict[bytes, bytes]:
    return {old.encode(): new.encode() for old, new in names.items()}
