"""The notebook of the examples, executed as Jupyter executes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = "03_which_block_where/which_block_where.ipynb"


def outputs(cell: Any) -> str:
    """What stands below a cell."""
    return "".join(
        str(each.get("text") or each["data"].get("text/html") or each["data"]["text/plain"]) for each in cell.outputs
    )


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
    for name in ("ipykernel", "pandas"):
        pytest.importorskip(name)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    path = tmp_path / "examples" / NOTEBOOK
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # in the file there are none
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    sweep, frame, best, files = [outputs(cell) for cell in notebook.cells if cell.cell_type == "code"][1:]
    assert sweep.count("<tr>") == 1 + 6
    assert "se reduction=8" in sweep
    assert "drift_default_relative" in frame
    assert best.startswith("1 graphsurgery insert ")
    assert "report.html" in files
    assert (path.parent / "report" / "report.csv").exists()
