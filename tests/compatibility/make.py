"""Record the corpus: run by the Python of the version whose results are to be kept, by path and outside of a checkout.

    cd ELSEWHERE && PYTHON_OF_THAT_VERSION CHECKOUT/tests/compatibility/make.py

What is recorded stays as it is, and what is missing is added: a recipe, a call, a command or a request that was written
since. All that index.json holds at first was recorded by commit b65a9dd.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import graphsurgery as gsx  # first of all, so that it is the installed one: the checkout comes onto the path below

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    sys.path.insert(0, str(ROOT / "tests" / "compatibility" / "own"))
    from tests.compatibility import calls, commands, corpus
    from tests.compatibility.compare import collected
    from tests.compatibility.insert_requests import requests

    warnings.simplefilter("ignore", gsx.GraphSurgeryWarning)
    index: dict[str, Any] = corpus.index() if corpus.INDEX.exists() else {}

    def add(section: str, name: str, make: Callable[[], Any]) -> None:
        if name not in index.setdefault(section, {}):
            index[section][name] = make()
            print(f"{section}: {name}", flush=True)

    for package in ("graphsurgery", "numpy", "onnx", "onnxruntime", "torch"):
        add("versions", package, partial(version, package))
    for name, facts in catalogue(commands.COMMAND).items():
        add("catalogue", name, lambda facts=facts: facts)
    for entry in corpus.entries():
        add("files", entry.key, partial(made, entry))
    for name, call in calls.CALLS.items():
        add("calls", name, lambda call=call: corpus.plain(call()))
    for name in commands.COMMANDS:
        add("commands", name, partial(command, name))
    corpus.INDEX.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")  # the requests read the catalogue
    missing = [
        each for each in requests() if each.model == corpus.EXAMPLE and each.key not in index.get("requests", {})
    ]
    for key, outcome in collected(missing, sys.executable).items():
        add("requests", key, lambda outcome=outcome: outcome)
    corpus.INDEX.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def command(name: str) -> dict[str, Any]:
    """Run a command line in an empty folder."""
    from tests.compatibility import commands

    with tempfile.TemporaryDirectory() as folder:
        return commands.run(name, Path(folder))


def made(entry: Any) -> dict[str, Any]:
    """Apply a recipe, keep the model that comes of it, and say what is to be known of it."""
    from tests.compatibility import corpus

    source = corpus.host(entry.host)
    model = gsx.Recipe.load(entry.recipe).apply(source)
    report = gsx.verify(model, providers=["cpu"], seeds=1, trust=corpus.TRUSTED)
    if entry.host != corpus.EXAMPLE:
        entry.made.parent.mkdir(parents=True, exist_ok=True)
        entry.made.write_bytes(model.to_bytes())
    return {
        "original": corpus.sha256(source.read_bytes()),
        "sha256": corpus.sha256(model.to_bytes()),
        "insertions": [each.id for each in model.insertions()],
        "verified": report.passed,
    }


def catalogue(command: Path) -> dict[str, Any]:
    """Every variant of every block, its lowerings, and whether it can start as the identity."""
    told = subprocess.run([command, "blocks", "--json"], capture_output=True, check=True).stdout
    return {
        variant: {"lowerings": facts["lowerings"], "identity": facts["identity"]}
        for block in json.loads(told)["blocks"]
        for variant, facts in block["facts"].items()
    }


if __name__ == "__main__":
    main()
