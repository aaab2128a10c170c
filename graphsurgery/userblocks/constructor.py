"""The constructor of a PyTorch module of the user's own: which arguments it takes, and where the channels go."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from ..blocks.setting import Setting
from ..errors import BlockError, option
from ..messages import closest

EPSILON = "bn_eps"
"""What a user gives for every BatchNorm2d, unless the constructor has an argument of that name."""
_CHANNELS = (
    *("c1", "channels", "in_channels", "dim", "c", "channel", "in_channel", "inp", "c_in", "in_planes", "inplanes"),
    *("planes", "num_channels", "n_channels", "gate_channels", "in_dim", "d_model", "embed_dim", "in_features", "ch"),
    *("num_features", "input_dim", "in_chans", "nc"),
)
"""Names that constructors use for the number of channels that come in."""
_CHANNELS_OUT = ("c2", "out_channels", "out_channel", "oup", "out_dim", "out_planes", "c_out", "out_features")
_TYPES: dict[object, type] = {key: kind for kind in (int, float, bool, str) for key in (kind, kind.__name__)}


class Constructor:
    """``found``: the class; ``label``: how the user named it."""

    def __init__(self, found: type, label: str) -> None:
        # torch's own constructor, of a class that has none, is declared to take anything, and refuses it
        owner = next((each for each in found.__mro__ if "__init__" in vars(each)), found)
        bare = owner.__module__ == "torch.nn.modules.module"  # of the class, because other packages wrap the function
        parameters = {} if bare else dict(inspect.signature(found).parameters)
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self._known = {name: each for name, each in parameters.items() if each.kind in kinds}
        self._others = next((name for name, each in parameters.items() if each.kind is each.VAR_KEYWORD), None)
        self._label = label
        self.found = found

    def arguments(self, given: Mapping[str, Any], channels: int) -> dict[str, Any]:
        """All arguments by name. BlockError for one that is unknown or lacking."""
        for name in given:
            if name not in self._known and self._others is None and name != EPSILON:
                known = ", ".join(self._known) or "none"
                message = f"{self._label} has no argument {name!r}; it has {known}"
                candidates = closest(name, self._known) or tuple(self._known)
                raise BlockError(message, option="settings", candidates=candidates)
        arguments = {name: value for name, value in given.items() if name in self._known or name != EPSILON}
        arguments |= dict.fromkeys(self._channels(given), channels)
        if lacking := [name for name in self._required if name not in arguments]:
            advice = option("settings", f"{lacking[0]}=VALUE")
            sentence = f"{self._label} needs {', '.join(lacking)}: use {advice}"
            raise BlockError(sentence, option="settings", candidates=lacking)
        return arguments

    def settings(self) -> Iterator[Setting]:
        """The hyper-parameters, as far as the signature tells."""
        channels = self._channels({})
        for name, each in self._known.items():
            doc = "the channels of the site, unless it is given" if name in channels else ""
            default = None if name in channels or each.default is each.empty else each.default
            required = each.default is each.empty and name not in channels
            plain = default is None or type(default) in _TYPES
            kind = int if name in channels else _type(each)
            yield Setting(name, kind, default if plain else repr(default), doc, required=required)
        if self._others is not None:
            yield Setting(f"**{self._others}", object, None, "any other name: it is passed on")

    @property
    def _required(self) -> list[str]:
        return [name for name, each in self._known.items() if each.default is each.empty]

    def _channels(self, given: Mapping[str, Any]) -> list[str]:
        """The arguments that get the number of channels."""
        required = [name for name in self._required if name not in given]
        named = [name for name in self._known if name.lower() in _CHANNELS]
        taken = [] if any(name in given for name in named) else [*named, *required][:1]
        return [*taken, *(name for name in required if name in _CHANNELS_OUT and name not in taken)]


def _type(parameter: inspect.Parameter) -> type:
    return _TYPES.get(type(parameter.default)) or _TYPES.get(parameter.annotation, object)
