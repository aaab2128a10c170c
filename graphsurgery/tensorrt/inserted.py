"""Inserted: what TensorRT takes of the blocks in a model alone, for those who ask about many models of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..modelfile.model import ModelFile
from .options import Options
from .rule import ERROR, Finding
from .rules import RULES
from .summary import Summary
from .view import View


def errors_of_blocks(model: ModelFile, versions: Sequence[str], fp16: str) -> tuple[Mapping[str, list[Finding]], str]:
    """For each version the errors among ``check(model, version).inserted``; and what ``check(model, fp16)`` says of the
    blocks in FP16.
    """
    view = View(model)
    inserted = [visit for visit in view.visits if visit.insertion is not None]
    errors = {}
    for version in versions:
        options = Options.of(version)
        rules = (rule for rule in RULES if rule.holds_for(options) and rule.severity == ERROR)
        errors[version] = [found for rule in rules for visit in inserted if (found := rule.at(visit, options))]
    return errors, Summary.of(view, Options.of(fp16), []).fp16
