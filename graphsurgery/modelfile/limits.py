"""Limits: how large the things in a file may be, and why. They are checked before anything is computed or unpacked.

A file of kilobytes can ask for gigabytes: a size that is only declared, a loop of functions that call each other, a
number with thousands of digits. Every limit is far above what detectors and their blocks have, and far below what
brings a machine down.
"""

from __future__ import annotations

VERSION = 1000
"""Of the standard operator set, and of the IR: both have grown by two or three a year. (ONNX keeps them in 32 bits.)"""

OLDEST_OPSET = 9
"""Of a model that blocks are put into: what they are written with came with it, and exporters have long moved on."""

PROTOBUF_BYTES = 2**31 - 1
"""Of a model, its external data apart: no reader of protobuf takes more."""

ELEMENTS = 2**31 - 1
"""Of one tensor: TensorRT takes no more, and onnxruntime's kernels count in 32 bits."""

CHANNELS = 1 << 16
"""Of the map that a block is put on: detectors have up to some thousands, and weights grow with the square."""

WEIGHT_ELEMENTS = 1 << 26
"""Of all weights of one block, and of one constant in it: 512 MB in float64. Attention over 2048 channels, the widest
stage of ResNet-50, has a quarter of it."""

INPUT_ELEMENTS = 1 << 27
"""Of an input of a model that random values are drawn for: 100 images of 640 x 640, 1 GB while they are drawn."""

WRITTEN_OUT_NODES = 1 << 17
"""Of a model whose calls of local functions are written out: five times the largest exports (24,000 nodes)."""

WRITTEN_OUT_BYTES = 1 << 28
"""Of the same nodes: a constant in a function is there once for each call."""

BLOCK_NODES = 1 << 12
"""Of a block in an ONNX file, its functions written out: a whole transformer layer has some hundred."""

CALL_DEPTH = 100
"""Functions of a model that call each other, one within the other; exporters nest them as deep as modules, about 10."""

SCOPES = 1 << 7
"""Modules one within the other in the name of a node: detectors have about 10. What is deeper tells of no modules."""

FUNCTION_BINDINGS = 256
"""Different attributes with which a local function is called and looked at one by one."""

FOLDED_ELEMENTS = 1 << 22
"""Of a constant of a block that is worth computing ahead: 16 MB in float32."""

FOLDING_WORK = 1 << 26
"""Elements read and written, multiplications included, while the constants of one block are computed ahead: about a
second."""

INFERRED_VALUES = 1 << 21
"""Elements of all vectors of a model together whose values its inference may follow: about 300 MB there."""

SHAPE_ELEMENTS = 1 << 16
"""Of a constant that shapes are computed from: a thousand times the largest rank."""

SHAPE_WORK = 1 << 18
"""Elements of all values together that the shapes of one model are computed from: about a quarter of a second. An
export of RT-DETR has 2,000 of them."""

RECIPE_BYTES = 1 << 20
"""Of a recipe: some ten thousand insertions, which Python's YAML reader takes half a minute for."""

RECIPE_VALUES = 1 << 16
"""Of a recipe with every alias written out, merge keys included: eight nested aliases can stand for billions."""

TEXT = 1 << 12
"""Characters of one name, path or number in a recipe. Twice the longest selector that was seen, a list of modules."""

CHECKPOINT_ENTRIES = 1 << 17
"""Tensors of a checkpoint, or modules of a pickled model: detectors have some thousands of them."""

CHECKPOINT_KEY = 1 << 10
"""Characters of the name of a weight: the path of a module, some dozens."""

ATTACHMENTS = 1 << 12
"""Blocks that were trained in one model: detectors have some hundred modules to attach them to."""

LAYERS = 1 << 8
"""Of a detector in a YAML: those of Ultralytics have up to 60."""

ALIGNMENTS = 1 << 16
"""Steps in which the layers of two such files are aligned: a tenth of a second. Where nothing is ambiguous there is one
a layer."""

HASHED_VALUES = 1 << 26
"""Values that are hashed while a pickle is loaded, tuples in tuples written out: about a second."""

UNPACKED_BYTES = 1 << 28
"""That the arrays of a compressed file may unpack to, however small it is: 256 MB, a second. Constants shrink a
thousand times, trained weights by a tenth, see UNPACKED_RATIO."""

UNPACKED_RATIO = 4
"""Of the size of a compressed file, which it may unpack to where that is more."""

RECORDED_GRAPH_BYTES = 1 << 24
"""Of the graph of a block in the record of its insertion, which has no weights in it: the size of BLOCK_NODES nodes
with names and shapes is a tenth."""

REPLACED_BYTES = 1 << 24
"""Of what a block replaced, in the record of its insertion: some hundred nodes, and constants up to the next limit."""

KEPT_CONSTANT_BYTES = 1 << 16
"""Of one constant in it, 64 KiB: a larger one that nothing reads any more stays in the file, where it costs less than
as text."""

PIXELS = 1 << 27
"""Of an image: 400 MB in RGB. The largest cameras have three quarters of it; a PNG of a megabyte can have a hundred
times as many."""
