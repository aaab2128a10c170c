"""The file as a whole: operator set, IR version, dynamic inputs, and what precision asks of it."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import helper

from ...feature_map import type_name
from ...runtime.quantised_types import is_quantised
from ..options import Options
from ..rule import NOTE, WARNING, file_rule
from ..support import TYPE_NAMES
from ..view import View


@file_rule(
    source="model-importer",
    instead="export with an opset inside the range; 17 is read by every version from 8.6 on",
    severity=WARNING,
)
def opset_range(view: View, options: Options) -> Iterable[str]:
    opset, opsets = view.model.standard_opset, options.support.opsets
    if opset is not None and opset not in opsets:
        yield (
            f"the model uses opset {opset}; the parser's table for TensorRT {options.version} is stated for opsets "
            f"{opsets[0]} to {opsets[-1]}, and operators that changed since may be misread"
        )


@file_rule(
    source="onnx-versions",
    instead="nothing, as long as the model builds; onnx.version_converter and the exporters can write an older one",
    severity=NOTE,
)
def ir_version(view: View, options: Options) -> Iterable[str]:
    newest = helper.find_min_ir_version_for([helper.make_opsetid("", options.support.opsets[-1])])
    if view.structure.ir_version > newest:
        yield (
            f"the file is of IR version {view.structure.ir_version}, and opset {options.support.opsets[-1]}, the last "
            f"one that TensorRT {options.version} is stated for, came with {newest}; the parser does not look at it"
        )


@file_rule(
    source="dynamic-shapes",
    instead="give the engine a range of sizes: graphsurgery tensorrt command prints the flags",
    severity=NOTE,
)
def dynamic_input(view: View, options: Options) -> Iterable[str]:
    for name, value in view.index.inputs.items():
        tensor = value.type.tensor_type
        free = [d.dim_param or "?" for d in tensor.shape.dim if d.dim_value <= 0]
        if name not in view.index.initializers and (free or not tensor.HasField("shape")):
            yield f"the input {name} has dynamic sizes ({', '.join(free) or 'of unknown rank'})"


@file_rule(source="importer", instead="float32, int32 or int64 in its place, converted by Casts outside of the engine")
def tensor_types(view: View, options: Options) -> Iterable[str]:
    graph = view.structure.graph
    values = [
        *((f"the input {v.name}", v.type) for v in graph.input),
        *((f"the output {v.name}", v.type) for v in graph.output),
    ]
    held = [(what, kind.WhichOneof("value") or "", kind.tensor_type.elem_type) for what, kind in values]
    held += [(f"the initializer {each.name}", "tensor_type", each.data_type) for each in graph.initializer]
    found: dict[str, list[str]] = {}
    for what, form, kind in held:
        name = TYPE_NAMES.get(kind, type_name(kind).upper()) if form == "tensor_type" else form.replace("_type", "")
        if name and (kind or form != "tensor_type") and name not in options.support.tensor_types:
            found.setdefault(name, []).append(what)
    for name, holders in found.items():
        more = f" and {len(holders) - 1} more are" if len(holders) > 1 else " is"
        yield f"{holders[0]}{more} of type {name}, which TensorRT {options.version} lacks"


@file_rule(
    source="strong-typing",
    instead="convert the file: graphsurgery tensorrt command --version 11 --precision fp16 prints how",
    severity=WARNING,
    since=(11, 0),
)
def float16_in_file(view: View, options: Options) -> Iterable[str]:
    kinds = {TYPE_NAMES.get(v.type(name)) for v in view.visits for name in v.outputs()}
    if options.precision == "fp16" and kinds.isdisjoint({"FP16", "BF16"}):
        yield f"TensorRT {options.version} runs what the file says, and the file has no float16 in it"


@file_rule(
    source="quantised-types",
    instead="quantise the file: graphsurgery tensorrt command --version 11 --precision int8 prints how",
    severity=WARNING,
    since=(11, 0),
)
def int8_in_file(view: View, options: Options) -> Iterable[str]:
    if options.precision == "int8" and not is_quantised(view.structure):
        yield f"TensorRT {options.version} has INT8 behind QuantizeLinear nodes only, and the file has none"


@file_rule(
    source="quantised-types",
    instead="quantise the file, or calibrate; a calibration cache from before an insertion lacks the new tensors",
    severity=WARNING,
    before=(11, 0),
)
def int8_calibration(view: View, options: Options) -> Iterable[str]:
    if options.precision == "int8" and not is_quantised(view.structure):
        yield "the file has no QuantizeLinear nodes, so that INT8 takes a calibrator or a calibration cache"
