"""Reference: what an inserted block is compared with, in words for reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """What computes what a block should give."""

    what: str
    short: str
    runtime: str
    dtype: str
    """element type that it computes in"""

    def __str__(self) -> str:
        return f"{self.what}, in {self.dtype}"

    def to_json(self) -> dict[str, str]:
        """Keys: see docs/command-line.md."""
        return {"what": self.what, "runtime": self.runtime, "dtype": self.dtype}


PYTORCH = Reference("the PyTorch module", "PyTorch", "PyTorch", "float64")
