"""UniqueNames: allocates names that are not taken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class UniqueNames:
    """Names that are taken. ``reserve`` gives the wished name, or the first free one with _1, _2 ... behind it."""

    taken: set[str] = field(default_factory=set)

    def reserve(self, wish: str) -> str:
        """A free name, taken from now on."""
        name, count = wish, 0
        while name in self.taken:
            count += 1
            name = f"{wish}_{count}"
        self.taken.add(name)
        return name
