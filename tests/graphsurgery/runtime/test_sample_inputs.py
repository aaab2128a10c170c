from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from graphsurgery.errors import MissingDependency, RequestError
from graphsurgery.runtime import sample_inputs
from graphsurgery.runtime.sample_inputs import GraphInput, graph_inputs, image_feeds, image_paths, random_feeds

FLOAT32 = np.dtype(np.float32)
NCHW = GraphInput("images", FLOAT32, (1, 3, 64, 96))


def _save(path: Path, size: tuple[int, int] = (30, 10), colour: tuple[int, int, int] = (255, 0, 51)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def test_inputs_are_read_without_initializers() -> None:
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT16, ["batch", 3, None, 640]),
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, [1]),
    ]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1], [1.0])
    model = helper.make_model(helper.make_graph([], "g", values, [], [weight]))
    assert graph_inputs(model) == [GraphInput("images", np.dtype(np.float16), (None, 3, None, 640))]


def test_an_input_that_no_memory_holds_is_refused() -> None:
    for shape in ((1, 3, 2**20, 2**20), (2**62, 3, None, None)):
        with pytest.raises(RequestError, match=r"input images has the shape .* elements are made up for it"):
            random_feeds([GraphInput("images", FLOAT32, shape)], 64)


def test_an_input_of_an_unknown_type_is_refused() -> None:
    values = [helper.make_tensor_value_info("x", 99, [1])]
    with pytest.raises(RequestError, match="x is not a tensor of numbers"):
        graph_inputs(helper.make_model(helper.make_graph([], "g", values, [])))


def test_an_input_that_is_no_tensor_of_numbers_is_refused() -> None:
    values = [helper.make_tensor_value_info("names", TensorProto.STRING, [1])]
    with pytest.raises(RequestError, match="names"):
        graph_inputs(helper.make_model(helper.make_graph([], "g", values, [])))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 3, None, None), (1, 3, 320, 320)),
        ((None, None, None, None), (1, 3, 320, 320)),
        ((2, 3, 64, None), (2, 3, 64, 320)),
        ((None, None, None, 3), (1, 320, 320, 3)),
        ((1, 1, 48, 48), (1, 1, 48, 48)),
    ],
)
def test_dynamic_sizes_are_settled(shape: tuple[int | None, ...], expected: tuple[int, ...]) -> None:
    assert GraphInput("images", FLOAT32, shape).concrete(320) == expected


def test_random_images_are_uniform_and_always_the_same() -> None:
    first = random_feeds([NCHW], 640)["images"]
    assert first.dtype == np.float32
    assert 0 <= first.min() < 0.01
    assert 0.99 < first.max() <= 1
    assert np.array_equal(first, random_feeds([NCHW], 640)["images"])
    coloured = random_feeds([GraphInput("images", np.dtype(np.uint8), (1, 64, 96, 3))], 640)["images"]
    assert coloured.dtype == np.uint8
    assert coloured.max() > 250


def test_inputs_beside_the_image_get_sensible_values() -> None:
    beside = [
        GraphInput("im_shape", FLOAT32, (None, 2)),
        GraphInput("scale_factor", FLOAT32, (None, 2)),
        GraphInput("orig_target_sizes", np.dtype(np.int64), (1, 2)),
        GraphInput("tokens", np.dtype(np.int64), (1, 7)),
        GraphInput("attention_mask", np.dtype(np.int64), (1, 7)),
        GraphInput("threshold", FLOAT32, ()),
        GraphInput("flag", np.dtype(np.bool_), (1,)),
    ]
    feeds = random_feeds([*beside, NCHW], 640)
    assert feeds["im_shape"].tolist() == [[64.0, 96.0]]
    assert feeds["scale_factor"].tolist() == [[1.0, 1.0]]
    assert feeds["orig_target_sizes"].tolist() == [[64, 96]]
    assert feeds["tokens"].tolist() == [[0] * 7]
    assert feeds["attention_mask"].tolist() == [[1] * 7]
    assert 0 <= feeds["threshold"] <= 1
    assert all(feeds[each.name].dtype == each.dtype for each in beside)


def test_pictures_are_letterboxed_rgb_between_0_and_1(tmp_path: Path) -> None:
    _save(tmp_path / "wide.png")
    ((name, feeds),) = image_feeds([NCHW], tmp_path, 640)
    array = feeds["images"]
    assert name == "wide.png"
    assert array.shape == (1, 3, 64, 96)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[0, :, 32, 48], [1.0, 0.0, 0.2], atol=1e-6)
    np.testing.assert_allclose(array[0, :, 0, 0], 114 / 255, atol=1e-6)  # 30x10 becomes 96x32: grey above and below
    assert (array[0, 0, 16:48] == 1).all()


