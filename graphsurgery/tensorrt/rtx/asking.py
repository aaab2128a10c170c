"""Asking: NVIDIA's parser about a model, if it is wanted and if it is there."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import EnvironmentLacks, ExternalDataError, RequestError, option
from ...modelfile.model import ModelFile
from ..support import one_of
from .libraries import find
from .opinion import NotAsked, Opinion

PARSERS = ("auto", "rtx", "none")


def ask(
    model: ModelFile, parser: str = "auto", *, build: bool = False, required: bool = False, shapes: Sequence[str] = ()
) -> Opinion | NotAsked | None:
    """What NVIDIA's parser says of a model.

    Parameters
    ----------
    parser:
        ``"auto"``: where it is installed. ``"rtx"``: it has to be. ``"none"``: it is not asked.
    build:
        Whether its builder makes an engine, too. It has to be installed then.
    required:
        Whether there has to be a verdict.
    shapes:
        Sizes of dynamic inputs to build for, as :func:`graphsurgery.tensorrt.profiles.profiles` takes them.

    Returns
    -------
    Opinion | NotAsked | None
        None if it was not to be asked.

    Raises
    ------
    RequestError
        For another ``parser``, or where something is wanted of none; for ``shapes`` of what is not built.
    EnvironmentLacks
        If something is wanted that cannot be had here. MissingDependency if it is not installed.
    """
    one_of("parser", parser, PARSERS)
    if shapes and not build:
        raise RequestError(f"sizes are for engines; give {option('build', 'True')} with {option('shapes')}")
    if parser == "none":
        if build or required:
            wanted = option("build" if build else "require_parser", "True")
            raise RequestError(f"{wanted} needs NVIDIA's parser; drop {option('parser', 'none')}")
        return None
    wanted_anyway = build or required or parser == "rtx"
    try:
        libraries = find()
        from .examine import examine

        said = examine(model, libraries, build=build, shapes=shapes)
    except (EnvironmentLacks, ExternalDataError) as error:
        if wanted_anyway:
            raise
        return NotAsked(error.message)
    if required and said.supported is None:
        raise EnvironmentLacks(f"{said.failure}: there is no verdict")
    return said
