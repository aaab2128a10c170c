"""`graphsurgery adopt`."""

from __future__ import annotations

from ..messages import shape_text
from .files import DASH, Output, open_model
from .output import Printer, aside, counted


def adopt(model: str | None = None, *, recipe: str, output: Output, verbose: bool = False, printer: Printer) -> None:
    """Put back records of insertions that another tool dropped.

    The blocks are recognised by the names of their nodes, and proven: taken out and inserted again by the recipe, they
    give the model as it is. Optimisers may have merged constants; weights may have been trained since. To remove and
    verify, the original is from now on this model without the blocks.

    \b
    graphsurgery adopt sanitized.onnx --recipe recipe.yaml -o adopted.onnx

    Parameters
    ----------
    recipe: RECIPE
        The insertions as they were made, as apply takes them: all that have no record.
    """
    from ..recipe import Recipe, put_back

    target = output.destination(model, [recipe])
    requests = Recipe.load(recipe).requests
    before = open_model(model)
    printer.to_stderr = target.is_standard_output
    with aside():
        after, records = put_back(before, requests)
    target.deliver(after)
    label = None if target.dry else target.label
    ids = [record.id for record in records]
    printer.json({"model": model or DASH, "output": label, "adopted": ids})
    for record in records:
        site = record.site
        where = f"{record.module} {site.position} {site.path or site.tensor}, {shape_text(site.shape)} {site.dtype}"
        printer.lines([f"{record.id}: {where}, {counted(len(record.nodes), 'node')}"])
        if verbose:
            printer.lines([f"  nodes: {', '.join(record.nodes)}"])
    printer.lines([target.sentence])