def test_other_layouts_and_types(tmp_path: Path) -> None:
    _save(tmp_path / "a.png")
    nhwc = GraphInput("images", np.dtype(np.uint8), (2, 64, 96, 3))
    ((_, feeds),) = image_feeds([nhwc], tmp_path, 640)
    assert feeds["images"].shape == (2, 64, 96, 3)
    assert feeds["images"][1, 32, 48].tolist() == [255, 0, 51]
    grey = GraphInput("images", np.dtype(np.float16), (1, 1, 32, 32))
    ((_, feeds),) = image_feeds([grey], tmp_path, 640)
    assert feeds["images"].shape == (1, 1, 32, 32)
    assert feeds["images"].dtype == np.float16


def test_images_come_in_the_order_of_their_names_and_not_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.png", "a.JPG", "c.bmp"):
        _save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_paths(tmp_path)] == ["a.JPG", "b.png", "c.bmp"]
    monkeypatch.setattr(sample_inputs, "LIMIT", 2)
    assert [path.name for path in image_paths(tmp_path)] == ["a.JPG", "b.png"]


def test_arrays_are_used_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((3, 64, 96)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    ((_, feeds),) = image_feeds([NCHW], tmp_path, 640)
    assert np.array_equal(feeds["images"][0], array)


def test_arrays_of_any_size_where_the_input_is_dynamic(tmp_path: Path) -> None:
    """What stands beside the image is of the same size."""
    image = GraphInput("images", np.dtype(np.float16), (None, 3, None, None))
    size = GraphInput("im_shape", np.dtype(np.float32), (None, 2))
    array = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array[0, :, :32])
    (_, first), (_, second) = image_feeds([size, image], tmp_path, 640)
    assert np.array_equal(first["images"], array.astype(np.float16))
    assert second["images"].shape == (1, 3, 32, 96)
    assert first["im_shape"].tolist() == [[64, 96]]
    assert second["im_shape"].tolist() == [[32, 96]]
    for shape in ((4, 64, 64), (3, 0, 64)):
        np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
        with pytest.raises(RequestError, match=r"but the model's input is \[\?, 3, \?, \?\]"):
            list(image_feeds([image], tmp_path, 640))


def test_an_array_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (3, 1 << 13, 1 << 13))
    del array
    with pytest.raises(RequestError, match="has the shape"):
        list(image_feeds([GraphInput("images", np.dtype(np.float32), (1, 3, None, None))], tmp_path, 640))


def _nothing(folder: Path) -> None: ...


def _wrong_shape(folder: Path) -> None:
    np.save(folder / "a.npy", np.zeros((3, 10, 10), np.float32))


def _pickled(folder: Path) -> None:
    np.save(folder / "a.npy", np.array([{"code": "here"}], object), allow_pickle=True)


def _no_array(folder: Path) -> None:
    (folder / "a.npy").write_bytes(b"text")


def _no_picture(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"text")


def _cut_off(folder: Path) -> None:
    path = folder / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("prepare", "word"),
    [
        (_nothing, "no images"),
        (_wrong_shape, r"\[1, 3, 10, 10\].*\[1, 3, 64, 96\]"),
        (_pickled, "cannot be read as an array"),
        (_no_array, "cannot be read as an array"),
        (_no_picture, "cannot be read as an image"),
        (_cut_off, "cannot be read as an image"),
    ],
)
def test_bad_images_are_named(tmp_path: Path, prepare: Any, word: str) -> None:
    prepare(tmp_path)
    with pytest.raises(RequestError, match=word) as caught:
        list(image_feeds([NCHW], tmp_path, 640))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        image_paths(tmp_path / "missing")
    with pytest.raises(RequestError, match="is not a folder"):
        image_paths(_save(tmp_path / "a.png"))


def test_a_model_without_an_image_input(tmp_path: Path) -> None:
    _save(tmp_path / "a.png")
    with pytest.raises(RequestError, match="no image input"):
        list(image_feeds([GraphInput("tokens", np.dtype(np.int64), (1, 7))], tmp_path, 640))


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingDependency, match=r"graphsurgery\[images\]"):
        list(image_feeds([NCHW], tmp_path, 640))
