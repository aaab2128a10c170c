"""An insertion as a pass of onnx_ir, between others: `python insert_pass.py IN.onnx OUT.onnx`."""

from __future__ import annotations

import sys

import onnx_ir as ir
from onnx_ir.passes.common import DeduplicateInitializersPass, RemoveUnusedNodesPass

import graphsurgery as gsx


class InsertAttention(ir.passes.FunctionalPass):
    """Inserts a block, as :func:`graphsurgery.insert` does; the model that is given is not changed.

    ``options`` are those of the function: ``after``, ``settings``, ``weights`` ...
    """

    def __init__(self, module: str, **options: object) -> None:
        self.module = module
        self.options = options

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        edited = gsx.insert(model, self.module, **self.options)
        return ir.passes.PassResult(edited.to_ir(), modified=True)


def pipeline() -> ir.passes.Sequential:
    """Two blocks among passes that tidy the model up."""
    return ir.passes.Sequential(
        RemoveUnusedNodesPass(),
        InsertAttention("se", after="role:p3"),
        InsertAttention("simam", after="/model.8"),
        DeduplicateInitializersPass(),
    )


def main(source: str, target: str) -> None:
    result = pipeline()(ir.load(source))
    ir.save(result.model, target)
    print(*(f"inserted {each.id}" for each in gsx.ModelFile.load(result.model).insertions()), sep="\n")
    report = gsx.verify(result.model)
    print(*report.lines(), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
