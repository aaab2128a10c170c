"""Binding: the C++ interfaces of TensorRT for RTX as ctypes reaches them, each method by its slot in the vtable.

Two exported C functions give a builder and a parser; all else are virtual calls. The slots follow the order of the
declarations in the headers of TensorRT 11.1 (Apache-2.0): NvInferImpl.h for the classes that NvInfer.h hands out,
NvInferRuntimeBase.h for the logger, NvOnnxParser.h for the parser. Slots 0 and 1 of the classes in NvInferImpl.h are
their destructors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, addressof, c_bool, c_char_p, c_int32, c_int64, c_size_t, c_uint32
from ctypes import c_void_p as pointer
from functools import partial
from typing import Any, ClassVar

MAX_DIMENSIONS = 8


class Dims(Structure):
    """nvinfer1::Dims64, NvInferRuntimeBase.h."""

    _fields_: ClassVar = [("rank", c_int32), ("sizes", c_int64 * MAX_DIMENSIONS)]

    def __init__(self, *sizes: int) -> None:
        super().__init__(len(sizes), (c_int64 * MAX_DIMENSIONS)(*sizes))

    def as_list(self) -> list[int]:
        """The sizes; -1 is a dynamic one. A rank that is not known has none."""
        return [int(self.sizes[i]) for i in range(max(0, self.rank))]


class Method:
    """A virtual method: its slot, its result, and its arguments after ``this``."""

    def __init__(self, slot: int, result: Any, *arguments: Any) -> None:
        self._slot = slot
        self._prototype = CFUNCTYPE(result, pointer, *arguments)

    def __get__(self, owner: Interface, kind: type) -> Callable[..., Any]:
        table = ctypes.cast(ctypes.cast(owner.address, POINTER(pointer))[0] or 0, POINTER(pointer))
        return partial(self._prototype(table[self._slot] or 0), owner.address)


class Interface:
    """An object that has its virtual methods itself: those of NvOnnxParser.h."""

    def __init__(self, address: int) -> None:
        self.address = address


class Implemented(Interface):
    """An object of NvInfer.h: it forwards to an implementation, whose pointer stands behind its vtable (mImpl)."""

    def __init__(self, address: int) -> None:
        super().__init__(ctypes.cast(address, POINTER(pointer))[1] or 0)
        self.handle = address
        """what other calls take as the object"""


class Builder(Implemented):
    """nvinfer1::IBuilder; apiv::VBuilder."""

    create_config = Method(5, pointer)
    create_network = Method(6, pointer, c_uint32)
    create_profile = Method(7, pointer)
    build_serialized = Method(11, pointer, pointer, pointer)


class Network(Implemented):
    """nvinfer1::INetworkDefinition; apiv::VNetworkDefinition."""

    layer_count = Method(12, c_int32)
    layer = Method(13, pointer, c_int32)
    input_count = Method(14, c_int32)
    input = Method(15, pointer, c_int32)
    output_count = Method(16, c_int32)
    output = Method(17, pointer, c_int32)


class Layer(Implemented):
    """nvinfer1::ILayer; apiv::VLayer."""

    type = Method(2, c_int32)
    name = Method(4, c_char_p)
    output_count = Method(7, c_int32)
    output = Method(8, pointer, c_int32)
    metadata = Method(12, c_char_p)


class Tensor(Implemented):
    """nvinfer1::ITensor; apiv::VTensor."""

    name = Method(3, c_char_p)
    dimensions = Method(5, Dims)
    type = Method(6, c_int32)


class Config(Implemented):
    """nvinfer1::IBuilderConfig; apiv::VBuilderConfig."""

    add_profile = Method(23, c_int32, pointer)


class Profile(Implemented):
    """nvinfer1::IOptimizationProfile; apiv::VOptimizationProfile. The selectors are 0 min, 1 opt, 2 max."""

    set_dimensions = Method(2, c_bool, c_char_p, c_int32, POINTER(Dims))


class Memory(Implemented):
    """nvinfer1::IHostMemory; apiv::VHostMemory."""

    size = Method(3, c_size_t)


class Parser(Interface):
    """nvonnxparser::IParser."""

    parse = Method(0, c_bool, c_char_p, c_size_t, c_char_p)
    error_count = Method(3, c_int32)
    error = Method(4, pointer, c_int32)
    supports_model = Method(15, c_bool, c_char_p, c_size_t, c_char_p)
    subgraph_count = Method(16, c_int64)
    subgraph_nodes = Method(18, POINTER(c_int64), c_int64, POINTER(c_int64))


class Error(Interface):
    """nvonnxparser::IParserError."""

    code = Method(0, c_int32)
    description = Method(1, c_char_p)
    function = Method(4, c_char_p)
    node = Method(5, c_int32)
    node_name = Method(6, c_char_p)
    node_operator = Method(7, c_char_p)
    function_stack = Method(8, POINTER(c_char_p))
    function_stack_size = Method(9, c_int32)


class Logger:
    """An object with the layout of nvinfer1::ILogger, which keeps what is logged as (severity, text).

    Severities are 0 internal error, 1 error, 2 warning, 3 information, 4 verbose. An ILogger of TensorRT 11 is a
    versioned interface: getAPILanguage and getInterfaceInfo, two destructors, then log.
    """

    def __init__(self) -> None:
        self.messages: list[tuple[int, str]] = []
        methods: list[Any] = [
            CFUNCTYPE(c_int32, pointer)(lambda this: 0),
            CFUNCTYPE(pointer, pointer)(lambda this: None),
            CFUNCTYPE(None, pointer)(lambda this: None),
            CFUNCTYPE(None, pointer)(lambda this: None),
            CFUNCTYPE(None, pointer, c_int32, c_char_p)(self._log),
        ]
        # The two entries in front of a vtable are its offset and its type information.
        self._table = (pointer * 7)(None, None, *(ctypes.cast(each, pointer) for each in methods))
        self._object = (pointer * 2)(addressof(self._table) + 2 * ctypes.sizeof(pointer), None)
        self._methods = methods

    @property
    def address(self) -> int:
        """The object, for C++."""
        return addressof(self._object)

    def _log(self, this: int, severity: int, text: bytes) -> None:
        if severity <= 2:
            self.messages.append((severity, text.decode("utf-8", "replace")))


LAYERS = (
    *("Convolution", "Cast", "Activation", "Pooling", "LRN", "Scale", "SoftMax", "Deconvolution", "Concatenation"),
    *("ElementWise", "Plugin", "Unary", "Padding", "Shuffle", "Reduce", "TopK", "Gather", "MatrixMultiply"),
    *("RaggedSoftMax", "Constant", "Identity", "PluginV2", "Slice", "Shape", "ParametricReLU", "Resize", "TripLimit"),
    *("Recurrence", "Iterator", "LoopOutput", "Select", "Fill", "Quantize", "Dequantize", "Condition"),
    *("ConditionalInput", "ConditionalOutput", "Scatter", "Einsum", "Assertion", "OneHot", "NonZero", "GridSample"),
    *("NMS", "ReverseSequence", "Normalization", "PluginV3", "Squeeze", "Unsqueeze", "Cumulative", "DynamicQuantize"),
    *("AttentionInput", "AttentionOutput"),
)
"""nvinfer1::LayerType, NvInfer.h"""
TYPES = (*("float32", "float16", "int8", "int32", "bool", "uint8", "fp8", "bfloat16", "int64", "int4", "fp4"),)
"""nvinfer1::DataType, NvInferRuntimeBase.h"""


class Libraries:
    """The two libraries, loaded, with a builder. OSError, AttributeError or RuntimeError where they are not usable."""

    def __init__(self, runtime: str, parser: str) -> None:
        self._runtime = ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)  # the parser links against it
        self._parser = ctypes.CDLL(parser, mode=ctypes.RTLD_GLOBAL)
        self.version = int(self._runtime.getInferLibVersion())
        """10701 is 1.7.1"""
        self.logger = Logger()
        create = self._runtime.createInferBuilder_INTERNAL
        create.restype, create.argtypes = pointer, [pointer, c_int32]
        self._create_parser = self._parser.createNvOnnxParser_INTERNAL
        self._create_parser.restype, self._create_parser.argtypes = pointer, [pointer, pointer, c_int32]
        self.builder = Builder(made(create(self.logger.address, self.version), "builder"))

    def network(self) -> Network:
        """An empty network, strongly typed as all of them are in TensorRT 11."""
        return Network(made(self.builder.create_network(0), "network"))

    def parser(self, network: Network) -> Parser:
        """A parser that fills ``network``."""
        version = self._parser.getNvOnnxParserVersion()
        return Parser(made(self._create_parser(network.handle, self.logger.address, version), "parser"))


def made(address: int | None, what: str) -> int:
    """An address that a call gave. RuntimeError for none."""
    if not address:
        raise RuntimeError(f"the library gives no {what}")
    return address


def text(value: bytes | None) -> str:
    """A C string that may be absent."""
    return (value or b"").decode("utf-8", "replace")
