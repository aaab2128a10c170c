"""Exercise: inputs and weights that reach both sides of every kink and bound in a block.

While a block is compared, its rivals (see pieces.py) run along on the same inputs until each has given itself away. For
those that have not, inputs of other sizes and of the other sign are tried, and weights of which one layer is louder,
softer or turned around; the block is compared on what makes a rival differ. What nothing here reaches is reported.

The pieces are those of the nodes in the file and, where these are not the ones that the block's template writes, those
of the template as well: a bound that is missing in the file cannot be found there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import onnx

from ..errors import CannotRun, NoKernel
from ..feature_map import Array
from ..runtime.session import Session, session
from .affine import misfit
from .cases import Case
from .conditioning import UNITS
from .cutout import constants
from .pieces import Piece, pieces
from .random_weights import RandomWeights, Redrawing
from .rounding import in_float32
from .tolerance import TOLERANCES, Tolerance

_APART = 2.0
"""A rival has given itself away where it is off by this many tolerances."""
_LOUDER = 30.0
_GAINS = (-1.0, _LOUDER, 1 / _LOUDER, -_LOUDER)
_SIZES = (1.0, -1.0, 1e-2, 20.0, 300.0)
"""What the usual input is multiplied by: 1e-2 has variances of the size of the usual epsilons, 1e-5; 300 has logits of
which float32 holds no exponential."""
_MOST = 60
"""sets of weights that are tried; a block of many layers has more, and the first ones reach most"""

Key = tuple[int, int]
"""(source, number of the piece)"""


@dataclass(frozen=True)
class Reaching:
    """An input that reaches what the usual ones do not, with weights in place of the block's own, or None."""

    case: Case
    weights: RandomWeights | None
    written: onnx.ModelProto
    """the block, with those weights, as its template writes it; as it is in the file where that is the same"""


class Exercise:
    """What of one block has been exercised so far.

    ``block``: as it is in the file. ``redrawing``: for weights in place of its own, and for how its template writes it;
    None where its template cannot be asked. ``dtype``: that of its comparison.
    """

    def __init__(self, block: onnx.ModelProto, redrawing: Redrawing | None, dtype: str) -> None:
        written = redrawing.written() if redrawing is not None else block
        sources = [block] if same_operators(block, written) else [block, written]
        self.misfit = misfit(block, written, UNITS[dtype])
        """what shows in the file alone; see affine.py"""
        self._redrawing = redrawing if redrawing is not None and redrawing.possible else None
        stuck = redrawing is not None and redrawing.needed and not redrawing.possible
        self._unaltered = ["what its weights hide, which are not where its template writes them"] if stuck else []
        self._tolerance = max((TOLERANCES[dtype], TOLERANCES["float32"]), key=lambda each: each.relative)
        self._sources = sources
        self._hidden: dict[Key, Piece] = {
            (i, j): piece
            for i, source in enumerate(sources)
            for j, piece in enumerate(pieces(source, doubtful=len(sources) > 1))
        }

    @property
    def hidden(self) -> tuple[str, ...]:
        """What has not been exercised, in words."""
        found = [f"{piece.what} ({piece.output})" for piece in self._hidden.values()]
        return tuple(dict.fromkeys([*found, *self._unaltered]))

    def watch(self, weights: RandomWeights | None = None) -> Watch:
        """The block and its rivals with its own weights, or with others."""
        sources = self._sources if weights is None else (weights.cutout.model, weights.written)[: len(self._sources)]
        return Watch(sources, self._hidden, self._tolerance)

    def reach(self, usual: Array, permitted: Callable[[Reaching], Array | None]) -> Iterator[Reaching]:
        """Inputs and weights for what is still hidden.

        ``usual``: an input of order one. ``permitted``: the largest error of each element there that a block is
        allowed, or None where rounding decides what comes out.
        """
        for weights, how in islice(_weights(self._redrawing), _MOST):
            watch = self.watch(weights)
            written = self._sources[-1] if weights is None else weights.written
            for size in _SIZES:
                if not self._hidden:
                    return
                array = (usual * size).astype(usual.dtype)
                apart = watch.seen(array)
                found = Reaching(Case(f"the usual input times {size:g}{how}", array), weights, written)
                if not apart or (limit := permitted(found)) is None:
                    continue
                seen = [key for key, distance in apart.items() if not (distance <= _APART * limit).all()]
                if seen:
                    watch.settle(seen)
                    yield found


