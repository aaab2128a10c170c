"""An ONNX block as a PyTorch module, to compare with: onnxruntime runs the graph of the user's file. Imports torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from ..feature_map import Array, numpy_dtype
from ..runtime.session import session
from .block_graph import BlockGraph
from .fit_to_site import with_dtype


class OnnxReference(nn.Module):
    """The graph before it was fitted to the site, in its own opset; in ``dtype``, float32 or float64.

    ``load_state_dict`` takes the weights by the names that they have in the graph.
    """

    def __init__(self, graph: BlockGraph, dtype: str) -> None:
        super().__init__()
        self._dtype = numpy_dtype(dtype)
        self._graph = with_dtype(graph, dtype)
        self._session = session(self._graph.model.SerializeToString(), "cpu", optimise=False, threads=1)
        self._weights: dict[str, Array] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxReference:
        """One with weights of its own; the session, which nothing changes, is shared."""
        other = copy.copy(self)
        other._weights = dict(self._weights)
        return other

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """The weights, by name."""
        known = self._graph.parameters
        self._weights = {name: np.asarray(state_dict[name], self._dtype) for name in known if name in state_dict}
        missing = [name for name in known if name not in state_dict]
        return _IncompatibleKeys(missing, [name for name in state_dict if name not in known])

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W], in the type of x."""
        (result,) = self._session.run({self._graph.x.name: x.numpy().astype(self._dtype), **self._weights})
        return torch.from_numpy(np.array(result)).to(x.dtype)
