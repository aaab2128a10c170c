"""`graphsurgery apply`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from ..errors import RequestError
from . import options


def apply(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML list of insertions.", show_default=False)],
    model: options.Model = None,
    output: options.Output = None,
    force: options.Force = False,
    in_place: options.InPlace = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    no_verify: options.NoVerify = False,
    providers: options.Providers = None,
    images: options.Images = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Carry out a recipe: several insertions at once.

    \b
    - {module: se, after: [/model.6, /model.8], init: identity}
    - module: ge[theta]
      after: /model.4
      settings: {extent: 4}

    The keys of an entry are the arguments of insert in Python: the options of graphsurgery insert with underscores,
    and settings for --set.
    """
    from ..recipe import Recipe
    from .files import destination
    from .inserting import Checking, run

    place = destination(model, output, force=force, in_place=in_place, dry=dry_run)
    _check_order(recipe, model)
    requests = Recipe.load(recipe, images=images).requests
    measuring = any(each.qdq_scale == "images" for each in requests)
    to_verify_with = images if not (no_verify and measuring) else None
    checking = Checking(not no_verify, options.provider_list(providers), to_verify_with, as_json, quiet, verbose)
    run(requests, model, place, checking)


def _check_order(recipe: str, model: str | None) -> None:
    """RequestError for a model in the place of the recipe, and a recipe in that of the model."""
    if model is not None and recipe.lower().endswith(".onnx") and model.lower().endswith((".yaml", ".yml")):
        raise RequestError(f"the recipe comes first: graphsurgery apply {shlex.join([model, recipe])} ...")
