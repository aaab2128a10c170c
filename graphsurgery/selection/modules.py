"""PathFinder: the modules that a module path of a selector names, with globs and unique ends of longer paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from functools import cache, cached_property
from typing import Protocol

from ..graph.module_paths import Module, join
from ..messages import closest
from .parser import Path


class Lister(Protocol):
    """Lists candidates for messages: see :class:`graphsurgery.selection.context.Context`."""

    def accepted(self, candidates: Mapping[str, str]) -> dict[str, str]:
        """Those of some selectors that would be accepted."""

    def listed(self, candidates: Mapping[str, str], most: int = 6) -> str:
        """Selectors, each given with what leaves it."""


class PathFinder:
    """Looks paths up among the modules of one model."""

    def __init__(self, context: Lister, modules: Mapping[str, Module], leaving: Callable[[str], str]) -> None:
        """``leaving`` gives the tensor that leaves a module, for messages."""
        self._context = context
        self._modules = modules
        self._leaving = leaving

    @cached_property
    def _by_last_step(self) -> dict[str, list[tuple[int, list[str]]]]:
        """last step of a path -> the paths that end with it, each with its place in the model and its steps"""
        table: dict[str, list[tuple[int, list[str]]]] = {}
        for place, path in enumerate(self._modules):
            steps = path.split(".")
            table.setdefault(steps[-1], []).append((place, steps))
        return table

    def matches(self, path: Path) -> list[str]:
        """The dotted paths that it matches: from the root, else as the end of a longer path (then only one, or a
        glob). SelectorError if it is the end of several.
        """
        if any(_is_glob(step) for step in path.steps):
            return self._fitting(path.steps) or self._fitting(["**", *path.steps])
        dotted = ".".join(path.steps)
        if dotted in self._modules:
            return [dotted]
        ends = [known for known in self._modules if known.endswith(f".{dotted}")]
        if len(ends) > 1:
            each = self._candidates(ends)
            sentence = f"{dotted!r} is the end of {len(ends)} module paths: {self._context.listed(each)}"
            raise path.written.error(sentence, self._context.accepted(each))
        return ends

    def _candidates(self, paths: Iterable[str]) -> dict[str, str]:
        """Modules as the model's own names spell them, each with the tensor that leaves it."""
        return {self._modules[path].display: self._leaving(path) for path in paths}

    def nearest(self, path: Path, *, cutoff: float = 0.0) -> dict[str, str]:
        """The modules whose paths are most like it, each with the tensor that leaves it; without a cutoff, those of as
        many steps too.
        """
        wanted = ".".join(path.steps)
        near = closest(wanted, self._modules, cutoff=max(cutoff, 0.4))
        if len(near) < 4 and not cutoff:
            siblings = (p for p in self._modules if p.count(".") == wanted.count(".") and p not in near)
            near += closest(wanted, siblings, count=4 - len(near), cutoff=0.0)
        return self._candidates(near)

    def known(self, path: Path) -> int:
        """How many characters of the path as it is written lead to modules that there are."""
        text = path.written.text
        for stop in range(len(text), 0, -1):
            if text[stop - 1] in "./" and text[: stop - 1].strip("./"):
                steps = join(text[: stop - 1].split("/")).split(".")
                if ".".join(steps) in self._modules or (any(map(_is_glob, steps)) and self._fitting(steps)):
                    return stop
        return 0

    def _fitting(self, steps: Sequence[str]) -> list[str]:
        """The paths that match steps with globs, in the order of the model."""
        fits, last = cache(fnmatchcase), re.compile(translate("*" if steps[-1] == "**" else steps[-1]))
        ending = (each for step, paths in self._by_last_step.items() if last.match(step) for each in paths)
        return [".".join(own) for _, own in sorted(each for each in ending if _match(each[1], steps, fits))]


def _is_glob(step: str) -> bool:
    return any(character in step for character in "*?[")


def _match(path: Sequence[str], steps: Sequence[str], fits: Callable[[str, str], bool]) -> bool:
    """Whether the steps match the path, ** any number of its own; in time linear in both but for the last **."""
    at = step = resume = 0
    star = -1
    while at < len(path):
        if step < len(steps) and steps[step] == "**":
            star, resume = step, at
            step += 1
        elif step < len(steps) and fits(path[at], steps[step]):
            at, step = at + 1, step + 1
        elif star >= 0:
            resume += 1
            at, step = resume, star + 1
        else:
            return False
    return all(rest == "**" for rest in steps[step:])
