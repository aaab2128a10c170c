"""`graphsurgery apply`."""

from __future__ import annotations

import shlex

from ..errors import RequestError
from .files import Output
from .inserting import Checking, run
from .output import Printer


def apply(recipe: str, model: str | None = None, *, output: Output, checking: Checking, printer: Printer) -> None:
    """Carry out a recipe: several insertions at once.

    \b
    - {module: se, after: [/model.6, /model.8], init: identity}
    - module: ge[theta]
      after: /model.4
      settings: {extent: 4}

    The keys of an entry are the arguments of insert in Python: the options of graphsurgery insert with underscores,
    and settings for --set.

    Parameters
    ----------
    recipe: RECIPE
        A YAML list of insertions.
    """
    from ..recipe import Recipe

    if model is not None and recipe.lower().endswith(".onnx") and model.lower().endswith((".yaml", ".yml")):
        raise RequestError(f"the recipe comes first: graphsurgery apply {shlex.join([model, recipe])} ...")
    requests = Recipe.load(recipe, images=checking.images).requests
    run(requests, model, output.destination(model), checking, printer)
