"""Recipes: a YAML list of insertions, to be carried out at once.

    - module: ge[theta]                  # the block; with [ ] in one line, quote it: {module: 'ge[theta]'}
      after: /model.4                    # one selector or a list of them
      settings: {extent: 4}              # hyper-parameters
    - {module: se, after: [/model.6, /model.8], init: identity}
    - {module: nam, after: /model.9, weights: 'trained.safetensors:model.9.nam'}
    - {module: simam, before: SPPF}      # in front of it, for what is inside
    - {module: simam, after: 'role:p4', consumers: Concat}

The keys of an entry are the arguments of :func:`graphsurgery.insert`, with the same defaults. A relative path of
weights, of images, or of a block's own ONNX file, starts at the folder of the recipe. The list may also stand under the
key ``insertions``. All selectors refer to the model as it is given; blocks at one site are chained in the order of the
list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import userblocks
from .api import Insertion, carry_out, put_in, warned
from .errors import InsertionError, ModelError, RecipeError, RequestError, as_key, option, spelled
from .insertion import adoption
from .messages import brief
from .modelfile import limits, yaml_text
from .modelfile.model import ModelFile
from .request import Argument, Request, Selectors, arguments, checked, fits
from .runtime.custom_ops import libraries_of, registered

if TYPE_CHECKING:
    from .modelfile.model import ModelSource
    from .weights.trained_blocks import TrainedBlocks

_KEYS = tuple(arguments())
_TOP = "insertions"
_OF_TRAINED_BLOCKS = (".safetensors", ".pt", ".pth", ".ckpt", ".tar", ".bin")
"""what the files of these end in"""
_SCALAR = bool | int | float | str | None


@dataclass(frozen=True)
class Recipe:
    """A list of insertions, read from YAML."""

    requests: tuple[Request, ...]
    entries: tuple[Mapping[str, object], ...] = field(default=(), compare=False, repr=False)
    """for each request the keys that its entry gives, with paths as they are from here; () where that is not known"""

    @classmethod
    def of(cls, recipe: str | Path | Recipe | Sequence[Mapping[str, object] | Request]) -> Recipe:
        """A recipe from whatever stands for one: the path of a YAML file, a ``Recipe``, or a list of its entries.

        Raises
        ------
        RecipeError
            If it cannot be read; an entry is named by its number.
        """
        if isinstance(recipe, Recipe):
            return recipe
        if not isinstance(recipe, list | tuple):
            return cls.load(cast("str | Path", recipe))
        if all(isinstance(entry, Request) for entry in recipe) and recipe:
            return cls(tuple(entry for entry in recipe if isinstance(entry, Request)))
        return cls._from_entries(list(recipe), None, "the recipe", {})

    @classmethod
    def load(cls, path: str | Path, *, images: str | Path | None = None) -> Recipe:
        """Read a recipe from a file.

        Parameters
        ----------
        path:
            A YAML file.
        images:
            The folder of images for entries with ``qdq_scale: images`` or ``init: calibrated`` that name none.

        Raises
        ------
        RecipeError
            If there is no such file, or it is no recipe; an entry is named by its number.
        """
        path = Path(checked("recipe", path, str, Argument(words="is the path of a YAML file")))
        try:
            with path.open("rb") as stream:
                data = stream.read(limits.RECIPE_BYTES + 1)
            _check_size(len(data), path.name)
            text = data.decode("utf-8-sig")
        except FileNotFoundError:
            raise RecipeError(f"there is no recipe {path}") from None
        except UnicodeDecodeError:
            raise RecipeError(_no_text(path)) from None
        except OSError as error:
            raise RecipeError(f"the recipe {path} cannot be read: {error.strerror or error}") from None
        except ValueError as error:  # a zero byte, say
            raise RecipeError(f"{brief(str(path))} cannot be the path of a recipe: {error}") from None
        return cls.from_text(text, folder=path.parent, name=path.name, images=images)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        folder: str | Path | None = None,
        name: str = "the recipe",
        images: str | Path | None = None,
    ) -> Recipe:
        """Read a recipe from a text, as :meth:`load` does.

        ``folder`` is where relative paths start (None: the current folder), ``name`` what errors call the recipe.
        """
        _check_size(len(text), name)
        where = Path(folder) if folder is not None else None
        return cls._from_entries(
            yaml_text.parse(text, name, "recipe", RecipeError),
            where,
            name,
            {"images": str(images)} if images is not None else {},
        )

    @classmethod
    def _from_entries(cls, document: object, folder: Path | None, name: str, defaults: Mapping[str, str]) -> Recipe:
        entries = _entries(document, name)
        labels = [f"entry {number} of {name}" for number in range(1, len(entries) + 1)]
        given = tuple(_given(entry, label, folder, defaults) for entry, label in zip(entries, labels, strict=True))
        return cls(tuple(_request(keys, label) for keys, label in zip(given, labels, strict=True)), given)

    def apply(self, model: ModelSource) -> ModelFile:
        """Carry out every insertion of the recipe on a model; see :func:`apply`."""
        return warned(*carry_out(ModelFile.load(model), self.requests))


def apply(
    recipe: str | Path | Recipe | TrainedBlocks,
    model: ModelSource,
    *,
    ignore_rest: bool = False,
    trust: str | Sequence[str] = (),
    custom_ops: str | Path | Sequence[str | Path] = (),
) -> ModelFile:
    """Carry out a recipe, several insertions at once; or put the blocks that were trained in a model into its export.

    The given model is not changed.

    Parameters
    ----------
    recipe:
        The path of a YAML file, or a ``Recipe``. For trained blocks: a file of blocks (.safetensors), a checkpoint that
        holds the model with its blocks (.pt), or :class:`TrainedBlocks`.
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``. All
        selectors of the recipe refer to it. For trained blocks: an export of the trained model without its blocks; its
        weights are read and compared.
    ignore_rest:
        Of trained blocks: put them into whatever model has the places for them.
    trust:
        Of trained blocks: PyTorch modules of your own that may be imported, each as ``"mypkg.blocks:MyAttention"``.
    custom_ops:
        Libraries with the operators in the model that onnxruntime does not have itself; see
        :func:`graphsurgery.insert`.

    Returns
    -------
    ModelFile
        The new model; ``save`` writes it.

    Raises
    ------
    RecipeError
        If the recipe cannot be read.
    WeightsError
        If the trained blocks cannot be read, or do not fit their places.
    BaseDiffers
        If the model is not the rest of the one that the blocks were trained in; the first module that differs is named.
    RequestError
        As :func:`graphsurgery.insert` does.

    Warns
    -----
    GraphSurgeryWarning
        For what works and is probably not what is meant.

    Examples
    --------
    >>> apply("recipe.yaml", "yolov8n.onnx").save("yolov8n-attention.onnx")           # doctest: +SKIP
    >>> apply("blocks.safetensors", "best-without-blocks.onnx").save("best.onnx")     # doctest: +SKIP
    """
    if (blocks := trained_blocks(recipe)) is not None:
        modules = userblocks.Trust.in_modules(checked("trust", trust, Selectors))
        after, done, _ = put_in(blocks, ModelFile.load(model), ignore_rest=ignore_rest, trust=modules)
        return warned(after, done)
    check_plain(ignore_rest, trust)
    loaded = recipe if isinstance(recipe, Recipe) else Recipe.load(cast("str | Path", recipe))
    with registered(libraries_of(custom_ops)):
        edited = carry_out(ModelFile.load(model), loaded.requests)
    return warned(*edited)


def trained_blocks(recipe: object) -> TrainedBlocks | None:
    """The trained blocks that are given in the place of a recipe; None for anything else. Raises WeightsError."""
    if isinstance(recipe, Recipe) or (
        isinstance(recipe, str | Path) and Path(recipe).suffix.lower() not in _OF_TRAINED_BLOCKS
    ):
        return None
    from .weights.trained_blocks import TrainedBlocks

    if isinstance(recipe, str | Path):
        return TrainedBlocks.load(recipe)
    return recipe if isinstance(recipe, TrainedBlocks) else None


def check_plain(ignore_rest: bool, trust: str | Sequence[str]) -> None:
    """RequestError for what only trained blocks have, given with a recipe."""
    for name, given in (("ignore_rest", ignore_rest), ("trust", trust)):
        if given:
            raise RequestError(f"{option(name)} goes with trained blocks, not with a recipe", option=name)


def adopt(model: ModelSource, recipe: str | Path | Recipe) -> ModelFile:
    """Put back records of insertions that another tool dropped.

    Each block of the recipe has to be in the model, by the names of its nodes, and without a record. They are taken
    out, the recipe is carried out on what is left, and the result has to be the model as it is: the same nodes,
    attributes, connections, and constants of the same shapes. Weights may have been trained since.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, ``onnx_ir.Model``, onnx-graphsurgeon ``Graph`` or ``ModelFile``. It is not
        changed.
    recipe:
        The path of a YAML file, or a ``Recipe``: the insertions as they were made, all that have no record.

    Returns
    -------
    ModelFile
        The model with the records in its metadata: ``remove`` and ``verify`` know its insertions again. To them, the
        original is this model without the blocks.

    Raises
    ------
    RecipeError
        If the recipe cannot be read.
    InsertionError
        If a block is not there, or the model is not what the recipe makes.
    RequestError
        As :func:`graphsurgery.insert` does.

    Examples
    --------
    >>> adopt("yolov8n-sanitized.onnx", "recipe.yaml").save("yolov8n-adopted.onnx")   # doctest: +SKIP
    """
    loaded = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    return put_back(ModelFile.load(model), loaded.requests)[0]


def put_back(model: ModelFile, requests: Sequence[Request]) -> tuple[ModelFile, list[Insertion]]:
    """The model with the records of the insertions that requests made, and these records; see :func:`adopt`."""
    for request in requests:
        if request.in_place_of:
            with request.concerned():
                sentence = "what stood in the place of the block went with its record, so that nothing can put it back"
                raise InsertionError(f"{option('in_place_of')}: {sentence}", option="in_place_of")
    trust = userblocks.Trust.in_blocks(request.module for request in requests)
    blocks = [userblocks.make_block(request.module, request.settings, trust).name for request in requests]
    return adoption.adopt(model, blocks, lambda bare, edition: carry_out(bare, requests, edition=edition))


def _check_size(size: int, name: str) -> None:
    if size > limits.RECIPE_BYTES:
        raise RecipeError(f"{name} is larger than {limits.RECIPE_BYTES >> 20} MB, which no recipe is")


def _entries(document: object, name: str) -> list[object]:
    if isinstance(document, Mapping):
        extra = [brief(key) for key in document if key != _TOP]
        if extra or _TOP not in document:
            what = f"the unknown key {extra[0]} at its top" if extra else "nothing in it"
            raise RecipeError(f"{name} has {what}; it is a list of insertions, or has one key, {_TOP}, with that list")
        document = document[_TOP]
    if document is None or document == []:
        raise RecipeError(f"{name} has no insertions in it")
    if not isinstance(document, list):
        raise RecipeError(f"{name} is a {_kind(document)}; a recipe is a list of insertions")
    return document


def _given(entry: object, label: str, folder: Path | None, defaults: Mapping[str, str]) -> dict[str, Any]:
    """The keys of one entry; ``defaults`` are for those that measure something."""
    if not isinstance(entry, Mapping):
        raise RecipeError(f"{label} is a {_kind(entry)}; it has to be a mapping with the keys {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            raise RecipeError(f"{label} has the unknown key {brief(key)}; the known ones are {', '.join(_KEYS)}")
    given: dict[str, Any] = {key: value for key, value in entry.items() if value is not None}
    if "module" not in given:
        raise RecipeError(f"{label} has no 'module'; the known keys are {', '.join(_KEYS)}")
    if folder is not None:
        for key, value in given.items():
            if isinstance(value, str) and (arguments()[key].argument.is_path or _is_block_file(key, value)):
                given[key] = str(folder / value)
    if given.get("qdq_scale") == "images" or given.get("init") == "calibrated":
        given = {**defaults, **given}
    for key, value in given.items():
        if value == [] and arguments()[key].hint == Selectors:
            raise RecipeError(f"{key!r} in {label} is an empty list; give at least one selector")
    settings = given.get("settings", {})
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        if not isinstance(name, str):
            raise RecipeError(f"'settings' in {label} has the name {brief(name)}, which is not a text")
        if not fits(value, _SCALAR):
            raise RecipeError(f"{brief(name)} in the settings of {label} has to be one value, not {brief(value)}")
    return given


def _request(given: Mapping[str, Any], label: str) -> Request:
    try:
        return Request(**given).labelled(label)
    except RequestError as error:
        message = spelled(error.message, as_key)
        raise RecipeError(f"{label}: {message}", option=error.option, candidates=error.candidates) from None


def _no_text(path: Path) -> str:
    """The sentence for a file that is no text."""
    try:
        ModelFile.load(path)
    except ModelError:
        return f"{path.name} is not a text file in UTF-8, so it is no recipe"
    return f"{path.name} is an ONNX model, not a recipe: the recipe comes first, then the model"


def _is_block_file(key: str, value: str) -> bool:
    return key == "module" and userblocks.is_file(value)


def _kind(value: object) -> str:
    names = {str: "text", list: "list", dict: "mapping", type(None): "blank entry"}
    return names.get(type(value), "single value")
