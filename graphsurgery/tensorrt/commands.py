"""The command lines for trtexec: build, time and profile, each with the flags that the version has.

Flags: NVIDIA/TensorRT samples/common/sampleOptions.cpp of releases 8.6, 10.0, 10.16 and 11.1. From 11 on there are no
precision flags, and CUDA graphs, spin waiting, no transfers and a profile run of its own are what trtexec does anyway.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RequestError, option
from ..modelfile.model import ModelFile
from ..runtime.quantised_types import element_types, halves, is_quantised
from .precision import autocast_patterns, trtexec_flags, types_of
from .profiles import Profile, profiles, text
from .support import Version, one_of
from .view import View

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_TIMING = ("--useCudaGraph", "--noDataTransfers", "--useSpinWait")
_CALIBRATION = "calibration.npz"


@dataclass(frozen=True)
class Command:
    """One command line."""

    purpose: str
    """"convert", "build", "time" or "profile" """
    arguments: Sequence[str]

    def __str__(self) -> str:
        return shlex.join(self.arguments)


@dataclass
class Plan:
    """The commands for one model, in the order in which they are run, and what to know of them."""

    commands: list[Command] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        commands = [{"purpose": c.purpose, "arguments": list(c.arguments), "line": str(c)} for c in self.commands]
        return {"commands": commands, "notes": list(self.notes)}


def plan(
    model: ModelFile,
    path: str | Path,
    *,
    version: str | Version = "10",
    precision: str | None = None,
    dla: int | None = None,
    shapes: Sequence[str] = (),
    strongly_typed: bool = False,
) -> Plan:
    """The commands that build, time and profile an engine of a model.

    Parameters
    ----------
    model, path:
        The model, and the file that the commands name.
    version:
        8.6, 10, 11 or a minor version of the last two.
    precision:
        "fp32", "fp16", "bf16" or "int8"; None: what the types in the file ask for.
    dla:
        The DLA core to use, from 0 on; None is the GPU.
    shapes:
        Sizes of dynamic inputs, as :func:`graphsurgery.tensorrt.profiles.profiles` takes them.
    strongly_typed:
        Whether the types in the file decide in 10.x as well.

    Returns
    -------
    Plan
        The commands in the order in which they are run, and notes on them.

    Raises
    ------
    RequestError
        For what the version does not have.
    """
    version = Version.of(version)
    if precision is not None:
        one_of("precision", precision, PRECISIONS)
    if dla is not None and not version.has_dla:
        raise RequestError(f"TensorRT {version} cannot use a DLA; 10.7 was the last 10.x that could", option="dla")
    result = Plan()
    typed = version.strongly_typed or strongly_typed
    if strongly_typed and version.major < 10:
        raise RequestError("strongly typed networks came with TensorRT 10", option="strongly_typed")
    source = _converted(model, Path(path), precision, version, result) if typed else Path(path)
    flags = [] if typed else _weak(model, version, precision, dla, result)
    if strongly_typed and not version.strongly_typed:
        flags = ["--stronglyTyped"]
        if version < (10, 12):
            result.notes.append("strongly typed networks are complete from TensorRT 10.12 on")
    device = [] if dla is None else [f"--useDLACore={dla}"]
    if device:
        flags += [*device, "--allowGPUFallback"]
    ranges = profiles(model, shapes)
    engine = source.with_suffix(".plan")
    sizes = _sizes(ranges, minShapes="smallest", optShapes="usual", maxShapes="largest")
    build = [f"--onnx={source}", f"--saveEngine={engine}", *flags, *sizes]
    result.commands.append(_trtexec("build", *build, "--profilingVerbosity=detailed", "--skipInference"))
    timing, apart = ((), ()) if version.strongly_typed else (_TIMING, ("--separateProfileRun",))
    run = [f"--loadEngine={engine}", *_sizes(ranges, shapes="usual"), *device, *timing]
    result.commands.append(_trtexec("time", *run))
    profiled = [*run, "--profilingVerbosity=detailed", "--dumpProfile", *apart]
    profiled.append(f"--exportProfile={engine.with_suffix('.profile.json')}")
    profiled.append(f"--exportLayerInfo={engine.with_suffix('.layers.json')}")
    result.commands.append(_trtexec("profile", *profiled))
    return result


def _trtexec(purpose: str, *arguments: str) -> Command:
    return Command(purpose, ["trtexec", *arguments])


def builder_types(model: ModelFile, precision: str | None) -> set[str]:
    """The types that a builder before TensorRT 11 has to be allowed, beside float32: "fp16", "bf16", "int8" and "fp8".

    Those of the file and that of ``precision``; with INT8 and FP8, FP16 for what has no form in them.
    """
    types = element_types(model.structure) | ({precision} if precision not in (None, "fp32") else set())
    return types | ({"fp16"} if types & {"int8", "fp8"} else set())


def _weak(model: ModelFile, version: Version, precision: str | None, dla: int | None, result: Plan) -> list[str]:
    """Precision flags of 8.6 and 10.x, where the builder may choose narrower types than the file has."""
    found = sorted(builder_types(model, precision))
    if precision == "fp32" and found:
        result.notes.append(f"the file has {' and '.join(found)} in it, which takes the flags whatever is asked for")
    if "bf16" in found and version.major < 10:
        raise RequestError("TensorRT 8.6 has no bfloat16", option="precision")
    if "int8" in found and not is_quantised(model.structure):
        result.notes.append("without Q/DQ nodes trtexec makes INT8 ranges up: add --calib=FILE, or quantise the model")
    if dla is not None and not set(found) & {"fp16", "int8"}:
        raise RequestError(f"a DLA computes in FP16 and INT8 only; give {option('precision', 'fp16')} or int8")
    flags = [f"--{name}" for name in found]
    if found:
        flags += trtexec_flags([each.node for each in types_of(View(model)) if each.float32])
    return flags


def _converted(model: ModelFile, path: Path, precision: str | None, version: Version, result: Plan) -> Path:
    """The file to build where the file decides: itself, or what ModelOpt makes of it first."""
    structure = model.structure
    if precision is None or precision == "fp32":
        if precision == "fp32" and element_types(structure):
            result.notes.append("the file is not in float32, and the file decides")
        return path
    target = path.with_suffix(f".{precision}.onnx")
    inserted = types_of(View(model))
    kept = [each.node for each in inserted if each.float32]
    files = [f"--onnx_path={path}", f"--output_path={target}"]
    if precision == "int8":
        if is_quantised(structure):
            return path
        module = "modelopt.onnx.quantization"
        more = ["--quantize_mode=int8", "--high_precision_dtype=fp16", f"--calibration_data={_CALIBRATION}"]
        patterns = autocast_patterns(each.node for each in inserted)
        if kept:
            result.notes.append(
                f"ModelOpt writes what is not INT8 in float16, {len(kept)} statistics of inserted blocks among it; "
                "insert into the quantised file to keep them in float32"
            )
    else:
        if precision in halves(structure):
            return path
        module = "modelopt.onnx.autocast"
        more = [f"--low_precision_type={precision}", f"--calibration_data={_CALIBRATION}"]
        patterns = autocast_patterns(kept)
    more += ["--nodes_to_exclude", *patterns] if patterns else []
    result.commands.append(Command("convert", ["python", "-m", module, *files, *more]))
    result.notes.append(f"{_CALIBRATION} holds inputs of the model made from real images, one array for each by name")
    return target


def _sizes(ranges: Sequence[Profile], **flags: str) -> list[str]:
    """Flags with a shape of every dynamic input: ``smallest``, ``usual`` or ``largest`` for each flag."""
    named = [(f"'{each.name}'" if ":" in each.name else each.name, each) for each in ranges]  # as trtexec wants it
    return [
        f"--{flag}=" + ",".join(f"{name}:{text(getattr(each, kind))}" for name, each in named)
        for flag, kind in flags.items()
        if ranges
    ]
