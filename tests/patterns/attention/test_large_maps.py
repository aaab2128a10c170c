"""Maps of an early layer, 320 x 320: a float32 sum over 102,400 positions loses digits, and no block may show it."""

from __future__ import annotations

import pytest

from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import Settings, feature_map, forms, inputs, possible
from tests.patterns.attention.verdicts import assert_agrees

POOLING: list[tuple[str, Settings]] = [
    ("simam", {}),
    ("se", {"reduction": 2}),
    ("ge", {}),
    ("ge[theta]", {"extent": 0}),
    ("cbam", {"hidden": 2}),
    ("eca", {}),
    ("bam", {"hidden": 2}),
    ("gc", {"hidden": 2}),
    ("srm", {}),
    ("lct", {"groups": 2}),
    ("shuffle", {"groups": 2}),
    ("sge", {"groups": 2}),
    ("ema", {"factor": 2}),
    ("mlca", {}),
    ("ese", {}),
    ("polarized", {}),
]
"""Blocks that take a mean, a variance or a softmax over the whole map."""


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("spelled", "settings"), POOLING, ids=[spelled for spelled, _ in POOLING])
def test_320_by_320(spelled: str, settings: Settings, dynamic: bool) -> None:
    feature = feature_map(8, 320, 320)
    wanted = [(name, x) for name, x in inputs(feature) if name in ("magnitude 1", "constant 0.7")]
    site = feature_map(8, None, None, batch=None) if dynamic else feature
    if not possible((spelled, settings), site, 17):
        pytest.skip("it needs to know the size")
    built_forms = list(forms((spelled, settings), site, 17))
    assert built_forms
    for built in built_forms:
        assert_agrees(built, Runtime(built.model), wanted)
