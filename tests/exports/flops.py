"""Multiply-accumulates as PyTorch counts them: `python flops.py NAME ...` prints those of the models that are exported.

PyTorch's own counter sees every convolution and matrix product that runs. A multiplication and its addition are two
operations to it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.exports import NAMES, make, make_zoo


def counted(model: Any, *inputs: Any) -> int:
    """Return the multiply-accumulates of one run of a module."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    torch.backends.mha.set_fastpath_enabled(False)  # as one operator, an encoder layer is not looked into
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return int(counter.get_total_flops()) // 2


def of_export(name: str) -> int:
    """Return those of a model as make.py, make_more.py or make_zoo.py exports it."""
    import torch

    if name in make_zoo.MODELS:
        size = make_zoo.SIZES.get(name, make_zoo.SIZE)
        return counted(make_zoo.MODELS[name]().eval(), torch.rand(1, 3, size, size))
    model = make.build(name).fuse().eval()  # Ultralytics merges what runs side by side before it exports
    return counted(model, torch.rand(1, 3, make.SIZE, make.SIZE))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as settings:
        make.isolate(settings)
        make_zoo.declare_operators()
        found = {name: of_export(name) for name in sys.argv[1:] or NAMES}
    print(json.dumps(found))
