"""``graphsurgery`` and ``python -m graphsurgery``: signals are caught first, then the command line is loaded."""

from __future__ import annotations

import sys

from .process import signals


def main() -> int:
    """Run the command line with the arguments of the process; returns the exit code."""
    signals.install()
    from .cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
