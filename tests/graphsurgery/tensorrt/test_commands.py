"""The command lines, word for word, for the three lines of TensorRT."""

from __future__ import annotations

import re
import shlex
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

import graphsurgery as gsx
from graphsurgery.errors import RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.commands import plan
from tests.graphsurgery.tensorrt.cases import quantised
from tests.graphsurgery.tensorrt.models import floats, given, single
from tests.models import chain, detector, model, node, value

TIMED = "--useCudaGraph --noDataTransfers --useSpinWait"
BUILT = "--profilingVerbosity=detailed --skipInference"


def lines(source: onnx.ModelProto | ModelFile, path: str = "m.onnx", **options: Any) -> list[str]:
    return [str(command) for command in plan(ModelFile.load(source), path, **options).commands]


def profiled(stem: str, *between: str, apart: bool = True) -> str:
    own = " --separateProfileRun" if apart else ""
    files = f"--exportProfile={stem}.profile.json --exportLayerInfo={stem}.layers.json"
    return " ".join([*between, f"--profilingVerbosity=detailed --dumpProfile{own} {files}"])


@pytest.mark.parametrize("version", ["8.6", "10"])
def test_quantised_to_fp8(version: str) -> None:
    by_type = quantised(0, ml_dtypes.float8_e4m3fn)
    by_attribute = single("QuantizeLinear", given(), floats(0.1), opset=21, output_dtype=TensorProto.FLOAT8E4M3FN)
    by_name = single("TRT_FP8QuantizeLinear", given(), floats(0.1), domain="trt")
    for proto in (by_type, by_attribute, by_name):
        assert lines(proto, version=version)[0] == f"trtexec --onnx=m.onnx --saveEngine=m.plan --fp16 --fp8 {BUILT}"
    assert lines(by_type, version="11")[0] == f"trtexec --onnx=m.onnx --saveEngine=m.plan {BUILT}"


@pytest.mark.parametrize("version", ["8.6", "10"])
def test_static(version: str) -> None:
    assert lines(detector(), version=version) == [
        f"trtexec --onnx=m.onnx --saveEngine=m.plan {BUILT}",
        f"trtexec --loadEngine=m.plan {TIMED}",
        f"trtexec --loadEngine=m.plan {profiled('m', TIMED)}",
    ]
    assert lines(detector(), version=version, precision="fp16")[0] == (
        f"trtexec --onnx=m.onnx --saveEngine=m.plan --fp16 {BUILT}"
    )


def test_static_11() -> None:
    assert lines(detector(), version="11") == [
        f"trtexec --onnx=m.onnx --saveEngine=m.plan {BUILT}",
        "trtexec --loadEngine=m.plan",
        f"trtexec --loadEngine=m.plan {profiled('m', apart=False)}",
    ]


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_dynamic(version: str) -> None:
    ranges = "--minShapes=x:1x3x320x320 --optShapes=x:1x3x640x640 --maxShapes=x:8x3x1280x1280"
    timed = [] if version == "11" else [TIMED]
    assert lines(chain("Relu", shape=("N", 3, "H", "W")), version=version) == [
        f"trtexec --onnx=m.onnx --saveEngine=m.plan {ranges} {BUILT}",
        " ".join(["trtexec --loadEngine=m.plan --shapes=x:1x3x640x640", *timed]),
        f"trtexec --loadEngine=m.plan --shapes=x:1x3x640x640 {profiled('m', *timed, apart=version != '11')}",
    ]
    assert "--optShapes=x:2x3x64x64" in lines(chain("Relu", shape=("N", 3, "H", "W")), shapes=["x:2x3x64x64"])[0]


def test_quantised() -> None:
    for version in ("8.6", "10"):
        for precision in (None, "int8", "fp16"):
            assert lines(quantised(0), version=version, precision=precision)[0] == (
                f"trtexec --onnx=m.onnx --saveEngine=m.plan --fp16 --int8 {BUILT}"
            )
    for precision in (None, "int8"):
        assert lines(quantised(0), version="11", precision=precision)[0] == (
            f"trtexec --onnx=m.onnx --saveEngine=m.plan {BUILT}"
        )


def test_a_file_in_float16_takes_the_flag() -> None:
    assert "--fp16" in shlex.split(lines(detector(dtype=np.float16), version="10")[0])
    assert lines(detector(dtype=np.float16), version="11", precision="fp16")[0].startswith("trtexec --onnx=m.onnx")


def test_an_island_in_float16_takes_the_flag() -> None:
    nodes = [node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16), node("Relu", ["a"], ["b"])]
    proto = model([*nodes, node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)], [value("x")], [value("y")])
    assert lines(proto, version="10")[0] == f"trtexec --onnx=m.onnx --saveEngine=m.plan --fp16 {BUILT}"


