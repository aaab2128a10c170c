"""What the TorchScript exporter writes of a module is the module, on maps that its windows do not divide, too."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime as ort
import pytest
import torch

from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block

UNEVEN = FeatureMap(16, 15, 10, label="the site")
CUTTING = ("bra", "bra[nchw]", "irmb", "cga", "swin[window]", "aifi[hilo]", "mlca")


@pytest.mark.parametrize("spelled", CUTTING)
def test_of_a_map_that_windows_do_not_divide(spelled: str) -> None:
    block = make_block(spelled)
    torch.manual_seed(3)
    module = block.module(UNEVEN).eval()
    x = torch.randn(1, 16, 15, 10)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), stream, dynamo=False, opset_version=17)
    session = ort.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-4, atol=1e-4)
