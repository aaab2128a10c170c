"""Examine: one model by NVIDIA's libraries, in a child process, and what they answered as an opinion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from ...errors import EnvironmentLacks, ExternalDataError
from ...modelfile import external_data
from ...modelfile.model import ModelFile
from ..inspector import Layer, became, named_layers
from ..profiles import profiles
from . import child, proof
from .again import everything
from .libraries import Libraries
from .opinion import Build, Opinion, Refusal


def examine(model: ModelFile, libraries: Libraries, *, build: bool = False, shapes: Sequence[str] = ()) -> Opinion:
    """What NVIDIA's parser says of a model, and its builder if it is to ``build``.

    Raises
    ------
    EnvironmentLacks
        If the libraries cannot be used, or do not prove themselves on the built-in models.
    ExternalDataError
        If the model's external data is not there to be read.
    RequestError
        If ``shapes`` do not fit, or are needed to build.
    """
    _check_external_data(model)
    ranges = profiles(model, shapes) if build else []
    profile = {each.name: [each.smallest, each.usual, each.largest] for each in ranges}
    jobs = [*proof.jobs(build=build), child.Job(model, "the model", build, profile)]
    parsed: child.Answer | None = None
    built: child.Answer | None = None
    failure = ""
    with closing(child.answers(libraries, jobs)) as said:
        _prove(said, libraries, build=build)
        try:
            parsed = next(said)
            built = next(said, None)
        except child.LibraryFailed as error:
            failure = str(error)
    if parsed is None:
        return Opinion(libraries.version, None, failure=failure)
    refusals, complete = _refusals(parsed, model), True
    if refusals:
        refusals, complete = everything(model, refusals, lambda part: _again(part, libraries))
    elif not parsed["outputs"]:
        refusals = [Refusal("the network that it makes of the model has no outputs", 0, "", -1, "", "")]
    blocks = {} if refusals else _blocks(parsed, model)
    return Opinion(libraries.version, not refusals, refusals, blocks, _build(built), complete, failure)


def _check_external_data(model: ModelFile) -> None:
    for location in model.external_data:
        if model.folder is None:
            raise ExternalDataError("the external data of a model in memory cannot be found; load it from its file")
        external_data.resolve(location, model.folder)


def _prove(said: Iterator[child.Answer], libraries: Libraries, *, build: bool) -> None:
    """Take the answers up to the built-in models. EnvironmentLacks if they are not right."""
    unproven = f"NVIDIA's parser is not to be believed here (TensorRT for RTX {libraries.version})"
    try:
        loaded, good = next(said), next(said)
        built = next(said) if build and good["parsed"] else None
        bad = next(said)
    except child.LibraryFailed as error:
        raise EnvironmentLacks(str(error)) from None
    if loaded["version"] != libraries.number:
        raise EnvironmentLacks(f"{unproven}: it says that its version is {loaded['version']}")
    if wrong := proof.fault(good, built, bad):
        raise EnvironmentLacks(f"{unproven}: {wrong}")


def _again(part: ModelFile, libraries: Libraries) -> list[Refusal] | None:
    """What is refused in a part of the model; None where there is no answer."""
    try:
        _, parsed = child.answers(libraries, [child.Job(part, "a part of the model")])
    except child.LibraryFailed:
        return None
    return _refusals(parsed, part)


def _refusals(parsed: Mapping[str, Any], model: ModelFile) -> list[Refusal]:
    """What is refused; nothing in a model that is taken."""
    if parsed["supported"] and parsed["parsed"]:
        return []
    errors = parsed["errors"]
    if errors:
        return [
            Refusal(e["text"], e["code"], e["function"], e["node"], e["name"], e["operator"], tuple(e["within"]))
            for e in errors
        ]
    # it says no more than which nodes it would take
    nodes, words = model.structure.graph.node, "; ".join(parsed["log"]) or "it does not say why"
    left = sorted(set(range(len(nodes))) - set(parsed["covered"])) if not parsed["supported"] else []
    return [Refusal(words, 0, "", i, nodes[i].name, nodes[i].op_type) for i in left] or [
        Refusal(words, 0, "", -1, "", "")
    ]


def _blocks(parsed: Mapping[str, Any], model: ModelFile) -> dict[str, list[Layer]]:
    layers = [
        Layer(each["name"], each["type"], tuple(dict.fromkeys(each["types"])), named_layers(each["metadata"]))
        for each in parsed["layers"]
    ]
    return {insertion.id: became(layers, insertion.nodes) for insertion in model.insertions()}


def _build(built: Mapping[str, Any] | None) -> Build | None:
    if built is None:
        return None
    words = "" if built["built"] else "; ".join(built["log"]) or "it does not say why"
    return Build(built["built"], built["seconds"], built["bytes"], words)
