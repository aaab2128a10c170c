"""The binding, against objects with the memory layout of C++: vtables of slots, and implementations behind them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_bool, c_char_p, c_int32, c_void_p
from typing import Any

import pytest

from graphsurgery.tensorrt.rtx.driver import binding


class Object:
    """An object whose vtable holds these functions, by slot; kept alive as long as this is."""

    def __init__(self, implementation: int | None = None, **methods: Any) -> None:
        slots = {int(name.removeprefix("slot")): function for name, function in methods.items()}
        self._methods = slots
        self._table = (c_void_p * (max(slots, default=0) + 1))()
        for slot, function in slots.items():
            self._table[slot] = ctypes.cast(function, c_void_p)
        self._object = (c_void_p * 2)(ctypes.addressof(self._table), implementation)
        self.address = ctypes.addressof(self._object)


def method(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    return CFUNCTYPE(result, c_void_p, *arguments)


def test_a_method_is_called_by_its_slot_with_its_object() -> None:
    seen: list[int] = []

    def parse(this: int, data: bytes, size: int, path: bytes) -> bool:
        seen.append(this)
        return (data, size, path) == (b"model", 5, b"/a/b.onnx")

    parsing = method(c_bool, c_char_p, ctypes.c_size_t, c_char_p)(parse)
    made = Object(slot0=parsing, slot3=method(c_int32)(lambda this: 4))
    parser = binding.Parser(made.address)
    assert parser.parse(b"model", 5, b"/a/b.onnx") is True
    assert parser.error_count() == 4
    assert seen == [made.address]


def test_what_forwards_is_called_on_its_implementation() -> None:
    seen: list[int] = []

    def count(this: int) -> int:
        seen.append(this)
        return 3

    inner = Object(slot12=method(c_int32)(count))
    outer = Object(inner.address)
    network = binding.Network(outer.address)
    assert network.layer_count() == 3
    assert seen == [inner.address]
    assert network.handle == outer.address


def test_sizes_are_given_back_whole() -> None:
    assert binding.Dims(2, -1, 4).as_list() == [2, -1, 4]
    unknown = binding.Dims()
    unknown.rank = -1
    assert unknown.as_list() == []
    assert ctypes.sizeof(binding.Dims) == 8 + 8 * binding.MAX_DIMENSIONS


def test_the_logger_has_the_layout_of_ilogger() -> None:
    logger = binding.Logger()
    table = ctypes.cast(ctypes.cast(logger.address, ctypes.POINTER(c_void_p))[0], ctypes.POINTER(c_void_p))  # type: ignore[arg-type]
    log = CFUNCTYPE(None, c_void_p, c_int32, c_char_p)(table[4] or 0)
    log(logger.address, 1, b"an error")
    log(logger.address, 2, b"a warning \xff")
    log(logger.address, 4, b"a word too many")
    assert logger.messages == [(1, "an error"), (2, "a warning \ufffd")]
    assert CFUNCTYPE(c_int32, c_void_p)(table[0] or 0)(logger.address) == 0
    assert CFUNCTYPE(c_void_p, c_void_p)(table[1] or 0)(logger.address) is None
    for destructor in (2, 3):
        CFUNCTYPE(None, c_void_p)(table[destructor] or 0)(logger.address)


def test_what_a_call_does_not_give_is_told() -> None:
    with pytest.raises(RuntimeError, match="the library gives no builder"):
        binding.made(None, "builder")
    assert binding.text(None) == ""


def test_the_names_of_layers_and_types_are_those_of_their_numbers() -> None:
    assert [binding.LAYERS[i] for i in (0, 9, 23, 32, 45, 52)] == [
        *("Convolution", "ElementWise", "Shape", "Quantize", "Normalization", "AttentionOutput")
    ]
    assert [binding.TYPES[i] for i in (0, 1, 2, 7, 8, 10)] == ["float32", "float16", "int8", "bfloat16", "int64", "fp4"]
