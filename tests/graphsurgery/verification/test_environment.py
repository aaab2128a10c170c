"""verify where a provider or a package is missing, and where two providers differ."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from graphsurgery.errors import MissingDependency, MissingProvider, RequestError
from graphsurgery.runtime import session as session_module
from graphsurgery.runtime.placement import Kernel
from graphsurgery.verification import Verdict, comparison, runners, verify

Make = Callable[..., Any]


def test_a_provider_that_is_missing_is_an_error_before_anything_runs(
    make_simam: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingProvider, match="no cuda provider") as caught:
        verify(make_simam(), providers=["cpu", "cuda"])
    assert caught.value.exit_code == 3
    with pytest.raises(RequestError, match="no provider called 'gpu'"):
        verify(make_simam(), providers=["gpu"])


def test_cuda_is_used_by_default_where_it_starts(make_simam: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(make_simam()).providers == (("cpu", "cuda") if session_module.usable("cuda") else ("cpu",))
    monkeypatch.setattr(comparison, "usable", lambda name: True)
    assert comparison._providers(None) == ("cpu", "cuda")
    monkeypatch.setattr(comparison, "usable", lambda name: False)
    assert comparison._providers(None) == ("cpu",)
    assert comparison._providers(["CPU", "cpu"]) == ("cpu",)


@dataclass
class Fake:
    """A provider that gives other numbers than the CPU."""

    real: Any
    provider: str = "cuda"

    @property
    def executed(self) -> tuple[Kernel, ...]:
        """All but one on CUDA."""
        first, *others = self.real.executed
        return (first, *(replace(kernel, provider="cuda") for kernel in others))

    def run(self, feeds: Any) -> Any:
        return [value * np.float32(1.001) for value in self.real.run(feeds)]


def test_each_provider_is_compared_by_itself(make_simam: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(data: bytes, provider: str, **more: Any) -> Any:
        real = session_module.session(data, "cpu", **more)
        return Fake(real) if provider == "cuda" else real

    monkeypatch.setattr(runners, "session", session)
    monkeypatch.setattr(comparison, "require", lambda name: None)
    report = verify(make_simam(), providers=["cpu", "cuda"])
    assert not report.passed
    verdicts = {(row.provider, row.verdict) for row in report.insertions[0].rows}
    assert verdicts == {("cpu", Verdict.PASSED), ("cuda", Verdict.FAILED)}
    lines = [line.strip() for line in report.lines()]
    assert "9 of 10 nodes on CUDA, 1 fell back to the CPU: ReduceMean" in lines
    rows = [row for row in report.to_json()["insertions"][0]["rows"] if row["mode"] == "as written"]
    assert [row["nodes"]["on"] for row in rows] == [{"cpu": 10}, {"cpu": 1, "cuda": 9}]
    assert rows[1]["nodes"]["fell_back"] == [{"node": "/simam/mean", "operator": "ReduceMean", "provider": "cpu"}]


@pytest.mark.parametrize(("package", "extra"), [("torch", "torch"), ("onnxruntime", "cpu")])
def test_without_a_package_the_extra_is_named(
    make_simam: Make, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    model = make_simam()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"graphsurgery\[{extra}\]") as caught:
        verify(model)
    assert caught.value.exit_code == 3
