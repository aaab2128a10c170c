"""YOLO and RTDETR of Ultralytics, each with what :class:`BlockModel` adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import MissingDependency, RequestError, option
from ...recipe import Recipe
from ...request import Request
from ...weights.attachment import Attachment
from ..attaching import attach
from ..detaching import detach
from ..hooks import hooks_in
from . import checkpoint, guard
from .blocks import blocks_of, channels_of, check_same_blocks, check_same_recipe
from .exporting import export_as_it_is, export_with_blocks
from .trainer import check_freeze, trainer_class

_PACKAGE = __package__
_KINDS = ("YOLO", "RTDETR")
_BY_EXPORTER = "exporter"


class BlockModel:
    """Mixed into YOLO and RTDETR. Everything that these do goes on as it was, with the blocks in place.

    Parameters
    ----------
    arguments, keywords:
        As Ultralytics has them: ``"yolov8n.pt"``, ``"yolov8n.yaml"``, ``task`` and so on. The ``best.pt`` or
        ``last.pt`` of a training with blocks brings its recipe with it.
    recipe:
        The path of a YAML file, a :class:`graphsurgery.Recipe`, or a list of entries; see :meth:`attach`.

    Raises
    ------
    MissingDependency
        If a checkpoint has blocks of a package that is not installed.
    WeightsError
        If a newer graphsurgery wrote the checkpoint, or its blocks are of another recipe.
    """

    model: Any
    overrides: dict[str, Any]
    predictor: Any

    def __init__(
        self,
        *arguments: Any,
        recipe: str | Path | Recipe | Sequence[Mapping[str, object] | Request] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        kind: type = type(self)
        if not issubclass(kind, BlockModel):  # YOLO becomes what the checkpoint is
            name = kind.__name__
            if name not in _KINDS:
                raise RequestError(f"blocks are attached to {' and '.join(_KINDS)}, and the model is a {name}")
            self.__class__ = classes()[name]
        if recipe is not None:
            self.attach(recipe)

    def attach(
        self, recipe: str | Path | Recipe | Sequence[Mapping[str, object] | Request], *, imgsz: int | None = None
    ) -> list[Attachment]:
        """Attach the blocks of a recipe; see :func:`graphsurgery.torch.attach`.

        Parameters
        ----------
        recipe:
            As there. A model that has the blocks of this very recipe attached stays as it is.
        imgsz:
            The side in pixels of the images that the model will see. Only blocks that work at one size depend on it.
            Default: what the model was trained with, or 640.

        Returns
        -------
        list[Attachment]
            What is attached.

        Raises
        ------
        RequestError
            As there.
        WeightsError
            If blocks of another recipe are attached.
        """
        stock: Any = self
        stock._check_is_pytorch_model()
        plan = Recipe.of(recipe)
        if self.attachments():
            check_same_recipe(self.model, plan, self._called)
            return self.attachments()
        found = attach(self.model, plan, self._example(imgsz))
        guard.set_guard(self.model)
        self.predictor = None  # which has a copy of the model
        return found

    def attachments(self) -> list[Attachment]:
        """The blocks that are attached; none for an exported model."""
        if not isinstance(self.model, nn.Module):
            return []
        return [hook.attachment(self._called) for _, _, hook in hooks_in(self.model)]

    def detach(self) -> None:
        """Take the blocks off; see :func:`graphsurgery.torch.detach`."""
        detach(self.model)
        guard.remove_guard(self.model)
        self.predictor = None

    def train(self, trainer: Any = None, **keywords: Any) -> Any:
        """Train as Ultralytics does, with the blocks.

        Parameters
        ----------
        trainer:
            A trainer class of your own. Default: that of the task.
        keywords:
            Those of Ultralytics. ``freeze="rest"`` trains the blocks alone: nothing else changes, the statistics of
            BatchNorms included.

        Raises
        ------
        RequestError
            If ``freeze`` is a text of no meaning; if training is to be resumed from a checkpoint without blocks.
        WeightsError
            If the blocks of a checkpoint that is given are not those of the model.
        SiteError
            If a block does not fit the model as it is built for the data.
        """
        stock: Any = self
        stock._check_is_pytorch_model()
        blocks = blocks_of(self.model, self._called)
        check_freeze(keywords.get("freeze"), bool(blocks))
        for each in (keywords.get("resume"), keywords.get("pretrained")):
            if isinstance(each, str | Path):
                checkpoint.prepare(Path(each))
        kind = trainer or stock._smart_load("trainer")
        return self._stock.train(trainer=trainer_class(kind, blocks), **keywords)

    def tune(self, *arguments: Any, **keywords: Any) -> Any:
        """As Ultralytics does, for a model without blocks. RequestError for one with blocks: each of its trials is a
        command line of Ultralytics, which knows nothing of them.
        """
        if self.attachments():
            raise RequestError(
                "tune() trains with Ultralytics' own command line, which cannot train a model with blocks"
            )
        return self._stock.tune(*arguments, **keywords)

    def load(self, weights: Any) -> Any:
        """Load weights as Ultralytics does. WeightsError if they are of blocks that are not those of the model."""
        if isinstance(weights, str | Path):
            checkpoint.prepare(Path(weights))
            from ultralytics.nn.tasks import load_checkpoint

            given, where = load_checkpoint(weights)[0], str(weights)  # type: ignore[no-untyped-call]
        else:
            given, where = weights, "the model that is given"
        if isinstance(given, nn.Module) and (theirs := blocks_of(given, where)):
            check_same_blocks(blocks_of(self.model, self._called), theirs, where)
        return self._stock.load(weights)

    def export(self, *, lowering: str | None = None, images: str | Path | None = None, **keywords: Any) -> str:
        """Export as Ultralytics does. To ONNX, the blocks are written by graphsurgery.

        The rest of the model is exported by Ultralytics, the blocks are inserted with their trained weights, and the
        file is compared with the model on images: boxes in pixels, and scores. Its metadata are those of Ultralytics.

        Parameters
        ----------
        lowering:
            ``"exporter"``: the graph that Ultralytics' exporter writes for the model with its blocks, which is not
            compared. Default: as described; formats other than ONNX are exported by Ultralytics alone.
        images:
            A folder of pictures to compare on. Default: the two of Ultralytics.
        keywords:
            Those of Ultralytics: ``format="onnx"``, ``imgsz``, ``dynamic`` and so on.

        Returns
        -------
        str
            The path of the file.

        Raises
        ------
        RequestError
            If there is no such lowering, or the file cannot be compared, as one that ends in its own NMS or is
            quantised.
        ParityFailed
            If the file does not compute what the model does. It is not written.
        """
        if lowering not in (None, _BY_EXPORTER):
            raise RequestError(
                f"there is no lowering {lowering!r} of a whole model; give {option('lowering', _BY_EXPORTER)} or none",
                option="lowering",
            )
        if not self.attachments():
            return str(self._stock.export(**keywords))
        if lowering is not None or str(keywords.get("format", "")).lower() != "onnx":
            return export_as_it_is(self, self._stock.export, keywords)
        return export_with_blocks(self, self._stock.export, keywords, Path(images) if images is not None else None)

    def _load(self, weights: str, task: str | None = None) -> None:
        """What Ultralytics does with a file."""
        checkpoint.prepare(Path(weights))
        self._stock._load(weights, task=task)
        self.attachments()  # which a newer graphsurgery may have made

    def _example(self, imgsz: int | None) -> torch.Tensor:
        """An image of zeros, as the model takes it."""
        parameter = next(self.model.parameters())
        arguments = self.model.args if isinstance(self.model.args, dict) else vars(self.model.args)
        size = imgsz or arguments.get("imgsz") or 640
        height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
        return torch.zeros(1, channels_of(self.model), height, width, dtype=parameter.dtype, device=parameter.device)

    @property
    def _called(self) -> str:
        """What messages call the model."""
        return str(getattr(self.model, "pt_path", None) or "the model")

    @property
    def _stock(self) -> Any:
        """The methods of Ultralytics, whose class comes after this one."""
        return super()


@cache
def classes() -> dict[str, type]:
    """The subclasses by name. MissingDependency without Ultralytics."""
    try:
        import ultralytics
    except ImportError:
        raise MissingDependency(
            "graphsurgery.torch.ultralytics needs the package ultralytics: pip install ultralytics"
        ) from None
    made = {}
    for name in _KINDS:
        base: type = getattr(ultralytics, name)
        made[name] = type(name, (BlockModel, base), {"__doc__": BlockModel.__doc__, "__module__": _PACKAGE})
    return made
