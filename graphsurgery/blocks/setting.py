"""Setting: one hyper-parameter of a block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import BlockError, concerning
from ..messages import brief

Value = int | float | bool | str | None
"""of a hyper-parameter"""

_WORDS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


@dataclass(frozen=True)
class Setting:
    """One hyper-parameter of a block: what ``--set name=value`` accepts."""

    name: str
    type: type
    """int, float, bool or, with ``choices``, str; in a constructor of the user's own also str without, or object for
    whatever else"""
    default: int | float | bool | str | None
    doc: str
    minimum: float | None = None
    above: float | None = None
    choices: tuple[int, ...] | tuple[str, ...] | None = None
    variants: tuple[str, ...] | None = None
    """the block's variants that have it; None: all"""
    required: bool = False
    later: bool | tuple[str, ...] = False
    """whether the block, or which of its variants, had records before this setting: they leave it out where it has its
    default"""

    def belongs_to(self, variant: str | None) -> bool:
        """Whether that variant of the block has it."""
        return self.variants is None or variant in self.variants

    def came_later(self, variant: str | None) -> bool:
        """Whether records of that variant leave it out where it has its default."""
        return self.later if isinstance(self.later, bool) else variant in self.later

    @concerning("settings")
    def read(self, value: object, block: str) -> Value:
        """A value in the setting's type.

        Parameters
        ----------
        value:
            Text from a command line, or a Python value.
        block:
            The block, for messages.

        Raises
        ------
        BlockError
            If it is not one, or outside of the setting's limits.

        Examples
        --------
        >>> Setting("reduction", int, 16, "channels over hidden channels", minimum=1).read("8", "se")
        8
        """
        if value is None and self.default is None:
            return None
        result = self._converted(value)
        if result is None:
            kind = {int: "a whole number", float: "a number", bool: "true or false"}[self.type]
            candidates = ("true", "false") if self.type is bool else ()
            raise BlockError(f"{self.name} of {block} is {kind}, not {brief(value)}", candidates=candidates)
        shown = value if isinstance(value, str) else brief(value)
        if self.choices is not None and result not in self.choices:
            known = tuple(map(str, self.choices))
            raise BlockError(f"{self.name} of {block} is one of {', '.join(known)}, not {shown}", candidates=known)
        if isinstance(result, str):
            return result
        if self.minimum is not None and result < self.minimum:
            raise BlockError(f"{self.name} of {block} is at least {self.minimum:g}, not {shown}")
        if self.above is not None and not result > self.above:
            raise BlockError(f"{self.name} of {block} is greater than {self.above:g}, not {shown}")
        return result

    def _converted(self, value: object) -> Value:
        if self.type is str:
            return str(value)
        if self.type is bool:
            return value if isinstance(value, bool) else _WORDS.get(str(value).lower())
        if isinstance(value, bool):
            return None
        try:
            number = float(str(value))
        except ValueError:
            return None
        if not np.isfinite(number):
            return None
        if self.type is int:
            return int(number) if number == int(number) else None
        return number
