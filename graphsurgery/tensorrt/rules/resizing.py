"""Resize and Upsample: coordinates, axes and scales."""

from __future__ import annotations

from ..options import Options
from ..rule import node_rule
from ..view import Visit
from .shapes import comes_from_data


@node_rule("Resize", source="importer", instead="half_pixel, or asymmetric with nearest and floor")
def resize_coordinates(visit: Visit, options: Options) -> str | None:
    mode = visit.attribute("coordinate_transformation_mode", "half_pixel")
    taken = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
    return None if mode in taken else f"the coordinate mode is {mode}, which is refused"


@node_rule("Resize", source="operators-10.16", instead="Resize without antialias, after a pool")
def resize_antialias(visit: Visit, options: Options) -> str | None:
    return "antialias is set, which is refused" if visit.attribute("antialias", 0) else None


@node_rule("Resize", source="operators-10.16", instead="sizes that are worked out beforehand")
def resize_aspect(visit: Visit, options: Options) -> str | None:
    policy = visit.attribute("keep_aspect_ratio_policy", "stretch")
    return None if policy == "stretch" else f"the aspect ratio policy is {policy}; only stretch is taken"


@node_rule("Resize", source="operators-10.16", instead="scales or sizes for every axis")
def resize_axes(visit: Visit, options: Options) -> str | None:
    axes, rank = visit.attribute("axes"), visit.rank()
    if axes is None or (rank is not None and [a % rank for a in axes] == list(range(rank))):
        return None
    if options.version < (9, 0):
        return f"it names the axes {list(axes)} alone, which came with opset 18"
    if visit.input(2) and visit.value(2) is None:
        return f"its scales are computed and stand for the axes {list(axes)} alone"
    return None


@node_rule("Resize", source="importer", instead="several Resize nodes, one behind the other")
def resize_count(visit: Visit, options: Options) -> str | None:
    mode, scales = visit.attribute("mode", "nearest"), visit.value(2)
    most = {"linear": 3, "cubic": 2}.get(mode)
    if most is None or scales is None:
        return None
    count = int((scales != 1).sum())
    return f"mode {mode} resizes {count} axes at once; {most} are taken" if count > most else None


@node_rule("Resize", "Upsample", source="rtx-parser", instead="constant scales, or sizes computed from shapes")
def resize_scales(visit: Visit, options: Options) -> str | None:
    name = visit.input(2 if visit.operator == "Resize" and len(visit.node.input) > 2 else 1)
    if name and comes_from_data(visit, name):
        return f"its scales come from {name}, which is computed from data and not from shapes"
    return None
