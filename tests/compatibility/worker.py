"""Carry out insert requests with the graphsurgery of the running Python: a program of its own, run by compare.py.

Standard input: one JSON object a line, {"model": path, "arguments": {...}}. Standard output: one line for each, the
SHA-256 of the model's bytes, or "refused: " and the class of the error. It knows nothing of the checkout it lies in.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path

del sys.path[0]  # this folder, so that nothing beside this file is imported by its name

import graphsurgery as gsx  # noqa: E402


def main() -> None:
    warnings.simplefilter("ignore", gsx.GraphSurgeryWarning)
    loaded: dict[str, gsx.ModelFile] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["model"] not in loaded:
            loaded = {asked["model"]: gsx.ModelFile.load(asked["model"])}
        try:
            made = gsx.insert(loaded[asked["model"]], **asked["arguments"]).to_bytes()
            print(hashlib.sha256(made).hexdigest(), flush=True)
        except gsx.errors.GraphSurgeryError as error:
            print(f"refused: {type(error).__name__}", flush=True)


if __name__ == "__main__":
    print(Path(gsx.__file__).resolve().parent, flush=True)
    main()
