"""Options: what a model is checked for: the version of TensorRT, the precision of the engine, and a DLA."""

from __future__ import annotations

from dataclasses import dataclass

from .support import DLAS, Support, Version, one_of

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Options:
    """What a model is checked for."""

    support: Support
    precision: str = "fp32"
    """one of PRECISIONS"""
    dla: str | None = None
    """one of DLAS"""

    @classmethod
    def of(cls, version: str | float | Version, *, precision: str = "fp32", dla: str | None = None) -> Options:
        """The options by their names. RequestError for one that there is not."""
        if dla is not None:
            one_of("table for the DLA", dla, DLAS, "dla")
        return cls(Support(Version.of(version)), one_of("precision", precision, PRECISIONS), dla)

    @property
    def version(self) -> Version:
        """The version of TensorRT."""
        return self.support.version