class Watch:
    """Runs a block and its rivals, for one set of weights."""

    def __init__(self, sources: Sequence[onnx.ModelProto], hidden: dict[Key, Piece], tolerance: Tolerance) -> None:
        self._sources, self._hidden, self._tolerance = sources, hidden, tolerance
        self._sessions: dict[Key | int, Session] = {}
        self._input = sources[0].graph.input[0].name

    def look(self, array: Array) -> None:
        """An input that the block is compared on."""
        self.settle(self.seen(array))

    def settle(self, seen: Iterable[Key]) -> None:
        """These pieces are exercised."""
        for key in seen:
            del self._hidden[key]

    def seen(self, array: Array) -> dict[Key, Array]:
        """The hidden pieces whose rivals give another output than the block, and how far it is off in each element.

        Nothing where the block cannot be run at all.
        """
        outputs: dict[int, Array] = {}
        found = {}
        for key in self._hidden:
            source, _ = key
            try:
                if source not in outputs:
                    outputs[source] = self._output(source, array)
                if (apart := self._apart(outputs[source], self._output(key, array))) is not None:
                    found[key] = apart
            except (NoKernel, CannotRun):
                continue
        return found

    def _output(self, key: Key | int, array: Array) -> Array:
        """Of the block in a source, or of a rival."""
        if key not in self._sessions:
            source, piece = (key, None) if isinstance(key, int) else (key[0], self._hidden[key])
            model = self._sources[source] if piece is None else piece.rival(self._sources[source])
            self._sessions[key] = session(in_float32(model).SerializeToString(), "cpu", optimise=False, threads=1)
        return self._sessions[key].run({self._input: array.astype(np.float32)})[0]

    def _apart(self, block: Array, rival: Array) -> Array | None:
        """How far each element is off; None where none is off by more than the tolerance."""
        if block.shape != rival.shape:
            return np.full(block.shape, np.inf)
        same = np.isnan(block) & np.isnan(rival) | (block == rival)
        if same.all():
            return None
        with np.errstate(all="ignore"):
            distance = np.where(same, 0.0, np.abs(rival - block))
            near = distance <= _APART * self._tolerance.allowed(block)
        return None if near.all() else distance


def _weights(redrawing: Redrawing | None) -> Iterator[tuple[RandomWeights | None, str]]:
    """Its own weights, random ones, and those with each layer louder, softer or turned around; and a name for them."""
    yield None, ""
    if redrawing is None:
        return
    yield redrawing.draw(), ", with other weights"
    layers = redrawing.layers
    yield redrawing.draw(dict.fromkeys(layers, _LOUDER)), f", with other weights times {_LOUDER:g}"
    for gain, layer in product(_GAINS, layers):
        yield redrawing.draw({layer: gain}), f", with other weights, those of {layer} times {gain:.3g}"


def same_operators(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two blocks differ in no operator, attribute or edge, and in no number that is not a weight of many."""
    return _outline(one) == _outline(other)


def _outline(block: onnx.ModelProto) -> list[tuple[object, ...]]:
    held = constants(block)
    made = {name: (i, j) for i, node in enumerate(block.graph.node) for j, name in enumerate(node.output)}

    def source(name: str) -> object:
        if name not in held:
            return made.get(name, "")
        values = onnx.numpy_helper.to_array(held[name])
        return values.shape, [float(f"{value:.4g}") for value in values.flat] if values.size == 1 else None

    return [
        (node.op_type, sorted(map(str, node.attribute)), [source(name) for name in node.input])
        for node in block.graph.node
        if node.op_type != "Constant"
    ]
