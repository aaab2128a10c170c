"""Set-up that all tests share. Markers and paths stand in pyproject.toml."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run, and none fails for being slow: the machine that runs the tests may be busy.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")
