"""Libraries of custom operators: a model with such an operator is run, and what is no such library is told."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import graphsurgery as gsx
from graphsurgery.cli.main import main
from graphsurgery.errors import CannotRun, RequestError
from graphsurgery.verification.report import Mode
from tests import models

EXTENSIONS = importlib.util.find_spec("onnxruntime_extensions")
COMPILER = shutil.which("cc")
HINT = "; a library of custom operators that has it is given with "
NEWER = """
#include <stdint.h>
struct Base { const void *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); };
void *RegisterCustomOps(void *options, const struct Base *base) {
  if (base->GetApi(999)) return 0;
  return (*(void *(*const *)(int, const char *))base->GetApi(1))(1, "made for another onnxruntime");
}
"""
"""a library that asks for a version of the interface that no onnxruntime has; the first function of any makes errors"""


def library() -> str:
    if EXTENSIONS is None:
        pytest.skip("onnxruntime-extensions, a library of custom operators, is not installed")
    import onnxruntime_extensions

    return str(onnxruntime_extensions.get_library_path())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Convolution, an operator of onnxruntime-extensions, and SE behind a second convolution."""
    nodes = [
        models.node("Conv", ["x", "w"], ["a"], "/model.0/Conv"),
        helper.make_node("NegPos", ["a"], ["n", "p"], "/model.1/NegPos", domain="ai.onnx.contrib"),
        models.node("Conv", ["p", "w"], ["b"], "/model.2/Conv"),
        models.node("Relu", ["b"], ["y"], "/model.3/Relu"),
    ]
    shape = (1, 4, 8, 8)
    proto = models.model(
        nodes,
        [models.value("x", shape)],
        [models.value("y", shape)],
        [models.weight("w", (4, 4, 1, 1))],
        value_info=[models.value("p", shape)],
    )
    proto.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    path = tmp_path / "custom.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def inserted(model: Path) -> Path:
    path = model.with_name("inserted.onnx")
    gsx.insert(model, "simam", after="/model.2").save(path)
    return path


def in_the_model(report: gsx.Report) -> bool:
    """Whether the activation that arrives was looked at."""
    return any(row.mode is Mode.IN_THE_MODEL for each in report.insertions for row in each.rows)


def test_without_the_library_it_says_what_to_give(inserted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = gsx.verify(inserted, providers="cpu")
    assert report.passed
    assert not in_the_model(report)
    said = f"ai.onnx.contrib:NegPos(-1) is not a registered function/op{HINT}custom_ops=LIBRARY"
    assert said in str(report)
    assert report.to_json()["insertions"][0]["activation"].endswith(said)
    with pytest.raises(CannotRun) as refused:
        gsx.bench(inserted, rounds=2, warm_up=0)
    assert str(refused.value).endswith(said)
    assert main(["verify", str(inserted), "--providers", "cpu"]) == 0
    assert f"{HINT}--custom-ops LIBRARY" in capsys.readouterr().out
    assert main(["verify", str(inserted), "--providers", "cpu", "--json"]) == 0
    activation = json.loads(capsys.readouterr().out)["insertions"][0]["activation"]
    assert activation.endswith(f"{HINT}--custom-ops LIBRARY")


def test_with_the_library_the_model_is_run(inserted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = library()
    report = gsx.verify(inserted, providers="cpu", custom_ops=[found, Path(found)])
    assert report.passed
    assert in_the_model(report)
    assert gsx.bench(inserted, rounds=2, warm_up=0, custom_ops=found).timed
    assert not in_the_model(gsx.verify(inserted, providers="cpu"))  # it holds for the call that it is given to
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ops.so").symlink_to(found)
    options = ["--providers", "cpu", "--custom-ops", "ops.so"]
    assert main(["insert", "custom.onnx", "-m", "simam", "-a", "/model.2", "-o", "out.onnx", *options]) == 0
    assert main(["verify", "out.onnx", *options]) == 0
    assert main(["bench", "out.onnx", "--rounds", "2", "--warm-up", "0", *options]) == 0


def test_a_block_is_calibrated_behind_such_an_operator(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(2):
        values = np.random.default_rng(number).normal(size=(4, 8, 8)).astype(np.float32)
        np.save(tmp_path / "images" / f"{number}.npy", values)
    asked: dict[str, Any] = {"init": "calibrated", "images": tmp_path / "images"}
    with pytest.raises(CannotRun, match=re.escape(f"{HINT}custom_ops=LIBRARY")):
        gsx.insert(model, "simam", after="/model.2", **asked)
    recipe = gsx.Recipe.of([{"module": "simam", "after": "/model.2", **asked}])
    found = library()
    edited = gsx.insert(model, "simam", after="/model.2", custom_ops=found, **asked)
    assert edited.to_bytes() == gsx.apply(recipe, model, custom_ops=[found]).to_bytes()
    assert gsx.verify(edited, custom_ops=found, images=tmp_path / "images").passed


def test_what_is_no_such_library(inserted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capi = Path(onnxruntime.__file__).parent / "capi"
    (tmp_path / "text.so").write_text("no library")
    cannot = f"onnxruntime {onnxruntime.__version__} cannot load {{}} as a library of custom operators: "
    cases = {
        tmp_path / "gone.so": "{} does not exist: there is no such library of custom operators",
        tmp_path: "{} is a directory, not a library of custom operators",
        "": "'' does not exist: there is no such library of custom operators",
        tmp_path / "text.so": cannot,
        **dict.fromkeys(capi.glob("libonnxruntime_providers_s*"), cannot + "it has no function RegisterCustomOps"),
    }
    if COMPILER is not None:
        (tmp_path / "newer.c").write_text(NEWER)
        newer = tmp_path / "newer.so"
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", newer, tmp_path / "newer.c"], check=True)
        cases[newer] = cannot + "made for another onnxruntime"
    for path, said in cases.items():
        with pytest.raises(RequestError) as refused:
            gsx.verify(inserted, providers="cpu", custom_ops=path)
        assert refused.value.message.startswith(said.format(path))
        assert refused.value.option == "custom_ops"
        capfd.readouterr()
        assert main(["bench", str(inserted), "--custom-ops", str(path)]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"graphsurgery: error: {said.format(path)}")


def test_what_is_no_path(inserted: Path) -> None:
    with pytest.raises(RequestError, match=r"^custom_ops is the path of a library of custom operators, or a list"):
        gsx.bench(inserted, custom_ops=7)  # type: ignore[arg-type]
