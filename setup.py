"""Lists the packages: those of graphsurgery/, and those of patterns/ under the name that they are imported by."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["graphsurgery", "graphsurgery.*"]),
        *(f"graphsurgery.{name}" for name in find_packages(include=["patterns", "patterns.*"])),
    ]
)
