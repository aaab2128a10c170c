"""Set-up of the tests with Ultralytics: off the network, with settings of its own, and with what is trained once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .detection import Trained, base_checkpoint, data_set, train

_SETTINGS = tempfile.TemporaryDirectory(prefix="graphsurgery-ultralytics-")
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=_SETTINGS.name)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a narrow YOLOv8 without blocks."""
    return base_checkpoint("yolov8n", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def trained(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs with blocks, and the checkpoint after the first of them."""
    return train(base, data, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder to work in: Ultralytics writes into the current one."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
