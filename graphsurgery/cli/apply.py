"""`graphsurgery apply`."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import ModelError, RequestError
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

    _check_order(recipe, model)
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


_SUFFIX = ".safetensors"
"""of blocks, even where such a file is damaged"""
_START = 4096
"""bytes of a file that tell what it is"""
_IN_TEXT = frozenset(b"\t\n\f\r")
_RECIPE, _BLOCKS, _MODEL = "recipe comes", "blocks come", "model"


def _check_order(recipe: str, model: str | None) -> None:
    """RequestError for a recipe, or blocks, in the place of the model. What a file is, its first bytes say."""
    first = _kind(recipe)
    second = _kind(model) if model is not None and first in (_BLOCKS, _MODEL) else None
    if first == _MODEL and second in (_RECIPE, _BLOCKS):
        raise RequestError(f"the {second} first: graphsurgery apply {shlex.join([model or '', recipe])} ...")
    if first == _BLOCKS and second == _RECIPE:
        raise RequestError(f"{recipe} has its recipe in it: give the model that it is for, and not {model}")


def _kind(name: str) -> str | None:
    """What a file is; None for what can be read only once, for none of the three, and where there is none."""
    from ..modelfile.model import ModelFile

    path = Path(name)
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            start = stream.read(_START)
        if path.suffix.lower() == _SUFFIX or (
            start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
        ):
            return _BLOCKS
        if not any(byte < 32 and byte not in _IN_TEXT for byte in start):
            return _RECIPE
        ModelFile.load(path)
    except (OSError, ValueError, ModelError):
        return None
    return _MODEL
