"""Remapping: a pretrained checkpoint of Ultralytics with its layers numbered as an edited YAML numbers them.

Ultralytics loads weights by name, and a name begins with the number of a layer: one inserted layer gives every layer
behind it the weights of its predecessor, where the shapes happen to agree, and none elsewhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from . import inert_unpickler, torch_file
from .inert_unpickler import Inert
from .layer_alignment import Alignment, align
from .layout import Layout
from .read import check_file

if TYPE_CHECKING:
    import torch

_KEY = re.compile(r"model\.(\d+)\.(.+)")
_KEPT = ("nc", "task", "stride")
"""attributes of a model that Ultralytics' loader makes for one that lacks them, not always as they were"""


@dataclass(frozen=True)
class Remapped:
    """What became of a checkpoint."""

    before: Layout
    after: Layout
    alignment: Alignment
    model: torch.nn.Module
    """holds the tensors under their new names"""
    tensors: int
    by_name: int
    """how many tensors would be loaded without remapping"""
    misplaced: int
    """how many of these into a layer that is not theirs"""

    @property
    def data(self) -> bytes:
        """The new checkpoint: a file that needs no package but torch."""
        import torch

        stream = io.BytesIO()
        torch.save({"epoch": -1, "model": self.model}, stream)
        return stream.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        layers = zip(self.after.layers, self.alignment.old, strict=True)
        return {
            "layers": [{"layer": i, "module": layer.module, "from": old} for i, (layer, old) in enumerate(layers)],
            "transferred": self.tensors,
            "tensors": self.tensors,
            "fresh": self.alignment.fresh,
            "by_name": {"loaded": self.by_name, "misplaced": self.misplaced},
            "uncertain": list(self.alignment.uncertain),
        }

    def lines(self) -> Iterator[str]:
        """The same as text."""
        fresh = [f"{index} ({self.after.layers[index].module})" for index in self.alignment.fresh]
        yield f"transferred  {self.tensors} of {self.tensors} tensors, {len(self.before.layers)} layers"
        yield f"fresh        layer {', '.join(fresh)}" if fresh else "fresh        none: the two have the same layers"
        yield f"by name      {self.by_name} would be loaded without this, {self.misplaced} of them into a wrong layer"
        for each in self.alignment.uncertain:
            yield f"uncertain    {each}"


def remap(checkpoint: Path, layout: Path, fresh: Collection[int] = ()) -> Remapped:
    """The weights of a checkpoint for the layers of a YAML. Nothing of the checkpoint is executed.

    Parameters
    ----------
    checkpoint:
        As Ultralytics' trainer writes it, or a model that it gives away: it has the YAML that it was built from.
    layout:
        That YAML with layers inserted, whose modules need not be there.
    fresh:
        Layers of it that are new, where that is ambiguous.

    Raises
    ------
    WeightsError
        If there is no such checkpoint or YAML, or not exactly one way to find the layers of one in the other.
    """
    model = _model(checkpoint)
    before = Layout.of(model.state["yaml"], checkpoint.name)
    after = Layout.load(layout)
    tensors = inert_unpickler.state_dict(model)
    numbered = {key: _numbered(key, before) for key in tensors}
    alignment = align(before, after, {layer for layer, _ in numbered.values()}, fresh)
    places = {old: index for index, old in enumerate(alignment.old) if old is not None}
    renamed = {f"model.{places[layer]}.{rest}": key for key, (layer, rest) in numbered.items()}
    by_name = [key for key in tensors if key in renamed and tensors[renamed[key]].shape == tensors[key].shape]
    return Remapped(
        before,
        after,
        alignment,
        _module({new: tensors[key] for new, key in renamed.items()}, len(after.layers), _attributes(model)),
        len(tensors),
        len(by_name),
        sum(renamed[key] != key for key in by_name),
    )


def _model(path: Path) -> Inert:
    """The pickled model in a checkpoint: the running average where there is one, as Ultralytics' loader takes it."""
    check_file(path)
    content = torch_file.content(path)
    entries = content if isinstance(content, Mapping) else {"model": content}
    model = next((each for key in ("ema", "model") if isinstance(each := entries.get(key), Inert)), None)
    if model is None or not isinstance(model.state, dict) or not isinstance(model.state.get("yaml"), dict):
        raise WeightsError(
            f"{path.name} does not say of which layers its model is made: it is no checkpoint that Ultralytics wrote"
        )
    return model


def _numbered(key: str, layout: Layout) -> tuple[int, str]:
    """The layer that a tensor belongs to, and its name there."""
    found = _KEY.fullmatch(key)
    if found is None or int(found[1]) >= len(layout.layers):
        raise WeightsError(f"{key} in {layout.name} belongs to none of the {len(layout.layers)} layers that it lists")
    return int(found[1]), found[2]


def _attributes(model: Inert) -> dict[str, Any]:
    """What the loader asks a model for beside its weights."""
    import torch

    kept = {key: model.state[key] for key in _KEPT if isinstance(model.state.get(key), int | str | torch.Tensor)}
    names = model.state.get("names")
    if isinstance(names, dict) and all(isinstance(key, int) and isinstance(name, str) for key, name in names.items()):
        kept["names"] = dict(names)
    return kept


def _module(tensors: Mapping[str, torch.Tensor], layers: int, attributes: Mapping[str, Any]) -> torch.nn.Module:
    """A module whose ``state_dict()`` is ``tensors``, of nothing but torch's own containers."""
    import torch

    root = torch.nn.Module()
    root.model = torch.nn.Sequential(*(torch.nn.Module() for _ in range(layers)))
    for key, tensor in tensors.items():
        owner: torch.nn.Module = root
        *path, name = key.split(".")
        for step in path:
            if step not in owner._modules:
                owner.add_module(step, torch.nn.Module())
            owner = owner.get_submodule(step)
        owner.register_buffer(name, tensor.detach())
    for name, value in attributes.items():
        setattr(root, name, value)
    return root
