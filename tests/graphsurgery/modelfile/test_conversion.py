"""Models of onnx_ir and onnx-graphsurgeon go in and come out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import graphsurgery
from graphsurgery.errors import ModelError
from graphsurgery.modelfile.model import ModelFile
from tests import models

ir = pytest.importorskip("onnx_ir")
pytestmark = pytest.mark.smoke


def inserted(model: object) -> ModelFile:
    return graphsurgery.insert(model, "se", after="/model.2", seed=3)  # type: ignore[arg-type]


def same_numbers(first: bytes, second: bytes) -> bool:
    return all(np.array_equal(*pair) for pair in zip(models.run(first), models.run(second), strict=True))


@pytest.mark.parametrize("made", [models.detector(), models.with_if(), models.kitchen_sink()], ids=["1", "2", "3"])
def test_nothing_is_lost_but_what_onnx_ir_itself_loses(made: onnx.ModelProto) -> None:
    once = ir.to_proto(ir.from_proto(made))
    twice = ir.to_proto(ir.from_proto(once))  # it loses more of some models the second time
    model = ModelFile.load(ir.from_proto(made))
    assert model.proto().SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
    assert ir.to_proto(model.to_ir()).SerializeToString(deterministic=True) == twice.SerializeToString(
        deterministic=True
    )


def test_an_insertion_goes_through_onnx_ir() -> None:
    proto = models.detector()
    given = ir.from_proto(proto)
    before = ir.to_proto(given).SerializeToString(deterministic=True)
    out = inserted(given).to_ir()
    assert ir.to_proto(given).SerializeToString(deterministic=True) == before
    assert isinstance(out, ir.Model)
    assert same_numbers(ir.to_proto(out).SerializeToString(), inserted(proto).to_bytes())
    removed = graphsurgery.remove(out)
    assert removed.proto().SerializeToString(deterministic=True) == before


def test_an_insertion_goes_through_graphsurgeon() -> None:
    proto = models.detector()
    out = inserted(gs.import_onnx(proto)).to_gs()
    assert isinstance(out, gs.Graph)
    assert same_numbers(gs.export_onnx(out).SerializeToString(), inserted(proto).to_bytes())


def test_external_data_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = models.external(tmp_path, "deep/w.data")
    out = inserted(ir.load(path)).to_ir()
    name = next(each for each in out.graph.initializers if each.endswith("model.2.conv.weight"))
    tensor = out.graph.initializers[name].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert Path(tensor.base_dir) == tmp_path
    assert np.array_equal(tensor.numpy(), ModelFile.load(path).tensor(name))
    graph = inserted(path).to_gs()
    assert np.array_equal(graph.tensors()[name].values, tensor.numpy())


def test_external_data_in_several_folders_is_refused(tmp_path: Path) -> None:
    model = ir.load(models.external(tmp_path))
    tensors = [each.const_value for each in model.graph.initializers.values()]
    next(each for each in tensors if isinstance(each, ir.ExternalTensor)).base_dir = "elsewhere"
    with pytest.raises(ModelError, match=r"lie in several folders, .* and .*; load them first"):
        ModelFile.load(model)


def test_an_object_of_onnx_ir_that_is_no_model() -> None:
    with pytest.raises(ModelError, match=r"an onnx_ir.Model or a gs.Graph, not Graph"):
        ModelFile.load(ir.from_proto(models.detector()).graph)


def test_without_onnx_ir() -> None:
    code = (
        "import sys; sys.modules['onnx_ir'] = None\n"
        "from graphsurgery.modelfile.model import ModelFile\n"
        "from tests import models\n"
        "ModelFile.load(models.detector()).to_ir()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert "MissingDependency: an onnx_ir.Model needs the package onnx_ir: pip install onnx-ir" in done.stderr


def test_onnx_ir_is_not_loaded_for_other_models() -> None:
    code = (
        "import sys\n"
        "from graphsurgery.modelfile.model import ModelFile\n"
        "from tests import models\n"
        "ModelFile.load(models.detector().SerializeToString()).proto()\n"
        "assert 'onnx_ir' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
