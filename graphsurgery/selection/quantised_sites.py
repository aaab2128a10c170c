"""What to say of places in quantised models."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from ..graph import quantisation
from ..graph.index import GraphIndex
from ..messages import listed


def integers(
    index: GraphIndex, tensor: str, kind: int, is_map: Callable[[str], bool], shaped: Callable[[str, str], str]
) -> str:
    """The end of a sentence about a tensor of quantised integers: what to name, or what to do, instead.

    ``kind``: its element type, 0 where that is not known; ``shaped`` puts the shape of a tensor behind a name.
    """
    wide = kind in (TensorProto.INT16, TensorProto.UINT16)
    held = f"holds {16 if wide else 8}-bit integers, and a block computes in floats"
    around = [str(r.output[0]) for r in quantisation.readers(index, tensor) if r.op_type == quantisation.DEQUANTISE]
    maker = quantisation.made_by(index, tensor)
    if maker is not None and maker.op_type in quantisation.TO_INTEGERS:
        around.append(str(maker.input[0]))
    if near := [shaped(f"tensor:{name}", name) for name in around if is_map(name)]:
        return f"{held}; use {' or '.join(near)}"
    made = (name for position in sorted(index.active) for name in index.nodes[position].output)
    floats = [shaped(f"tensor:{name}", name) for name in made if is_map(name)]
    elsewhere = f"; the float maps in this model are {listed(floats)}" if floats else ""
    return (
        f"{held}: the model is quantised with QLinear operators, which leave no floats between them; insert into its "
        f"QDQ form (with QuantizeLinear and DequantizeLinear nodes), or before it is quantised{elsewhere}"
    )


def in_front(index: GraphIndex, tensor: str) -> str | None:
    """What to say of a tensor in front of its QuantizeLinear; None for any other."""
    if not quantisation.quantisers(index, tensor) or quantisation.dequantiser(index, tensor) is not None:
        return None
    here = (
        "this is in front of a QuantizeLinear, whose scale was found without the block (what goes beyond its range is "
        "clipped)"
    )
    if (better := quantisation.outlet(index, tensor)) != tensor:
        return (
            f"{here}, and what makes the tensor can no longer be computed in integers together with it; use "
            f"tensor:{better} to insert behind the DequantizeLinear"
        )
    ends = list(quantisation.dequantised(index, tensor))
    why = f"it is dequantised {len(ends)} times" if len(ends) > 1 else "some that read it read it as it is"
    one = listed([f"tensor:{name}" for name in ends])
    return f"{here}: {why}, so that there is no one place behind; name one to insert for it alone: {one}"
