"""The example's model is what its script makes; every real export is a model that runs and carries ordinary values."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tests import exports
from tests.exports import NAMES, UNSORTED, VARIANTS, export

EXAMPLE = Path(__file__).parents[2] / "examples" / "01_first_insertion"
SIZE = 640
SITES = {"yolov8n": (8,), "yolo11n": (8,), "rtdetr-l": (5, 9)}
QUICK = [("yolov8n", "simplified")]
MATRIX = [(name, variant) for name in NAMES for variant in VARIANTS if (name, variant) not in QUICK]


def image(size: int, batch: int = 1) -> NDArray[np.float32]:
    """Return seeded noise, [batch, 3, size, size] in 0 ... 1."""
    return np.random.default_rng(0).random((batch, 3, size, size), dtype=np.float32)


def run(model: Path | bytes, images: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Return the outputs of onnxruntime on the CPU for `images`, as float64."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    dtype = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    return [np.asarray(output, np.float64) for output in session.run(None, {"images": images.astype(dtype)})]


def example_script(*arguments: str) -> str:
    """Run Python code from `arguments` in the example's folder and return what it printed."""
    done = subprocess.run([sys.executable, *arguments], cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_is_what_its_script_makes(tmp_path: Path) -> None:
    made = tmp_path / "detector.onnx"
    example_script("-B", "export.py", str(made))
    committed = EXAMPLE / "detector.onnx"
    old, new = onnx.load(committed), onnx.load(made)
    if old.producer_version == new.producer_version:
        assert made.read_bytes() == committed.read_bytes()
        return
    assert [(node.op_type, node.name) for node in new.graph.node] == [
        (node.op_type, node.name) for node in old.graph.node
    ]
    for mine, theirs in zip(new.graph.initializer, old.graph.initializer, strict=True):
        assert mine.name == theirs.name
        np.testing.assert_allclose(numpy_helper.to_array(mine), numpy_helper.to_array(theirs), rtol=1e-6, atol=1e-6)


def test_example_agrees_with_pytorch(tmp_path: Path) -> None:
    images, expected = tmp_path / "images.npy", tmp_path / "expected.npy"
    np.save(images, image(320))
    example_script(
        "-B",
        "-c",
        "import sys, numpy, torch, export\n"
        "with torch.no_grad():\n"
        "    y = export.detector()(torch.from_numpy(numpy.load(sys.argv[1])))\n"
        "numpy.save(sys.argv[2], y.numpy())",
        str(images),
        str(expected),
    )
    scale = np.array([320.0] * 4 + [1.0] * 4)[:, None]  # boxes as fractions of the image; scores are fractions
    (got,) = run(EXAMPLE / "detector.onnx", image(320))
    assert got.shape == (1, 8, 2100)
    np.testing.assert_allclose(got / scale, np.load(expected) / scale, rtol=0, atol=1e-4)


def test_example_carries_ordinary_values() -> None:
    path = EXAMPLE / "detector.onnx"
    assert path.stat().st_size < 350_000
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.name for node in model.graph.node} >= {"/model.8/cv2/act/Mul", "/model.9/cv1/conv/Conv"}
    (site,) = check_sites(model, ["/model.8/cv2/act/Mul_output_0"], 320)
    assert site.shape == (1, 32, 10, 10)


def check_sites(model: onnx.ModelProto, tensors: list[str], size: int) -> list[NDArray[np.float64]]:
    """Run `model`; every output is finite, and at `tensors` no channel is flat and none is large. Return those."""
    outputs = len(model.graph.output)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    values = run(model.SerializeToString(), image(size))
    for value in values:
        assert np.isfinite(value).all()
    for site in values[outputs:]:
        assert site.ndim == 4
        assert 0.2 < site.std() < 10
        assert np.abs(site).max() < 100
        flat = site.std(axis=(2, 3)) < 1e-3
        assert flat.mean() < 0.01
    return values[outputs:]


def module_output(model: onnx.ModelProto, index: int) -> str:
    """Return the tensor that the last node of `model.<index>` gives, in either exporter's naming."""
    last = ""
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
        known = (f"/model.{index}/", f"'model.{index}'", f"'model.slice(None, -1, None).{index}'")
        if node.name.startswith(known[0]) or any(text in scopes for text in known[1:]):
            last = node.output[0]
    return last


@pytest.mark.parametrize(
    ("name", "variant"),
    [*QUICK, *(pytest.param(*entry, marks=pytest.mark.long) for entry in MATRIX)],
)
def test_export_runs_with_ordinary_values(name: str, variant: str) -> None:
    path = export(name, variant)
    if variant not in UNSORTED:
        onnx.checker.check_model(str(path))
    beside = path.with_name(path.name + ".data")
    assert beside.exists() == (variant == "dynamo-external")
    model = onnx.load(path)
    if variant.startswith("half"):
        kinds = {entry.data_type for entry in model.graph.initializer if entry.name.endswith("weight")}
        assert kinds == {onnx.TensorProto.FLOAT16}
    tensors = [module_output(model, index) for index in SITES[name]]
    sites = check_sites(model, tensors, SIZE)
    shapes = {8: (1, 256, 20, 20), 5: (1, 1024, 40, 40), 9: (1, 2048, 20, 20)}
    assert [site.shape for site in sites] == [shapes[index] for index in SITES[name]]
    if variant == "dynamic":
        assert run(path, image(320, batch=2))[0].shape[0] == 2


def test_an_export_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "make.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "time.sleep(0.3)\n"
        f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
        "if sys.argv[2] == 'half': sys.exit('no half today')\n"
        "pathlib.Path(sys.argv[3]).write_text('model')\n"
    )
    monkeypatch.setattr(exports, "_MAKE", script)
    monkeypatch.setenv("GRAPHSURGERY_EXPORTS", str(tmp_path / "cache"))
    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(lambda _: export("yolov8n", "simplified"), range(3)))
    assert set(paths) == {paths[0]}
    assert paths[0].read_text() == "model"
    assert (tmp_path / "runs").read_text() == "x"
    assert exports.seconds(paths[0]) > 0
    with pytest.raises(RuntimeError, match="no half today"):
        export("yolov8n", "half")
    folder = paths[0].parent.parent
    assert {entry.name for entry in folder.iterdir() if entry.is_dir()} == {"yolov8n-simplified"}


def test_a_name_that_does_not_exist_is_told() -> None:
    with pytest.raises(ValueError, match="rtdetr-l"):
        export("yolov99", "simplified")
