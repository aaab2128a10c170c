"""BenchReport: what `bench` found, with a form for programs (JSON), for people (lines of text) and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..graph.work import Totals
from ..messages import attributes, html_table, plain
from ..runtime.placement import shares
from ..runtime.timing import Difference, Times, Verdict


@dataclass(frozen=True)
class Side:
    """One of the two models on one provider."""

    rounds: tuple[float, ...]
    """milliseconds for one inference, in the order measured"""
    kernels: Mapping[str, int]
    """provider -> how many kernels it ran, from a profile of the first run"""

    @property
    def times(self) -> Times:
        """Median and spread."""
        return Times.of(self.rounds)

    def to_json(self) -> dict[str, Any]:
        """{"median", "spread", "rounds": [ms], "kernels": {provider: count}}."""
        return attributes(self.times) | attributes(self)


@dataclass(frozen=True)
class Timed:
    """Both models on one provider."""

    provider: str
    before: Side
    after: Side
    control: Side
    """the first model, loaded once more"""
    tf32: bool | None
    """whether float32 products may be computed in TF32; None where that does not arise"""
    gpus: tuple[Mapping[str, Any], ...]
    """the GPUs right after the last run: clocks, temperature, power (see machine.gpus)"""

    @property
    def difference(self) -> Difference:
        """What the second model takes longer."""
        return Difference.of(self.before.rounds, self.after.rounds, self.control.rounds)

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/bench.md."""
        found = attributes(self, "provider", "before", "after", "control", "difference", "tf32")
        return {**found, "gpus_after": plain(self.gpus)}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.provider}: before {self.before.times}, after {self.after.times}"
        yield f"  {self.difference}"
        for name, side in (("before", self.before), ("after", self.after)):
            if side.kernels.keys() - {self.provider}:
                yield f"  kernels {name}: {shares(side.kernels)}"


@dataclass(frozen=True, repr=False)
class BenchReport:
    """The result of :func:`.whole.bench`."""

    model: str
    baseline: str
    removed: int | None
    """how many insertions were taken out of the model for the baseline; None if the baseline was given"""
    inputs: Mapping[str, Any]
    """name -> {"shape", "dtype"}"""
    chosen: tuple[str, ...]
    """a sentence for each input whose sizes the model leaves open"""
    precision: Mapping[str, Any]
    """{"weights": {dtype: how many tensors}, "quantised": bool}"""
    threads: int
    """for one operator on the CPU; 0: onnxruntime's choice"""
    work: Mapping[str, Totals]
    """"before" and "after" -> multiply-accumulates and largest activation, for these inputs"""
    timed: tuple[Timed, ...]
    machine: Mapping[str, Any]
    """see machine.describe"""
    put_back: int = 0
    """for how many of those that were taken out something else came back: what a block was rewritten from, say"""

    def to_json(self) -> dict[str, Any]:
        """A dictionary for ``json.dumps``. Keys as in docs/bench.md."""
        asked = attributes(self, "model", "baseline", "removed", "inputs", "precision", "threads")
        if self.put_back:
            asked["put_back"] = self.put_back
        asked["work"] = {name: plain(taken) for name, taken in self.work.items()}
        found = {"providers": plain(self.timed), "notes": plain(self.chosen)}
        return {**asked, **found, **attributes(self, "machine")}

    def __repr__(self) -> str:
        found = "; ".join(f"{each.provider} {each.difference}" for each in self.timed)
        return f"<BenchReport of {self.model} against {self.baseline}: {found}>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        headers = ("provider", "before, ms", "after, ms", "difference, ms", "95% interval", "noise", "verdict")
        rows = []
        for each in self.timed:
            found = each.difference
            sides = [f"{side.times.median:.3f}" for side in (each.before, each.after)]
            limits = f"{found.low:+.3f} ... {found.high:+.3f}"
            rows.append((each.provider, *sides, f"{found.median:+.3f}", limits, f"{found.noise:.3f}", found.verdict))
        return html_table(headers, rows)

    @property
    def _what_came_back(self) -> str:
        if not self.put_back:
            return ""
        where = "there" if self.put_back == self.removed else f"in the place of {self.put_back}"
        return f", what stood {where} put back"

    def lines(self) -> Iterator[str]:
        """For people."""
        source = "" if self.removed is None else f" ({self.removed} taken out again{self._what_came_back})"
        fed = ", ".join(f"{name} {each['shape']} {each['dtype']}" for name, each in self.inputs.items())
        yield f"{self.model} against {self.baseline}{source}; {fed}"
        yield from self.chosen
        for each in self.timed:
            yield from each.lines()
        yield from (f"work {when}: {taken}" for when, taken in self.work.items())
        if any(each.difference.verdict is Verdict.BELOW_NOISE for each in self.timed):
            yield "below noise: not larger than what the same model, loaded twice, differs by"
        machine = self.machine
        versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
        devices = "".join(f", {gpu['name']} ({gpu['sm_mhz'] or '?'} MHz)" for gpu in machine["gpus"])
        yield f"{machine['processor']}, {machine['cores']} cores{devices}; {versions}"
