"""Detectors that are not YOLO-like, rebuilt after their published code with small widths and random weights.

Each is a module whose forward() calls a Mark where its source hands a map from one part to the next: ``mark_p3`` is
what the source's backbone returns at stride 8, ``mark_n3`` what its neck does. roles.py compares these with the roles
that are recognised in an export.
"""
