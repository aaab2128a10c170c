"""Why no block can be attached after, or before, a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import SiteError, option
from ..feature_map import fits_image
from ..messages import listed, shape_text
from .dry_run import Call, DryRun, Seen

_FUSING = ("forward_fuse", "fuse_convs", "switch_to_deploy", "reparameterize")
"""methods of modules that take inner ones out of themselves when the model is fused"""
_NORMS = nn.modules.batchnorm._BatchNorm
_LINEAR = (nn.modules.conv._ConvNd, nn.Linear)


class Refusals:
    """What was seen in a dry run, asked for reasons. Every method returns None where nothing speaks against it."""

    def __init__(self, model: nn.Module, run: DryRun) -> None:
        self._model = model
        self._run = run

    def maps(self, seen: Sequence[Seen]) -> list[Seen]:
        """Those of several tensors that are feature maps of the image, each once."""
        found: list[Seen] = []
        for each in seen:
            if each.dtype.is_floating_point and len(each.shape) == 4 and fits_image(self._run.image, each.shape):
                found += [] if any(map(each.is_same, found)) else [each]
        return found

    def never_called(self, path: str) -> SiteError:
        """For a module of which the dry run saw no call."""
        sentence = f"{self.called(path)} is never called in a forward pass, so a block there would do nothing"
        inner = [call.path for call in self._run.calls if call.path.startswith(f"{path}.")]
        hint = f"; modules inside of it are: {listed(list(dict.fromkeys(inner)))}" if inner else ""
        return SiteError(sentence + hint, candidates=inner[:4])

    def no_map(self, call: Call, position: str) -> SiteError:
        """For a module that gives, or takes, none or several maps."""
        before = position == "before"
        seen = call.inputs if before else call.outputs
        verb, maps = "takes" if before else "gives", self.maps(seen)
        what = self.called(call.path)
        if len(maps) > 1:
            makers = [next((m for m in self._run.makers(each) if m is not call), None) for each in maps]
            places = [
                f"{maker.path} {shape_text(each.shape)}" if maker else f"{shape_text(each.shape)}, of no module alone"
                for each, maker in zip(maps, makers, strict=True)
            ]
            which = (
                f"use {option('after')} with {option('consumers', call.path)}"
                if before
                else f"name the module that gives the one you mean: {listed(places)}"
            )
            return SiteError(f"{what} {verb} {len(maps)} maps; {which}", candidates=[m.path for m in makers if m][:4])
        if not seen:
            return SiteError(
                f"{what} {verb} {f'a {call.gave}' if not before else 'no tensor'}, not one map [N, C, H, W]"
            )
        one = len(seen) == 1
        shapes = listed([shape_text(each.shape) for each in seen])
        held = f"a tensor {shapes}" if one else f"{len(seen)} tensors ({shapes})"
        return SiteError(f"{what} {verb} {held}, not one map [N, C, H, W] of the image")

    def shared(self, path: str, others: Sequence[str]) -> SiteError:
        """For a module that stands in several places of the model."""
        return SiteError(
            f"{self.called(path)} is one module with {listed(others, 3)}, so a block there would be at all of these "
            "places; name the module around it"
        )

    def vanishes(self, path: str) -> SiteError | None:
        """For a module that fusing takes out of the model, and the block with it."""
        outer = path.rpartition(".")[0]
        parent = self._module(outer)
        if outer and any(hasattr(parent, method) for method in _FUSING):
            return SiteError(
                f"{self.called(outer)} takes {path} out of itself when the model is fused, and the block would vanish "
                f"with it; name {outer}",
                candidates=[outer],
            )
        return None

    def before_norm(self, seen: Seen) -> SiteError | None:
        """For what goes from a convolution into a BatchNorm: a file has both as one."""
        makers, readers = self._run.makers(seen), self._run.readers(seen)
        if not makers or len(readers) != 1:
            return None
        layer, norm = makers[-1].path, readers[0].path
        if not (isinstance(self._module(layer), _LINEAR) and isinstance(self._module(norm), _NORMS)):
            return None
        return SiteError(
            f"what {layer} gives goes into the BatchNorm {norm}, which exports fold into it, so that a file has no "
            f"such place; name {norm}",
            candidates=[norm],
        )

    def unlike_a_file(self, call: Call, seen: Seen) -> SiteError | None:
        """For a module after which a file has no place, or another one: one that gives back what it takes, as Identity
        and Dropout do, and one that goes on with what it gives, in a file with what comes out of the block.
        """
        what, makers = self.called(call.path), self._run.makers(seen)
        if _passes(call, seen):
            maker = next((each for each in makers if each is not call and not each.is_within(call)), None)
            sentence = f"{what} gives back what it takes, so that a file has no such place"
        elif inner := [reader for reader in self._run.readers(seen, within=call) if not _passes(reader, seen)]:
            maker = next((each for each in makers if each.is_within(call)), None)
            sentence = f"what {what} gives is read inside of it as well, by {inner[0].path}"
        else:
            return None
        if maker is None:
            return SiteError(sentence)
        return SiteError(f"{sentence}; name {maker.path}, which makes it", candidates=[maker.path])

    def called(self, path: str) -> str:
        """A module in messages: ``model.8 (C2f)``."""
        return f"{path} ({type(self._module(path)).__name__})"

    def _module(self, path: str) -> nn.Module:
        return self._model.get_submodule(path)


def _passes(call: Call, seen: Seen) -> bool:
    """Whether a call gave back a tensor that it took, as Identity does."""
    return any(map(seen.is_same, call.inputs)) and any(map(seen.is_same, call.outputs))
