"""Cards: all about each block, and the table of the blocks, as text and as Markdown, from the blocks' own code.

``python -m graphsurgery.cards`` prints docs/blocks.md.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from math import prod
from typing import Any, TypeVar

from .. import entry_points
from ..blocks.block import Block, Setting
from ..blocks.registry import block_class, catalogue_block
from ..errors import RequestError, as_argument, as_flag, option, spelled
from ..messages import attributes, html_table, plain, tracked
from ..request import arguments, checked
from ..userblocks import Trust, user_block
from .known import facts
from .listing import TENSORRT, in_order_of_demand, settings_json, short_paper, variants

Kind = TypeVar("Kind")

HEADERS = (
    *("block", "paper", "parameters", "MACs", "largest", "nodes", "identity", "static", "float16"),
    *(f"TensorRT {TENSORRT[0]}", *TENSORRT[1:], "DLA"),
)
LEGEND = (
    "With default settings at 256 channels, 20 x 20; variants: graphsurgery blocks NAME.",
    "parameters: those that are learned. MACs: multiply-accumulates of convolutions and matrix products.",
    "largest: the largest tensor between the block's nodes, in MB of float32.",
    f"identity: weights exist with which the output is the input, bit for bit (else {option('gate', 'residual')}).",
    "static: needs a known height and width. float16: right with every intermediate result rounded, signals up to 20.",
    "TensorRT: taken, as far as the support table tells. DLA: all of it runs there (Orin, TensorRT 10, fp16).",
)
WIDTH = 120
_WORDS = {True: "yes", False: "no", None: "?"}


def row(block: Block) -> tuple[str, ...]:
    """One row of the table."""
    known = facts(block)
    answers = (known["identity"], known["static"], known["float16"], *known["tensorrt"].values(), known["dla"])
    return (
        block.name,
        short_paper(block.paper),
        f"{known['parameters']:,}",
        "?" if known["macs"] is None else _in_short(known["macs"]),
        _megabytes(known["largest_tensor"]),
        str(known["nodes"]),
        *(_WORDS[answer] for answer in answers),
    )


class Card:
    """All about one block; with the ``name`` of one variant, only that variant's weights and facts."""

    def __init__(self, name: str) -> None:
        own = user_block(name, {}, Trust.in_blocks([name]))
        one = own or (catalogue_block(name) if "[" in name else None)
        found = [one] if one is not None else variants(block_class(name.strip()))
        self._block = found[0]
        self.name = self._block.name
        self._settings = found[0].hyper_parameters()
        self._needs = [setting.name for setting in self._settings if setting.required]
        self._shown = [] if self._needs else found

    def to_json(self) -> dict[str, Any]:
        """Keys: see docs/command-line.md."""
        block = self._block
        return {
            **attributes(block, "name", "title", "paper", "reference", "formula", "untrained"),
            "remarks": list(block.remarks),
            "variants": dict(block.variants),
            "settings": settings_json(self._settings),
            "weights": {each.spelled: {k: list(shape) for k, shape in _weights(each).items()} for each in self._shown},
            "aliases": plain(block.aliases),
            "facts": {each.spelled: facts(each) for each in self._shown},
        }

    def __repr__(self) -> str:
        return f"<Card of {self._block.name}: {self._block.title}>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return html_table(HEADERS, [(each.spelled, *row(each)[1:]) for each in self._shown])

    def as_svg(self) -> str:
        """The operators of the block and how they are wired, with default hyper-parameters, for TensorRT at opset 17.

        Returns
        -------
        str
            SVG that needs no other file: a box for each operator, with the parameters that it has and the shape of what
            it gives.

        Raises
        ------
        RequestError
            If the block has hyper-parameters without a default.
        """
        from .drawing import drawing

        if self._needs:
            raise RequestError(f"{self.name} cannot be drawn: it needs {', '.join(self._needs)}")
        return drawing(self._shown[0])

    def lines(self, spell: Callable[[str, str], str] = as_argument) -> Iterator[str]:
        """As text, at most ``WIDTH`` columns wide where it has spaces to break at; ``spell`` writes options."""
        block = self._block
        yield f"{block.name}: {block.title}"
        formula = [("" if i else "formula", part) for i, part in enumerate(_parts(block.formula))]
        head = [("paper", block.paper), ("reference", block.reference), *formula, ("untrained", block.untrained)]
        head += [("" if i else "remarks", text) for i, text in enumerate(block.remarks)]
        for label, text in head:
            yield from _wrapped(f"  {label:<11}{spelled(text, spell)}", 13)
        for line in self._body():
            yield from _wrapped(spelled(line, spell), len(line) - len(line.lstrip()) + 2)

    def _body(self) -> Iterator[str]:
        block = self._block
        if block.variants:
            yield "variants (the first is what the bare name means)"
            yield from (f"  {block.name}[{name}]: {text}" for name, text in block.variants.items())
        yield f"hyper-parameters, for {option('settings')}" if self._settings else "no hyper-parameters"
        yield from (f"  {s.name} ({setting_kind(s)}){f': {s.doc}' if s.doc else ''}" for s in self._settings)
        if self._needs:
            yield f"not tried: it needs {', '.join(self._needs)}"
        for each in self._shown:
            yield f"{each.spelled} at {_site(each)}"
            yield f"  {_sentence(each)}"
            yield f"  lowerings: {', '.join(facts(each)['lowerings'])}"
            weights = _weights(each)
            yield "  weights:" if weights else "  no weights"
            yield from (f"    {keys} {list(shape)}" for keys, shape in grouped(weights))
        if block.aliases:
            yield "keys in the field (regular expression: the key above)"
            yield from (f"  {pattern}: {key}" for pattern, key in block.aliases)

    def markdown(self) -> Iterator[str]:
        """As a section of docs/blocks.md."""
        block = self._block
        yield f"## {block.name}: {block.title}"
        yield ""
        yield "```text"
        yield from _parts(block.formula)
        yield "```"
        yield ""
        yield f"- Paper: {block.paper}"
        yield f"- Reference: {block.reference}"
        yield f"- Untrained: {block.untrained}."
        yield from (f"- Remark: {spelled(remark, as_flag)}." for remark in block.remarks)
        for name, text in block.variants.items():
            yield f"- `{block.name}[{name}]`: {text}"
        yield from (f"- `{as_flag('settings', s.name)}=` ({setting_kind(s)}): {s.doc}" for s in self._settings)
        for each in self._shown:
            lowerings = ", ".join(facts(each)["lowerings"])
            yield f"- `{each.spelled}` at {_site(each)}: {_sentence(each)}; lowerings: {lowerings}"
            if weights := _weights(each):
                yield "  " + ", ".join(f"`{keys}` {list(shape)}" for keys, shape in grouped(weights))


