"""Request: one block at one or more places, as the command line, a recipe or Python asks for it.

The fields of Request are the one declaration of what can be asked for: the options of ``graphsurgery insert``, the keys
of a recipe's entries and the arguments of :func:`graphsurgery.insert` derive from them. A new one is a new field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from numbers import Integral
from os import PathLike
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeAlias, Union, get_args, get_origin, get_type_hints

from .errors import BlockError, GraphSurgeryError, RequestError, option
from .messages import brief

INITS = ("default", "identity", "calibrated")
GATES = ("none", "residual")
TARGETS = ("tensorrt", "onnxruntime", "dla")
PRECISIONS = ("safe", "site", "fp32", "fp16")
"""At sites in half precision: statistics in float32 between two Casts; every node in the site's type; the whole block
in float32 between two Casts. "fp16" is "safe" there, and at a float32 site the whole block in float16 between two
Casts. Else they are one."""
QDQ_KINDS = ("none", "int8")
QDQ_SCALES = ("site", "images")

Selectors: TypeAlias = tuple[str, ...]
Settings: TypeAlias = Mapping[str, object]
Shapes: TypeAlias = Mapping[str, tuple[int | str | None, ...]]
"""tensor -> its sizes: numbers, names of symbolic ones, and None for what is not known"""

_WORDS = {
    Selectors: "is a selector or a list of selectors, each a text such as '/model.8'",
    Settings: "are hyper-parameters by name, as in {'reduction': 8}",
    Shapes: "are shapes by the names of tensors, as in {'images': '1x3x640x640'}",
    int: "is a whole number",
}
"""what a value of a type is, as the end of a sentence that begins with the argument's name"""
_DIGITS = 18
"""of a size at most: ONNX keeps sizes in 64 bits"""


@dataclass(frozen=True)
class Argument:
    """What values one thing that can be asked for takes, wherever it is given."""

    choices: tuple[str, ...] = ()
    error: type[RequestError] = RequestError
    """of a value that is none of the choices"""
    minimum: int | None = None
    is_path: bool = False
    """whether it names a file or folder, which starts at the folder of the recipe that it stands in"""
    words: str = ""
    """what a value is, where its type does not say enough"""
    flag: str = ""
    """how a command spells it that spells it otherwise than others"""


_ANY = Argument()


