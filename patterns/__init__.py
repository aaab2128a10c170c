"""The catalogue: attention blocks (attention/), their PyTorch modules (modules/) and detector patterns (detector/).

Nothing is imported here. The engine finds blocks through the entry-point group ``graphsurgery.patterns``.
"""

from __future__ import annotations

ENTRY_POINTS = {
    "graphsurgery.patterns": "graphsurgery.patterns.attention",
    "graphsurgery.detectors": "graphsurgery.patterns.detector",
}
"""what pyproject.toml declares, for a checkout that is not installed"""
