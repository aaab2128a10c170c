"""Files of weights of some kilobytes that ask for gigabytes or hours, and files that are odd: one sentence each."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery.errors import WeightsError
from graphsurgery.modelfile import limits
from graphsurgery.weights import inert_unpickler, pickle_scan, read, torch_file
from graphsurgery.weights.checkpoint import Checkpoint
from tests.graphsurgery.weights.test_checkpoints import put, refused

resource = pytest.importorskip("resource")  # which Windows has not

HUGE = 3 * 2**30


@pytest.fixture(autouse=True)
def two_gigabytes() -> Iterator[None]:
    """What goes beyond ends in a MemoryError, which is none of the errors that are expected."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def se(dtype: torch.dtype = torch.float32, prefix: str = "se.") -> dict[str, torch.Tensor]:
    shapes = {"fc1.weight": (4, 16, 1, 1), "fc1.bias": (4,), "fc2.weight": (16, 4, 1, 1), "fc2.bias": (16,)}
    rng = torch.Generator().manual_seed(0)
    return {prefix + key: torch.rand(shape, generator=rng).to(dtype) for key, shape in shapes.items()}


def saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def with_pickle(path: Path, data: bytes) -> str:
    """A file as torch writes it, with another pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return str(path)


# ---------------------------------------------------------------------- what is shared


def nested(levels: int, inner: Any) -> dict[str, Any]:
    for _ in range(levels):
        inner = {f"k{i}": inner for i in range(60)}
    return inner


def test_mappings_that_share_a_mapping(tmp_path: Path) -> None:
    file = saved(tmp_path / "laughs.pt", nested(5, {"w": torch.zeros(1)}))
    assert refused(file, "se") == "laughs.pt holds more than 131,072 tensors, which no detector does"
    nothing = saved(tmp_path / "nothing.pt", nested(5, {"w": 1}))
    assert refused(nothing, "se").startswith("nothing.pt has no weights in it; its entries are k0, k1,")


def test_keys_that_share_a_text(tmp_path: Path) -> None:
    key = "k" * 1000
    file = saved(tmp_path / "long.pt", {key: {key: torch.zeros(1)}, "other": torch.zeros(1)})
    assert refused(file, "se") == "long.pt has a key of more than 1,024 characters"


def module(**state: Any) -> inert_unpickler.Inert:
    made = inert_unpickler.Inert()
    made.state = {"_parameters": {}, "_buffers": {}, "_modules": {}, **state}
    return made


def test_modules_that_share_what_they_hold() -> None:
    parameters = {f"p{i}": torch.zeros(1) for i in range(1000)}
    shared = module(_modules={f"m{i}": module(_parameters=parameters) for i in range(1000)})
    with pytest.raises(WeightsError, match=r"^has modules with more than 131,072 tensors$"):
        inert_unpickler.state_dict(shared)
    children: dict[str, Any] = {f"m{i}": module() for i in range(1000)}
    for each in children.values():
        each.state["_modules"] = children
    with pytest.raises(WeightsError, match=r"^has more than 131,072 modules in one another$"):
        inert_unpickler.state_dict(module(_modules=children))
    deep = module()
    for _ in range(200):
        deep = module(_modules={"name" * 20: deep})
    with pytest.raises(WeightsError, match=r"^has a module whose path has more than 1,024 characters$"):
        inert_unpickler.state_dict(deep)


# ---------------------------------------------------------------------- what is larger than it is stored


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64], ids=str)
def test_a_tensor_of_one_value_that_stands_for_billions(dtype: torch.dtype, tmp_path: Path) -> None:
    content = {**se(), "se.fc1.weight": torch.ones(1, dtype=dtype).expand(HUGE)}
    file = saved(tmp_path / "x.pt", {"trunk": torch.ones(1, dtype=dtype).expand(HUGE), **se(prefix="good."), **content})
    put(f"{file}:good", "se")
    assert "x.pt has no weights under 'trunk'" in refused(f"{file}:trunk", "se")
    said = f"fc1.weight in x.pt has {HUGE:,} values, more than any block has"
    assert refused(f"{file}:se", "se").startswith(said)
    assert "weights that look like se lie under good" in refused(f"{file}:none", "se")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float64], ids=str)
def test_weights_of_every_type_have_their_values(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = se(dtype)
    edited, _ = put(f"{saved(tmp_path / 'x.pt', tensors)}:se", "se")
    from graphsurgery.userblocks.inserted import weights_of

    found = weights_of(edited.insertions()[0], edited)
    for key, values in found.items():
        assert np.array_equal(values, tensors[f"se.{key}"].float().numpy()), key


def test_a_tensor_that_a_pickle_says_is_negated(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.pt", {"w": torch._neg_view(torch.ones(3))})
    values = refused(file, "se")
    assert values.startswith(("w in x.pt is a tensor of float32 that numpy has no form for", "x.pt does not fit"))


# ---------------------------------------------------------------------- archives


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_an_archive_that_unpacks_to_more_than_it_may(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 8 << 20)  # gigabytes take seconds to pack
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, w=np.zeros(3, np.float32))
    else:
        torch.save({"w": torch.zeros(3)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("x/data/9", "w") as entry:
        for _ in range(10):
            entry.write(bytes(1 << 20))
    said = refused(path, "se")
    assert said.startswith(f"x.{suffix} has ")
    assert "and would unpack to 10,48" in said


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **{key: values.numpy() for key, values in se(prefix="").items()})
    put(path, "se")


def npz(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", content)
    return path


def header(text: str) -> bytes:
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


@pytest.mark.parametrize(
    "content",
    [
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (3221225472,), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N.",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        header("[" * 90),
        b"\x93NUMPY",
    ],
    ids=["billions", "objects", "negative", "nested", "no header"],
)
def test_an_npz_with_an_array_that_is_none(content: bytes, tmp_path: Path) -> None:
    assert refused(npz(tmp_path / "x.npz", content), "se").startswith("x.npz is not an .npz archive of plain arrays")


# ---------------------------------------------------------------------- pickles


DOUBLED = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(40))
"""a tuple of a tuple of a tuple ..., each twice: 2**40 values in 200 bytes"""
BOMBS = {
    "a key of nested tuples": b"\x80\x02}" + DOUBLED + b"Ns.",
    "a frozen set of nested tuples": b"\x80\x04}(" + DOUBLED + b"\x91Ns.",
    "a size of nested tuples": b"\x80\x02}ctorch\nSize\n" + DOUBLED + b"RNs.",
    "the same long key again and again": b"\x80\x02}(" + b"N" * 1000 + b"tq\x000" + b"h\x00Ns" * 200_000 + b".",
    "a memo from four billion on": b"\x80\x02}r\xff\xff\xff\xff.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_costs_more_than_it_is_long(name: str, tmp_path: Path) -> None:
    said = refused(with_pickle(tmp_path / "x.pt", BOMBS[name]), "se")
    assert said.startswith("x.pt cannot be read: its pickle has ")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x04\x8c\x08builtins\x94\x8c\tbytearray\x94\x93\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.",
    ],
    ids=["global", "Python 2", "stack", "operation"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_asks_for_a_terabyte(data: bytes, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    if legacy:
        path.write_bytes(b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {})) + data)
    else:
        with_pickle(path, data)
    assert refused(path, "se").startswith(("x.pt is not a file of plain weights", "x.pt has no weights that can be"))


def test_what_trainers_pickle_is_scanned_and_named() -> None:
    content = {"scheduler": Counter([30, 60]), "size": torch.Size((1, 2)), "args": (1, (2, ("a",) * 9)), "rng": {3}}
    for protocol in range(6):
        assert "collections.Counter" in pickle_scan.scan(io.BytesIO(pickle.dumps(content, protocol)))
    with pytest.raises(ValueError, match="pickle"):
        pickle_scan.scan(io.BytesIO(b"\x800000"))


def test_keys_that_are_no_text(tmp_path: Path) -> None:
    whole = 10**5000
    assert "its entries are a whole number of about 5001 digits, ('a', 1)" in torch_file._nothing(
        "x.pt", {whole: 1, ("a", 1): 2}, False
    )
    assert read(Path(saved(tmp_path / "y.pt", {whole: torch.zeros(1)}))).arrays.keys() == {
        "a whole number of about 5001 digits"
    }


def test_a_part_of_a_file_is_as_large_as_a_block_can_be() -> None:
    large = np.broadcast_to(np.float32(1), (limits.WEIGHT_ELEMENTS + 1,))
    whole = Checkpoint("x", {"a.w": large, "b.w": np.zeros(3)})
    assert set(whole.under("b").arrays) == {"w"}
    with pytest.raises(WeightsError, match=r"^w in x has 67,108,865 values, more than any block has$"):
        whole.under("a")