def test_conversions_for_11() -> None:
    data = "--calibration_data=calibration.npz"
    for precision in ("fp16", "bf16"):
        convert, build, *_ = lines(detector(), "a b/m.onnx", version="11", precision=precision)
        assert convert == (
            f"python -m modelopt.onnx.autocast '--onnx_path=a b/m.onnx' '--output_path=a b/m.{precision}.onnx' "
            f"--low_precision_type={precision} {data}"
        )
        assert build == (f"trtexec '--onnx=a b/m.{precision}.onnx' '--saveEngine=a b/m.{precision}.plan' {BUILT}")
    convert, build, *_ = lines(detector(), version="11", precision="int8")
    assert convert == (
        "python -m modelopt.onnx.quantization --onnx_path=m.onnx --output_path=m.int8.onnx --quantize_mode=int8 "
        f"--high_precision_dtype=fp16 {data}"
    )
    assert build == f"trtexec --onnx=m.int8.onnx --saveEngine=m.int8.plan {BUILT}"


def test_statistics_stay_in_float32() -> None:
    """On 8.6 and 10 by constraints, on 11 by what AutoCast leaves alone."""
    edited = gsx.insert(detector(), "simam", after="/model.1", lowering="instance-norm")
    scope = "/model.1/simam"
    kept = ",".join(f"{scope}/{op}:fp32" for op in ("InstanceNormalization", "Mul", "Add"))
    flags = f"--fp16 --precisionConstraints=obey --layerPrecisions={kept} --layerOutputTypes={kept}"
    assert lines(edited, version="8.6", precision="fp16")[0] == (
        f"trtexec --onnx=m.onnx --saveEngine=m.plan {flags} {BUILT}"
    )
    assert "--layerPrecisions" not in lines(edited, version="10")[0]
    convert = shlex.split(lines(edited, version="11", precision="fp16")[0])
    assert convert[convert.index("--nodes_to_exclude") + 1 :] == [
        rf"{scope.replace('.', chr(92) + '.')}/{op}$" for op in ("InstanceNormalization", "Mul", "Add")
    ]


def test_strongly_typed_10() -> None:
    assert lines(detector(), version="10.12", strongly_typed=True)[0] == (
        f"trtexec --onnx=m.onnx --saveEngine=m.plan --stronglyTyped {BUILT}"
    )
    notes = plan(ModelFile.load(detector()), "m.onnx", version="10.9", strongly_typed=True).notes
    assert notes == ["strongly typed networks are complete from TensorRT 10.12 on"]
    with pytest.raises(RequestError, match="came with TensorRT 10"):
        lines(detector(), version="8.6", strongly_typed=True)


def test_dla() -> None:
    build, timed, _ = lines(detector(), version="8.6", precision="fp16", dla=0)
    assert build == f"trtexec --onnx=m.onnx --saveEngine=m.plan --fp16 --useDLACore=0 --allowGPUFallback {BUILT}"
    assert timed == f"trtexec --loadEngine=m.plan --useDLACore=0 {TIMED}"
    with pytest.raises(RequestError, match="FP16 and INT8 only"):
        lines(detector(), version="10", dla=0)
    with pytest.raises(RequestError, match="TensorRT 11 cannot use a DLA"):
        lines(detector(), version="11", precision="fp16", dla=0)


def test_inputs_with_a_colon_are_quoted() -> None:
    proto = chain("Relu", shape=("N", 3))
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "x:0"
    assert shlex.split(lines(proto)[1])[2] == "--shapes='x:0':1x3"


def test_what_cannot_be_had() -> None:
    with pytest.raises(RequestError, match="no bfloat16"):
        lines(detector(), version="8.6", precision="bf16")
    with pytest.raises(RequestError, match="no precision 'fp8'"):
        lines(detector(), precision="fp8")
    made = plan(ModelFile.load(detector()), "m.onnx", version="10", precision="int8")
    assert made.notes == ["without Q/DQ nodes trtexec makes INT8 ranges up: add --calib=FILE, or quantise the model"]


def test_inserted_nodes_stay_out_of_int8(gated: ModelFile) -> None:
    """As the summary of a check says that they do."""
    made = plan(gated, "m.onnx", version="11", precision="int8")
    arguments = list(made.commands[0].arguments)
    patterns = arguments[arguments.index("--nodes_to_exclude") + 1 :]
    names = [each.name for each in gated.structure.graph.node]
    excluded = {name for name in names if any(re.match(pattern, name) for pattern in patterns)}
    assert excluded == {name for insertion in gated.insertions() for name in insertion.nodes}
    assert any("statistics of inserted blocks" in note for note in made.notes)
