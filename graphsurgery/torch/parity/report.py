"""What comparing a whole file with a whole module found, with a form for programs and one for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import ParityFailed, option, readable
from ...messages import attributes, listed, plain


@dataclass(frozen=True, kw_only=True)
class QuantityReport:
    """One quantity of the outputs, boxes say, over all images on one provider."""

    provider: str
    quantity: str
    unit: str
    """``"px"``, ``"score"``, ``"own scale"`` (an error is then in the output's own unit) or ``"exact"``"""
    error: float
    """the largest difference between the file and the module"""
    permitted: float
    """what was permitted on the image where the largest share of it was used"""
    floor: float | None = None
    """noise floor: the largest difference between the file without its insertions and the module without its blocks;
    None where it was not measured"""
    rounding: float | None = None
    """how far the module's own rounding moves the quantity; None where that was not needed"""
    image: str = ""
    """the image with the largest share of what is permitted"""
    passed: bool = True
    reordered: int = 0
    """rows that stand elsewhere in the file than in what the module gives"""
    left_out: int = 0
    """rows at the cut-off, where a tie decides which of them is chosen"""
    unpaired: int = 0
    """rows that one side has more"""


@dataclass(frozen=True)
class FirstDifference:
    """The first module, in the order of a run, whose output in the file is not what the module gives."""

    path: str
    """``model.4.cv1.conv``; "" where none of those that can be compared differs"""
    words: str
    """the module in words"""
    error: float
    permitted: float
    compared: int
    """how many modules were compared up to there"""
    skipped: tuple[str, ...]
    """what could not be compared, each with the reason"""


@dataclass(frozen=True, repr=False)
class WholeReport:
    """The result of :func:`graphsurgery.torch.compare`."""

    model: str
    against: str
    """what the file was compared with"""
    run: str
    """how the module was run"""
    known_from: str
    """how it is known what the outputs are"""
    outputs: tuple[str, ...]
    """what each output was taken as"""
    images: tuple[str, ...]
    inserted: tuple[str, ...]
    """the ids of the insertions in the file"""
    attached: tuple[str, ...]
    """the ids of the blocks in the module"""
    floor: str
    """what the noise floor was measured on, or why it was not"""
    quantities: tuple[QuantityReport, ...]
    ties: tuple[str, ...] = ()
    """images that were not compared, since the module's own choice of queries is a tie there"""
    notes: tuple[str, ...] = ()
    """what the comparison does not tell"""
    weights: tuple[str, ...] = ()
    """weights of blocks that are others in the file than in the module, whether or not the images show it"""
    mismatch: str = ""
    """how the file's outputs are none of the module's at all; "" if they are"""
    first: FirstDifference | None = None
    """where a difference begins; None if there is none"""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every quantity agrees on every provider, at least one was compared, and the blocks have the same weights."""
        return (
            not self.mismatch
            and not self.weights
            and bool(self.quantities)
            and all(each.passed for each in self.quantities)
        )

    def require(self) -> WholeReport:
        """This report. Raises ParityFailed, with the first reason, if it is one of failure."""
        if not self.passed:
            raise ParityFailed(self.reason)
        return self

    @property
    def reason(self) -> str:
        """Why it failed, in one sentence."""
        if self.mismatch:
            return self.mismatch
        failed = next((each for each in self.quantities if not each.passed), None)
        if failed is None and self.weights:
            return f"{self.model} does not have the weights of {self.against}: {self.weights[0]}"
        if failed is None:
            said = "on every image the module's own choice of queries is a tie, so that nothing can be told from it"
            return f"{self.model} could not be compared with {self.against}: {said}; give other {option('images')}"
        where = f"{failed.quantity} on {failed.provider}, {failed.image}"
        sentence = f"{self.model} does not agree with {self.against}: {where}: {_error(failed)}"
        if self.first is not None and self.first.path:
            sentence += f"; the first module that differs is {self.first.words}"
        return sentence

    def to_json(self) -> dict[str, Any]:
        """A dictionary for ``json.dumps``; numbers that are infinite or not a number are null.

        - "model", "against", "passed", "run", "known_from", "outputs": [text], "images": [name], "inserted": [id],
          "attached": [id], "floor", "ties": [name], "notes": [text], "weights": [text], "mismatch",
          "versions": {package: version}
        - "quantities": [{"provider", "quantity", "unit", "error", "permitted", "floor", "rounding", "image", "passed",
          "reordered", "left_out", "unpaired"}]
        - "first": {"path", "words", "error", "permitted", "compared", "skipped": [text]} or null

        See the fields of these classes for what they mean.
        """
        whole = attributes(self, "model", "against", "passed")
        return dict(readable({**whole, **plain(attributes(self))}))

    def __repr__(self) -> str:
        return f"<WholeReport {'passed' if self.passed else 'FAILED'}: {self.model} against {self.against}>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The report for people, without colours."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.model} against {self.against}, {self.run}, on {listed(self.images, 3)}"
        yield f"  inserted in the file: {listed(self.inserted) or 'nothing'}"
        yield f"  attached to the module: {listed(self.attached) or 'nothing'}"
        if self.mismatch:
            yield f"  {self.mismatch}"
        else:
            yield f"  what the outputs are, as {self.known_from}:"
            yield from (f"    {each}" for each in self.outputs)
        for each in self.quantities:
            yield f"  {each.provider}: {each.quantity}: {'passed' if each.passed else 'FAILED'}  {_error(each)}"
            yield from (f"    {text}" for text in _notes(each))
        yield f"  noise floor: {self.floor}"
        if any(each.floor is not None and each.floor > each.permitted for each in self.quantities if not each.passed):
            yield "    the base differs as well, so that it is not the blocks alone that differ"
        yield from (f"  not compared on {each}: which queries are chosen there is a tie" for each in self.ties)
        yield from (f"  note: {each}" for each in self.notes)
        yield from (f"  weights: {each}" for each in self.weights)
        if self.first is not None:
            yield f"  first module that differs: {self.first.words}"
            if self.first.path:
                yield f"    off by {self.first.error:.1e}, permitted {self.first.permitted:.1e}"
            yield f"    {self.first.compared} modules compared up to there, {len(self.first.skipped)} left out"
            yield from (f"    left out: {each}" for each in self.first.skipped[:_MOST_SKIPPED])
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        yield f"{'passed' if self.passed else 'FAILED'} ({versions})"


_MOST_SKIPPED = 4


def _error(each: QuantityReport) -> str:
    unit = " px" if each.unit == "px" else ""
    if each.unpaired:
        return f"{_rows(each.unpaired, 'has', 'have')} no partner"
    if each.unit == "exact":
        return "they are the same" if not each.error else f"off by up to {each.error:g}"
    error = f"{each.error:.1e}{unit}" if math.isfinite(each.error) else "not a number on one side"
    floor = "" if each.floor is None else f" (noise floor {each.floor:.1e}{unit})"
    return f"max {error} of {each.permitted:.1e}{unit}{floor}"


def _notes(each: QuantityReport) -> Iterator[str]:
    if each.rounding is not None and each.unit != "exact":
        yield f"the module's own rounding moves it by {each.rounding:.1e}, eight times of which are permitted"
    if each.reordered:
        yield f"{_rows(each.reordered, 'stands', 'stand')} elsewhere, and compared with the partner in the module"
    if each.left_out:
        yield f"{_rows(each.left_out, 'is', 'are')} at the cut-off, where a tie decides, and left out"


def _rows(number: int, one: str, several: str) -> str:
    return f"{number} row {one}" if number == 1 else f"{number} rows {several}"
