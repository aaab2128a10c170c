"""What a trainer of Ultralytics has to do differently for a model with attached blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ...errors import RequestError, option
from ..freezing import freeze_rest
from ..hooks import hooks_in
from . import groups, guard
from .blocks import AttachedBlock, blocks_of, check_fits, check_same_blocks, put_into

REST = "rest"
"""the value of ``freeze`` for everything but the blocks"""
_SMALLEST = 64


class BlockTrainer:
    """Mixed into a trainer of Ultralytics by :func:`trainer_class`."""

    blocks: ClassVar[Sequence[AttachedBlock]] = ()
    """what the trained model has attached, for a model that is built without a checkpoint of its own"""
    args: Any
    model: Any
    ema: Any
    resume: bool

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> Any:
        """The model, built anew, with the blocks attached before the weights are loaded: theirs are among these."""
        blocks = self._blocks(weights)
        cfg = guard.restored(cfg)
        if not blocks:
            return self._stock.get_model(cfg=cfg, weights=weights, verbose=verbose)
        model = self._stock.get_model(cfg=cfg, weights=None, verbose=verbose)
        put_into(model, blocks)
        if weights is not None:
            model.load(weights)
        check_fits(model, self._size(model, blocks))
        guard.set_guard(model)
        return model

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimizer, with the parameters of blocks in the groups where they belong."""
        optimizer: torch.optim.Optimizer = self._stock.build_optimizer(model, *args, **kwargs)
        if self._has_blocks:
            groups.regroup(optimizer, self._inner)
        return optimizer

    def _build_train_pipeline(self) -> None:
        """Freeze the rest: after Ultralytics has made every parameter trainable, before the optimizer is built."""
        if self.args.freeze == REST:
            freeze_rest(self._inner)
        self._stock._build_train_pipeline()

    def optimizer_step(self) -> None:
        """A step, after which the frozen rest of the EMA is the frozen rest: its moving average is off by rounding."""
        self._stock.optimizer_step()
        if self.args.freeze == REST and self.ema:
            own = tuple(f"{path}.{hook.name}." for path, _, hook in hooks_in(self._inner))
            averaged = self.ema.ema.state_dict()
            for key, value in self._inner.state_dict().items():
                if not key.startswith(own):
                    averaged[key].copy_(value)

    def _blocks(self, weights: nn.Module | None) -> Sequence[AttachedBlock]:
        """The blocks to attach: those of the checkpoint that is loaded, if it has any."""
        where = str(getattr(weights, "pt_path", None) or "the checkpoint")
        theirs = blocks_of(weights, where) if isinstance(weights, nn.Module) else []
        if theirs and self.blocks:
            check_same_blocks(self.blocks, theirs, where)
        if self.resume and self.blocks and not theirs:
            raise RequestError(
                f"{where} has no blocks attached, so that training cannot be resumed with them; start from it: "
                f"YOLO({where!r}, recipe=...).train(...)",
                option="resume",
            )
        return theirs or self.blocks

    def _size(self, model: Any, blocks: Sequence[AttachedBlock]) -> int:
        """Of the image to try the model on: that of the training, where a block works at one size only."""
        if any(each.attachment.size for each in blocks):
            return int(self.args.imgsz)
        return max(_SMALLEST, 2 * int(max(model.stride)))

    @property
    def _stock(self) -> Any:
        """The methods of Ultralytics' trainer, which comes after this class."""
        return super()

    @property
    def _inner(self) -> nn.Module:
        """The model itself, however it is wrapped."""
        from ultralytics.utils.torch_utils import unwrap_model

        model: nn.Module = unwrap_model(self.model)
        return model

    @property
    def _has_blocks(self) -> bool:
        return next(hooks_in(self._inner), None) is not None


def trainer_class(base: type, blocks: Sequence[AttachedBlock]) -> type:
    """A trainer that trains what ``base`` trains, with these blocks attached.

    It is made anew each time, so that the workers of distributed training, to which Ultralytics sends the class by
    value, get the blocks with it.
    """
    if issubclass(base, BlockTrainer):
        return type(base.__name__, (base,), {"blocks": tuple(blocks), "__module__": __name__})
    return type(f"Block{base.__name__}", (BlockTrainer, base), {"blocks": tuple(blocks), "__module__": __name__})


def check_freeze(freeze: object, has_blocks: bool) -> None:
    """RequestError for a text that Ultralytics would take for nothing to freeze."""
    if not isinstance(freeze, str):
        return
    if freeze != REST:
        raise RequestError(
            f"there is no freeze {freeze!r}; {option('freeze', REST)} freezes everything but the blocks, numbers and "
            "lists freeze layers",
            option="freeze",
        )
    if not has_blocks:
        raise RequestError(f"{option('freeze', REST)} trains blocks alone, and the model has none", option="freeze")