@dataclass(frozen=True)
class Request:
    """One block at one or more places. RequestError for one that contradicts itself, whatever the model.

    The arguments are those of :func:`graphsurgery.insert`, and take the same values. The command line shows what is
    said of them here, with each name between double backticks as a flag, and what follows a colon as the placeholder.

    Parameters
    ----------
    module: NAME
        The block: simam, se, 'ge[theta]' ...; or one of your own: ./myblock.onnx, mypkg.blocks:MyAttention.
    after: SELECTOR
        Where: /model.8, '/model.{4,6,8}', '/model.*/cv2', 'C2f[-1]', 'C2f[*].m.0', role:p5, 'op:Conv[17]', node:NAME,
        tensor:NAME. May be repeated; the block goes to every place that is named.
    before: SELECTOR
        In place of ``after``: in front of the modules named, and of nothing else that reads the same tensor.
    in_place_of: SELECTOR
        In place of ``after``: where attention stands that graphsurgery find names, or a module that keeps the shape of
        its input. That is taken out; graphsurgery remove puts it back.
    consumers: SELECTOR
        With ``after``: only these consumers of the tensor read the block: modules, blocks, role:neck, 'op:Concat[0]',
        node:NAME, output:NAME. May be repeated.
    settings: NAME=VALUE
        A hyper-parameter of the block. May be repeated.
    init:
        Weights: the module's own initialisation, or such that the model's output stays as it is. calibrated: its own,
        and behind the block a scale and a shift, which give each channel back its mean and deviation on ``images=DIR``.
    seed: N
        Seed of the initialisation.
    gate:
        residual: y = x + a * (block(x) - x) with a = 0, which leaves the model's output as it is.
    weights: FILE[:PREFIX]
        Trained weights: best.pt:model.8.attn, .pth, .safetensors, .npz, .onnx. For several places, each with its own:
        'best.pt:{path}.attn', or no PREFIX.
    target:
        The runtime to write the block for. dla: as far as possible for a DLA of NVIDIA's Orin.
    precision:
        At a site in half precision: statistics in float32 between Casts, everything in the site's type, or everything
        in float32. fp16: the block in float16 at a float32 site, of an INT8 model say.
    lowering: NAME
        The formulation of the block. Default: the best for the target.
    qdq:
        int8: QuantizeLinear and DequantizeLinear after the block, so that what reads it keeps its quantised input. For
        models with such pairs.
    qdq_scale:
        Where the scale of these comes from: that of the site, or what the block gives on ``images=DIR``.
    images: DIR
        Folder of real images: for ``init=calibrated``, for the scale of ``qdq_scale=images``, and for the activations
        to verify with. Default: a random image.
    shapes: TENSOR=SHAPE
        The shape of a tensor where the model does not tell it, behind a plugin say: canvas=1x64x80x80, with ? for a
        size that varies. What follows from it is known, too. May be repeated.
    """

    module: Annotated[str, Argument(words="is the name of a block, a text such as 'simam'")]
    after: Selectors = ()
    before: Selectors = field(default=(), kw_only=True)
    consumers: Selectors = field(default=(), kw_only=True)
    settings: Settings = field(default_factory=dict)
    init: Annotated[str, Argument(choices=INITS)] = "default"
    seed: Annotated[int, Argument(minimum=0)] = 0
    gate: Annotated[str, Argument(choices=GATES)] = "none"
    weights: Annotated[str | None, Argument(is_path=True, words="is the name of a file of weights")] = None
    target: Annotated[str, Argument(choices=TARGETS, error=BlockError)] = "tensorrt"
    precision: Annotated[str, Argument(choices=PRECISIONS)] = "safe"
    lowering: str | None = None
    qdq: Annotated[str, Argument(choices=QDQ_KINDS)] = "none"
    qdq_scale: Annotated[str, Argument(choices=QDQ_SCALES)] = "site"
    images: Annotated[str | None, Argument(is_path=True, words="is the name of a folder")] = None
    shapes: Shapes = field(default_factory=dict, kw_only=True)
    in_place_of: Selectors = field(default=(), kw_only=True)

    label: ClassVar[str] = ""
    """what errors call it, as in "entry 2 of recipe.yaml", see :meth:`labelled`; no field, as nobody asks for it"""

    def __post_init__(self) -> None:
        for each in fields(self):
            declared = arguments()[each.name]
            value = checked(each.name, getattr(self, each.name), declared.hint, declared.argument)
            object.__setattr__(self, each.name, value)
        if not self.after and not self.before and not self.in_place_of:
            places = f"{option('after', 'SELECTOR')} or {option('before', 'SELECTOR')}"
            raise RequestError(f"where should {self.module} go? give {places}")
        if self.after and self.before:
            raise RequestError(
                f"a block goes after something or before something: give {option('after')} or {option('before')}, not "
                "both"
            )
        if self.before and self.consumers:
            consumers, after, before = map(option, ("consumers", "after", "before"))
            raise RequestError(f"{consumers} goes with {after}; {before} names the consumers itself")
        if self.in_place_of:
            self._check_in_place()
        if self.qdq_scale != "site" and self.qdq == "none":
            scale, pair = option("qdq_scale"), option("qdq", "int8")
            raise RequestError(f"{scale} says where the scale of {pair} comes from; give {pair} with it")
        if self.qdq_scale == "images" and self.images is None:
            raise RequestError(f"say which images the scale comes from: {option('images', 'DIR')}")
        if self.init == "calibrated" and self.images is None:
            raise RequestError(f"say which images the block is calibrated on: {option('images', 'DIR')}")
        if self.weights is not None and self.init != "default":
            drop = f"drop {option('init')} or {option('weights')}"
            raise RequestError(f"weights come from a file or from an initialisation, not from both: {drop}")

    def _check_in_place(self) -> None:
        """RequestError for what does not go with the place of something that is taken out."""
        for name in ("after", "before", "consumers"):
            if getattr(self, name):
                raise RequestError(f"{option('in_place_of')} names the place itself: leave out {option(name)}")
        if self.measures or self.qdq != "none":
            name, value = ("qdq", self.qdq) if self.qdq != "none" else ("init", self.init)
            raise RequestError(f"{option(name, value)} does not go with {option('in_place_of')}, only with a new place")

    @property
    def measures(self) -> bool:
        """Whether the model has to be run on ``images`` before the block can be written."""
        return self.init == "calibrated" or self.qdq_scale == "images"

    def labelled(self, label: str) -> Request:
        """The same request, of which errors say that they concern it."""
        other = copy(self)
        object.__setattr__(other, "label", label)
        return other

    @contextmanager
    def concerned(self) -> Iterator[None]:
        """While this request is carried out: errors begin with its label."""
        try:
            yield
        except GraphSurgeryError as error:
            if self.label:
                error.begin_with(self.label, arguments())
            raise


