"""Conversion: models as onnx_ir and onnx-graphsurgeon hold them, from protobuf messages and to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ..errors import ExternalDataError, MissingDependency, ModelError

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    import onnx_ir as ir

_IR = "an onnx_ir.Model needs the package onnx_ir: pip install onnx-ir"


def message_of(model: object) -> tuple[onnx.ModelProto, Path | None] | None:
    """A model of another library as a message, with the folder of its external data; None for any other object.

    The library is not imported here: who has such a model has imported it. ModelError for a model in parts that one
    message cannot hold.
    """
    library = type(model).__module__.partition(".")[0]
    if library == "onnx_graphsurgeon":
        import onnx_graphsurgeon as gs

        return gs.export_onnx(model), None
    if library == "onnx_ir":
        import onnx_ir as ir

        if isinstance(model, ir.Model):
            folder = _folder(model)
            return _written(model), folder
    return None


def _written(model: ir.Model) -> onnx.ModelProto:
    import onnx_ir as ir

    try:
        return ir.to_proto(model)
    except Exception as error:  # what it raises depends on what is wrong with the model
        raise ModelError(f"onnx_ir cannot write the model: {error}") from error


def to_ir(model: onnx.ModelProto, folder: Path | None) -> ir.Model:
    """A message as a Model of onnx_ir; its external data stays in its folder. MissingDependency without onnx_ir."""
    try:
        import onnx_ir as ir
    except ImportError:
        raise MissingDependency(_IR) from None
    found = ir.from_proto(model)
    if folder is not None:
        ir.external_data.set_base_dir(found.graph, folder)
    return found


def to_gs(model: onnx.ModelProto, folder: Path | None) -> gs.Graph:
    """A message as a Graph of onnx-graphsurgeon, with its external data. ExternalDataError if that cannot be read."""
    import onnx_graphsurgeon as gs

    if folder is not None:
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except Exception as error:  # onnx has its own error for files that it refuses, which differs by version
            raise ExternalDataError(f"the model's external data cannot be read: {error}") from None
    return gs.import_onnx(model)


def _folder(model: ir.Model) -> Path | None:
    """Where the external data of a model lies; None if it has none."""
    import onnx_ir as ir

    found = {Path(each.base_dir) for each in _tensors(model) if isinstance(each, ir.ExternalTensor)}
    if len(found) > 1:
        several = " and ".join(sorted(map(str, found)))
        raise ModelError(
            f"the weights of the model lie in several folders, {several}; "
            "load them first (onnx_ir.external_data.load_to_model)"
        )
    return next(iter(found), None)


def _tensors(model: ir.Model) -> Iterator[Any]:
    import onnx_ir as ir

    for graph in model.graphs():
        yield from (value.const_value for value in graph.initializers.values())
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR:
                    yield attribute.value
