"""Operators that ONNX does not have: importers of TensorRT's own, plugins, and names that mean something else there.

TensorRT looks at the name of an operator and not at its domain: first for an importer, then for a function of the
model, then for a plugin.
"""

from __future__ import annotations

from ...errors import option
from ...modelfile.operators import STANDARD
from ..options import Options
from ..rule import NOTE, WARNING, node_rule
from ..support import plugin_versions
from ..view import Visit

_LOADED = "nothing, if the plugin library is loaded where it runs"
_SAME_FUNCTION = frozenset({"DequantizeLinear", "Gelu", "QuantizeLinear"})
"""operators of com.microsoft that do what those of their name in ONNX do"""


def is_plugin(visit: Visit, options: Options) -> bool:
    """Whether a node is left to a plugin that is there: one of TensorRT's own library, or of the user's."""
    return visit.operator in options.plugins or options.support.is_plugin(visit.operator)


def _is_unknown(visit: Visit, options: Options) -> bool:
    """Whether no importer and no function is behind an operator, so that TensorRT looks for a plugin of its name."""
    taken = options.support.types(visit.operator) is not None or options.support.is_importer(visit.operator)
    return visit.function is None and not taken


@node_rule(source="model-importer", instead="operators of the standard set")
def custom_operator(visit: Visit, options: Options) -> str | None:
    if not _is_unknown(visit, options) or visit.is_onnx or is_plugin(visit, options):
        return None
    if plugin_versions(visit.operator):
        return None
    name = f"{visit.node.domain}.{visit.operator}".lstrip(".")
    return (
        f"{name} is no operator of ONNX and no plugin of TensorRT's own library; "
        f"{option('plugin', visit.operator)} says that you have one of this name"
    )


@node_rule(source="plugin-library", instead=_LOADED, severity=NOTE)
def plugin(visit: Visit, options: Options) -> str | None:
    if not _is_unknown(visit, options) or not options.support.is_plugin(visit.operator):
        return None
    return f"{visit.operator} is a plugin of TensorRT's own library (initLibNvInferPlugins)"


@node_rule(source="model-importer", instead=_LOADED, severity=NOTE)
def plugin_of_yours(visit: Visit, options: Options) -> str | None:
    if not _is_unknown(visit, options) or visit.operator not in options.plugins:
        return None
    return f"{visit.operator} is a plugin of yours; what it does with its input is not looked at"


@node_rule(source="plugin-library", instead="a plugin of your own of that name, or other operators")
def plugin_version(visit: Visit, options: Options) -> str | None:
    versions = plugin_versions(visit.operator)
    if not _is_unknown(visit, options) or not versions or is_plugin(visit, options):
        return None
    return (
        f"{visit.operator} is a plugin in the library of TensorRT {' and '.join(versions)}, "
        f"and not in that of {options.version}; {option('plugin', visit.operator)} says that you have one of this name"
    )


@node_rule(source="model-importer", instead="a name that no operator has, or the operator itself", severity=WARNING)
def read_as_operator(visit: Visit, options: Options) -> str | None:
    domain = visit.node.domain
    if options.support.types(visit.operator) is None or (domain in STANDARD and visit.function is None):
        return None
    if visit.function is not None:
        return f"it calls a function of the model, and TensorRT reads {visit.operator} as the operator of that name"
    if domain == "com.microsoft" and visit.operator in _SAME_FUNCTION:
        return None
    return f"TensorRT reads {domain}.{visit.operator} as the standard operator {visit.operator}: it ignores the domain"
