"""Recipes: a YAML list of insertions, to be carried out at once.

    - module: ge[theta]                  # the block; with [ ] in one line, quote it: {module: 'ge[theta]'}
      after: /model.4                    # one selector or a list of them
      settings: {extent: 4}              # hyper-parameters
    - {module: se, after: [/model.6, /model.8], init: identity}
    - {module: nam, after: /model.9, weights: 'trained.safetensors:model.9.nam'}
    - {module: simam, before: SPPF}      # in front of it, for what is inside
    - {module: simam, after: 'role:p4', consumers: Concat}

Keys of an entry: ``module`` and either ``after``, with or without ``consumers``, or ``before`` (required);
``settings``, ``init``, ``seed``, ``gate``, ``weights``, ``target``, ``precision``, ``lowering``, ``qdq``,
``qdq_scale``, ``images``: the arguments of :func:`graphsurgery.insert`, with the same defaults. A relative path of
weights, of images, or of a block's own ONNX file, starts at the folder of the recipe. The list may also stand under the
key ``insertions``. All selectors refer to the model as it is given; blocks at one site are chained in the order of the
list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import userblocks
from .api import carry_out, warned
from .errors import RecipeError
from .modelfile.model import ModelFile
from .request import Request

if TYPE_CHECKING:
    import yaml

    from .modelfile.model import ModelSource

_PLACES = ("after", "before", "consumers")
_TEXTS = ("module", "init", "gate", "weights", "target", "precision", "lowering", "qdq", "qdq_scale", "images")
_KEYS = ("module", *_PLACES, "settings", "init", "seed", "gate", *_TEXTS[3:])
_TOP = "insertions"


@dataclass(frozen=True)
class Recipe:
    """A list of insertions, read from YAML."""

    requests: tuple[Request, ...]

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """The recipe in a file. RecipeError if there is none, or it cannot be read."""
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise RecipeError(f"there is no recipe {path}") from None
        except UnicodeDecodeError:
            raise RecipeError(f"{path.name} is not a text file in UTF-8, so it is no recipe") from None
        except OSError as error:
            raise RecipeError(f"the recipe {path} cannot be read: {error.strerror or error}") from None
        return cls.from_text(text, folder=path.parent, name=path.name)

    @classmethod
    def from_text(cls, text: str, *, folder: str | Path | None = None, name: str = "the recipe") -> Recipe:
        """The recipe in a text; ``folder`` is where relative paths of weights start (None: the current folder).

        RecipeError, with the number of the entry, for anything that does not belong there.
        """
        entries = _entries(_parsed(text, name), name)
        where = Path(folder) if folder is not None else None
        return cls(tuple(_request(entry, f"entry {i} of {name}", where) for i, entry in enumerate(entries, start=1)))

    def apply(self, model: ModelSource) -> ModelFile:
        """A new model with every insertion of the recipe in it.

        Raises a RequestError that says what is wrong; issues GraphSurgeryWarnings, as ``insert`` does.
        """
        return warned(*carry_out(ModelFile.load(model), self.requests))


def _parsed(text: str, name: str) -> object:
    import yaml

    try:
        for node in _mappings(yaml.compose(text, Loader=yaml.SafeLoader)):
            _check_keys_differ(node, name)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{name} is not YAML: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-99-99
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise RecipeError(f"{name} is not YAML: {reason}") from None


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Every mapping in a document, each once however many aliases point at it."""
    import yaml

    pending, seen = [node], set[int]()
    while pending:
        node = pending.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            pending += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def _check_keys_differ(node: yaml.MappingNode, name: str) -> None:
    """YAML readers keep the last of two equal keys and say nothing: half of an entry would be lost."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key.value, str):
            continue  # a list as a key: the reader itself complains
        if key.value in seen:
            raise RecipeError(f"{name} has the key {key.value!r} twice in one place (line {key.start_mark.line + 1})")
        seen.add(key.value)


def _entries(document: object, name: str) -> list[object]:
    if isinstance(document, Mapping):
        extra = [str(key) for key in document if key != _TOP]
        if extra or _TOP not in document:
            what = f"the unknown key {extra[0]!r} at its top" if extra else "nothing in it"
            raise RecipeError(f"{name} has {what}; it is a list of insertions, or has one key, {_TOP}, with that list")
        document = document[_TOP]
    if document is None or document == []:
        raise RecipeError(f"{name} has no insertions in it")
    if not isinstance(document, list):
        raise RecipeError(f"{name} is a {_kind(document)}; a recipe is a list of insertions")
    return document


def _request(entry: object, label: str, folder: Path | None) -> Request:
    if not isinstance(entry, Mapping):
        raise RecipeError(f"{label} is a {_kind(entry)}; it has to be a mapping with the keys {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            raise RecipeError(f"{label} has the unknown key {key!r}; the known ones are {', '.join(_KEYS)}")
    if entry.get("module") is None:
        raise RecipeError(f"{label} has no 'module'; the known keys are {', '.join(_KEYS)}")
    given: dict[str, Any] = {key: value for key, value in entry.items() if value is not None}
    for key in _TEXTS:
        if not isinstance(given.get(key, ""), str):
            raise RecipeError(f"{key!r} in {label} has to be a text, not {given[key]!r}")
    for key in _PLACES:
        if key in given:
            given[key] = _selectors(key, given[key], label)
    _check_place(given, label)
    given["settings"] = _settings(given.get("settings", {}), label)
    seed = given.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise RecipeError(f"'seed' in {label} has to be a whole number from 0 on, not {seed!r}")
    for key in ("weights", "images"):
        if folder is not None and key in given:
            given[key] = str(folder / given[key])
    if folder is not None and userblocks.is_file(given["module"]):
        given["module"] = str(folder / given["module"])
    return Request(**given)


def _check_place(given: Mapping[str, Any], label: str) -> None:
    if "after" not in given and "before" not in given:
        raise RecipeError(f"{label} has no 'after' and no 'before'; the known keys are {', '.join(_KEYS)}")
    if "after" in given and "before" in given:
        raise RecipeError(f"{label} has both 'after' and 'before'; give one of them")
    if "before" in given and "consumers" in given:
        raise RecipeError(f"'consumers' in {label} goes with 'after'; 'before' names the consumers itself")


def _selectors(key: str, value: object, label: str) -> tuple[str, ...]:
    selectors = value if isinstance(value, list) else [value]
    if not selectors:
        raise RecipeError(f"{key!r} in {label} is an empty list; give at least one selector")
    for selector in selectors:
        if not isinstance(selector, str):
            raise RecipeError(f"{key!r} in {label} has to be a selector or a list of them, not {selector!r}")
    return tuple(selectors)


def _settings(value: object, label: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"'settings' in {label} has to be a mapping of hyper-parameters, not {value!r}")
    for key, setting in value.items():
        if not isinstance(key, str):
            raise RecipeError(f"'settings' in {label} has the name {key!r}, which is not a text")
        if not isinstance(setting, bool | int | float | str | None):
            raise RecipeError(f"{key!r} in the settings of {label} has to be one value, not {setting!r}")
    return dict(value)


def _kind(value: object) -> str:
    names = {str: "text", list: "list", dict: "mapping", type(None): "blank entry"}
    return names.get(type(value), "single value")
