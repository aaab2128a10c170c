"""Mutations of a protobuf message that know its fields: of any message, by its descriptor, and of its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto

from tests import models

_INTS = (0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-7, 3.4e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "\0",
    "a\0b",
    "\n",
    "\x1b[31m",
    "é",
    "\U0001f600",
    "/",
    "..",
    "../x",
    "model.0",
    "0",
    "%s",
    "{",
    "a" * 5000,
)
_WHOLE = {"INT32": 32, "INT64": 64, "UINT32": 32, "UINT64": 64}
_TYPES = {
    getattr(FieldDescriptor, f"TYPE_{name}"): name
    for name in ("DOUBLE", "FLOAT", "INT32", "INT64", "UINT32", "UINT64", "BOOL", "STRING", "BYTES", "ENUM", "MESSAGE")
}


def mutant(data: bytes, donors: Sequence[bytes], rng: Random) -> bytes:
    """A changed copy of a serialised model; parts of other models may get into it."""
    way = rng.random()
    if way < 0.75:
        model, donor = ModelProto.FromString(data), ModelProto.FromString(rng.choice(donors))
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 8))):
            _change(model, donor, rng)
        mutated = model.SerializeToString()
        return models.relaid(mutated, rng.randrange(2**32)) if rng.random() < 0.05 else mutated
    if way < 0.93:
        return _wire(data, ModelProto.DESCRIPTOR, rng)
    return _raw(data, rng.choice(donors), rng)


# ---------------------------------------------------------------------- messages


def _is_repeated(field: FieldDescriptor) -> bool:
    return isinstance(field.default_value, list)


def _is_message(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None)


def _descend(message: Message, rng: Random, stop: float) -> Message:
    """A message inside of this one, or this one: at each level the walk ends with this probability."""
    while rng.random() >= stop:
        inner = [(field, value) for field, value in message.ListFields() if _is_message(field) and value]
        if not inner:
            break
        # the graph, and in it the nodes, are most of what there is to get wrong
        field, value = rng.choices(inner, [4 if f.name in ("graph", "node") else 1 for f, _ in inner])[0]
        message = rng.choice(value) if _is_repeated(field) else value
    return message


def _change(model: ModelProto, donor: ModelProto, rng: Random) -> None:
    target = _descend(model, rng, 0.15)
    present = target.ListFields()
    if not present or rng.random() < 0.12:
        _fill(target, rng.choice(target.DESCRIPTOR.fields), model, donor, rng)
        return
    field, value = rng.choice(present)
    if _is_repeated(field):
        _repeated(target, field, value, model, donor, rng)
    elif rng.random() < 0.25:
        target.ClearField(field.name)
    else:
        _fill(target, field, model, donor, rng)


def _repeated(target: Message, field: FieldDescriptor, value: Any, model: Any, donor: Any, rng: Random) -> None:
    """Drop, repeat, swap, reorder or change elements."""
    place, other = rng.randrange(len(value)), rng.randrange(len(value))
    items = list(value)
    if _is_message(field):  # the elements go when their place is overwritten
        items = [type(each).FromString(each.SerializeToString()) for each in items]
    way = rng.choice(("drop", "drop", "repeat", "swap", "shuffle", "reverse", "cut", "change", "change", "change"))
    if way == "change":
        if _is_message(field):
            _graft(value[place], donor, model, rng)
        else:
            value[place] = _scalar(field, value[place], model, rng)
        return
    if way == "drop":
        del items[place]
    elif way == "repeat":
        items[other:other] = [items[place]] * rng.choice((1, 1, 1, 50))
    elif way == "swap":
        items[place], items[other] = items[other], items[place]
    elif way == "shuffle":
        rng.shuffle(items)
    elif way == "reverse":
        items.reverse()
    else:
        del items[min(place, other) : max(place, other) + 1]
    target.ClearField(field.name)
    getattr(target, field.name).extend(items)


def _fill(target: Message, field: FieldDescriptor, model: Any, donor: Any, rng: Random) -> None:
    """Set a field that may be absent, or give it another value."""
    value = getattr(target, field.name)
    if _is_message(field):
        if _is_repeated(field):
            _graft(value.add(), donor, model, rng)
        else:
            value.SetInParent()
            _graft(value, donor, model, rng)
    elif _is_repeated(field):
        value.append(_scalar(field, value[0] if value else field.default_value or None, model, rng))
    else:
        setattr(target, field.name, _scalar(field, value, model, rng))


def _graft(target: Message, donor: Message, model: Message, rng: Random) -> None:
    """Put a message of the same type from elsewhere in the place of this one."""
    whole = rng.choice((donor, donor, model))
    found = [each for each in (_descend(whole, rng, 0.1) for _ in range(30)) if each.DESCRIPTOR is target.DESCRIPTOR]
    if found:
        target.ParseFromString(found[0].SerializeToString())
    else:
        target.Clear()


def _scalar(field: FieldDescriptor, value: Any, model: Any, rng: Random) -> Any:
    kind = _TYPES[field.type]
    if kind in ("DOUBLE", "FLOAT"):
        return rng.choice((*_FLOATS, -(value or 0.0), (value or 0.0) * 1e6))
    if kind == "STRING":
        return _text(value or "", model, rng)
    if kind == "BYTES":
        return _bytes(value or b"", rng)
    if kind == "ENUM":
        return rng.choice(field.enum_type.values).number  # others come about in the bytes
    if kind == "BOOL":
        return not value
    value = value or 0
    number = rng.choice((*_INTS, value + 1, value - 1, 2 * value, -value))
    bits = _WHOLE[kind]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "I" else (0, 2**bits - 1)
    return min(max(number, low), high)


def _text(value: str, model: Message, rng: Random) -> str:
    if value.startswith("{") and rng.random() < 0.9:
        try:
            return _json(value, rng)
        except ValueError:
            pass
    way = rng.random()
    if way < 0.45:  # the name of something else
        place = _descend(model, rng, 0.1)
        names = [v for f, v in place.ListFields() if f.type == FieldDescriptor.TYPE_STRING]
        flat = [text for each in names for text in ([each] if isinstance(each, str) else each)]
        return rng.choice(flat) if flat else value
    if way < 0.75:
        return rng.choice(_TEXTS)
    cut = rng.randrange(len(value) + 1)
    return value[:cut] + rng.choice(("", "x", value[::-1], value)) + value[cut + rng.randrange(2) :]


def _bytes(value: bytes, rng: Random) -> bytes:
    way = rng.randrange(5)
    if way == 0:
        return value[: rng.randrange(len(value) + 1)]
    if way == 1:
        return value + rng.randbytes(rng.choice((1, 4, 8, 1000)))
    if way == 2:
        return b""
    if way == 3:
        return rng.choice((b"\xff", b"\x00", b"\x7f\x80")) * (len(value) // 2)
    return _flipped(value, rng)


def _json(text: str, rng: Random) -> str:
    """A record with one of its values changed."""
    data = json.loads(text)
    holder, key = data, rng.choice(sorted(data))
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    value, way = holder[key], rng.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(value, str):
        holder[key] = rng.choice((*_TEXTS, value[::-1], value + value))
    elif way == 2 and isinstance(value, int | float):
        holder[key] = rng.choice((*_INTS, *_FLOATS, value + 1, -value))
    elif way == 3 and isinstance(value, list) and value:
        rng.shuffle(value)
        holder[key] = value * rng.choice((1, 2)) if rng.random() < 0.5 else value[1:]
    elif way == 4 and isinstance(value, dict) and value:
        value[rng.choice(sorted(value)) + "x"] = 1
    else:
        holder[key] = rng.choice(
            (None, True, [], {}, "", 0, -1, 2**70, 1e308, [[]], {"a": 1}, ["a"], "a", [1, 2, 3, 4])
        )
    return json.dumps(data)


# ---------------------------------------------------------------------- bytes


def _wire(data: bytes, descriptor: Any, rng: Random) -> bytes:
    """The fields of a message as they stand in the file: contents that are no message of the schema any more."""
    try:
        found = list(models.parts(data))
    except (IndexError, KeyError, AssertionError):
        return _raw(data, data, rng)
    if not found:
        return data
    inside = [i for i, part in enumerate(found) if part.kind == 2 and part.content and part.number < 100]
    known = [i for i in inside if (f := descriptor.fields_by_number.get(found[i].number)) and f.message_type]
    if known and rng.random() < 0.85:
        place = max(known, key=lambda i: len(found[i].content)) if rng.random() < 0.5 else rng.choice(known)
        inner = descriptor.fields_by_number[found[place].number].message_type
        found[place] = found[place]._replace(content=_wire(found[place].content, inner, rng))
    else:
        place = rng.randrange(len(found))
        part = found[place]
        changes: tuple[Callable[[], models.Part], ...] = (
            lambda: part._replace(content=b"\xff\xfe" + part.content if part.kind == 2 else part.content),
            lambda: part._replace(content=_bytes(part.content, rng) if part.kind == 2 else models.varint(2**64 - 1)),
            lambda: part._replace(number=rng.choice((part.number + 1, 1, 2, 5, 7, 20, 2000, 2**29 - 1))),
            lambda: models.Part(part.number, 2, part.content),
            lambda: models.Part(part.number, 0, models.varint(rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)))),
            lambda: models.Part(part.number, 5, b"\0\0\x80\x7f"),
        )
        found[place] = rng.choice(changes)()
    if rng.random() < 0.1:
        found.insert(rng.randrange(len(found) + 1), rng.choice(found))
    return b"".join(models.field(part.number, part.kind, part.content, rng.choice((0, 0, 0, 3))) for part in found)


def _flipped(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _raw(data: bytes, donor: bytes, rng: Random) -> bytes:
    """Cut, splice, flip or make up bytes."""
    way, cut = rng.randrange(5), rng.randrange(len(data) + 1)
    if way == 0:
        return data[:cut]
    if way == 1:
        return data[:cut] + donor[rng.randrange(len(donor) + 1) :]
    if way == 2:
        return _flipped(data, rng)
    if way == 3:
        return data[:cut] + rng.randbytes(rng.choice((1, 2, 9, 100))) + data[cut:]
    return rng.randbytes(rng.choice((0, 1, 10, 1000))) if rng.random() < 0.2 else data[:cut] + data[cut + 1 :]
