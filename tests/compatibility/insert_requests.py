"""Insert requests over six models: block, lowering, settings, place, target, precision, start and pair.

The list is derived: every two values of two axes meet in a request, wherever both can be asked for together, and every
lowering of every variant is asked for. Blocks and lowerings are those of the recorded catalogue (index.json), so that
the list stays the same while the catalogue grows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.compatibility import corpus


@dataclass(frozen=True)
class Model:
    """A model to insert into, and a place of every kind in it."""

    path: Callable[[], Path]
    places: Mapping[str, Mapping[str, str]]
    half: bool = False
    quantised: bool = False


def _exported(name: str, variant: str) -> Callable[[], Path]:
    def path() -> Path:
        from tests.exports import export

        return export(name, variant)

    return path


def _places(last_stage: str, inner: str) -> dict[str, dict[str, str]]:
    return {
        "module": {"after": "/model.6"},
        "several modules": {"after": "/model.{6,8}"},
        "block": {"after": last_stage},
        "inner part": {"after": inner},
        "role": {"after": "role:p4"},
        "operator": {"after": "model.9//op:Concat[0]"},
        "before": {"before": "SPPF"},
        "consumers": {"after": "role:p4", "consumers": "Concat"},
    }


_YOLOV8 = _places("C2f[-1]", "Bottleneck[-1].cv2")

MODELS = {
    "example": Model(lambda: corpus.host(corpus.EXAMPLE), _YOLOV8),
    "yolov8n simplified": Model(_exported("yolov8n", "simplified"), _YOLOV8),
    "yolov8n half": Model(_exported("yolov8n", "half"), _YOLOV8, half=True),
    "yolov8n qdq": Model(_exported("yolov8n", "qdq"), _YOLOV8, quantised=True),
    "yolo11n dynamo": Model(_exported("yolo11n", "dynamo"), _places("C3k2[-1]", "Bottleneck[-1].cv2")),
    "rtdetr-l torchscript": Model(
        _exported("rtdetr-l", "torchscript"),
        {
            "module": {"after": "/model.16"},
            "several modules": {"after": "/model.{16,24}"},
            "block": {"after": "RepC3[-1]"},
            "inner part": {"after": "RepC3[0].cv1"},
            "role": {"after": "role:neck-outputs"},
            "operator": {"after": "model.12//op:Conv[0]"},
            "before": {"before": "AIFI"},
            "consumers": {"after": "/model.12", "consumers": "Concat"},
        },
    ),
}

STARTS: dict[str, dict[str, Any]] = {
    "default": {},
    "seed": {"seed": 7},
    "identity": {"init": "identity"},
    "gate": {"gate": "residual"},
    "identity behind a gate": {"init": "identity", "gate": "residual"},
}
_HALF = " in a half-precision model"
PAIRS = {"no pair": {}, "pair": {"qdq": "int8"}}

SETTINGS: dict[str, dict[str, Any]] = {
    "se": {"reduction": 2},
    "ge[theta-minus]": {"extent": 4},
    "ge[theta]": {"extent": 2},
    "ge[theta-plus]": {"extent": 2, "hidden": 4},
    "cbam": {"reduction": 2, "kernel": 3},
    "cbam[ultralytics]": {"kernel": 3},
    "eca": {"kernel": 3},
    "coordatt": {"hidden": 4},
    "ema": {"factor": 2},
    "gam": {"reduction": 2},
    "bam": {"reduction": 2},
    "gc": {"hidden": 4},
    "lct": {"groups": 4},
    "shuffle": {"groups": 2},
    "caa": {"h_kernel_size": 5, "v_kernel_size": 3},
    "sk": {"hidden": 4, "groups": 4},
    "sk[timm]": {"hidden": 4},
    "scsa": {"head_num": 2, "window_size": 4},
    "ela": {"kernel_size": 3},
    "ela[tiny]": {"norm_groups": 4},
    "ela[cv-attention]": {"norm_groups": 4},
    "mlca": {"local_size": 2},
    "sge": {"groups": 2},
    "cpca": {"hidden": 4},
    "a2": {"c_m": 8, "c_n": 4},
    "psablock": {"num_heads": 2},
    "mhsa": {"heads": 2},
    "aifi": {"hidden": 16, "heads": 2},
    "swin": {"window": 4, "heads": 2, "hidden": 16},
    "simam": {"e_lambda": 0.01},
    "srm": {"bn_eps": 0.001},
    "nam": {"bn_eps": 0.001},
    "triplet": {"spatial": False},
    "lska": {"k_size": 11},
}
"""hyper-parameters other than the defaults, by variant or else by block; they fit the few channels of the example"""


@dataclass(frozen=True)
class InsertRequest:
    """One call of `graphsurgery.insert`."""

    model: str
    arguments: Mapping[str, Any]

    @property
    def key(self) -> str:
        """How lists call it, in one line: the model and the arguments of the call."""
        return f"{self.model}: {json.dumps(self.arguments, sort_keys=True)}"

    @property
    def reduced(self) -> bool:
        """Whether the block is to be computed in half precision throughout: what is known to be about to change."""
        precision = self.arguments["precision"]
        return precision == "fp16" or (precision == "site" and MODELS[self.model].half)


Row = tuple[str, ...]


@cache
def requests() -> tuple[InsertRequest, ...]:
    """The whole list, in an order that groups the models."""
    catalogue: dict[str, dict[str, Any]] = corpus.index()["catalogue"]
    axes = {
        "variant": list(catalogue),
        "model": list(MODELS),
        "place": list(_YOLOV8),
        "target": ["tensorrt", "onnxruntime", "dla"],
        "precision": [f"{name}{where}" for where in (_HALF, "") for name in ("safe", "site", "fp32", "fp16")],
        "start": list(STARTS),
        "settings": ["defaults", "others"],
        "pair": list(PAIRS),
    }

    def possible(row: Mapping[str, str]) -> bool:
        model, start = MODELS.get(row.get("model", "")), row.get("start", "")
        facts = catalogue.get(row.get("variant", ""))
        if model and row.get("pair") == "pair" and not model.quantised:
            return False
        if model and "precision" in row and model.half != row["precision"].endswith(_HALF):
            return False
        if row.get("model") == corpus.EXAMPLE and row.get("settings") == "defaults":
            return False  # made for hundreds of channels
        return not (facts and start.startswith("identity") and not facts["identity"])

    asked = [_request(row) for row in pairwise(axes, possible)]
    for variant, facts in catalogue.items():
        if len(facts["lowerings"]) > 1:
            asked += list(_lowered(asked, variant, facts["lowerings"]))
    return tuple(sorted({each.key: each for each in asked}.values(), key=lambda each: list(MODELS).index(each.model)))


def _lowered(asked: list[InsertRequest], variant: str, lowerings: list[str]) -> Iterator[InsertRequest]:
    """Give requests of a variant its lowerings, one each; those that are left over come as requests of their own.

    Half precision has some lowerings less, and some settings have others: such requests keep the target's own choice.
    """
    left = list(lowerings)
    for i, each in enumerate(asked):
        plain = not (each.reduced or MODELS[each.model].half or each.arguments["settings"])
        if left and plain and each.arguments["module"] == variant:
            asked[i] = InsertRequest(each.model, {**each.arguments, "lowering": left.pop(0)})
    for lowering in left:
        place = MODELS["yolov8n simplified"].places["module"]
        arguments = {"module": variant, **place, "settings": {}, "target": "tensorrt", "precision": "safe"}
        yield InsertRequest("yolov8n simplified", {**arguments, "lowering": lowering})


def _request(row: Mapping[str, str]) -> InsertRequest:
    variant = row["variant"]
    own = SETTINGS.get(variant, SETTINGS.get(variant.partition("[")[0], {})) if row["settings"] == "others" else {}
    arguments: dict[str, Any] = {
        "module": variant,
        **MODELS[row["model"]].places[row["place"]],
        "settings": own,
        "target": row["target"],
        "precision": row["precision"].removesuffix(_HALF),
        **STARTS[row["start"]],
        **PAIRS[row["pair"]],
    }
    return InsertRequest(row["model"], arguments)


def pairwise(axes: Mapping[str, list[str]], possible: Callable[[Mapping[str, str]], bool]) -> Iterator[dict[str, str]]:
    """Rows with one value of each axis, in which every two values of two axes meet that may."""
    open_pairs = {
        pair: None
        for one, other in combinations(axes, 2)
        for pair in ((one, a, other, b) for a in axes[one] for b in axes[other])
        if possible({one: pair[1], other: pair[3]})
    }
    used: Counter[tuple[str, str]] = Counter()

    def gain(row: Mapping[str, str], axis: str, value: str) -> tuple[int, int]:
        """How many pairs a value covers; among equals, the one that was used least."""
        return sum(pair in open_pairs for pair in _pairs({**row, axis: value})), -used[axis, value]

    while open_pairs:
        one, a, other, b = next(iter(open_pairs))
        row = {one: a, other: b}
        for axis, values in axes.items():
            if axis not in row:
                fitting = [value for value in values if possible({**row, axis: value})]
                if not fitting:
                    break
                row[axis] = max(fitting, key=partial(gain, dict(row), axis))
        covered = [pair for pair in _pairs(row) if pair in open_pairs] or [(one, a, other, b)]
        for pair in covered:
            open_pairs.pop(pair, None)
        if len(row) == len(axes):
            used.update(row.items())
            yield {axis: row[axis] for axis in axes}


def _pairs(row: Mapping[str, str]) -> Iterable[tuple[str, str, str, str]]:
    order = ("variant", "model", "place", "target", "precision", "start", "settings", "pair")
    named = [(axis, row[axis]) for axis in order if axis in row]
    return ((one, a, other, b) for (one, a), (other, b) in combinations(named, 2))
