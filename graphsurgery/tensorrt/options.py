"""Options: what a model is checked for: the version of TensorRT, the precision of the engine, and a DLA."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import RequestError
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
    plugins: frozenset[str] = frozenset()
    """names of plugins that are loaded where the model is built, beside those of TensorRT's own library"""

    @classmethod
    def of(
        cls,
        version: str | float | Version,
        *,
        precision: str = "fp32",
        dla: str | None = None,
        plugins: Iterable[str] = (),
    ) -> Options:
        """The options by their names. RequestError for one that there is not."""
        if dla is not None:
            one_of("table for the DLA", dla, DLAS, "dla")
        precision = one_of("precision", precision, PRECISIONS)
        names = frozenset(plugins)
        if wrong := [name for name in names if not str(name).isidentifier()]:
            raise RequestError(f"{wrong[0]!r} is not the name of an operator", option="plugin")
        return cls(Support(Version.of(version)), precision, dla, names)

    @property
    def version(self) -> Version:
        """The version of TensorRT."""
        return self.support.version
