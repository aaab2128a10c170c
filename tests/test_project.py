"""The project itself: what it installs, what it imports, what it ships."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import graphsurgery
from graphsurgery import patterns

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CATALOGUE = "graphsurgery.patterns"

# Written so that this file does not match itself.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:root|work|home/\w+|Users/\w+)/")


def test_version_is_the_installed_one() -> None:
    assert graphsurgery.__version__ == metadata.version("graphsurgery")


def test_the_change_log_and_the_citation_name_the_version() -> None:
    version, day = graphsurgery.__version__, r"(\d{4}-\d{2}-\d{2})"
    logged = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert logged is not None
    dated = re.fullmatch(rf"{re.escape(version)} \({day}\)", logged[1])
    assert dated is not None
    assert (citation["version"], str(citation["date-released"])) == (version, dated[1])


@pytest.mark.parametrize("path", [*sorted(ROOT.glob(".github/**/*.yml"))], ids=lambda path: path.stem)
def test_files_of_the_forge_can_be_read(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "ISSUE_TEMPLATE" and path.stem != "config":
        assert {"name", "description", "body"} <= content.keys()
        assert len({each["id"] for each in content["body"]}) == len(content["body"])
        assert {each["type"] for each in content["body"]} <= {"input", "textarea", "checkboxes"}
    if path.parent.name == "workflows":
        scripts = [step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step]
        assert "bash .ci/run" in scripts
        for script in re.findall(r"scripts/\w+\.py", "\n".join(scripts)):
            assert (ROOT / script).exists()


def test_every_upper_bound_of_a_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounded = [i for i, line in enumerate(text) if re.match(r'\s+"[^"]+[<!]=?[0-9]', line)]
    assert [text[i] for i in bounded if "#" not in text[i] and not text[i - 1].lstrip().startswith("#")] == []


def test_console_script_is_a_function() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="graphsurgery")
    assert callable(script.load())
    assert PROJECT["project"]["scripts"] == {"graphsurgery": "graphsurgery.__main__:main"}


def test_catalogue_is_an_entry_point() -> None:
    (catalogue,) = metadata.entry_points(group=CATALOGUE, name="catalogue")
    assert catalogue.load().__name__ == "graphsurgery.patterns.attention"


def test_a_checkout_that_is_not_installed_has_the_catalogue(tmp_path: Path) -> None:
    """Python sees links to what is installed, but for what makes this project installed."""
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        if "graphsurgery" not in installed.name.replace("onnx_graphsurgeon", "") and installed.suffix != ".pth":
            (tmp_path / installed.name).symlink_to(installed)
    insert = "graphsurgery.insert('examples/01_first_insertion/detector.onnx', 'simam', after='/model.8')"
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); import graphsurgery; print({insert}.insertions()[0].module)"
    )
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout == "simam\n"


def test_a_checkout_declares_the_entry_points_that_an_installation_has() -> None:
    declared = PROJECT["project"]["entry-points"]
    assert {group: entries["catalogue"] for group, entries in declared.items()} == patterns.ENTRY_POINTS


def reaches_catalogue(node: ast.AST, package: tuple[str, ...]) -> bool:
    """Whether a piece of the engine's syntax imports the catalogue, or names a module of it in a string."""
    if isinstance(node, ast.Constant):  # the bare name is allowed: it is that of the entry-point group
        return isinstance(node.value, str) and node.value.startswith(f"{CATALOGUE}.")
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        names = [".".join(filter(None, (*base, node.module, alias.name))) for alias in node.names]
    else:
        return False
    return any(f"{name}.".startswith((f"{CATALOGUE}.", "patterns.")) for name in names)


@pytest.mark.parametrize(
    ("source", "reaches"),
    [
        ("import graphsurgery.patterns", True),
        ("from graphsurgery import patterns", True),
        ("from graphsurgery.patterns.modules.simam import SimAM", True),
        ("from .. import patterns", True),
        ("from ..patterns import attention", True),
        ("import patterns.attention", True),
        ("load('graphsurgery.patterns.attention')", True),
        ("entry_points(group='graphsurgery.patterns')", False),
        ("from . import patterns", False),
        ("from graphsurgery.blocks.block import Block", False),
        ("import torch", False),
    ],
)
def test_the_check_below_sees_every_form(source: str, reaches: bool) -> None:
    assert any(reaches_catalogue(node, ("graphsurgery", "cli")) for node in ast.walk(ast.parse(source))) is reaches


@pytest.mark.parametrize("name", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("graphsurgery/**/*.py")))
def test_engine_does_not_import_the_catalogue(name: str) -> None:
    package = Path(name).parent.parts
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    assert [ast.unparse(node) for node in ast.walk(tree) if reaches_catalogue(node, package)] == []


def test_torch_and_the_runtimes_are_imported_only_when_needed() -> None:
    modules = "graphsurgery.cli.main, graphsurgery.recipe, graphsurgery.cards"
    code = f"import sys, {modules}, {CATALOGUE}.attention; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "onnxruntime", "tensorrt"}.isdisjoint(loaded)


def test_no_path_of_a_machine_is_tracked() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = [ROOT / name for name in listing.stdout.split("\0") if name]
    hits = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked
        if path.is_file() and (match := MACHINE_PATH.search(path.read_bytes()))
    ]
    assert hits == []
