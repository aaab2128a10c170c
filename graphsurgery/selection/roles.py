"""RoleFinder: the tensors and nodes that selectors name by their role in the detector."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NoReturn

from ..errors import SelectorError
from ..messages import closest, listed
from .blocks import BlockFinder
from .context import Context, tensor_selectors
from .parser import Role
from .text import Text

REGIONS = ("backbone", "neck", "head")
_LEVEL = re.compile(r"[pn][1-7]")
_MAPS = {"backbone": re.compile(r"p[1-7]"), "neck": re.compile(r"n[1-7]"), "head": re.compile("neck-outputs")}
"""the roles of the maps that leave a part of the model, or enter it"""


class RoleFinder:
    """Looks up roles in one model."""

    def __init__(self, context: Context, finder: BlockFinder) -> None:
        self._context = context
        self._finder = finder

    @cached_property
    def _every(self) -> dict[str, list[str]]:
        blocks = self._context.blocks
        return {name: blocks.role(name) for name in blocks.ROLES}

    # ------------------------------------------------------------------ tensors

    def tensors(self, part: Role) -> list[str]:
        """The tensors of a role. SelectorError if there is no such role, none in this model, or one in each of several
        networks and it is not said in which.
        """
        asked = part.name.text
        names = [name for name in self._every if fnmatchcase(name, asked)]
        if not names:
            raise self._unknown(part.name)
        found = list(dict.fromkeys(tensor for name in names for tensor in self._every[name]))
        if not found:
            raise self._missing(part.name, names)
        if part.whose is not None:
            return self._narrowed(found, part.whose)
        if _LEVEL.fullmatch(asked) and len(found) > 1:
            raise self._several(part.name, found)
        return found

    def _unknown(self, written: Text) -> SelectorError:
        asked = written.text
        if asked.lower() in REGIONS:
            maps = self._maps(asked.lower())
            what = "; name one of its maps" if asked.lower() != "head" else "; the maps in front of it are"
            hint = f"{what}: {self._context.listed(maps)}" if maps else ""
            return written.error(f"role:{asked.lower()} is a part of the model and not one place{hint}", maps)
        near = [name for name in self._every if name == asked.lower()] or closest(asked, self._every, cutoff=0.6)
        hint = f"; the nearest are {listed(near)}" if near else ""
        sentence = f"there is no role {asked!r}{hint}; the roles are {', '.join(self._every)}"
        return written.error(sentence, self._context.accepted({f"role:{name}": "" for name in near}))

    def _maps(self, region: str) -> dict[str, str]:
        """The selectors of the maps of a part of the model, each with its tensor."""
        named = (name for name in self._every if _MAPS[region].fullmatch(name))
        maps = {f"role:{name}": self._every[name][0] for name in named if self._every[name]}
        return self._context.accepted(maps)

    def _missing(self, written: Text, names: Iterable[str]) -> SelectorError:
        asked, blocks = written.text, self._context.blocks
        if readings := [reading for name in names for reading in blocks.readings(name)]:
            each = tensor_selectors(reading.root for reading in readings)
            shown = (
                f"{self._context.shaped(*selector)} would be {reading.what}"
                for selector, reading in zip(each.items(), readings, strict=True)
            )
            sentence = f"the structure of the model does not tell which map is {asked}: {'; '.join(shown)}"
            return written.error(f"{sentence}; name one of them", self._context.accepted(each))
        present = [name for name, tensors in self._every.items() if tensors]
        why = ": no SPPF was recognised in it" if "sppf" in asked and not blocks.of_type("SPPF") else ""
        if not present:
            why = f": {self._finder.instead()}"
        has = f"; it has {', '.join(present)}" if present else ""
        kept = self._context.accepted({f"role:{name}": "" for name in present})
        return written.error(f"the model has no {asked}{why}{has}", kept)

    # ------------------------------------------------------------------ of which network

    def _several(self, written: Text, found: list[str]) -> SelectorError:
        asked, images = written.text, [self._context.blocks.images(tensor) for tensor in found]
        own = [names[0] for names in images if len(names) == 1]
        each = tensor_selectors(found)
        if len(set(own)) == len(found):
            each = {f"role:{asked}@{name}": tensor for name, tensor in zip(own, found, strict=True)}
        each = self._context.accepted(each)
        sentence = f"{len(found)} maps are {asked}: {self._context.listed(each)}; name one, or all with role:{asked}@*"
        return written.error(sentence, each)

    def _narrowed(self, found: list[str], whose: Text) -> list[str]:
        asked = whose.text.lstrip("/")
        owners = {tensor: self._owners(tensor) for tensor in found}
        kept = [tensor for tensor in found if any(_names(asked, owner) for owner in owners[tensor])]
        if not kept:
            images = dict.fromkeys(name for tensor in found for name in self._context.blocks.images(tensor))
            sentence = f"no map of this role is of {whose.text!r}; they are computed from {listed(images)}"
            raise whose.error(sentence, images)
        return kept

    def _owners(self, tensor: str) -> list[str]:
        """The images that a tensor is computed from, and the module that it is computed in."""
        node = self._context.index.producer.get(self._context.blocks.view.root(tensor))
        path = self._context.tree.of_node[node] if node is not None else ""
        return [*self._context.blocks.images(tensor), *([path] if path else [])]

    # ------------------------------------------------------------------ nodes

    def region(self, part: Role) -> set[int]:
        """The nodes of the backbone, the neck or the head. SelectorError for any other role."""
        asked, blocks = part.name.text, self._context.blocks
        regions = {node: blocks.role_of(node) for node in range(len(self._context.index.nodes))}
        nodes = {node for node, region in regions.items() if region is not None and fnmatchcase(region, asked)}
        if not nodes:
            known = [region for region in REGIONS if region in set(regions.values())]
            has = f"; the parts of this model that read something are {', '.join(known)}" if known else ""
            sentence = f"role:{asked} does not name a part of the model such as role:neck{has}"
            raise part.name.error(sentence, self._context.accepted({f"role:{name}": "" for name in known}))
        return nodes

    # ------------------------------------------------------------------ what is said of them

    def note(self, tensor: str) -> str:
        """Which map of the neck has the stride of this one of the backbone: both are called P3 by their authors."""
        said = []
        for name in (name for name in self._every if _LEVEL.fullmatch(name) and tensor in self._every[name]):
            if name[0] == "p" and (same := self._every[f"n{name[1]}"]):
                said.append(
                    f"{name} is the backbone's; the neck's map of that stride is role:n{name[1]} "
                    f"({', '.join(map(self._called, same))})"
                )
        return "; ".join(said)

    def _called(self, tensor: str) -> str:
        blocks = self._context.blocks
        leaving = (blocks.display(block) for block in blocks.blocks if block.output == tensor)
        return next((name for name in leaving if name), f"tensor:{tensor}").lstrip("/")

    # ------------------------------------------------------------------ words that mean a role

    def region_meant(self, written: Text) -> None:
        """SelectorError if a word that names consumers is the name of a part of the model, whatever its case."""
        word = written.text.lower()
        if word in REGIONS and word not in self._context.tree.modules:
            sentence = f"no module or block of the model is called {written.text!r}"
            raise written.error(f"{sentence}; the part of the model is role:{word}", [f"role:{word}"])

    def meant(self, written: Text, sentence: str) -> None:
        """SelectorError with this sentence if a word is the name of a role, whatever its case."""
        word = written.text.lower()
        if word in REGIONS:
            self._hint(written, sentence, self._maps(word), "the maps of that part")
        elif word in self._context.blocks.ROLES and self._every[word]:
            role = self._context.accepted({f"role:{word}": self._every[word][0]})
            self._hint(written, sentence, role, "the role of that name")

    def _hint(self, written: Text, sentence: str, maps: dict[str, str], what: str) -> NoReturn:
        verb = "is" if len(maps) == 1 else "are"
        hint = f"; {what} {verb} {self._context.listed(maps)}" if maps else ""
        raise written.error(f"{sentence}{hint}", maps)


def _names(asked: str, owner: str) -> bool:
    """Whether a word names an image or a module: in full, by a glob, or by how it begins."""
    return owner.startswith(asked) or fnmatchcase(owner, asked)
