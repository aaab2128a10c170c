#!/usr/bin/env python
"""Build the source archive and the wheel, and use them as somebody does who has installed them: `make release`.

    python scripts/check_release.py

The archive is built from what git tracks, the wheel from the archive, so that neither has what lies about in a
checkout. Then, outside of the checkout, in environments made for it:

- `twine check --strict` reads both;
- the wheel, with PyTorch, inserts a block into the example, proves it, and takes it out again, to the byte;
- the archive, without PyTorch, inserts one and takes it out;
- uv and pipx install the wheel's command.

All of it lies in build/release/; the two files to publish are in build/release/dist/. Nothing is published.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "release"
DIST = FOLDER / "dist"
EXAMPLE = "examples/01_first_insertion/detector.onnx"
PROGRAMS = "Scripts" if os.name == "nt" else "bin"
CONSTRAINTS = ROOT / "constraints.txt"


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    print("$", *(str(word).replace(f"{ROOT}{os.sep}", "") for word in command), flush=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, env={**clean, **environment})


def environment(name: str) -> Path:
    """A new environment; the folder of its programs."""
    run(sys.executable, "-m", "venv", "--clear", FOLDER / name)
    return FOLDER / name / PROGRAMS


def install(programs: Path, *packages: str | Path) -> None:
    pip = [programs / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    run(*pip, "--constraint", CONSTRAINTS, *packages)


def version() -> str:
    """The version, which the change log and the citation have to name, too."""
    source = (ROOT / "graphsurgery" / "_version.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = (".+")$', source, re.MULTILINE)
    return str(ast.literal_eval(found))


def check_names(number: str) -> None:
    """SystemExit where the change log or the citation is of another version, or of another day."""
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = next(re.finditer(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", log, re.MULTILINE), None)
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE))
    cited = citation.get("version", ""), citation.get("date-released", "")
    if heading is None or heading.groups() != cited or heading[1] != number:
        first = heading[0] if heading else "no version with its date"
        sys.exit(f"this is {number}; the change log begins with {first}, CITATION.cff has {' of '.join(cited)}")


def build(tools: Path) -> tuple[Path, Path]:
    """The archive and the wheel, from a copy of what git has."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
        packed = Path(folder) / "head.tar"
        packed.write_bytes(archive)
        with tarfile.open(packed) as files:
            files.extractall(Path(folder) / "tree")
        run(tools / "python", "-m", "build", "--outdir", DIST, Path(folder) / "tree")
    (source,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return source, wheel


@contextmanager
def elsewhere() -> Iterator[Path]:
    """A folder that is no part of the checkout, with the example's detector."""
    with tempfile.TemporaryDirectory(prefix="graphsurgery-release-") as folder:
        shutil.copy(ROOT / EXAMPLE, folder)
        yield Path(folder)


def demo(program: Path, *, proves: bool) -> None:
    """Insert a block, prove it, and take it out again."""
    with elsewhere() as folder:
        place = ["--module", "simam", "--after", "/model.8", "-o", "with.onnx"]
        run(program, "insert", "detector.onnx", *place, *([] if proves else ["--no-verify"]), cwd=folder)
        if proves:
            run(program, "verify", "with.onnx", cwd=folder)
        run(program, "sites", "with.onnx", "--quiet", cwd=folder)
        run(program, "remove", "with.onnx", "--all", "-o", "again.onnx", cwd=folder)
        if (folder / "again.onnx").read_bytes() != (folder / "detector.onnx").read_bytes():
            sys.exit("what is left after remove is not the detector from before")


def main() -> int:
    number = version()
    check_names(number)
    FOLDER.mkdir(parents=True, exist_ok=True)
    tools = environment("tools")
    install(tools, "build", "twine", "uv", "pipx")
    source, wheel = build(tools)
    run(tools / "python", "-m", "twine", "check", "--strict", source, wheel)

    with_torch = environment("wheel")
    install(with_torch, "torch")  # alone and first, as in the Makefile
    install(with_torch, f"{wheel}[cpu,torch]")
    demo(with_torch / "graphsurgery", proves=True)

    without = environment("source")
    install(without, f"{source}[cpu]")
    demo(without / "graphsurgery", proves=False)

    by_uv = FOLDER / "uv"
    shutil.rmtree(by_uv, ignore_errors=True)
    run(tools / "uv", "venv", "--quiet", "--python", sys.executable, by_uv)
    run(tools / "uv", "pip", "install", "--quiet", "--python", by_uv, f"graphsurgery[cpu] @ {wheel.as_uri()}")
    demo(by_uv / PROGRAMS / "graphsurgery", proves=False)

    home = FOLDER / "pipx"
    shutil.rmtree(home, ignore_errors=True)
    places = {"PIPX_HOME": str(home), "PIPX_BIN_DIR": str(home / "programs"), "PIPX_MAN_DIR": str(home / "man")}
    run(tools / "pipx", "install", "--python", sys.executable, f"{wheel}[cpu]", **places)
    demo(home / "programs" / "graphsurgery", proves=False)

    sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in (source, wheel))
    print(f"graphsurgery {number} can be released: {sizes}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
