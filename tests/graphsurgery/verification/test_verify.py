"""verify as a whole: on blocks that are right, and on blocks that are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from graphsurgery.errors import InsertionError, ParityFailed, RequestError
from graphsurgery.insertion.activations import activations, upstream
from graphsurgery.insertion.removal import Unchanged
from graphsurgery.verification import Mode, Report, Row, Verdict, comparison, verify

CPU = ["cpu"]
Make = Callable[..., Any]


def _row(report: Report, mode: Mode, provider: str = "cpu") -> Row:
    (found,) = [row for row in report.insertions[0].rows if (row.mode, row.provider) == (mode, provider)]
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_correct_block_passes(make_simam: Make, dtype: str) -> None:
    report = verify(make_simam(dtype=dtype, opset=13), providers=CPU).require()
    assert report.passed
    (insertion,) = report.insertions
    assert (insertion.id, insertion.path, insertion.dtype) == ("model.8.simam", "model.8", dtype)
    assert any(row.comparisons for row in insertion.rows)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_constant_gate_fails(make_simam: Make, forms: Any, dtype: str) -> None:
    report = verify(make_simam(forms["constant"], dtype=dtype, opset=13), providers=CPU)
    assert not report.passed
    assert not report.insertions[0].passed
    with pytest.raises(ParityFailed, match=r"model\.8\.simam does not agree .*: -?\d.* instead of -?\d"):
        report.require()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_variance_of_the_paper_in_place_of_that_of_the_code_fails(make_simam: Make, forms: Any, dtype: str) -> None:
    report = verify(make_simam(forms["population"], dtype=dtype), providers=CPU)
    assert not report.passed
    for mode in (Mode.OPTIMISED, Mode.AS_WRITTEN):
        assert _row(report, mode).verdict is Verdict.FAILED


def test_a_sum_that_overflows_float16_fails_on_the_cpu_too(make_simam: Make, forms: Any) -> None:
    assert verify(make_simam(forms["sum"], size=80), providers=CPU).passed
    assert verify(make_simam(forms["mean"], size=80, dtype="float16"), providers=CPU).passed
    report = verify(make_simam(forms["sum"], size=80, dtype="float16"), providers=CPU)
    assert not report.passed
    row = _row(report, Mode.ROUNDED)
    assert row.verdict is Verdict.FAILED
    assert "magnitude 20" in row.worst_case
    assert row.worst is not None
    assert row.worst.ratio > 50


def test_every_mode_and_every_input_is_in_the_report(make_simam: Make) -> None:
    report = verify(make_simam(), providers=CPU, seeds=2)
    (insertion,) = report.insertions
    assert len(insertion.inputs) == 2 * 4 + 2 + 1
    assert insertion.inputs[-1] == "the activation of a random image"
    assert insertion.activation == ""
    rows = {row.mode: row for row in insertion.rows}
    assert set(rows) == {Mode.OPTIMISED, Mode.AS_WRITTEN, Mode.IN_THE_MODEL}
    assert rows[Mode.OPTIMISED].comparisons == rows[Mode.AS_WRITTEN].comparisons == len(insertion.inputs)
    assert rows[Mode.IN_THE_MODEL].comparisons == 1


def test_a_type_without_kernels_is_said_and_does_not_count(make_simam: Make) -> None:
    report = verify(make_simam(dtype="bfloat16", opset=13), providers=CPU)
    for mode in (Mode.OPTIMISED, Mode.AS_WRITTEN):
        row = _row(report, mode)
        assert row.verdict is Verdict.NO_KERNEL
        assert row.comparisons == 0
        assert row.reason
    assert _row(report, Mode.ROUNDED).comparisons == len(report.insertions[0].inputs)
    only_missing = tuple(row for row in report.insertions[0].rows if row.verdict is Verdict.NO_KERNEL)
    insertion = replace(report.insertions[0], rows=only_missing)
    assert not insertion.passed
    with pytest.raises(ParityFailed, match="could not be compared"):
        replace(report, insertions=(insertion,)).require()


def test_float64_without_kernels_is_evaluated_by_onnx(make_simam: Make, forms: Any) -> None:
    pooled = [("GlobalAveragePool", *step[1:]) if step[0] == "ReduceMean" else step for step in forms["mean"]]
    report = verify(make_simam(pooled, dtype="float64"), providers=CPU)
    assert _row(report, Mode.AS_WRITTEN).verdict is Verdict.NO_KERNEL
    row = _row(report, Mode.REFERENCE, "onnx.reference")
    assert row.verdict is Verdict.PASSED
    assert report.passed
    wrong = [("GlobalAveragePool", *step[1:]) if step[0] == "ReduceMean" else step for step in forms["population"]]
    assert not verify(make_simam(wrong, dtype="float64"), providers=CPU).passed


def test_a_dynamic_site_is_tried_at_several_sizes(make_simam: Make) -> None:
    # A template with the size of 16x16 baked in, at a site whose size is not known.
    report = verify(make_simam(dynamic=True), providers=CPU)
    assert not report.passed
    assert any("3x4x13x21" in name for name in report.insertions[0].inputs)


def test_a_model_that_does_not_run_is_said_and_the_block_is_still_verified(make_simam: Make) -> None:
    assert verify(make_simam(tail="EfficientNMS_TRT"), providers=CPU).insertions[0].activation == ""
    model = make_simam(dtype="float64")  # there is no convolution in float64 on the CPU
    report = verify(model, providers=CPU)
    assert report.passed
    assert "Conv" in report.insertions[0].activation
    assert any("was not checked" in line for line in report.lines())


def test_a_block_that_was_altered_since_fails_with_a_reason(make_simam: Make) -> None:
    model = make_simam()
    (insertion,) = model.made
    model.made = (replace(insertion, nodes=(*insertion.nodes, "/simam/gone")),)
    report = verify(model, providers=CPU)
    assert not report.passed
    assert "/simam/gone" in report.insertions[0].failure
    model.made = (replace(insertion, nodes=insertion.nodes[1:]),)
    report = verify(model, providers=CPU)
    assert "read one tensor" in report.insertions[0].failure
    assert any("read one tensor" in line for line in report.lines())


@pytest.mark.parametrize(
    ("steps", "output", "said"),
    [
        ([("Mul", ["gate_of_nothing", "half"], "inserted")], "inserted", "they read nothing and give inserted"),
        ([("Mul", ["site", "half"], "inserted")], "gone", "give gone, but they read site and give inserted"),
    ],
)
def test_nodes_that_are_no_block_fail(make_simam: Make, steps: Any, output: str, said: str) -> None:
    model = make_simam(steps)
    model.made = (replace(model.made[0], output_tensor=output),)
    assert said in verify(model, providers=CPU).insertions[0].failure


def test_a_block_that_onnxruntime_refuses_fails(make_simam: Make, forms: Any) -> None:
    broken = [*forms["mean"][:-1], ("NoSuchOperator", ["site", "gate"], "inserted")]
    report = verify(make_simam(broken), providers=CPU)
    assert not report.passed
    assert "NoSuchOperator" in _row(report, Mode.OPTIMISED).reason


class Opened(torch.nn.Module):
    """A residual gate around a block, closed."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block
        self.alpha = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.alpha * (self.block(x) - x)


