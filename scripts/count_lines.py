#!/usr/bin/env python
"""Count lines of code, without docstrings, comments and blank lines, folder by folder.

python scripts/count_lines.py                      what lies here
python scripts/count_lines.py --against b65a9dd    and by how much it differs from a commit
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
COUNTED = ("graphsurgery", "patterns")
LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def lines_of_code(source: bytes) -> int:
    """Count the lines that hold a token of code; a statement that is only a string is a docstring."""
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=last):
                documentation.update(range(first, (last or first) + 1))
    code: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)


def here() -> Iterator[tuple[PurePosixPath, bytes]]:
    """Every Python file of the counted folders, with its content."""
    for folder in COUNTED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield PurePosixPath(path.relative_to(ROOT)), path.read_bytes()


def at(commit: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The same of a commit."""
    archive = subprocess.run(["git", "archive", commit, *COUNTED], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        said = archive.stderr.decode().strip()
        raise SystemExit(f"git cannot show {' and '.join(COUNTED)} at {commit!r}: {said}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        for member in files:
            content = files.extractfile(member) if member.name.endswith(".py") else None
            if content is not None:
                yield PurePosixPath(member.name), content.read()


def by_folder(files: Iterator[tuple[PurePosixPath, bytes]]) -> Counter[str]:
    """Lines by folder; files that lie flat in a counted folder stand under its own name."""
    counts: Counter[str] = Counter()
    for path, source in files:
        folder = path.parts[0] if len(path.parts) == 2 else "/".join(path.parts[:2])
        counts[folder] += lines_of_code(source)
    return counts


def table(now: Counter[str], before: Counter[str] | None) -> Iterator[str]:
    """One line a folder, and their sum."""
    for folder in sorted({*now, *(before or ())}):
        change = "" if before is None else f"{now[folder] - before[folder]:+8,}"
        yield f"{now[folder]:8,}{change}  {folder}"
    change = "" if before is None else f"{now.total() - before.total():+8,}"
    yield f"{now.total():8,}{change}  in all"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="COMMIT", help="a commit to compare with")
    arguments = parser.parse_args()
    before = by_folder(at(arguments.against)) if arguments.against else None
    print(*table(by_folder(here()), before), sep="\n")


if __name__ == "__main__":
    main()
