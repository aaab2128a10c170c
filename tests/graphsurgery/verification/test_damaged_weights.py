"""Inserted blocks whose weights or names have been damaged in the file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import TensorProto

import graphsurgery
from graphsurgery.errors import GraphSurgeryError, ModelError
from tests import models


def tampered(change: Callable[[TensorProto], None]) -> bytes:
    made = graphsurgery.insert(models.detector(), "se", after="/model.2", settings={"reduction": 4}).proto()
    change(next(tensor for tensor in made.graph.initializer if tensor.name.endswith("fc1.weight")))
    return made.SerializeToString()


def too_long(tensor: TensorProto) -> None:
    tensor.raw_data += b"\0"


def of_text(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_type = TensorProto.STRING
    tensor.string_data.extend([b"\xff"] * 64)


def of_no_type(tensor: TensorProto) -> None:
    tensor.data_type = 99


@pytest.mark.parametrize("change", [too_long, of_text, of_no_type])
def test_weights_that_cannot_be_read_are_told(change: Callable[[TensorProto], None]) -> None:
    with pytest.raises(GraphSurgeryError, match=r"fc1.weight' cannot be read: its bytes are not those of") as error:
        graphsurgery.verify(tampered(change))
    assert error.value.exit_code == 2


def test_a_block_that_reads_a_name_which_is_not_text() -> None:
    made = graphsurgery.insert(models.detector(), "se", after="/model.2").to_bytes()
    with pytest.raises(ModelError, match="not UTF-8 text"):
        graphsurgery.verify(made.replace(b"/model.2/se/ReduceMean_output_0", b"\xffmodel.2/se/ReduceMean_output_0"))
