"""Where NVIDIA's libraries are looked for, and wheels that are not what they should be."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import graphsurgery as gsx
from graphsurgery.errors import EnvironmentLacks, MissingDependency
from graphsurgery.tensorrt.rtx import libraries
from graphsurgery.tensorrt.rtx.libraries import KNOWN, PACKAGE, find
from tests.models import chain

linux = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="the libraries are for Linux x86-64"
)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a wheel, on the path, whose package must not be imported."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('the package was imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return folder


def put(folder: Path, runtime: str, parser: str = "", content: bytes = b"no library") -> None:
    (folder / f"libtensorrt_rtx.so.{runtime}").write_bytes(content)
    (folder / f"libtensorrt_onnxparser_rtx.so.{parser or runtime}").write_bytes(content)


@linux
@pytest.mark.parametrize("version", KNOWN)
def test_a_known_version_is_found_and_not_imported(wheel: Path, version: str) -> None:
    put(wheel, version)
    (wheel / "libcudart.so.13.4.36").touch()
    found = find()
    assert (found.version, found.runtime.parent, found.parser.parent) == (version, wheel, wheel)
    assert found.number == int("".join(f"{int(part):02}" for part in version.split(".")))
    assert PACKAGE not in sys.modules


@linux
def test_an_unknown_version_is_left_out_with_a_note(wheel: Path) -> None:
    put(wheel, "1.99.0")
    with pytest.raises(EnvironmentLacks, match=r"is installed in version 1\.99\.0; graphsurgery knows 1\.5\.0, "):
        find()
    report = gsx.check(chain("Relu"), "11", parser="auto")
    assert (report.stops, report.findings) == (False, [])
    assert any("1.99.0" in line for line in report.lines())


@linux
@pytest.mark.parametrize("names", [(), ("libtensorrt_rtx.so.1.7.1",), ("libtensorrt_onnxparser_rtx.so.1.7.1",)])
def test_a_wheel_that_is_not_whole(wheel: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (wheel / name).touch()
    with pytest.raises(MissingDependency, match=r"is not whole in .*; install it anew"):
        find()


@linux
def test_libraries_of_two_versions(wheel: Path) -> None:
    put(wheel, "1.7.1", "1.6.1")
    with pytest.raises(MissingDependency, match="is not whole"):
        find()


@linux
def test_files_that_are_no_libraries(wheel: Path) -> None:
    put(wheel, "1.7.1")
    with pytest.raises(EnvironmentLacks, match=r"NVIDIA's library cannot be used: .*libtensorrt_rtx.so.1.7.1: "):
        gsx.check(chain("Relu"), parser="rtx")


@linux
def test_libraries_that_are_others(wheel: Path) -> None:
    loaded = Path("/proc/self/maps").read_text().splitlines()
    other = next(Path(line.split()[-1]) for line in loaded if "/libc.so" in line or "/libc-" in line)
    for name in ("libtensorrt_rtx.so.1.7.1", "libtensorrt_onnxparser_rtx.so.1.7.1"):
        shutil.copy(other, wheel / name)
    with pytest.raises(EnvironmentLacks, match=r"cannot be used: .*undefined symbol: getInferLibVersion"):
        gsx.check(chain("Relu"), parser="rtx")


@linux
@pytest.mark.usefixtures("no_rtx")
def test_nothing_is_installed() -> None:
    with pytest.raises(MissingDependency, match='is not installed; pip install "graphsurgery\\[parser\\]"'):
        find()


@linux
def test_something_else_under_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, SimpleNamespace(__spec__=None))  # type: ignore[arg-type]
    with pytest.raises(MissingDependency, match="is not installed"):
        find()


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "aarch64")])
def test_other_machines(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(libraries.sys, "platform", system)
    monkeypatch.setattr(libraries.os, "uname", lambda: SimpleNamespace(machine=machine), raising=False)
    with pytest.raises(EnvironmentLacks, match="runs on Linux x86-64 only"):
        find()


@linux
def test_a_folder_that_cannot_be_read(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(libraries.os, "listdir", refuse)
    with pytest.raises(EnvironmentLacks, match=r"cannot be read in .*: Permission denied"):
        find()
