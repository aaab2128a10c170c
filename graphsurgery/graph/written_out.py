"""A model whose calls of local functions are written out, with the records of the blocks in its functions.

There a block in a function is a block of the main graph, under the names that its nodes and tensors have there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from ..errors import ModelError
from ..modelfile.model import ModelFile
from ..modelfile.record import KEY, Insertion, read_insertions
from ..modelfile.wire import text
from .call_paths import name_by_path
from .local_functions import by_key, key_of, written_out
from .origins import Origin, inner_names, origins, place_of, runs


def with_origins(model: onnx.ModelProto, name: str) -> tuple[onnx.ModelProto, list[Origin]] | None:
    """The model with its calls written out, its nodes named by their module paths, and where these come from; None
    where what its functions say is not what becomes of the calls. ModelError where they cannot be written out.
    """
    flat = written_out(model, name)
    found = origins(model, flat)
    if found is None:
        return None
    name_by_path(flat, found)
    renamed = _Names(model, flat, found)
    for entry in flat.metadata_props:
        if (text(entry.key) or "").startswith(KEY):
            insertion = next(each for each in read_insertions(model) if KEY + each.id == entry.key)
            if insertion.function is not None:
                entry.value = renamed.record(insertion).to_entry()[1]
    return flat, found


def without_calls(model: ModelFile, *, always: bool = False) -> ModelFile:
    """The model with its calls written out, its weights included; the model itself if no block is in a function, unless
    ``always``. ModelError where they cannot be written out.
    """
    if not always and all(insertion.function is None for insertion in model.insertions()):
        return model
    made = with_origins(model.proto(), model.name)
    if made is None:
        raise ModelError(f"the functions of {model.name} cannot be written out")
    flat = ModelFile.load(made[0], folder=model.folder)
    flat.name = model.name
    return flat


def as_run(model: ModelFile, insertion: Insertion) -> tuple[ModelFile, Insertion]:
    """What is to be run for a block, and its record there: the model, or that with its calls written out."""
    if insertion.function is None:
        return model, insertion
    flat = without_calls(model)
    return flat, next(each for each in flat.insertions() if each.id == insertion.id)


class _Names:
    """What is called how where calls are written out."""

    def __init__(self, model: onnx.ModelProto, flat: onnx.ModelProto, origins: Sequence[Origin]) -> None:
        functions, places = by_key(model.functions), inner_names(model, flat, origins)
        self._tensors: dict[tuple[str, ...], dict[str, str]] = {}
        self._nodes: dict[tuple[tuple[str, ...], str], str] = {}
        for node, origin in zip(flat.graph.node, origins, strict=True):
            for run in runs(origin.calls):
                called = functions[key_of(run[-1].node)]
                function = (called.domain, called.name, called.overload)
                self._tensors.setdefault(function, places[place_of(run)])
                self._nodes.setdefault((function, origin.node.name), node.name)

    def record(self, insertion: Insertion) -> Insertion:
        """The record of a block in a function, as it is where the calls are written out."""
        function, site, pair = insertion.function, insertion.site, insertion.qdq
        assert function is not None
        constants = self._tensors.get(function, {})

        def tensor(name: str) -> str:
            return constants.get(name, name)

        def nodes(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(self._nodes.get((function, name), name) for name in names)

        moved = replace(site, tensor=tensor(site.tensor), consumers=nodes(site.consumers), others=nodes(site.others))
        return replace(
            insertion.with_constants(constants),
            function=None,
            site=moved,
            output_tensor=tensor(insertion.output_tensor),
            nodes=nodes(insertion.nodes),
            qdq=replace(pair, tensor=tensor(pair.tensor), nodes=nodes(pair.nodes)) if pair else None,
        )
