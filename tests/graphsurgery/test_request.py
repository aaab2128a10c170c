"""What is given from Python in a wrong type is told in a sentence, as everything else that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

import graphsurgery
from graphsurgery.errors import RequestError
from tests import models

SELECTORS = "is a selector or a list of selectors, each a text such as '/model.8', not"
SETTINGS = "settings are hyper-parameters by name, as in {'reduction': 8}, not"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"after": 3}, f"after {SELECTORS} 3"),
        ({"after": None}, f"after {SELECTORS} None"),
        ({"after": ["/model.2", 3]}, f"after {SELECTORS} ['/model.2', 3]"),
        ({"after": b"/model.2"}, f"after {SELECTORS} b'/model.2'"),
        ({"after": {"/model.2": 1}}, f"after {SELECTORS} {{'/model.2': 1}}"),
        ({"before": 3.5}, f"before {SELECTORS} 3.5"),
        ({"after": "/model.2", "consumers": object}, f"consumers {SELECTORS} <class 'object'>"),
        ({"module": 7}, "module is the name of a block, a text such as 'simam', not 7"),
        ({"module": None}, "module is the name of a block, a text such as 'simam', not None"),
        ({"settings": 5}, f"{SETTINGS} 5"),
        ({"settings": ["e_lambda"]}, f"{SETTINGS} ['e_lambda']"),
        ({"settings": "e_lambda=1"}, f"{SETTINGS} 'e_lambda=1'"),
        ({"settings": {1: 2}}, f"{SETTINGS} {{1: 2}}"),
        ({"seed": "3"}, "seed is a whole number, not '3'"),
        ({"seed": True}, "seed is a whole number, not True"),
    ],
)
def test_wrong_types(given: dict[str, Any], words: str) -> None:
    place = {} if "before" in given else {"after": "/model.2"}
    with pytest.raises(RequestError) as raised:
        graphsurgery.insert(models.detector(), **{"module": "simam", **place, **given})
    assert str(raised.value) == words


def test_one_and_several() -> None:
    once = graphsurgery.insert(models.detector(), "simam", after="/model.2").to_bytes()
    for after in (["/model.2"], ("/model.2",), iter(["/model.2"]), {"/model.2"}):
        assert graphsurgery.insert(models.detector(), "simam", after=after, settings=None).to_bytes() == once  # type: ignore[arg-type]
