"""scripts/check_versions.py: the lowest versions are those that are claimed, and each is that of a dependency."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_versions", ROOT / "scripts" / "check_versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_versions", module)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_has_a_lowest_version(script: ModuleType) -> None:
    from tests.test_project import PROJECT

    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(each for name in script.EXTRAS for each in extras[name])]
    pinned = dict(each.split("==") for each in script.lowest_versions())
    for each in wanted:
        name, _, version = each.partition(">=")
        assert pinned[name] == version.partition(",")[0]


def test_smoke_tests_are_found(script: ModuleType) -> None:
    assert ROOT / "tests" / "test_smoke.py" in script.smoke_files()


def test_an_interpreter_is_of_the_version(script: ModuleType) -> None:
    version = "{}.{}".format(*sys.version_info)
    assert script.interpreter(version) == Path(sys._base_executable)
    assert script.interpreter("3.99") is None


def test_an_environment_that_does_not_exist(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["newest-2.7"])
    assert ended.value.code == 2
    assert "there is no environment newest-2.7" in capsys.readouterr().err
