"""YAML that a user wrote, read within limits."""

from __future__ import annotations

import yaml

from ..errors import RequestError
from . import limits


def parse(text: str, name: str, what: str, error: type[RequestError]) -> object:
    """The document in a text; None for an empty one.

    Parameters
    ----------
    name:
        Of the file.
    what:
        It should be: ``"recipe"``.
    error:
        Raised for what is no YAML, for a key that stands twice in one place, and for more than ``what`` ever has.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _Check(name, what, error).size(root)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise error(f"{name} is not YAML: {where}{problem.problem or problem.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: a date such as 2024-99-99
        reason = "it is nested too deeply" if isinstance(problem, RecursionError) else " ".join(str(problem).split())
        raise error(f"{name} is not YAML: {reason}") from None


class _Check:
    """A look at a document before it is built: an alias is a few bytes and may stand for billions of values."""

    def __init__(self, name: str, what: str, error: type[RequestError]) -> None:
        self._name, self._what, self._error = name, what, error
        self._sizes: dict[int, int] = {}

    def size(self, node: yaml.Node) -> int:
        """How many values there are with every alias written out."""
        if id(node) not in self._sizes:
            self._sizes[id(node)] = 1  # where an alias in it leads back to it
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                self._check_keys_differ(node)
                inner = [each for entry in node.value for each in entry]
            elif isinstance(node, yaml.SequenceNode):
                inner = node.value
            elif len(node.value) > limits.TEXT:
                raise self._error(f"{self._name} has a value of {len(node.value):,} characters in {_line(node)}")
            self._sizes[id(node)] = 1 + sum(map(self.size, inner))
        if self._sizes[id(node)] > limits.RECIPE_VALUES:
            most = f"{limits.RECIPE_VALUES:,} values, which no {self._what} does"
            raise self._error(f"{self._name} stands for more than {most}")
        return self._sizes[id(node)]

    def _check_keys_differ(self, node: yaml.MappingNode) -> None:
        """YAML readers keep the last of two equal keys and say nothing: half of an entry would be lost."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue  # a list as a key: the reader itself complains
            if key.value in seen:
                raise self._error(f"{self._name} has the key {key.value!r} twice in one place ({_line(key)})")
            seen.add(key.value)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
