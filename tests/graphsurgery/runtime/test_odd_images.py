"""Folders of images that are no images, or far larger than they look: one sentence, and nothing is unpacked."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from graphsurgery.errors import RequestError
from graphsurgery.runtime.sample_inputs import GraphInput, image_feeds, image_paths

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow has many

INPUT = GraphInput("images", np.dtype(np.float32), (1, 3, 8, 8))
FORMATS = ("png", "jpeg", "bmp", "webp", "tiff")


def feeds(folder: Path) -> list[str]:
    return [name for name, _ in image_feeds([INPUT], folder, 8)]


def png(width: int, height: int) -> bytes:
    """A grey image whose pixels are all 0, in as many bytes as it takes to say so."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12_000, 12_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (2**28, 1)])
def test_an_image_of_more_pixels_than_any_camera_has(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(*size))
    with pytest.raises(RequestError, match=r"a\.png cannot be read as an image: (it has .* pixels|Image size)"):
        feeds(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_greys_of_16_bits_are_no_lighter_than_those_of_8(suffix: str, tmp_path: Path) -> None:
    """Pillow alone would make white of all that is above 255."""
    grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    ((_, values),) = image_feeds([INPUT], tmp_path, 8)
    assert np.allclose(values["images"], grey / 65535, atol=0.005)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_32_bits_have_no_white(kind: type, tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), kind)).save(tmp_path / "a.tif")
    with pytest.raises(RequestError, match=r"a\.tif cannot be read as an image: its pixels have 32 bits, and nothing"):
        feeds(tmp_path)


def npy(text: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 40000, 40000)}"), "cannot be read as an array"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "cannot be read as an array"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2**99,)}"), "cannot be read as an array"),
        (npy("{'descr': '<U4', 'fortran_order': False, 'shape': (3, 8, 8)}", bytes(3072)), "it has <U4 values"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (3, 8, 8)}", bytes(1536)), "it has complex64 values"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 8, 8)}", bytes(768)), "array of numbers"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 8)}", b"\xff" * 768),
            "infinite or not",
        ),
        (npy("{"), "cannot be read as an array"),
        (b"", "cannot be read as an array"),
    ],
)
def test_an_array_that_is_none(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(RequestError, match=said):
        feeds(tmp_path)


def test_an_archive_of_arrays_is_no_image(tmp_path: Path) -> None:
    written = io.BytesIO()
    np.savez(written, a=np.zeros((3, 8, 8), np.float32))
    (tmp_path / "a.npy").write_bytes(written.getvalue())
    with pytest.raises(RequestError, match="it has several arrays"):
        feeds(tmp_path)


def test_an_array_of_gigabytes_that_does_not_fit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 80000, 80000)}"))
    os.truncate(path, 80000 * 80000 * 12 + 1000)
    with pytest.raises(RequestError, match=r"has shape \[1, 3, 80000, 80000\], but the model's"):
        feeds(tmp_path)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(RequestError, match="has no images"):
        image_paths(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RequestError, match=r"image folder .*loop"):
        image_paths(tmp_path / "loop")


def flipped(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 4, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


@pytest.mark.parametrize("damage", [flipped, cut])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_image_is_read_or_named(
    kind: str, damage: Callable[[bytearray, Random], None], tmp_path: Path
) -> None:
    written = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(written, kind, exif=Image.Exif())
    rng = Random(kind)
    for _ in range(60):
        data = bytearray(written.getvalue())
        damage(data, rng)
        (tmp_path / f"a.{kind}").write_bytes(data)
        with contextlib.suppress(RequestError):
            assert feeds(tmp_path) == [f"a.{kind}"]
