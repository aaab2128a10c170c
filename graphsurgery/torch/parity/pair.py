"""A file and the module that it was made from, run as it was exported: which output of one is which of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ...feature_map import Array
from ...messages import listed, shape_text
from .deployed import Deployed, Image
from .layout import Layout, by_scale
from .live import Live, Output, values
from .ultralytics_heads import layout_of, ways


@dataclass(frozen=True)
class Pair:
    """A file and the module that it is compared with, run as the file was exported."""

    deployed: Deployed
    live: Live
    places: tuple[int, ...] = ()
    """for each output of the file, which of the module's it is"""
    words: str = ""
    """how the module is run"""
    layout: Layout | None = None
    mismatch: str = ""
    """why there is no layout"""
    left_over: tuple[str, ...] = ()
    """what the module gives beside that"""

    @classmethod
    def of(cls, deployed: Deployed, live: Live, sample: Image) -> Pair:
        """The way to run the module in which it gives what the file gives."""
        _, feeds = sample
        outputs, chosen = deployed.run(feeds, "cpu"), deployed.chosen()
        first: Pair | None = None
        for words, prepare in ways(live.module, outputs, deployed.dynamic):
            ready = live.prepared(prepare)
            given = ready.run(feeds)
            places = _places(deployed, outputs, given, chosen)
            if isinstance(places, str):
                first = first or cls(deployed, ready, words=words, mismatch=places)
                continue
            left_over = tuple(each.place for index, each in enumerate(given) if index not in places)
            pair = cls(deployed, ready, places, words, left_over=left_over)
            layout = layout_of(ready.copy(torch.float32), deployed.outputs, outputs, chosen, deployed.image_size(feeds))
            return replace(pair, layout=layout or _by_scale(deployed.outputs, outputs, given, places, chosen))
        assert first is not None
        return first

    def module(self, feeds: dict[str, Array], dtype: torch.dtype) -> list[Array]:
        """What the module gives for each output of the file."""
        given = values(self.live.run(feeds, dtype))
        return [given[place] for place in self.places]

    def kept(
        self, feeds: dict[str, Array], dtype: torch.dtype, outputs: list[Array]
    ) -> Callable[[torch.dtype], list[Array]]:
        """:meth:`module` by element type, where what it gives in one of them is known."""
        return lambda other: outputs if other is dtype else self.module(feeds, other)


def _places(
    deployed: Deployed, outputs: Sequence[Array], given: Sequence[Output], chosen: Sequence[bool]
) -> tuple[int, ...] | str:
    """Which output of the module each of the file's is: by its name, where the module names them all, else in order.

    A sentence where they are not the same.
    """
    names, known = deployed.outputs, {each.place: index for index, each in enumerate(given)}
    if all(f"[{name!r}]" in known for name in names):
        places = tuple(known[f"[{name!r}]"] for name in names)
    elif len(given) == len(outputs):
        places = tuple(range(len(outputs)))
    else:
        return (
            f"{deployed.model.name} has {_counted(len(outputs))} ({listed(names)}), and the module gives {len(given)}; "
            "compare with a module that gives the same"
        )
    for name, output, place, any_number in zip(names, outputs, places, chosen, strict=True):
        value = given[place].value
        skip = 1 if output.ndim == 2 else 2
        same = output.shape == value.shape or (
            any_number and output.ndim > 1 and output.shape[skip:] == value.shape[skip:]
        )
        if not same or output.ndim != value.ndim:
            theirs = f"{given[place].place or 'what the module gives'} {shape_text(value.shape)}"
            hint = "; compare the file from before NonMaxSuppression was put in" if deployed.suppresses else ""
            return (
                f"{name} of {deployed.model.name} is {shape_text(output.shape)}, and {theirs} is another output{hint}"
            )
    return places


def _counted(number: int) -> str:
    return f"{number} output{'' if number == 1 else 's'}"


def _by_scale(
    names: Sequence[str],
    outputs: Sequence[Array],
    given: Sequence[Output],
    places: Sequence[int],
    chosen: Sequence[bool],
) -> Layout:
    tables, lines = by_scale(names, outputs, chosen)
    texts = {
        f"{name}: ": f"{name}, {given[place].place or 'the whole'} of what the module gives: "
        for name, place in zip(names, places, strict=True)
    }
    said = tuple(texts[f"{line.partition(': ')[0]}: "] + line.partition(": ")[2] for line in lines)
    return Layout(tuple(tables), "nothing but their names and their order is known", said)
