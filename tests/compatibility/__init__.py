"""What earlier versions made still works: files with insertions, recipes, Python calls, and the bytes of an insert.

    hosts/        small models to insert into, written once by hosts.py
    recipes/      recipes/HOST/NAME.yaml: a recipe, to be applied to hosts/HOST.onnx
    made/         made/HOST/NAME.onnx: what the tool made of it when the corpus was recorded
    own/          blocks of the user's own: a PyTorch module and an ONNX file
    weights/      trained weights for the recipes
    images/       images for the recipes that measure a scale
    calls.py      Python calls, by name
    requests.py   insert requests over six models that cover the axes of a request in pairs
    index.json    what came out of each, as bytes (SHA-256) or as values
    changes.py    what has been changed on purpose since, and why
    make.py       records the corpus; compare.py compares two checkouts, request by request

Files in these folders are never made again: they stand for the files that users have. A later
version adds to them.
"""

from __future__ import annotations
