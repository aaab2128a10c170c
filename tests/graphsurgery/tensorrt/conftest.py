"""Models with insertions that several tests look at."""

from __future__ import annotations

import numpy as np
import pytest

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from tests.models import detector


@pytest.fixture(scope="session")
def gated() -> ModelFile:
    """The small detector with SimAM in its mean form and SE, float32."""
    first = gsx.insert(detector(), "simam", after="/model.1", lowering="mean")
    return gsx.insert(first, "se", after="/model.2", settings={"reduction": 4})


@pytest.fixture(scope="session")
def narrow() -> ModelFile:
    """The small detector in float16 with SimAM, all of it in float16."""
    return gsx.insert(detector(dtype=np.float16), "simam", after="/model.1", precision="site")
