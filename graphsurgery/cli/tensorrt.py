"""`graphsurgery tensorrt`: the group of commands about TensorRT. Each is in a file of its own."""

from __future__ import annotations

import typer

from .command import add


def add_to(app: typer.Typer) -> None:
    """Add the commands, under the name of the group."""
    from .tensorrt_build import build
    from .tensorrt_check import check
    from .tensorrt_command import command
    from .tensorrt_precision import precision

    group = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
    group.callback()(tensorrt)
    for each in (check, precision, command, build):
        add(group, each)
    app.add_typer(group, name="tensorrt")


def tensorrt(context: typer.Context) -> None:
    """Check a model for TensorRT, build it, and see what it becomes."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)
