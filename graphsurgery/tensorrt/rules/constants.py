"""Inputs that have to be constants, and what those constants may be."""

from __future__ import annotations

from ..options import Options
from ..rule import Rule, node_rule
from ..view import Origin, Visit

_REDUCTIONS = tuple(
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)


def _constant(id: str, slot: int, what: str, *operators: str, source: str, before: tuple[int, int] = (99, 0)) -> Rule:
    """The rule that an input is an initializer, a Constant, or computed from those alone."""

    @node_rule(*operators, id=id, source=source, instead=f"{what} as a constant", before=before)
    def check(visit: Visit, options: Options) -> str | None:
        name = visit.input(slot)
        if name and visit.origin(name) is not Origin.CONSTANT:
            return f"its {what} are computed by the model, and have to be constant"
        return None

    return check


reduce_axes = _constant("reduce-axes", 1, "axes", *_REDUCTIONS, source="operators-11.0")
slice_axes = _constant("slice-axes", 3, "axes", "Slice", source="changelog", before=(10, 3))
pad_axes = _constant("pad-axes", 3, "axes", "Pad", source="changelog", before=(10, 4))
squeeze_axes = _constant("squeeze-axes", 1, "axes", "Squeeze", "Unsqueeze", source="operators-10.16")
cumsum_axis = _constant("cumsum-axis", 1, "axis values", "CumSum", source="operators-10.16")
stft_constants = _constant("stft-step", 1, "frame steps", "STFT", source="operators-10.16")
stft_window = _constant("stft-window", 2, "window values", "STFT", source="operators-10.16")


@node_rule("OneHot", source="operators-10.0", instead="depth as a constant")
def onehot_depth(visit: Visit, options: Options) -> str | None:
    # known when the engine is built: a constant, or a shape
    return "its depth is computed from data" if visit.origin(visit.input(1)) is Origin.DATA else None


@node_rule("TopK", source="operators-10.0", instead="fewer elements, or several TopK nodes on parts")
def topk_k(visit: Visit, options: Options) -> str | None:
    value = visit.value(1)
    if value is None or value.size != 1 or int(value.ravel()[0]) < 3840:
        return None
    return f"K is {int(value.ravel()[0])}; it has to be below 3840"
