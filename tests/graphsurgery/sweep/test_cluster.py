"""The page on clusters: its program is run as it stands, with a local cluster of Dask."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import graphsurgery as gsx

ROOT = Path(__file__).parents[3]
DETECTOR = ROOT / "examples" / "01_first_insertion" / "detector.onnx"


@pytest.mark.long
def test_the_program_of_the_page_gives_what_one_process_gives(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pytest.importorskip("joblib")
    page = (ROOT / "docs" / "sweep_cluster.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shutil.copy(DETECTOR, tmp_path)
    counted = "    print(sum(each.state_counts['memory'] for each in cluster.scheduler.task_prefixes.values()))\n"
    (tmp_path / "program.py").write_text(program.replace("    print(found.table)\n", counted))
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "2\n"  # cells that workers examined
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["complete"] is True
    alone = gsx.sweep(DETECTOR, ["simam", "se"], after="/model.8", rounds=2, warm_up=0, threads=1).to_json()
    for cell, other in zip(report["cells"], alone["cells"], strict=True):
        assert cell["state"] == "done"
        for name in ("parameters", "nodes", "block_macs", "growth", "tensorrt", "dla"):
            assert cell[name] == other[name], name
        assert cell["drift"]["default"]["relative"] == pytest.approx(other["drift"]["default"]["relative"], rel=1e-4)
