"""The table: spot checks against the parser's documents, and its own consistency."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from onnx import defs

from graphsurgery.tensorrt.support import TYPE_NAMES, Support, Version, dla_support, plugin_versions, table


def support(text: str) -> Support:
    return Support(Version.of(text))


@pytest.mark.parametrize(
    ("operator", "taken", "refused"),
    [
        ("Gelu", ("10", "11"), ("8.6",)),
        ("DeformConv", ("10.1", "11"), ("8.6", "10.0")),
        ("Attention", ("10.14", "11"), ("8.6", "10", "10.13")),
        ("Swish", ("11",), ("8.6", "10", "10.16")),
        ("LayerNormalization", ("8.6", "10", "11"), ()),
        ("Unique", (), ("8.6", "10", "11")),
        ("NoSuchThing", (), ("11",)),
    ],
)
def test_operators_by_version(operator: str, taken: tuple[str, ...], refused: tuple[str, ...]) -> None:
    assert [v for v in (*taken, *refused) if support(v).types(operator)] == list(taken)


def test_types_by_version() -> None:
    reduce = {version: support(version).types("ReduceMean") for version in ("8.6", "10", "11")}
    assert reduce == {
        "8.6": {"FP32", "FP16"},
        "10": {"FP32", "FP16", "BF16", "INT32", "INT64"},
        "11": {"FP32", "FP16", "BF16", "INT32", "INT64"},
    }
    clip, swish = support("10").types("Clip"), support("10").types("HardSwish")
    assert clip is not None
    assert swish is not None
    assert "INT64" in clip  # the importer takes what its document leaves out, and the other way round
    assert "BF16" not in swish


def test_opsets_by_version() -> None:
    ranges = {version: support(version).opsets for version in ("8.6", "10", "10.16", "11")}
    assert {v: (r[0], r[-1]) for v, r in ranges.items()} == {
        "8.6": (7, 17),
        "10": (9, 20),
        "10.16": (9, 24),
        "11": (9, 24),
    }


def test_the_first_version_that_takes_an_operator() -> None:
    assert support("8.6").first_version("Gelu") == "10.0"
    assert support("10").first_version("Attention") == "10.14"
    assert support("11").first_version("Det") is None


def test_the_table_names_real_operators_and_types() -> None:
    known = {schema.name for schema in defs.get_all_schemas_with_history() if not schema.domain}
    legacy = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # of opset 1, with importers still
    assert set(table()["operators"]) - known - legacy == set()
    assert set(dla_support("orin")) - known == set()
    types = {
        kind for rows in table()["operators"].values() for row in rows.values() if row for kind in row["types"].split()
    }
    assert types <= set(TYPE_NAMES.values()) - {"FP64"}


def test_versions_are_spelled_as_they_are_asked_for() -> None:
    assert [str(Version.of(text)) for text in ("8.6", "8.6.1", "10", "10.9.0", "11.1")] == [
        "8.6",
        "8.6",
        "10",
        "10.9",
        "11.1",
    ]


def corrections() -> str:
    """Where the types of an operator differ from NVIDIA's documentation, as docs/tensorrt.md has it."""
    sources = {"importer": "the importer's source", "rtx-parser": "NVIDIA's parser"}
    rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for operator, versions in table()["corrections"].items():
        for version, row in versions.items():
            for verb, words in (("adds", "takes"), ("drops", "refuses")):
                for kind in row.get(verb, "").split():
                    rows[version, f"{words} {kind}", sources[row["source"]]].append(operator)
    lines = ["| from | by | what | operators |", "|---|---|---|---|"]
    ordered = sorted(rows.items(), key=lambda each: (*map(int, each[0][0].split(".")), each[0][1]))
    return "\n".join([*lines, *(f"| {v} | {by} | {what} | {', '.join(found)} |" for (v, what, by), found in ordered)])


def test_the_documentation_tells_where_the_table_differs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "tensorrt.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"<!-- corrections: .*? -->\n(.*?)\n?<!-- end -->", page, re.DOTALL)
    assert found == corrections()


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("EfficientNMS_TRT", ["8.6", "10", "11"]),
        ("BatchedNMS_TRT", ["8.6", "10"]),
        ("ScatterElements", ["10", "11"]),
        ("TopkLastDim", ["11"]),
        ("Mish_TRT", []),
    ],
)
def test_plugins_by_version(name: str, versions: list[str]) -> None:
    assert plugin_versions(name) == versions
    assert [each for each in ("8.6", "10", "11") if support(each).is_plugin(name)] == versions


def test_where_types_are_known_from() -> None:
    known = {version: support(version).source_of_types("NonZero") for version in ("8.6", "10", "11")}
    assert known == {"8.6": "importer", "10": "importer", "11": "importer"}
    assert support("11").source_of_types("Add") == "rtx-parser"
    assert support("8.6").source_of_types("Add") == "operators-8.6"
    assert {row["source"] for rows in table()["corrections"].values() for row in rows.values()} <= set(
        table()["sources"]
    )