@pytest.mark.parametrize("right", [True, False])
def test_a_closed_gate_hides_nothing(make_simam: Make, forms: Any, right: bool) -> None:
    steps = forms["mean" if right else "population"]
    *inner, (op_type, inputs, _) = steps
    gated = [
        *inner,
        (op_type, inputs, "block"),
        ("Sub", ["block", "site"], "step"),
        ("Mul", ["step", "alpha"], "scaled"),
        ("Add", ["site", "scaled"], "inserted"),
    ]
    simam = make_simam().made[0].make_twin
    model = make_simam(gated, twin=lambda: Opened(simam()), gate="residual")
    report = verify(model, providers=CPU)
    closed = [row for row in report.insertions[0].rows if not row.gate_opened]
    opened = [row for row in report.insertions[0].rows if row.gate_opened]
    assert all(row.worst is not None and row.worst.max_abs == 0 for row in closed)
    assert {row.verdict for row in opened} == {Verdict.PASSED if right else Verdict.FAILED}
    assert report.passed is right
    assert any("with the gate open" in line for line in report.lines())


def test_some_insertions_only(make_simam: Make) -> None:
    model = make_simam()
    (insertion,) = model.made
    model.made = (insertion, replace(insertion, id="model.8.simam_2"))
    assert [each.id for each in verify(model, providers=CPU, only=["model.8.simam_2"]).insertions] == [
        "model.8.simam_2"
    ]
    with pytest.raises(InsertionError, match=r"no insertion 'model\.9'.*model\.8\.simam"):
        verify(model, providers=CPU, only=["model.9"])


def test_a_model_without_insertions_is_an_error(make_simam: Make) -> None:
    model = make_simam()
    model.made = ()
    with pytest.raises(InsertionError, match="no insertions made by graphsurgery"):
        verify(model)


def test_real_images(make_simam: Make, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), (200, 10, 90)).save(tmp_path / name)
    report = verify(make_simam(), providers=CPU, images=tmp_path)
    assert report.insertions[0].inputs[-2:] == ("the activation of a.png", "the activation of b.png")
    assert _row(report, Mode.IN_THE_MODEL).comparisons == 2
    with pytest.raises(RequestError, match="does not exist"):
        verify(make_simam(), providers=CPU, images=tmp_path / "missing")


