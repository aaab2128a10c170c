"""Every kind of bad input: one clear sentence, the right exit code, no stack trace, and every file as it was."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.models import model, node, value

resource = pytest.importorskip("resource")  # which Windows has not

SIMAM = ("--module", "simam", "--after", "/model.8", "--no-verify")
WRITE = ("-o", "out.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes(range(256)) * 8, "not an ONNX model"),
        (b"Dear model,\nplease detect.\n", "is a text file"),
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x18\x00\x00\x00ORTM" + bytes(100), "is in the ORT format of onnxruntime"),
    ],
    ids=["random bytes", "text", "empty", "checkpoint", "ort"],
)
def test_not_a_model(command: Any, unchanged: Any, folder: Path, content: bytes, said: str) -> None:
    (folder / "bad.onnx").write_bytes(content)
    with unchanged():
        assert said in command("insert", "bad.onnx", *SIMAM, *WRITE).sentence(2)
        assert said in command("insert", *SIMAM, *WRITE, stdin=content).sentence(2)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated(command: Any, unchanged: Any, folder: Path, part: float) -> None:
    whole = (folder / "detector.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: int(len(whole) * part)])
    with unchanged():
        assert "cut.onnx is not" in command("insert", "cut.onnx", *SIMAM, *WRITE).sentence(2)


def test_a_directory(command: Any, unchanged: Any, folder: Path) -> None:
    (folder / "dir.onnx").mkdir()
    with unchanged():
        assert "is a directory" in command("insert", "dir.onnx", *SIMAM, *WRITE).sentence(2)
        assert "is a directory" in command("insert", "detector.onnx", *SIMAM, "-o", "dir.onnx", "--force").sentence(2)


def test_no_such_file(command: Any, unchanged: Any) -> None:
    with unchanged():
        assert command("insert", "gone.onnx", *SIMAM, *WRITE).sentence(2) == "there is no file gone.onnx"


def _without_privileges() -> None:
    """In a child of root: files obey their permissions. Drops CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH at the exec."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                os._exit(77)


@pytest.mark.parametrize("case", ["input", "output"])
def test_no_permission(command: Any, unchanged: Any, folder: Path, case: str) -> None:
    (folder / "locked").mkdir()
    locked = folder / ("detector.onnx" if case == "input" else "locked")
    locked.chmod(0o000 if case == "input" else 0o555)
    target = "out.onnx" if case == "input" else "locked/out.onnx"
    with unchanged():
        ended = command("insert", "detector.onnx", *SIMAM, "-o", target, preexec_fn=_without_privileges)
        if ended.code == 77:
            pytest.skip("privileges cannot be dropped here")
        assert "no permission" in ended.sentence(2)


def test_disk_full(command: Any, unchanged: Any, folder: Path) -> None:
    """A real full disk, where a process may mount one of its own."""
    disk = folder / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=64k none disk && "$@"; code=$?; ls -A disk; exit $code'
    shell = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    from .conftest import COMMAND, Ended

    with unchanged():
        arguments = [COMMAND, "insert", "detector.onnx", *SIMAM, "-o", "disk/out.onnx"]
        done = subprocess.run([*shell, *arguments], cwd=folder, capture_output=True)
        said = Ended(done.returncode, done.stdout, done.stderr.decode()).sentence(2)
        assert said == "disk/out.onnx was not written: there is no space left on the disk"


