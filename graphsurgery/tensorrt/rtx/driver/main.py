"""Main: one JSON object comes in, one line of JSON goes out for each step that is finished.

In, on standard input: ``runtime`` and ``parser``, the paths of the libraries, and ``models``, a list of ``descriptor``
(an open file with the model), ``size`` (bytes), ``path`` (where its external data lies beside), ``build`` (whether to
build an engine) and ``profile`` (dynamic input -> smallest, usual and largest shape).

Out, on standard output: ``{"step": "loaded", "version": ...}``; for each model in turn ``{"step": "parsed", ...}``
and, if it is to be built and could be parsed, ``{"step": "built", ...}``; ``{"step": "failed", "reason": ...}`` ends it
early. A process that ends otherwise was ended by the library.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import binding

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of sys/prctl.h"""


def main(load: Callable[[str, str], binding.Libraries] = binding.Libraries) -> None:
    """Carry out the request on standard input, and end the process without the library's own clean-up."""
    _isolate()
    channel = _channel()
    request = json.load(sys.stdin)

    def say(step: str, **facts: Any) -> None:
        os.write(channel, (json.dumps({"step": step, **facts}) + "\n").encode())

    try:
        libraries = load(request["runtime"], request["parser"])
        say("loaded", version=libraries.version)
        for model in request["models"]:
            network = _parse(libraries, model, say)
            if model["build"] and network is not None:
                _build(libraries, network, model["profile"], say)
    except Exception as error:  # the parent can do nothing with a traceback
        say("failed", reason=f"{error}" or type(error).__name__)
    os._exit(0)


def _channel() -> int:
    """A descriptor for what is said; what the library prints to standard output goes nowhere."""
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return channel


def _isolate() -> None:
    """Leave nothing behind: no process when the parent is killed, no core dump, no traceback on Ctrl-C."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _parse(libraries: binding.Libraries, model: Mapping[str, Any], say: Callable[..., None]) -> binding.Network | None:
    """Show a model to the parser, twice: the network that `supports_model` fills cannot be parsed into again."""
    path = os.fsencode(model["path"])
    libraries.logger.messages.clear()
    content = mmap.mmap(model["descriptor"], model["size"], access=mmap.ACCESS_COPY)  # the process ends with it open
    data = ctypes.cast((ctypes.c_char * model["size"]).from_buffer(content), ctypes.c_char_p)
    judge = libraries.parser(libraries.network())
    supported = judge.supports_model(data, model["size"], path)
    errors, covered = _errors(judge), _covered(judge)
    network = libraries.network()
    parser = libraries.parser(network)
    parsed = parser.parse(data, model["size"], path)
    if supported:
        errors = _errors(parser)
    facts = {"supported": supported, "parsed": parsed, "errors": errors, "covered": covered}
    say("parsed", **facts, **(_network(network) if parsed else {}), log=_log(libraries))
    return network if parsed else None


def _errors(parser: binding.Parser) -> list[dict[str, Any]]:
    found = []
    for i in range(parser.error_count()):
        error = binding.Error(parser.error(i))
        stack = error.function_stack()
        found.append(
            {
                "code": error.code(),
                "text": binding.text(error.description()),
                "function": binding.text(error.function()),
                "node": error.node(),
                "name": binding.text(error.node_name()),
                "operator": binding.text(error.node_operator()),
                "within": [binding.text(stack[k]) for k in range(error.function_stack_size())] if stack else [],
            }
        )
    return found


def _covered(parser: binding.Parser) -> list[int]:
    """The nodes in any subgraph, whatever its flag says: a node that is refused is in none of them."""
    found: set[int] = set()
    for i in range(parser.subgraph_count()):
        length = ctypes.c_int64()
        nodes = parser.subgraph_nodes(i, ctypes.byref(length))
        found.update(int(nodes[k]) for k in range(length.value))
    return sorted(found)


def _network(network: binding.Network) -> dict[str, Any]:
    inputs = [binding.Tensor(network.input(i)) for i in range(network.input_count())]
    outputs = [binding.Tensor(network.output(i)) for i in range(network.output_count())]
    return {
        "inputs": {binding.text(each.name()): each.dimensions().as_list() for each in inputs},
        "outputs": [binding.text(each.name()) for each in outputs],
        "layers": [_layer(binding.Layer(network.layer(i))) for i in range(network.layer_count())],
    }


def _layer(layer: binding.Layer) -> dict[str, Any]:
    outputs = [binding.Tensor(layer.output(i)) for i in range(layer.output_count())]
    return {
        "type": _named(binding.LAYERS, layer.type()),
        "name": binding.text(layer.name()),
        "metadata": binding.text(layer.metadata()),
        "types": [_named(binding.TYPES, each.type()) for each in outputs],
    }


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def _build(
    libraries: binding.Libraries,
    network: binding.Network,
    profile: Mapping[str, list[list[int]]],
    say: Callable[..., None],
) -> None:
    """Build an engine for whatever the library builds for without a GPU, and forget it."""
    libraries.logger.messages.clear()
    config = binding.Config(binding.made(libraries.builder.create_config(), "configuration"))
    if profile:
        ranges = binding.Profile(binding.made(libraries.builder.create_profile(), "optimization profile"))
        for name, shapes in profile.items():
            for selector, shape in enumerate(shapes):
                ranges.set_dimensions(name.encode(), selector, ctypes.byref(binding.Dims(*shape)))
        config.add_profile(ranges.handle)
    start = time.perf_counter()
    engine = libraries.builder.build_serialized(network.handle, config.handle)
    seconds = time.perf_counter() - start
    size = binding.Memory(engine).size() if engine else 0
    say("built", built=bool(engine), seconds=seconds, bytes=size, log=_log(libraries))


def _log(libraries: binding.Libraries) -> list[str]:
    return [message for severity, message in libraries.logger.messages if severity <= 1]