def test_nodes_in_another_order_than_the_data(make_simam: Make) -> None:
    model = make_simam()
    proto = model.proto()
    proto.graph.node.sort(key=lambda node: node.name, reverse=True)
    part = upstream(type(model).load(proto), [("site", 1)])
    assert [node.name for node in part.structure.graph.node] == ["conv"]
    assert [tensor.name for tensor in part.structure.graph.initializer] == ["kernel"]


def test_the_activation_is_that_of_the_model(make_simam: Make) -> None:
    model = make_simam()
    found = activations(model, [("site", 1), ("inserted", 1)])
    ((_, tensors),) = found.images
    image = np.random.default_rng(0).random((1, 3, 16, 16)).astype(np.float32)
    kernel = torch.from_numpy(model.tensor("kernel").copy())
    site = torch.nn.functional.conv2d(torch.from_numpy(image), kernel, padding=1)
    np.testing.assert_allclose(tensors["site"], site.numpy(), atol=1e-5)
    twin = model.made[0].make_twin().double().eval()
    np.testing.assert_allclose(tensors["inserted"], twin(site.double()).numpy(), atol=1e-5)


@pytest.mark.parametrize("passed", [True, False, None])
def test_the_rest_of_the_model_counts(make_simam: Make, monkeypatch: pytest.MonkeyPatch, passed: bool | None) -> None:
    model = make_simam()
    monkeypatch.setattr(comparison, "unchanged", lambda *_: Unchanged(passed, "something else has changed"))
    report = verify(model, providers=CPU)
    assert report.passed is (passed is not False)
    if passed is False:
        with pytest.raises(ParityFailed, match="something else has changed"):
            report.require()


def test_json_is_plain_and_stable(make_simam: Make, forms: Any) -> None:
    for model in (
        make_simam(),
        make_simam(dtype="bfloat16", opset=13),
        make_simam(forms["sum"], size=80, dtype="float16"),
    ):
        report = verify(model, providers=CPU, seeds=1)
        found = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert list(found) == ["model", "passed", "providers", "versions", "unchanged", "insertions"]
        assert found["passed"] is report.passed
        assert {"torch", "onnxruntime"} <= set(found["versions"]) | {"onnxruntime"}
        (insertion,) = found["insertions"]
        assert insertion["tolerance"].keys() == {"absolute", "relative"}
        for row in insertion["rows"]:
            assert row["verdict"] in ("passed", "failed", "no kernel")
            assert (row["worst"] is None) == (row["comparisons"] == 0)


def test_nan_is_null_in_json_and_fails(make_simam: Make, forms: Any) -> None:
    steps = [*forms["mean"][:-1], ("Div", ["d", "mean"], "inserted")]  # 0 / 0 on zeros
    report = verify(make_simam(steps), providers=CPU)
    assert not report.passed
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert found["insertions"][0]["rows"][0]["worst"]["max_abs"] is None
    assert any("nan instead of" in line for line in report.lines())


def test_lines_say_what_a_person_wants_to_know(make_simam: Make) -> None:
    lines = verify(make_simam(), providers=CPU).lines()
    assert lines[0] == "model.8.simam: simam after model.8, [1, 4, 16, 16] float32: passed"
    assert lines[1].startswith("  cpu: passed  max ")
    for word in ("mean", "p99", "rel", "ulps", "cosine", "of 1e-05 + 1e-05*|y|", "30 comparisons"):
        assert word in lines[1]
    assert lines[-1].startswith("passed (torch ")


def test_a_report_reads_well_in_a_shell_and_a_notebook(make_simam: Make, forms: Any) -> None:
    report = verify(make_simam(forms["constant"]), providers=CPU)
    assert repr(report).startswith("<Report FAILED: ")
    assert repr(report).endswith(", 0 of 1 insertions passed>")
    assert str(report).splitlines() == report.lines()
    table = report._repr_html_()
    assert table.count("<tr>") == 1 + len(report.insertions[0].rows) + 1
    assert "<td>cpu, as written</td><td>failed: " in table
    broken = replace(report.insertions[0], rows=(), failure="its <nodes> are gone")
    assert "<td>failed: its &lt;nodes&gt; are gone</td>" in replace(report, insertions=(broken,))._repr_html_()


def test_modes_and_verdicts_are_texts() -> None:
    assert [str(Mode.AS_WRITTEN), f"{Verdict.NO_KERNEL}", json.dumps(Verdict.PASSED)] == [
        "as written",
        "no kernel",
        '"passed"',
    ]