def blocks() -> list[Card]:
    """A card for each block that can be inserted, in the order of demand.

    Returns
    -------
    list of Card
        Printed, a card has the formula, the variants, the hyper-parameters and the weights of its block.

    Examples
    --------
    >>> [card.name for card in gsx.blocks()][:3]    # doctest: +SKIP
    ['se', 'cbam', 'eca']
    >>> print(gsx.block("ge"))                      # doctest: +SKIP
    """
    return each_of(in_order_of_demand(), lambda block: Card(block.name))


def block(name: str) -> Card:
    """The card of one block.

    Parameters
    ----------
    name:
        ``"se"``, ``"ge[theta]"`` for one variant, ``"./myblock.onnx"`` or ``"mypkg.blocks:MyAttention"``.

    Raises
    ------
    BlockError
        If there is no such block, with the names most like it.
    """
    declared = arguments()["module"]
    return Card(checked("name", name, declared.hint, declared.argument))


def grouped(weights: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Keys and shapes, with neighbours of one module and one shape as one: ``bn.{weight,bias}``."""
    for (module, shape), keys in groupby(weights, key=lambda key: (key.rpartition(".")[0], weights[key])):
        names = [key.rpartition(".")[2] for key in keys]
        joined = names[0] if len(names) == 1 else f"{{{','.join(names)}}}" if module else ", ".join(names)
        yield f"{module}.{joined}" if module else joined, shape


def setting_kind(setting: Setting) -> str:
    """What values a hyper-parameter takes, and its default."""
    kind = {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(
        setting.type, "Python literal"
    )
    limits = [f"at least {setting.minimum:g}"] if setting.minimum is not None else []
    limits += [f"greater than {setting.above:g}"] if setting.above is not None else []
    limits += [f"one of {', '.join(map(str, setting.choices))}"] if setting.choices is not None else []
    limits += [f"only {', '.join(setting.variants)}"] if setting.variants is not None else []
    default = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
    default = "required" if setting.required else "not set" if default is None else f"default {default}"
    return ", ".join([kind, *limits, default])


def table(blocks: Sequence[type[Block]] | None = None) -> list[tuple[str, ...]]:
    """The rows of the table, in the order of demand."""
    return each_of(blocks or in_order_of_demand(), lambda block: row(block()))


def each_of(blocks: Sequence[type[Block]], what: Callable[[type[Block]], Kind]) -> list[Kind]:
    """``what`` of every block. GraphSurgeryWarning for one that fails when it is tried: it is left out."""
    found = []
    for block in tracked(blocks, "blocks"):
        try:
            with entry_points.foreign_code():
                found.append(what(block))
        except entry_points.ForeignError as error:
            entry_points.tell([f"the block {block.name} of {block.__module__} fails: {error}"])
    return found


def document() -> Iterator[str]:
    """docs/blocks.md, line by line."""
    yield "# The blocks"
    yield ""
    yield "Generated from the code by `python -m graphsurgery.cards`; do not edit."
    yield ""
    yield from (spelled(line, as_flag) for line in LEGEND)
    yield ""
    yield f"| {' | '.join(HEADERS)} |"
    yield f"|{'|'.join('---' for _ in HEADERS)}|"
    yield from (f"| {' | '.join(cells)} |" for cells in table())
    for block in in_order_of_demand():
        yield ""
        for line in Card(block.name).markdown():
            yield from _wrapped(line, 2) if line.startswith(("- ", "  ")) else [line]


def _parts(formula: str) -> list[str]:
    """A formula's equations."""
    return formula.split("; ")


def _wrapped(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _weights(block: Block) -> dict[str, tuple[int, ...]]:
    """Official key -> shape, at the block's example."""
    return block.parameters(block.example())


def _site(block: Block) -> str:
    site = block.example()
    return f"{site.channels} x {site.height} x {site.width}"


def _sentence(block: Block) -> str:
    known = facts(block)
    start = "" if block.learns_from_identity else ", by a gate so saturated that it never learns"
    identity = f"can leave its input as it is{start}" if known["identity"] else "has no identity setting"
    static = ", needs a known height and width" if known["static"] else ""
    return ", ".join([*_amounts(known), f"{known['nodes']} nodes", f"{identity}{static}"])


def _amounts(known: Mapping[str, Any]) -> Iterator[str]:
    """Numbers of weights, multiply-accumulates, and the largest tensor."""
    buffers = f" and {known['buffers']:,} values of statistics" if known["buffers"] else ""
    yield f"{known['parameters']:,} parameters{buffers}"
    if known["macs"] is not None:
        yield f"{known['macs']:,} multiply-accumulates"
    if known["largest_tensor"]:
        shape = " x ".join(map(str, known["largest_tensor"]))
        yield f"largest tensor inside {shape} ({_megabytes(known['largest_tensor'])} MB in float32)"


def _in_short(count: int) -> str:
    """With three digits: ``8.19k``, ``262M``."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)


def _megabytes(shape: Sequence[int] | None) -> str:
    """Of a tensor in float32; "?" where its shape is not known."""
    return f"{4 * prod(shape) / 1e6:.3g}" if shape else "?"