def test_disk_full_as_the_system_tells_it(cli: Any, unchanged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    monkeypatch.setattr(os, "write", full)
    with unchanged():
        assert "no space left on the disk" in cli("insert", "detector.onnx", *SIMAM, *WRITE).sentence(2)


def test_file_grows_beyond_the_limit(command: Any, unchanged: Any) -> None:
    """The write fails half-way, with part of the file on the disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with unchanged():
        assert "was not written" in command("insert", "detector.onnx", *SIMAM, *WRITE, preexec_fn=limit).sentence(2)


def test_standard_output_is_full(command: Any, unchanged: Any, folder: Path) -> None:
    with unchanged(), open("/dev/full", "wb") as full:
        assert "no space left" in command("insert", "detector.onnx", *SIMAM, "-o", "-", stdout=full).sentence(2)
        assert "cannot be written" in command("sites", "detector.onnx", stdout=full).sentence(2)


def test_unknown_module(command: Any, unchanged: Any) -> None:
    with unchanged():
        ended = command("insert", "detector.onnx", "--module", "sinam", "--after", "/model.8", *WRITE)
        assert ended.sentence(2) == "there is no block 'sinam'; did you mean simam or nam?"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--module", "ge[gamma]"), "theta-minus, theta, theta-plus"),
        (("--module", "se", "--set", "ratio=4"), "the known ones are reduction, hidden, bias"),
        (("--module", "se", "--set", "reduction=many"), "is a whole number, not 'many'"),
        (("--module", "se", "--set", "reduction"), "--set takes name=value, not 'reduction'"),
        (("--module", "se", "--set", "bias=1", "--set", "bias=0"), "--set gives bias twice"),
        (("--module", "se", "--init", "random"), "it is one of default, identity"),
        (("--module", "se", "--gate", "half"), "it is one of none, residual"),
        (("--module", "simam", "--init", "identity"), "--gate residual"),
        (("--module", "simam", "--target", "npu"), "it is one of tensorrt, onnxruntime"),
        (("--module", "simam", "--lowering", "fast"), "has no lowering 'fast'"),
        (("--module", "simam", "--providers", "gpu"), "no provider called 'gpu'"),
        (("--module", "simam", "--no-verify", "--providers", "cpu"), "--no-verify does not go with --providers"),
        (("--module", "simam", "--no-verify", "--memory", "4"), "--no-verify does not go with --providers"),
        (("--module", "simam", "--seed", "-1"), "seed"),
        (("--module", "simam", "--seed", "one"), "seed"),
    ],
)
def test_settings_that_do_not_exist(cli: Any, unchanged: Any, arguments: tuple[str, ...], said: str) -> None:
    with unchanged():
        assert said in cli("insert", "detector.onnx", "--after", "/model.8", *WRITE, *arguments).sentence(2)


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("/model.80", "no module of the model matches '/model.80'; the nearest are /model.8"),
        ("/model.{4,6", "an opening brace without a closing one"),
        ("tensor:nothing", "the model has no tensor 'nothing'"),
        ("node:/model.8/cv2/act/Mull", "the nearest are /model.8/cv2/act/Mul"),
        ("", "the selector is empty"),
        ("/model.22/cv2.9", "the nearest are"),
    ],
)
def test_unknown_selector(cli: Any, unchanged: Any, selector: str, said: str) -> None:
    with unchanged():
        assert said in cli("insert", "detector.onnx", "-m", "simam", "-a", selector, *WRITE).sentence(2)


@pytest.mark.parametrize(
    ("selector", "said"), [("act", "module paths"), ("model.22.cv2", "3 tensors leave the module")]
)
def test_ambiguous_selector(command: Any, unchanged: Any, selector: str, said: str) -> None:
    with unchanged():
        assert said in command("insert", "detector.onnx", "-m", "simam", "-a", selector, *WRITE).sentence(2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": [1, 8, 16]}, "has the shape [1, 8, 16]; a block needs [N, C, H, W]"),
        ({"shape": [1, "c", 4, 4]}, "the number of channels of"),
        ({"kind": TensorProto.INT64}, "holds int64 values; a block needs a float tensor"),
        ({"kind": TensorProto.UINT8}, "holds uint8 values; a block needs a float tensor"),
        ({"kind": TensorProto.FLOAT8E4M3FN}, "holds float8e4m3fn values; a block needs a float tensor"),
    ],
    ids=["3-D", "unknown channels", "int64", "uint8", "float8"],
)
def test_site_that_no_block_fits(
    command: Any, unchanged: Any, small_model: Callable[..., Path], options: dict[str, Any], said: str
) -> None:
    small_model(**options)
    with unchanged():
        assert said in command("insert", "small.onnx", "-m", "simam", "-a", "/a", *WRITE).sentence(2)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("c", "the nodes 'Relu#1', 'Add#0' go round in a circle"),
        ("a", "the node 'Add#0' reads what it makes itself"),
        ("nothing", "the node 'Add#0' reads the tensor 'nothing', which nothing makes"),
    ],
)
def test_a_graph_that_nothing_can_run(cli: Any, unchanged: Any, folder: Path, read: str, said: str) -> None:
    """A parity of the block alone would hold, and the file would be of no use."""
    nodes = [node("Add", ["x", read], ["a"]), node("Relu", ["a"], ["c"]), node("Relu", ["x"], ["y"])]
    for each in nodes:
        each.name = ""
    (folder / "odd.onnx").write_bytes(model(nodes, [value("x")], [value("y")]).SerializeToString())
    with unchanged():
        assert said in cli("insert", "odd.onnx", "-m", "simam", "-a", "tensor:y", *WRITE).sentence(2)


def test_site_that_is_a_weight(cli: Any, unchanged: Any) -> None:
    with unchanged():
        ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "tensor:model.0.conv.weight", *WRITE)
        assert "is a constant (a weight)" in ended.sentence(2)


def _se(channels: int, hidden: int = 2) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "fc1.weight": np.zeros((hidden, channels, 1, 1), np.float32),
        "fc1.bias": np.zeros(hidden, np.float32),
        "fc2.weight": np.zeros((channels, hidden, 1, 1), np.float32),
        "fc2.bias": np.zeros(channels, np.float32),
    }


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (_se(64), "model.8 has 32 channels; fc1.weight is made for 64"),
        ({k: v for k, v in _se(32).items() if k != "fc2.weight"}, "lacks fc2.weight"),
        ({**_se(32), "fc3.weight": np.zeros(3)}, "has fc3.weight, which the block does not"),
        ({**_se(32), "fc2.bias": np.full(32, np.nan)}, "not finite"),
    ],
    ids=["shape", "missing", "extra", "nan"],
)
def test_wrong_weights(cli: Any, unchanged: Any, folder: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(folder / "w.npz", **arrays)
    with unchanged():
        ended = cli("insert", "detector.onnx", "-m", "se", "-a", "/model.8", "--weights", "w.npz", *WRITE)
        assert said in ended.sentence(2)


class _Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.npz"])
def test_weights_that_would_execute_code(command: Any, unchanged: Any, folder: Path, name: str) -> None:
    if name == "w.npz":
        np.savez(folder / name, **{"fc1.weight": np.array([_Malicious()], dtype=object)})
    else:
        (folder / name).write_bytes(pickle.dumps({"fc1.weight": _Malicious()}))
    with unchanged():
        ended = command("insert", "detector.onnx", "-m", "se", "-a", "/model.8", "--weights", name, *WRITE)
        assert name in ended.sentence(2)
        assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../secret.bin", "lies outside the model's folder"),
        ("/etc/passwd", "lies outside the model's folder"),
        ("link.bin", "lies outside the model's folder"),
        ("gone.bin", "is missing"),
    ],
)
def test_external_data(
    command: Any, unchanged: Any, small_model: Callable[..., Path], folder: Path, location: str, said: str
) -> None:
    (folder.parent / "secret.bin").write_bytes(bytes(128))
    (folder / "link.bin").symlink_to("../secret.bin")
    small_model(external=location)
    arguments = ("-m", "simam", "-a", "/a", *WRITE)
    with unchanged():
        assert said in command("insert", "small.onnx", *arguments).sentence(2)
        assert said in command("insert", *arguments, stdin=(folder / "small.onnx").read_bytes()).sentence(2)


@pytest.mark.parametrize("kind", ["same", "symbolic link", "hard link", "other spelling", "standard input"])
def test_output_is_the_input(command: Any, unchanged: Any, folder: Path, kind: str) -> None:
    target = {"other spelling": f"../{folder.name}/detector.onnx", "same": "detector.onnx"}.get(kind, "link.onnx")
    if kind == "symbolic link":
        (folder / "link.onnx").symlink_to("detector.onnx")
    elif target == "link.onnx":
        os.link(folder / "detector.onnx", folder / "link.onnx")
    with unchanged(), open(folder / "detector.onnx", "rb") as stream:
        given: dict[str, Any] = {"stdin": stream} if kind == "standard input" else {}
        model = () if given else ("detector.onnx",)
        said = command("insert", *model, *SIMAM, "-o", target, "--force", **given).sentence(2)
        assert said == f"{target} is the model itself; use --in-place to replace it"


def test_output_in_a_missing_folder(command: Any, unchanged: Any) -> None:
    with unchanged():
        ended = command("insert", "detector.onnx", *SIMAM, "-o", "gone/out.onnx")
        assert ended.sentence(2) == "there is no folder gone to write out.onnx to"


def test_output_that_exists(command: Any, unchanged: Any, folder: Path) -> None:
    (folder / "out.onnx").write_text("precious")
    with unchanged():
        assert "use --force" in command("insert", "detector.onnx", *SIMAM, *WRITE).sentence(2)


def test_output_that_is_no_regular_file(command: Any, unchanged: Any, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with unchanged():
        ended = command("insert", "detector.onnx", *SIMAM, "-o", "pipe", "--force")
        assert "is not a regular file" in ended.sentence(2)
