"""What selectors are read into, before any model is looked at."""

from __future__ import annotations

import pytest

from graphsurgery.errors import SelectorError
from graphsurgery.selection.parser import Block, Inside, Named, Operator, Role, Selector, Word, parse

pytestmark = pytest.mark.smoke


def spelled(part: Selector | Block | Operator | None) -> str:
    """A part written out again, with its kind: ``path a.b``, ``type C2f [0:2] .m.0``."""
    match part:
        case None:
            return "anywhere"
        case Named(kind, name):
            return f"{kind} {name.text}"
        case Role(name):
            return f"role {name.text}"
        case Operator(name, subscript):
            return f"op {name.text}" + (f" {subscript.written.text}" if subscript else "")
        case Block(name, subscript, steps):
            index = f" {subscript.written.text}" if subscript else ""
            return f"type {name.text}{index}" + "".join(f" .{step.text}" for step in steps)
        case Word(path):
            return f"path {'.'.join(path.steps)}"
        case Inside(scope, what):
            return f"{spelled(scope)} // {spelled(what)}"


@pytest.mark.parametrize(
    ("selector", "parts"),
    [
        ("/model.8, model.9", ["path model.8", "path model.9"]),
        ("/model.{4,6}/cv{1,2}", [f"path model.{i}.cv{j}" for i in (4, 6) for j in (1, 2)]),
        ("a{b,{c,d}e},f", ["path ab", "path ace", "path ade", "path f"]),
        ("{a,{b,{c,d}}},{e}", ["path a", "path b", "path c", "path d", "path e"]),
        ("{a,}b", ["path ab", "path b"]),
        ("model.[4,6], b", ["path model.[4,6]", "path b"]),  # a comma in a set of characters
        ("model.[{,}], b", ["path model.[]", "path model.[]", "path b"]),
        ("a[],b", ["path a[]", "path b"]),
        ("a[,b", ["path a[", "path b"]),
        ("role:p{3,5},role:sppf", ["role p3", "role p5", "role sppf"]),
        ("op:Conv[0], op:Relu", ["op Conv [0]", "op Relu"]),
        ("model.8//C2f[1:3].m.0", ["path model.8 // type C2f [1:3] .m .0"]),
        ("//C2f//op:Conv[-1]", ["anywhere // type C2f // op Conv [-1]"]),
        ("op:If//op:Conv", ["op If // op Conv"]),
        ("a, tensor:b, c{d,[e", ["path a", "tensor b, c{d,[e"]),
        ("a//tensor:b", None),
        ("node: x ", ["node  x "]),
        ("output:", ["output "]),
    ],
)
def test_commas_braces_and_kinds(selector: str, parts: list[str] | None) -> None:
    if parts is None:
        with pytest.raises(SelectorError, match="behind // stands a type of block"):
            parse(selector)
    else:
        assert [spelled(part) for part in parse(selector)] == parts


@pytest.mark.parametrize(
    ("selector", "block"),
    [
        ("C2f", "type C2f"),
        ("C2f[*]", "type C2f [*]"),
        ("C2f[ -1 ]/cv2.conv", "type C2f [ -1 ] .cv2 .conv"),
        ("C2f.m", "type C2f .m"),
        ("C2f[0,2]", "type C2f"),
        ("C2f[0]x", "type C2f"),
    ],
)
def test_a_word_that_can_be_a_type(selector: str, block: str) -> None:
    (word,) = parse(selector)
    assert isinstance(word, Word)
    assert spelled(word.block) == block
    assert (word.problem is not None) == (selector in ("C2f[0,2]", "C2f[0]x"))


@pytest.mark.parametrize("selector", ["/C2f", "C2f*", "C2f-1", "2f"])
def test_a_word_that_cannot(selector: str) -> None:
    (word,) = parse(selector)
    assert isinstance(word, Word)
    assert word.block is None


@pytest.mark.parametrize(
    ("index", "picked"),
    [
        ("[0]", "a"),
        ("[-1]", "d"),
        ("[3]", "d"),
        ("[4]", ""),
        ("[-4]", "a"),
        ("[-5]", ""),
        ("[*]", "abcd"),
        ("[1:3]", "bc"),
        ("[:2]", "ab"),
        ("[::2]", "ac"),
        ("[::-1]", "dcba"),
        ("[2:9]", "cd"),
        ("[ 1 : 3 ]", "bc"),
        ("[9:]", ""),
    ],
)
def test_indices_and_slices(index: str, picked: str) -> None:
    (word,) = parse(f"C2f{index}")
    assert isinstance(word, Word)
    assert word.block is not None
    assert word.block.subscript is not None
    assert word.block.subscript.pick(list("abcd")) == list(picked)


@pytest.mark.parametrize("index", ["[0,2]", "[]", "[a]", "[::0]", "[1:2:3:4]", "[1234567890]", "[--1]", "[1.5]"])
def test_what_is_no_index_is_named_whole(index: str) -> None:
    with pytest.raises(SelectorError) as error:
        parse(f"model.8//C2f{index}")
    assert str(error.value).startswith(f"{index} is no index; write [3], [-1], [0:2] or [*]\n")
    mark = str(error.value).splitlines()[-1]
    assert mark == " " * (2 + len("model.8//C2f")) + "^" * len(index)


@pytest.mark.parametrize(
    ("selector", "sentence"),
    [
        ("C2f//", "has an empty step"),
        ("//", "has an empty step"),
        ("op:", "op: needs an operator"),
        ("op:[0]", "op: needs an operator"),
        ("role:", "role: needs the name"),
        ("model.8//C2f[0", "the index has no closing bracket"),
        ("model.8//C2f[0]cv1", "behind an index comes a point"),
        ("model.8//C2f.", "the name of an inner part is missing"),
        ("model.8//C2f..m", "the name of an inner part is missing"),
        ("a,,b", "there is a comma with no selector beside it"),
        ("a}", "a closing brace without an opening one"),
        ("{a", "an opening brace without a closing one"),
        ("{a}{b", "an opening brace without a closing one"),
        ("{a,b,c,d,e,f,g,h,i}" + "{0,1,2,3,4,5,6,7}" * 4, "stand for more than 4,096 selectors"),
        ("  ", "the selector is empty"),
    ],
)
def test_what_cannot_be_read(selector: str, sentence: str) -> None:
    with pytest.raises(SelectorError, match=sentence):
        parse(selector)


def test_as_many_spellings_as_there_may_be() -> None:
    assert len(parse("{a,b,c,d,e,f,g,h}" * 4)) == 8**4
