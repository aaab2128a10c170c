"""A fake of NVIDIA's libraries, for the child process: what the driver asks is answered here and not in C++.

Run as a program, it is the driver with these libraries. The environment's FAKE_RTX says in JSON how they behave: what
they refuse (``refused``: operator -> error code and words), and in which step and at which model they ``crash``,
``hang`` or ``exit``. What is said of a model means what the real parser means: a subgraph holds nodes that were not
refused, and its flag is false all the same where another node was.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import onnx

from graphsurgery.tensorrt.rtx.driver import binding, main

SPOKEN = {
    "version": 10701,
    "refused": {"GraphSurgeryProof": [6, 'creator && "Plugin not found, are the plugin name correct?"']},
    "cannot_build": [],
    "silent": False,
    "at": None,
}
"""how the libraries behave unless FAKE_RTX says otherwise. ``at``: [step, number of the model, what happens]"""


def _happen(spoken: dict[str, Any], step: str, model: int) -> None:
    if spoken["at"] is None or spoken["at"][:2] != [step, model]:
        return
    what = spoken["at"][2]
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "hang":
        time.sleep(60)
    elif what == "exit":
        os._exit(7)
    else:
        raise RuntimeError(what)


class Libraries:
    """As binding.Libraries; everything that the real ones hand out as an address is an object here."""

    def __init__(self, runtime: str, parser: str) -> None:
        self.spoken = {**SPOKEN, **json.loads(os.environ["FAKE_RTX"])}
        self.version = self.spoken["version"]
        self.logger = SimpleNamespace(messages=[(4, "a message that nobody needs")])
        self.model = -1
        _happen(self.spoken, "loaded", 0)

    @property
    def builder(self) -> Any:
        return SimpleNamespace(
            create_config=lambda: SimpleNamespace(handle=1, add_profile=self._profile),
            create_profile=lambda: SimpleNamespace(handle=2, set_dimensions=self._dimensions),
            build_serialized=self._build,
        )

    def _dimensions(self, name: bytes, selector: int, dims: Any) -> None:
        assert name == b"x"
        self.shapes = [*getattr(self, "shapes", []), (selector, dims._obj.as_list())]

    def _profile(self, handle: int) -> None:
        assert self.shapes == [(0, [1, 3]), (1, [1, 3]), (2, [8, 3])]

    def _build(self, network: Any, config: Any) -> Any:
        _happen(self.spoken, "built", self.model)
        if any(layer.kind in self.spoken["cannot_build"] for layer in network.layers):
            self.logger.messages.append((1, "no kernel for it"))
            return None
        return SimpleNamespace(size=lambda: 1000)

    def network(self) -> Any:
        made = SimpleNamespace(inputs=[], outputs=[], layers=[])
        for name in ("input", "output", "layer"):
            setattr(made, f"{name}_count", lambda name=name: len(getattr(made, f"{name}s")))
            setattr(made, name, lambda i, name=name: getattr(made, f"{name}s")[i])
        made.handle = made
        return made

    def parser(self, network: Any) -> Any:
        return _Parser(self, network)


class _Parser:
    def __init__(self, libraries: Libraries, network: Any) -> None:
        self._libraries, self._network = libraries, network
        self._errors: list[Any] = []
        self._graph = onnx.GraphProto()

    def supports_model(self, data: Any, size: int, path: bytes) -> bool:
        self._libraries.model += 1
        return self._read(data, size)

    def parse(self, data: Any, size: int, path: bytes) -> bool:
        _happen(self._libraries.spoken, "parsed", self._libraries.model)
        if not self._read(data, size):
            return False
        graph = onnx.shape_inference.infer_shapes(self._model).graph
        types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}
        kinds = {name: {1: 0, 10: 1}.get(kind.elem_type, 3) for name, kind in types.items()}
        for value in graph.input:
            sizes = [d.dim_value or -1 for d in types[value.name].shape.dim]
            self._network.inputs.append(_tensor(value.name, 0, sizes))
        self._network.outputs += [_tensor(value.name, 0, []) for value in graph.output]
        for node in graph.node:
            outputs = [_tensor(name, kinds.get(name, 3), []) for name in node.output]
            self._network.layers.append(_layer(node, outputs))
        return True

    def _read(self, data: Any, size: int) -> bool:
        self._model = onnx.ModelProto.FromString(ctypes.string_at(data, size))
        self._graph = self._model.graph
        refused, nodes = self._libraries.spoken["refused"], enumerate(self._graph.node)
        self._errors = [_error(*refused[n.op_type], i, n) for i, n in nodes if n.op_type in refused]
        self._left = {error.node() for error in self._errors}
        if self._libraries.spoken["silent"] and self._libraries.model > 1:
            self._errors = []
        return not self._left

    def error_count(self) -> int:
        return len(self._errors)

    def error(self, index: int) -> Any:
        return self._errors[index]

    def subgraph_count(self) -> int:
        return len(self._graph.node) - len(self._left)

    def subgraph_nodes(self, index: int, length: Any) -> Any:
        taken = [i for i in range(len(self._graph.node)) if i not in self._left]
        length._obj.value = 1
        return (ctypes.c_int64 * 1)(taken[index])


def _tensor(name: str, kind: int, sizes: list[int]) -> Any:
    dims = binding.Dims(*sizes)
    return SimpleNamespace(name=name.encode, type=lambda: kind, dimensions=lambda: dims)


def _layer(node: onnx.NodeProto, outputs: list[Any]) -> Any:
    names = {"Relu": "Activation", "Cast": "Cast"}
    kind = binding.LAYERS.index(names.get(node.op_type, "ElementWise"))
    return SimpleNamespace(
        kind=node.op_type,
        type=lambda: kind,
        name=node.name.encode,
        metadata=f"[ONNX Layer: {node.name}]".encode,
        output_count=lambda: len(outputs),
        output=lambda i: outputs[i],
    )


def _error(code: int, words: str, position: int, node: onnx.NodeProto) -> Any:
    return SimpleNamespace(
        code=lambda: code,
        description=words.encode,
        function=lambda: b"importIt",
        node=lambda: position,
        node_name=node.name.encode,
        node_operator=node.op_type.encode,
        function_stack=lambda: None,
        function_stack_size=lambda: 0,
    )


if __name__ == "__main__":
    for interface in ("Error", "Tensor", "Layer", "Config", "Profile", "Memory"):
        setattr(binding, interface, lambda fake: fake)
    main.main(Libraries)  # type: ignore[arg-type]
