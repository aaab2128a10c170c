from __future__ import annotations

import contextlib
import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

import graphsurgery
from graphsurgery import weights
from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.userblocks.inserted import weights_of
from tests import models

Array = np.ndarray[Any, Any]
C, R = 16, 4  # channels behind /model.2 of the small detector, hidden channels


def se(
    channels: int = C, hidden: int = R, *, bias: bool = True, names: tuple[str, str] = ("fc1", "fc2")
) -> dict[str, Array]:
    rng = np.random.default_rng([channels, hidden])
    first, second = names
    found = {f"{first}.weight": rng.normal(size=(hidden, channels, 1, 1))}
    found |= {f"{first}.bias": rng.normal(size=hidden)} if bias else {}
    found |= {f"{second}.weight": rng.normal(size=(channels, hidden, 1, 1))}
    found |= {f"{second}.bias": rng.normal(size=channels)} if bias else {}
    return {key: values.astype(np.float32) for key, values in found.items()}


def save(path: Path, arrays: Mapping[str, Array]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return path
    tensors = {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in arrays.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def put(file: str | Path, module: str = "se", made: Any = None, **arguments: Any) -> ModelFile:
    return graphsurgery.insert(made or models.detector(), module, after="/model.2", weights=file, **arguments)


def found(model: ModelFile) -> dict[str, Array]:
    return weights_of(model.insertions()[0], model)


def refused(file: str | Path, module: str = "se", **arguments: Any) -> str:
    with pytest.raises(WeightsError) as error:
        put(file, module, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt", ".onnx"])
def test_float64_is_read_as_float64(tmp_path: Path, suffix: str) -> None:
    """And inserted as that at a site in float64: no value is rounded to float32 on the way."""
    exact = {key: values.astype(np.float64) + 0.1 for key, values in se().items()}
    file = tmp_path / f"w{suffix}"
    if suffix == ".onnx":
        tensors = [onnx.numpy_helper.from_array(values, key) for key, values in exact.items()]
        x, y = (models.value(name, (1,), onnx.TensorProto.DOUBLE) for name in "xy")
        onnx.save(models.model([onnx.helper.make_node("Neg", ["x"], ["y"])], [x], [y], tensors), file)
    else:
        save(file, exact)
    read = found(put(file, made=models.detector(dtype=np.float64)))
    assert all(np.array_equal(read[key], exact[key]) for key in exact)


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pt", "W.PT", "w.pth", "w.pth.tar", "w.ckpt", "w.bin"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    edited = put(save(tmp_path / name, se()))
    assert edited.insertions()[0].init == "weights"
    models.valid(edited.to_bytes())
    for key, values in se().items():
        assert np.array_equal(found(edited)[key], values)


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pt"])
def test_a_prefix(tmp_path: Path, name: str) -> None:
    arrays = {f"model.9.att.{key}": values for key, values in se().items()}
    path = save(tmp_path / name, arrays | {"model.9.attention.fc1.weight": np.zeros(3, np.float32)})
    for prefix in ("model.9.att", "model.9.att."):
        assert np.array_equal(found(put(f"{path}:{prefix}"))["fc1.weight"], se()["fc1.weight"])
    message = refused(f"{path}:model.8")
    assert message.startswith(f"{name} has no weights under 'model.8'; its keys start with model.9.att")


def test_a_colon_in_the_name_of_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a:b.npz", {f"p.{key}": values for key, values in se().items()})
    assert weights.split(str(path)) == (path, "")
    assert weights.split(f"{path}:p") == (path, "p")
    assert weights.split("no:file") == (Path("no"), "file")
    assert weights.split("C:\\w.npz") == (Path("C:\\w.npz"), "")
    assert weights.split("C:\\w.npz:model.8") == (Path("C:\\w.npz"), "model.8")
    assert len(found(put(f"{path}:p"))) == 4


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_a_checkpoint_around_the_state_dict(tmp_path: Path, wrapper: str) -> None:
    state = {key: torch.from_numpy(values) for key, values in se().items()}
    torch.save({"epoch": 3, wrapper: state}, tmp_path / "w.pt")
    assert np.array_equal(found(put(tmp_path / "w.pt"))["fc2.bias"], se()["fc2.bias"])


def test_a_module_of_ours_saved_by_torch(tmp_path: Path) -> None:
    from graphsurgery.patterns.modules.ge import GatherExcite

    module = GatherExcite(C, variant="theta-plus", extent=4, hidden=2)
    torch.save(module.state_dict(), tmp_path / "w.pt")  # counters of BatchNorms and all
    edited = put(tmp_path / "w.pt", "ge[theta-plus]", settings={"extent": 4})
    assert edited.insertions()[0].settings["hidden"] == 2
    state = module.state_dict()
    for key, values in found(edited).items():
        assert np.allclose(values, state[key].double().numpy(), rtol=1e-6), key


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64"])
@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pt"])
def test_element_types(tmp_path: Path, name: str, dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    arrays = {key: (values * 8).astype(kind) for key, values in se().items()}
    path = tmp_path / name
    if dtype != "bfloat16" or name == "w.npz":
        save(path, arrays)
    else:
        tensors = {key: torch.from_numpy(values.astype(np.float32)).bfloat16() for key, values in arrays.items()}
        torch.save(tensors, path) if name == "w.pt" else save_file(tensors, path)
    if name == "w.npz" and dtype == "bfloat16":  # numpy itself forgets the type
        assert "not numbers" in refused(path)
        return
    edited = put(path, made=models.detector(dtype=np.float64))
    for key, values in arrays.items():
        assert np.array_equal(found(edited)[key], values.astype(np.float64))


# ---------------------------------------------------------------------- files that cannot be read safely


class Harmful:
    """Leaves a trace if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["w.pt", "w.pth"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    torch.save({"fc1.weight": Harmful(trace)}, tmp_path / name)
    message = refused(tmp_path / name)
    assert message == (
        f"{name} has no weights that can be read without running the code it names; save the state_dict() instead"
    )
    assert not trace.exists()


@pytest.mark.parametrize("first", [False, True])
def test_weights_beside_code_are_read_and_the_code_is_not_run(tmp_path: Path, first: bool) -> None:
    trace = tmp_path / "trace"
    state: dict[str, object] = {key: torch.from_numpy(values) for key, values in se().items()}
    harm = {"optimizer": Harmful(trace)}
    torch.save({**harm, "model": state} if first else {"model": state, **harm}, tmp_path / "w.pt")
    assert np.array_equal(found(put(tmp_path / "w.pt"))["fc1.weight"], se()["fc1.weight"])
    assert not trace.exists()


@pytest.mark.parametrize("name", ["w.npz", "w.pt", "w.safetensors"])
def test_a_bare_pickle_is_not_run(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    (tmp_path / name).write_bytes(pickle.dumps(Harmful(trace)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / name)
    assert not trace.exists()


def test_code_in_an_array_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    np.savez(tmp_path / "w.npz", **{"fc1.weight": np.array([Harmful(trace)], dtype=object)})
    assert refused(tmp_path / "w.npz") == "w.npz is not an .npz archive of plain arrays"
    assert not trace.exists()


@pytest.mark.parametrize("name", ["w.npz", "w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(100), b"\x93NUMPY\x01\x00v\x00"])
def test_what_is_no_such_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name)
    assert name in message
    assert "execute" not in message


def test_an_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    assert "not an .npz archive" in refused(tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["w.npz", "z.npz", "w.pt", "w.safetensors"])
def test_damaged_files_are_told(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    path = save(tmp_path / name, se(64, 8))
    if name == "z.npz":
        np.savez_compressed(path, **se(64, 8))  # type: ignore[arg-type]
    data = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(len(data)) if not rng.randrange(4) else len(data)])
        with contextlib.suppress(WeightsError):
            weights.read(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"")
    (tmp_path / "d.npz").mkdir()
    assert refused(tmp_path / "w.h5") == (
        "w.h5 is none of the weights files that are read: .safetensors, .npz, .pt, .pth, .tar, .ckpt, .bin, .onnx"
    )
    assert refused(tmp_path / "none.npz") == f"there is no weights file {tmp_path / 'none.npz'}"
    assert refused(tmp_path / "d.npz") == f"{tmp_path / 'd.npz'} is a directory"
    assert "there is no weights file" in refused("x" * 5000 + ".npz")


def test_no_permission(tmp_path: Path) -> None:
    save(tmp_path / "w.npz", se()).chmod(0)
    if os.access(tmp_path / "w.npz", os.R_OK):
        pytest.skip("whoever runs this may read everything")
    assert "no permission" in refused(tmp_path / "w.npz")


@pytest.mark.parametrize("content", [[1, 2], 3, torch.ones(2), None])
def test_a_checkpoint_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert f"holds a {type(content).__name__}, not a state_dict" in refused(tmp_path / "w.pt")


def test_a_checkpoint_without_weights_names_its_entries(tmp_path: Path) -> None:
    torch.save(
        {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}}, tmp_path / "w.pt"
    )
    assert refused(tmp_path / "w.pt") == "w.pt has no weights in it; its entries are epoch, optimizer"
    torch.save({}, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == "w.pt has no weights in it; it is empty"


def test_a_mapping_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {"epoch": 3}
    content["again"] = content
    torch.save(content, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == "w.pt has no weights in it; its entries are epoch, again"


def test_tensors_that_are_not_plain(tmp_path: Path) -> None:
    torch.save({"fc1.weight": torch.ones(3, device="meta")}, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == (
        "fc1.weight in w.pt has a shape and no values (torch's device 'meta'); save the model after loading it"
    )
    torch.save({"fc1.weight": torch.eye(3).to_sparse()}, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == "fc1.weight in w.pt is a sparse or quantised tensor; save it as a plain one"
    torch.save({"fc1.weight": torch.ones(3, dtype=torch.complex64)}, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == "fc1.weight in w.pt holds complex64 values, not numbers"
    np.savez(tmp_path / "w.npz", **{"fc1.weight": np.array(["a"])})
    assert refused(tmp_path / "w.npz") == "fc1.weight in w.npz holds <U1 values, not numbers"


# ---------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "names",
    [
        ("fc1", "fc2"),
        ("fc.0", "fc.2"),
        ("l1", "l2"),
        ("conv_reduce", "conv_expand"),
        ("down", "up"),
        ("x_1x1_down", "x_1x1_up"),
    ],
)
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_names_in_the_field(tmp_path: Path, names: tuple[str, str], linear: bool, bias: bool) -> None:
    """Linear layers [o, i] are 1x1 convolutions [o, i, 1, 1]; hidden width and biases follow from the file."""
    arrays = se(bias=bias, names=names)
    path = save(tmp_path / "w.npz", {key: v.reshape(v.shape[:2]) if linear else v for key, v in arrays.items()})
    edited = put(path)
    settings = edited.insertions()[0].settings
    assert (settings["hidden"], settings["bias"]) == (R, bias)
    for (key, values), official in zip(arrays.items(), se(bias=bias), strict=True):
        assert np.array_equal(found(edited)[official], values), key
    models.valid(edited.to_bytes())


@pytest.mark.parametrize("prefix", ["bn", "bn2", "channel_att.bn2", "ca.bn", "Channel_Att.bn2"])
def test_names_of_nam(tmp_path: Path, prefix: str) -> None:
    values = {p: np.linspace(1, 2, C).astype(np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    arrays = {f"{prefix}.{p}": v for p, v in values.items()} | {f"{prefix}.num_batches_tracked": np.array(7)}
    edited = put(save(tmp_path / "w.npz", arrays), "nam")
    assert np.array_equal(found(edited)["Channel_Att.bn2.running_var"], values["running_var"].astype(np.float64))


def test_names_of_ge(tmp_path: Path) -> None:
    arrays = {"conv.0.weight": np.ones((C, 1, 8, 8), np.float32)}
    arrays |= {f"conv.1.{p}": np.full(C, 0.5, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    edited = put(save(tmp_path / "w.npz", arrays), "ge[theta]")
    assert np.allclose(found(edited)["gather.conv1.weight"], 1)
    assert np.array_equal(found(edited)["gather.norm1.bias"], np.full(C, 0.5))


def test_one_parameter_under_two_names(tmp_path: Path) -> None:
    path = save(tmp_path / "w.npz", se() | {"fc.0.weight": se()["fc1.weight"]})
    assert refused(path) == "w.npz gives fc1.weight twice, as fc1.weight and as fc.0.weight"


def test_missing_and_extra_keys(tmp_path: Path) -> None:
    arrays = se()
    del arrays["fc2.weight"]
    assert refused(save(tmp_path / "a.npz", arrays)) == "a.npz does not fit se at model.2: it lacks fc2.weight"
    arrays = se() | {"fc3.weight": np.ones(1, np.float32), "gamma": np.ones(1, np.float32)}
    assert refused(save(tmp_path / "b.npz", arrays)) == (
        "b.npz does not fit se at model.2: it has fc3.weight, gamma, which the block does not"
    )
    arrays = {"l1.weight": se()["fc1.weight"], "l1.bias": se()["fc1.bias"], "l3.weight": se()["fc2.weight"]}
    message = refused(save(tmp_path / "c.npz", arrays))
    assert message == (
        "c.npz does not fit se at model.2: it lacks fc2.weight, fc2.bias and has l3.weight, which the block does not"
    )
    assert "it lacks fc1.weight" in refused(save(tmp_path / "d.npz", {"fc1.bias": np.zeros(4, np.float32)}))
    np.savez(tmp_path / "e.npz")
    assert "it lacks" in refused(tmp_path / "e.npz")


def test_a_block_without_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "w.npz", se())
    for module in ("simam", "ge"):
        with pytest.raises(BlockError, match=f"{module} has no weights; drop weights="):
            put(path, module)


# ---------------------------------------------------------------------- shapes


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("names", [("fc1", "fc2"), ("fc.0", "fc.2")])
def test_weights_for_other_channels(tmp_path: Path, linear: bool, names: tuple[str, str]) -> None:
    arrays = se(512, 32, names=names)
    path = save(tmp_path / "w.npz", {k: v.reshape(v.shape[:2]) if linear else v for k, v in arrays.items()})
    assert refused(path) == f"model.2 has 16 channels; {names[0]}.weight is made for 512"


def test_weights_of_other_blocks_for_other_channels(tmp_path: Path) -> None:
    arrays = {f"bn.{p}": np.ones(256, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    assert refused(save(tmp_path / "n.npz", arrays), "nam") == "model.2 has 16 channels; bn.weight is made for 256"


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("fc1.weight", (R, C, 3, 3), r"fc1.weight has the shape [4, 16, 3, 3]; se at model.2 needs [4, 16, 1, 1]"),
        ("fc2.weight", (C, R + 1), "fc2.weight has the shape [16, 5]; se at model.2 needs [16, 4, 1, 1]"),
        ("fc2.weight", (R, C), "fc2.weight has the shape [4, 16]; se at model.2 needs [16, 4, 1, 1]"),
        ("fc1.bias", (R + 1,), "fc1.bias has the shape [5]; se at model.2 needs [4]"),
        ("fc2.bias", (8,), "model.2 has 16 channels; fc2.bias is made for 8"),
        ("fc1.bias", (), "fc1.bias has the shape []; se at model.2 needs [4]"),
        ("fc1.weight", (), "fc1.weight has the shape []"),
        ("fc1.weight", (0, C), "the weights in w.npz do not fit: hidden of se is at least 1"),
        ("fc1.weight", (R * C,), "fc1.weight has the shape [64]"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, key: str, shape: tuple[int, ...], words: str) -> None:
    assert words in refused(save(tmp_path / "w.npz", se() | {key: np.ones(shape, np.float32)}))


def test_a_convolution_as_large_as_another_map(tmp_path: Path) -> None:
    arrays = {"gather.conv1.weight": np.ones((C, 1, 7, 7), np.float32)}
    arrays |= {f"gather.norm1.{p}": np.ones(C, np.float32) for p in ("weight", "bias", "running_mean", "running_var")}
    message = refused(save(tmp_path / "w.npz", arrays), "ge[theta]")
    assert message == "gather.conv1.weight has the shape [16, 1, 7, 7]; ge[theta] at model.2 needs [16, 1, 8, 8]"


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "words"), [(1e6, "reaches 1e+06, more than float16 can hold"), (np.nan, "not finite")]
)
def test_values_that_the_site_cannot_hold(tmp_path: Path, value: float, words: str) -> None:
    arrays = se()
    arrays["fc1.weight"][1, 2] = value
    path = save(tmp_path / "w.npz", arrays)
    message = refused(path, made=models.detector(dtype=np.float16))
    assert "fc1.weight" in message
    assert words in message
    if np.isfinite(value):
        put(path)
    else:
        assert words in refused(path)


def test_the_gate_comes_with_the_weights(tmp_path: Path) -> None:
    arrays = {f"block.{key}": values for key, values in se().items()} | {"alpha": np.array([0.25], np.float32)}
    edited = put(save(tmp_path / "w.npz", arrays), gate="residual")
    assert found(edited)["alpha"].tolist() == [0.25]
    assert np.array_equal(found(edited)["fc1.weight"], se()["fc1.weight"])
    edited = put(save(tmp_path / "w.npz", se()), gate="residual")
    assert found(edited)["alpha"].tolist() == [0]
    path = save(tmp_path / "w.npz", se() | {"alpha": np.ones(3, np.float32)})
    assert refused(path, gate="residual") == "alpha in w.npz is the gate's one number, and has the shape [3]"
    assert "it has alpha, which the block does not" in refused(path)


def test_each_site_gets_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "w.npz", se())
    edited = graphsurgery.insert(models.detector(), "se", after=["/model.2", "/model.3"], weights=path)
    a, b = (weights_of(i, edited) for i in edited.insertions())
    assert all(np.array_equal(a[key], b[key]) for key in a)
    with pytest.raises(WeightsError, match=r"model\.0 has 8 channels; fc1\.weight is made for 16"):
        graphsurgery.insert(models.detector(), "se", after=["/model.2", "/model.0"], weights=path)


def test_a_zip_of_other_things(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("fc1.weight", "text")
    assert refused(tmp_path / "w.npz") == "fc1.weight in w.npz holds |S4 values, not numbers"
