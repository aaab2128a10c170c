"""TrainedBlocks: blocks that were trained in a model, apart from it: their weights, where they go, and what is around.

They come from a file of safetensors, or from a checkpoint with a model in it. The file's metadata has one entry,
``graphsurgery``: JSON with ``format``, ``graphsurgery`` (the version), ``attachments`` and ``rest``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import WeightsError
from ..feature_map import Array
from ..messages import listed
from ..modelfile import saving
from ..modelfile.target import Target
from .attachment import FORMAT, Attachment, check_count
from .checkpoint import owner
from .pickled_blocks import read_checkpoint
from .rest import Rest
from .safetensors_package import safetensors

HEADER = "graphsurgery"
"""the key of the file's metadata"""
SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class TrainedBlocks:
    """The blocks that were trained in a model.

    :func:`graphsurgery.apply` puts them into an export of the rest of that model.
    """

    name: str
    """of the file that they are from"""
    attachments: tuple[Attachment, ...]
    arrays: Mapping[str, Array]
    """the weights: id of an attachment, a dot, key in the ``state_dict`` of its module -> values"""
    rest: Rest | None
    """what the weights of the rest of the model are known by; None in a file that does not say it"""
    notes: tuple[str, ...] = ()
    """what the user should know of how the file was read"""

    @classmethod
    def load(cls, path: str | Path) -> TrainedBlocks:
        """Read blocks from a file.

        Parameters
        ----------
        path:
            A file that ``graphsurgery weights``, :meth:`save` or :func:`graphsurgery.torch.save_blocks` wrote; or a
            checkpoint of PyTorch that holds a model with blocks attached. Nothing in it is executed.

        Raises
        ------
        WeightsError
            If there is no such file, if it holds no blocks, or if a newer graphsurgery wrote it.
        MissingDependency
            If safetensors, or PyTorch for a checkpoint, is not installed.

        Examples
        --------
        >>> TrainedBlocks.load("best.pt").save("blocks.safetensors")   # doctest: +SKIP
        """
        path = Path(path)
        stored = path.suffix.lower() == SUFFIX
        found = _from_safetensors(path) if stored else cls(path.name, *read_checkpoint(path))
        if not all(each.is_placed for each in found.attachments):
            raise WeightsError(f"the attachments in {path.name} are damaged")
        return found

    def save(self, path: str | Path | Target, *, force: bool = False) -> None:
        """Write them to a file of safetensors, in the types that they have.

        Raises
        ------
        OutputError
            If the file exists and not ``force``, or cannot be written.
        """
        data: bytes = safetensors("numpy", "writing blocks").save(
            {key: np.asarray(values, order="C") for key, values in self.arrays.items()}, self.metadata
        )
        saving.write_whole(path if isinstance(path, Target) else Path(path), data, force=force)

    @property
    def metadata(self) -> dict[str, str]:
        """What a file of them says beside the weights."""
        header: dict[str, Any] = {
            "format": FORMAT,
            "graphsurgery": __version__,
            "attachments": [each.to_json() for each in self.attachments],
        }
        if self.rest is not None:
            header["rest"] = self.rest.to_json()
        return {HEADER: json.dumps(header, sort_keys=True)}

    def weights_of(self, attachment: Attachment) -> dict[str, Array]:
        """The weights of one block by key in the ``state_dict`` of its module, gate included."""
        start = f"{attachment.id}."
        return {key.removeprefix(start): values for key, values in self.arrays.items() if key.startswith(start)}

    def parameters(self, attachment: Attachment) -> int:
        """How many numbers these are; counters are none."""
        return sum(values.size for values in self.weights_of(attachment).values() if values.dtype.kind not in "iub")


def read_metadata(data: bytes, name: str) -> tuple[list[Attachment], Rest | None]:
    """Attachments and rest from the bytes of a file of safetensors. WeightsError if it has none."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (ValueError, AttributeError, RecursionError):
        raise WeightsError(f"{name} is not a readable safetensors file: its header is damaged") from None
    if HEADER not in metadata:
        raise WeightsError(
            f"{name} has no attachments in it: it was not written by save_blocks, nor by graphsurgery weights"
        )
    try:
        header = json.loads(metadata[HEADER])
        if type(header["format"]) is not int:
            raise TypeError
        newer, attachments = header["format"] > FORMAT, list(header["attachments"])
        rest = Rest.from_json(header["rest"]) if "rest" in header and not newer else None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(f"the attachments in {name} are damaged") from None
    if newer:
        raise WeightsError(f"{name} was written by a newer graphsurgery; this one cannot read its attachments")
    check_count(attachments, name)
    found = [Attachment.from_json(each, name) for each in attachments]
    if not found or len({each.id for each in found}) < len(found):
        raise WeightsError(f"the attachments in {name} are damaged")
    return found, rest


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of weights. WeightsError if there are none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file {path}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None


def _from_safetensors(path: Path) -> TrainedBlocks:
    reader, data = safetensors("numpy", "reading blocks"), read_bytes(path)
    try:
        arrays: dict[str, Array] = reader.load_file(path)  # which knows bfloat16, and load does not
    except Exception as error:  # its own, and numpy's for element types that numpy lacks
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path.name} is not a readable safetensors file: {reason}") from None
    attachments, rest = read_metadata(data, path.name)
    known = {each.id for each in attachments}
    if extra := sorted(key for key in arrays if not owner(key, known)):
        raise WeightsError(f"{path.name} has {listed(extra)}, which the attached blocks do not")
    return TrainedBlocks(path.name, tuple(attachments), arrays, rest)
