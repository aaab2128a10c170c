"""Set-up for the tests of the PyTorch modules."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same numbers in every run, whatever ran before."""
    torch.manual_seed(7)
