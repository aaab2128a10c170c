"""UniqueNames: allocates names that are not taken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class UniqueNames:
    """Names that are taken. ``reserve`` gives the wanted name, or the first free one of it with _1, _2 ... appended."""

    taken: set[str] = field(default_factory=set)

    def reserve(self, wanted: str) -> str:
        """A free name, taken from now on."""
        name, count = wanted, 0
        while name in self.taken:
            count += 1
            name = f"{wanted}_{count}"
        self.taken.add(name)
        return name
