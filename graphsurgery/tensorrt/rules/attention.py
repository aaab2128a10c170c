"""The Attention operator: what it may be given and asked for."""

from __future__ import annotations

from ..options import Options
from ..rule import node_rule
from ..view import Visit

_BY_HAND = "MatMul, scale, Softmax, MatMul"


@node_rule("Attention", source="operators-10.16", instead=_BY_HAND, since=(10, 14))
def attention_form(visit: Visit, options: Options) -> str | None:
    if visit.input(4) or visit.input(5) or len(visit.outputs()) > 1:
        return "it has a cache of keys and values, or more than one output"
    if visit.attribute("softcap", 0.0):
        return "it has a softcap"
    return None


@node_rule("Attention", source="operators-10.16", instead="4-D queries, keys and values", since=(10, 14))
def attention_rank(visit: Visit, options: Options) -> str | None:
    ranks = {visit.rank(slot) for slot in range(3)} - {None}
    if len(ranks) > 1 or not ranks <= {3, 4}:
        known = sorted(rank for rank in ranks if rank)
        return f"its queries, keys and values are of the ranks {known}; all 3 or all 4 are taken"
    return None


@node_rule("Attention", source="rtx-parser", instead="a mask that is causal itself", since=(10, 14))
def attention_mask(visit: Visit, options: Options) -> str | None:
    return (
        "it is causal and has a mask; one of the two is taken"
        if visit.attribute("is_causal", 0) and visit.input(3)
        else None
    )


@node_rule("Attention", source="rtx-parser", instead=_BY_HAND, since=(10, 14))
def attention_heads(visit: Visit, options: Options) -> str | None:
    keys, values = (visit.shape(visit.input(slot)) for slot in (1, 2))
    if keys and values and keys != values:
        return f"its keys are {list(keys)} and its values {list(values)}; shapes that are equal are taken"
    return None
