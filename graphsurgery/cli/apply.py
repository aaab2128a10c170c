"""`graphsurgery apply`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def apply(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML list of insertions.", show_default=False)],
    model: options.Model = None,
    output: options.Output = None,
    force: options.Force = False,
    in_place: options.InPlace = False,
    as_json: options.Json = False,
    no_verify: options.NoVerify = False,
    providers: options.Providers = None,
    images: options.Images = None,
    quiet: options.Quiet = False,
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

    place = destination(model, output, force=force, in_place=in_place)
    requests = Recipe.load(recipe, images=images).requests
    measuring = any(each.qdq_scale == "images" for each in requests)
    to_verify_with = images if not (no_verify and measuring) else None
    checking = Checking(not no_verify, options.provider_list(providers), to_verify_with, quiet)
    run(requests, model, place, checking, as_json=as_json)
