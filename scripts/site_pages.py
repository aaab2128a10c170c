"""What `mkdocs build` needs to know of this project: its navigation, and the pages that do not lie in docs/.

The pages are written for GitHub. Here they get what Python-Markdown and a site want in addition: links to files of the
checkout lead to their pages, and what is in a list is indented by four.
"""

from __future__ import annotations

import contextlib
import io
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from graphsurgery.blocks.block import Block
from graphsurgery.cards.cards import HEADERS, LEGEND, Card, table
from graphsurgery.cards.listing import in_order_of_demand, variants
from graphsurgery.cli.main import main
from graphsurgery.errors import as_flag, spelled

ROOT = Path(__file__).parents[1]
_OUTSIDE = ["CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md"]
_BLOCKS, _OPTIONS = "blocks.md", "options.md"
_LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)]*)?\)")
_REFERENCES = "mkdocs.plugins.mkdocs_autorefs._internal.plugin"
"""It warns where one object has several anchors, as a class has that is exported from two packages. Any will do."""
_ITEM = re.compile(r"(?:-|\d+\.) +")


def _origins() -> dict[str, str]:
    """Every page of the checkout -> its page in the site, both as paths from the root of each."""
    inside = {f"docs/{page.name}": page.name for page in (ROOT / "docs").glob("*.md")}
    examples = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/README.md"))
    outside = {path: path.lower().replace("/readme.md", ".md").replace("/", "-") for path in [*_OUTSIDE, *examples]}
    return inside | outside


ORIGINS = _origins()
_SITE = {page: origin for origin, page in ORIGINS.items()}


# ---------------------------------------------------------------------- events of mkdocs


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation is what docs/index.md lists, by its headings."""
    _, *parts = re.split(r"^## ", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    config.nav = [{"Overview": "index.md"}, *({part.partition("\n")[0]: list(_entries(part))} for part in parts)]
    logging.getLogger(_REFERENCES).addFilter(lambda record: "closest secondary URL" not in record.getMessage())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of docs/, and a page and drawings for each block."""
    for origin, page in ORIGINS.items():
        if not origin.startswith("docs/"):
            files.append(File.generated(config, page, content=(ROOT / origin).read_text(encoding="utf-8")))
    files.append(File.generated(config, _OPTIONS, content="\n".join(["# Options", *_commands()])))
    for kind in in_order_of_demand():
        for path, content in _block_files(kind):
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to pages of the site, and indent lists as Python-Markdown wants it."""
    uri = page.file.src_uri
    if uri == _BLOCKS:
        return "\n".join(_table_of_blocks())
    if origin := _SITE.get(uri):
        markdown = _LINK.sub(lambda link: _led(link, origin), markdown)
        markdown = re.sub(r"\[([^\]]+)\]\(!\)", r"\1", markdown)
    return "\n".join(_indented(markdown.splitlines()))


# ---------------------------------------------------------------------- pages and links


def _entries(part: str) -> Iterator[Any]:
    """The navigation of one part of docs/index.md: the pages that it links to, with the texts of the links."""
    for title, target in re.findall(r"\[([^\]]+)\]\(([^)#]+)", part):
        page = ORIGINS[posixpath.normpath(f"docs/{target}")]
        yield {title: [page, *_block_pages()] if page == _BLOCKS else page}
        yield from _example_pages() if page == "examples.md" else []
        yield from [{"Options": _OPTIONS}] if page == "command-line.md" else []


def _block_pages() -> list[dict[str, str]]:
    return [{kind.name: f"blocks/{kind.name}.md"} for kind in in_order_of_demand()]


def _example_pages() -> list[str]:
    return [page for origin, page in ORIGINS.items() if re.match(r"examples/\d", origin)]


def _commands(*words: str) -> Iterator[str]:
    """What ``--help`` of a command prints, and of the commands in it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([*words, "--help"])
    text = printed.getvalue()
    if words:
        yield from ("", f"## {' '.join(words)}", "", "```text", text.strip(), "```")
    for name in re.findall(r"^  ([\w-]+)  ", text.partition("\nCommands:\n")[2], flags=re.MULTILINE):
        yield from _commands(*words, name)


def _table_of_blocks() -> Iterator[str]:
    yield from ("# The blocks", "", *(f"- {spelled(line, as_flag)}" for line in LEGEND), "")
    yield from (f"| {' | '.join(HEADERS)} |", f"|{'---|' * len(HEADERS)}")
    yield from (f"| [{name}](blocks/{name}.md) | {' | '.join(cells)} |" for name, *cells in table())


def _block_files(kind: type[Block]) -> Iterator[tuple[str, str]]:
    """The page of a block, and the drawing of each variant."""
    name, card = kind.name, Card(kind.name)
    lines = [line.replace("## ", "# ", 1) if line.startswith("## ") else line for line in card.markdown()]
    lines += ["", "## The operators", "", f"`{card.name}` with default hyper-parameters, for TensorRT at opset 17."]
    for i, block in enumerate(variants(kind)):
        picture = f"{name}.svg" if i == 0 else f"{name}-{block.variant}.svg"
        yield f"blocks/{picture}", Card(block.spelled).as_svg()
        image = f"![The operators of {block.spelled}]({picture}){{.drawing}}"
        lines += ["", image] if i == 0 else ["", f'??? "{block.spelled}"', "", f"    {image}"]
    yield f"blocks/{name}.md", "\n".join(lines)


def _led(link: re.Match[str], origin: str) -> str:
    """A link of a file of the checkout as one of its page; ``(!)`` where there is no page for what it leads to."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link["target"]))
    page = ORIGINS.get(target) or ORIGINS.get(f"{target}/README.md")
    if page is None and not target.startswith("docs/"):
        return "](!)"
    return f"]({page or target.removeprefix('docs/')}{link['anchor'] or ''})"


def _indented(lines: list[str]) -> Iterator[str]:
    """What belongs to an item of a list, indented by four."""
    width, fenced = 0, False
    for line in lines:
        if match := _ITEM.match(line):
            width = match.end() if not fenced else width
        elif line and not line.startswith(" ") and not fenced:
            width = 0
        fenced ^= line.lstrip().startswith("```")
        indent = len(line) - len(line.lstrip())
        yield f"{' ' * (4 - width)}{line}" if width and indent >= width else line
