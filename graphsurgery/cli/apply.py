"""`graphsurgery apply`."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import RequestError
from .files import Output
from .inserting import Checking, run, run_trained
from .output import Printer


def apply(
    recipe: str,
    model: str | None = None,
    *,
    ignore_rest: bool = False,
    trust: list[str] | None = None,
    output: Output,
    checking: Checking,
    printer: Printer,
) -> None:
    """Carry out a recipe: several insertions at once. Or put trained blocks into the model they were trained in.

    \b
    - {module: se, after: [/model.6, /model.8], init: identity}
    - module: ge[theta]
      after: /model.4
      settings: {extent: 4}

    The keys of an entry are the arguments of insert in Python: the options of graphsurgery insert with underscores,
    and settings for --set.

    Trained blocks come in a file that graphsurgery weights wrote. MODEL is an export of the trained model without its
    blocks: its weights are read, and one that is not of that training ends with 1.

    \b
    graphsurgery apply blocks.safetensors best-without-blocks.onnx -o best.onnx

    Parameters
    ----------
    recipe: RECIPE
        A YAML list of insertions, or a .safetensors of trained blocks.
    ignore_rest:
        Put trained blocks into whatever model has the places for them.
    trust: PKG.MOD:CLASS
        A PyTorch module of your own, trained, that may be imported. May be repeated.
    """
    from ..recipe import Recipe, check_plain, trained_blocks
    from ..userblocks import Trust

    endings = tuple(Path(each).suffix.lower() for each in (recipe, model or ""))
    if endings[0] == ".onnx" and endings[1] in (*_YAML, _BLOCKS):
        first = "recipe comes" if endings[1] in _YAML else "blocks come"
        raise RequestError(f"the {first} first: graphsurgery apply {shlex.join([model or '', recipe])} ...")
    if endings[0] == _BLOCKS and endings[1] in _YAML:
        raise RequestError(f"{recipe} has its recipe in it: give the model that it is for, and not {model}")
    if (blocks := trained_blocks(recipe)) is not None:
        modules = Trust.in_modules(trust or ())
        run_trained(
            blocks,
            model,
            output.destination(model, [recipe]),
            checking,
            printer,
            ignore_rest=ignore_rest,
            trust=modules,
        )
        return
    check_plain(ignore_rest, trust or ())
    requests = Recipe.load(recipe, images=checking.images).requests
    run(requests, model, output.destination(model, [recipe]), checking, printer)


_YAML = (".yaml", ".yml")
_BLOCKS = ".safetensors"
