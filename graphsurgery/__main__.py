"""``graphsurgery`` and ``python -m graphsurgery``: signals are caught first, then the command line is loaded."""

from __future__ import annotations

import gc
import sys

from .process import signals

_NEW_OBJECTS = 200_000
"""Python looks for circular garbage whenever it has made so many more objects than it freed. By default these are 700,
so that it looks through what a command imports a hundred times, and finds nothing. An insertion makes 90,000."""
_OFTEN = 1_000
"""It looks through what it kept once or twice whenever it has looked so often: of a large model it keeps nearly all."""


def main() -> int:
    """Run the command line with the arguments of the process; returns the exit code."""
    signals.install()
    gc.set_threshold(_NEW_OBJECTS, _OFTEN)
    from .cli.main import main as command_line

    code = command_line()
    signals.ignore()
    gc.freeze()  # Python searches once more when it ends
    return code


if __name__ == "__main__":
    sys.exit(main())
