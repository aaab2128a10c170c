"""Suggestions: selectors are tried before they are proposed, so that a message names nothing that would be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Literal, TypeAlias

from ..errors import option

Use: TypeAlias = Literal["after", "before", "consumers"]
"""what a selector is given for"""
Trial: TypeAlias = Callable[[str, Use], "list[str] | None"]
"""the tensors that a selector leads to when it is used so; None where it would be refused"""


class Suggestions:
    """Which selectors would be accepted in one model."""

    def __init__(self) -> None:
        self._trial: Trial = _nowhere
        self._use: Use = "after"
        self.is_trying = False
        """whether a selector is only tried, so that nobody reads what is said of it"""
        self._known: dict[tuple[str, Use], list[str] | None] = {}

    def try_by(self, trial: Trial) -> None:
        """State how selectors are tried: by whoever resolves them."""
        self._trial = trial

    def used(self, use: Use) -> AbstractContextManager[None]:
        """What is proposed meanwhile is to be accepted when it is used so."""
        return nullcontext() if use == self._use else self._using(use)

    @contextmanager
    def _using(self, use: Use) -> Iterator[None]:
        before, self._use = self._use, use
        try:
            yield
        finally:
            self._use = before

    def leads_to(self, selector: str, use: Use | None = None) -> list[str] | None:
        """The tensors that a selector leads to; None where it would be refused."""
        key = (selector, use or self._use)
        if key not in self._known:
            if self.is_trying:
                return None
            self.is_trying = True
            try:
                self._known[key] = self._trial(*key)
            finally:
                self.is_trying = False
        return self._known[key]

    def accepted(
        self, candidates: Mapping[str, str], *, use: Use | None = None, most: int | None = None
    ) -> dict[str, str]:
        """Those of some selectors, each given with its tensor, that would be accepted."""
        if self.is_trying:
            return {}
        kept = (name for name in candidates if self.leads_to(name, use) is not None)
        return {name: candidates[name] for name in islice(kept, most)}

    @property
    def after(self) -> str:
        """What to say in front of selectors that are accepted behind something, where something else was asked for."""
        return "" if self._use == "after" else f"with {option('after')} "


def _nowhere(selector: str, use: Use) -> None:
    """The trial of a model in which nothing resolves selectors."""
