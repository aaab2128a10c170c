"""What to say of places in quantised models."""

from __future__ import annotations

from onnx import TensorProto

from ..errors import SiteError
from ..graph import quantisation
from ..messages import listed
from ..modelfile.operators import operator
from .context import Context, tensor_selectors


def no_integers(context: Context, tensor: str, what: str) -> SiteError:
    """The error for a tensor of quantised integers: what to name, or what to do, instead.

    ``what`` is how messages call the tensor.
    """
    index = context.index
    wide = context.shapes.lookup(tensor)[0] in (TensorProto.INT16, TensorProto.UINT16)
    held = f"{what} holds {16 if wide else 8}-bit integers, and a block computes in floats"
    readers = [r for r in quantisation.consumers(index, tensor) if operator(r) == quantisation.DEQUANTISE]
    around = [reader.output[0] for reader in readers if reader.output]
    producer = index.producing(tensor)
    if producer is not None and operator(producer) in quantisation.TO_INTEGERS:
        around.append(producer.input[0])
    suggestions = context.suggestions
    if near := suggestions.accepted(tensor_selectors(filter(context.is_map, around)), use="after"):
        shown = " or ".join(context.shaped(*each) for each in near.items())
        return SiteError(f"{held}; use {suggestions.after}{shown}", candidates=tuple(near))
    floats = suggestions.accepted(tensor_selectors(context.maps()), use="after")
    elsewhere = f"; the float maps in this model are {context.listed(floats)}" if floats else ""
    return SiteError(
        f"{held}: the model is quantised with QLinear operators, which leave no floats between them; insert into its "
        f"QDQ form (with QuantizeLinear and DequantizeLinear nodes), or before it is quantised{elsewhere}",
        candidates=tuple(floats)[:6],
    )


def before_quantiser(context: Context, tensor: str) -> str | None:
    """What to say of a tensor in front of its QuantizeLinear; None for any other."""
    index = context.index
    if not quantisation.quantisers(index, tensor) or quantisation.dequantiser(index, tensor) is not None:
        return None
    here = (
        "this is in front of a QuantizeLinear, whose scale was found without the block (what goes beyond its range is "
        "clipped)"
    )
    better = quantisation.outlet(index, tensor)
    if better != tensor and context.suggestions.leads_to(f"tensor:{better}", "after"):
        return (
            f"{here}, and what makes the tensor can no longer be computed in integers together with it; use "
            f"tensor:{better} to insert behind the DequantizeLinear"
        )
    ends = context.suggestions.accepted(tensor_selectors(quantisation.dequantised(index, tensor)), use="after")
    why = f"it is dequantised {len(ends)} times" if len(ends) > 1 else "some that read it read it as it is"
    hint = f"; name one to insert for it alone: {listed(ends)}" if ends else ""
    return f"{here}: {why}, so that there is no one place behind{hint}"
