"""RT-DETR's choice of queries: where the last one that is chosen and the first one that is not are a tie, which of them
takes part in the attention among queries, and so all that comes out, is up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import RequestError
from ...feature_map import Array
from .live import Live
from .precision import Precision
from .ultralytics_heads import head_of, kinds


def is_tie(live: Live, feeds: Mapping[str, Array], coarse: torch.dtype, fine: torch.dtype) -> bool:
    """Whether the module's own choice is one, judged by its scores in the file's element type and in a finer one."""
    head = head_of(live.module)
    if head is None or "RTDETRDecoder" not in kinds(head):
        return False
    try:
        first, second = (_scores(live, feeds, kind) for kind in (coarse, fine))
    except RequestError:
        return False
    count: Any = head.num_queries
    ranked = second.sort(dim=1, descending=True).values
    if ranked.shape[1] <= count:
        return False
    margin = (ranked[:, count - 1] - ranked[:, count]).min()
    return bool(margin <= Precision.TIMES * (first - second).abs().max())


def _scores(live: Live, feeds: Mapping[str, Array], dtype: torch.dtype) -> Tensor:
    """[B, places]: what the queries are chosen by."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        seen.append(output.detach().double().amax(dim=-1))

    head: Any = head_of(live.copy(dtype))
    handle = head.enc_score_head.register_forward_hook(keep)
    try:
        live.run(feeds, dtype)
    finally:
        handle.remove()
    return seen[0]