@dataclass(frozen=True)
class Declared:
    """An argument with its type and default, as a field of a dataclass or a parameter of a function declares it."""

    hint: Any
    default: Any
    """``dataclasses.MISSING`` where there is none"""
    argument: Argument = Argument()

    @classmethod
    def of(cls, hint: Any, default: Any) -> Declared:
        """From a type hint, in which an :class:`Argument` may stand."""
        return (
            cls(hint, default)
            if get_origin(hint) is not Annotated
            else cls(hint.__origin__, default, *hint.__metadata__)
        )


@cache
def arguments(kind: type = Request) -> dict[str, Declared]:
    """What can be asked for, by name: the fields with which a dataclass is made."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for each in fields(kind):
        if each.init:
            default = each.default if each.default_factory is MISSING else each.default_factory()
            found[each.name] = Declared.of(hints[each.name], default)
    return found


def checked(name: str, value: object, hint: Any, argument: Argument = _ANY) -> Any:
    """A value that was given for an argument, in the type of ``hint``. RequestError, with the argument as its option,
    for one that is none.

    >>> checked("providers", "cuda", Selectors)
    ('cuda',)
    """
    if argument.choices:
        if not isinstance(value, str) or value not in argument.choices:
            known = ", ".join(argument.choices)
            message = f"there is no {name.replace('_', ' ')} {brief(value)}; it is one of {known}"
            raise argument.error(message, option=name, candidates=argument.choices)
        return value
    plain = _plain(value, hint)
    too_small = argument.minimum is not None and isinstance(plain, int) and plain < argument.minimum
    if too_small or not fits(plain, hint):
        usual = _WORDS.get(_without_none(hint), "is a text")
        words = argument.words or (f"{usual} from {argument.minimum} on" if argument.minimum is not None else usual)
        raise RequestError(f"{name} {words}, not {brief(value)}", option=name)
    if isinstance(plain, str) and "\0" in plain:
        raise RequestError(f"{name} {brief(plain)} has a zero byte in it, which no name has", option=name)
    return plain


def _plain(value: object, hint: Any) -> object:
    """What may be given in place of a type, as that type: one selector, a path, no settings."""
    if value is None and hint not in (Settings, Shapes):
        return value
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, set | frozenset):
            return tuple(sorted(value, key=str))  # the same bytes every time
        return tuple(value) if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping) else value
    if hint in (Settings, Shapes):
        plain = {} if value is None else dict(value) if isinstance(value, Mapping) else value
        return _sizes(plain) if hint == Shapes and isinstance(plain, dict) else plain
    if hint is int and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else value
    return str(value) if isinstance(value, PathLike) else value


def _sizes(shapes: Mapping[object, object]) -> Mapping[object, object]:
    """Shapes that are given as texts or lists as tuples. RequestError for a size that is none."""
    found = {}
    for name, shape in shapes.items():
        sizes = shape.split("x") if isinstance(shape, str) else list(shape) if isinstance(shape, list | tuple) else [[]]
        found[name] = tuple(map(_size, sizes))
        if False in found[name]:
            takes = "takes sizes, ? or names for those that vary, such as 1x64x80x80"
            raise RequestError(f"{option('shapes')} {takes}; not {brief(shape)} for {brief(name)}", option="shapes")
    return found


def _size(given: object) -> int | str | bool | None:
    """A size as a number, a name or None; False for what is none."""
    if given is None or given == "?":
        return None
    if isinstance(given, str) and not given.isdecimal():
        return given if given.isidentifier() else False
    if isinstance(given, bool) or not isinstance(given, Integral | str) or len(str(given)) > _DIGITS:
        return False
    return int(given) if int(given) > 0 else False


def _without_none(hint: Any) -> Any:
    """``T`` of ``T | None``; any other hint as it is."""
    kinds = [each for each in get_args(hint) if each is not type(None)]
    return kinds[0] if len(kinds) == 1 and type(None) in get_args(hint) else hint


# ---------------------------------------------------------------------- values against type hints

_hints = cache(get_type_hints)


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type: a class, a dataclass by its fields, a union, tuple[T, ...], or a mapping."""
    if is_dataclass(hint) and isinstance(hint, type):
        return isinstance(value, hint) and all(fits(getattr(value, n), kind) for n, kind in _hints(hint).items())
    outer, inner = get_origin(hint), get_args(hint)
    if outer is UnionType or outer is Union:
        return any(fits(value, each) for each in inner)
    if outer is tuple:
        return isinstance(value, tuple) and all(fits(each, inner[0]) for each in value)
    if outer in (dict, Mapping):
        return isinstance(value, outer) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if hint is int and isinstance(value, bool):
        return False
    return hint is Any or isinstance(value, hint)
