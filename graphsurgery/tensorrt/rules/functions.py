"""Local functions: calls of functions that the model itself defines."""

from __future__ import annotations

from collections.abc import Iterable

from ...modelfile.operators import STANDARD
from ..options import Options
from ..rule import WARNING, file_rule, node_rule
from ..view import View, Visit

_INLINE = "inline the functions before the file is written: onnx.inliner.inline_local_functions"


@node_rule(source="model-importer", instead=_INLINE, before=(9, 0))
def local_function(visit: Visit, options: Options) -> str | None:
    if visit.function and not visit.is_onnx:
        return f"TensorRT {options.version} does not know local functions; the call of {visit.operator} is refused"
    return None


@node_rule(source="model-importer", instead=_INLINE, since=(9, 0))
def function_inputs(visit: Visit, options: Options) -> str | None:
    given = sum(1 for name in visit.node.input if name)
    if visit.function and not visit.is_onnx and given != (count := len(visit.function.input)):
        return f"{visit.operator} declares {count} inputs and is called with {given}; none may be left out"
    return None


@file_rule(source="model-importer", instead=_INLINE, since=(9, 0))
def function_names(view: View, options: Options) -> Iterable[str]:
    names = [name for _, name, _ in view.functions]
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        yield f"{names.count(name)} functions are called {name}; TensorRT tells functions apart by name alone"


@file_rule(source="model-importer", instead=_INLINE, severity=WARNING, since=(9, 0))
def function_opset(view: View, options: Options) -> Iterable[str]:
    opset = view.model.standard_opset
    for (domain, name, _), function in view.functions.items():
        for entry in function.opset_import:
            if entry.domain in STANDARD and opset not in (None, entry.version):
                yield (
                    f"the function {domain}.{name} is of opset {entry.version} and the model of {opset}, "
                    "as which TensorRT reads it"
                )


@node_rule(source="model-importer", instead=_INLINE, since=(9, 0), before=(10, 8))
def function_shadowing(visit: Visit, options: Options) -> str | None:
    function = visit.function
    if function is None:
        return None
    inner = {name for node in function.node for name in node.output if name} | set(function.input)
    outer = set(visit.scope.origins) - set(visit.node.input) - set(visit.node.output)
    both = sorted(inner & outer)
    if both:
        return f"inside {visit.operator} {both[0]} is another tensor than outside, and TensorRT takes the outer one"
    return None
