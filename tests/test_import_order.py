"""The order of the house: imports point only downwards, there is no circle, and what is imported inside of functions is
known.

The graph is derived from the source: every import counts, those inside of functions and those for types alone too.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    *("__main__", "cli", "__init__", "torch", "sweep", "recipe", "api", "rewriting", "cards", "block", "find"),
    *("bench", "outline", "diff", "tensorrt", "verification"),
    *("insertion", "weights", "selection", "recognition", "userblocks", "blocks", "template"),
    *("graph", "runtime", "modelfile"),
    *("request", "entry_points", "messages", "featuremap", "feature_map", "errors", "process", "_version"),
]
"""folders and files of graphsurgery/ from the top down: each imports only what stands after it"""
AT_THE_ROOT = 12
"""files that may lie flat in graphsurgery/"""
HEAVY = {"torch", "onnxruntime", "tensorrt", "ultralytics"}
"""packages that are imported inside of functions, by the code that needs them; in cli/ anything may be, for start-up"""
INSIDE = {
    "graphsurgery.__main__": {"graphsurgery.cli.main": "signals are caught before anything else is loaded"},
    "graphsurgery.api": {
        "graphsurgery.insertion.calibrating": "it runs the model, and only blocks to calibrate need that",
        "graphsurgery.insertion.trained": "it loads the readers of weights, which only trained blocks need",
        "graphsurgery.insertion.removal": "what removes takes 3 ms, and inserting needs none of it",
        "graphsurgery.insertion.replacing": "likewise, for what is put in the place of something",
        "graphsurgery.rewriting": "it looks for blocks, which only what is put in their place needs",
        "graphsurgery.rewriting.rewrite": "likewise",
        "graphsurgery.tensorrt.fallback": "the rules take 30 ms, and only blocks for a DLA need them",
    },
    "graphsurgery.cards.cards": {"graphsurgery.cards.drawing": "for who draws a block only, and it loads what follows"},
    "graphsurgery.cards.known": {"graphsurgery.cards.facts": "trying takes half a second, what is known none"},
    "graphsurgery.find.proof": {"graphsurgery.find.convolution": "it needs torch, and few parts need it"},
    "graphsurgery.find.search": {
        "graphsurgery.find.aligning": "it needs torch",
        "graphsurgery.find.tracing": "likewise",
    },
    "graphsurgery.graph.reference": {"onnx": "its reference runtime takes 60 ms, and few models need it"},
    "graphsurgery.graph.shape_constants": {
        "graphsurgery.graph.shape_values": "it takes 2 ms, and models that compute no shapes need none of it"
    },
    "graphsurgery.graph.shapes": {"graphsurgery.graph.computed_shapes": "likewise"},
    "graphsurgery.insertion.cost": {
        "graphsurgery.insertion.activations": "it takes 5 ms, and only dynamic sizes need it"
    },
    "graphsurgery.insertion.qdq_planning": {
        "graphsurgery.insertion.activations": "it runs the model, and only scales from images need that"
    },
    "graphsurgery.insertion.start": {"graphsurgery.weights": "the readers take 15 ms, for who gives a file"},
    "graphsurgery.messages": {"difflib": "for the candidates of errors only"},
    "graphsurgery.modelfile.conversion": {
        "onnx_graphsurgeon": "for who gives a Graph of it, or wants one, only",
        "onnx_ir": "likewise for its Model; it is no dependency",
    },
    "graphsurgery.process.numpy_threads": {"numpy": "how many threads it starts is said before it is loaded"},
    "graphsurgery.modelfile.source": {"tempfile": "for systems that replace no file that is open only"},
    "graphsurgery.outline.outline": {"graphsurgery.outline.picture": "it takes 5 ms, and rows need none of it"},
    "graphsurgery.recipe": {"graphsurgery.weights.trained_blocks": "likewise"},
    "graphsurgery.selection.context": {
        "graphsurgery.recognition": "it takes 40 ms, and a path or a tensor needs none of it",
        "graphsurgery.selection.advice": "likewise",
    },
    "graphsurgery.sweep.report": {"pandas": "for who wants a DataFrame only"},
    "graphsurgery.sweep.workers": {"joblib": "an extra, and it takes 100 ms"},
    "graphsurgery.tensorrt.rtx.asking": {"graphsurgery.tensorrt.rtx.examine": "for who has the parser installed only"},
    "graphsurgery.userblocks": {
        "graphsurgery.userblocks.onnx_block": "these two take 10 ms, and blocks of the catalogue need neither",
        "graphsurgery.userblocks.torch_block": "likewise",
    },
    "graphsurgery.userblocks.onnx_block": {"graphsurgery.userblocks.onnx_reference": "it needs torch"},
    "graphsurgery.userblocks.torch_block": {"graphsurgery.userblocks.export": "it needs torch"},
    "graphsurgery.userblocks.inserted": {"graphsurgery.blocks.wrapped_module": "it needs torch"},
}
"""all other imports inside of functions, with the reason"""
AT_THE_TOP = {
    "graphsurgery.blocks.calibrated_module",
    "graphsurgery.blocks.residual_module",
    "graphsurgery.blocks.wrapped_module",
    "graphsurgery.find.convolution",
    "graphsurgery.find.folded",
    "graphsurgery.find.tracing",
    "graphsurgery.torch.attaching",
    "graphsurgery.torch.calibration",
    "graphsurgery.torch.detaching",
    "graphsurgery.torch.dry_run",
    "graphsurgery.torch.exported",
    "graphsurgery.torch.files",
    "graphsurgery.torch.freezing",
    "graphsurgery.torch.hooks",
    "graphsurgery.torch.learning",
    "graphsurgery.torch.model_check",
    "graphsurgery.torch.parity.bisection",
    "graphsurgery.torch.parity.block_weights",
    "graphsurgery.torch.parity.comparison",
    "graphsurgery.torch.parity.live",
    "graphsurgery.torch.parity.pair",
    "graphsurgery.torch.parity.precision",
    "graphsurgery.torch.parity.queries",
    "graphsurgery.torch.parity.sources",
    "graphsurgery.torch.parity.ultralytics_heads",
    "graphsurgery.torch.refusals",
    "graphsurgery.torch.selecting",
    "graphsurgery.torch.sites",
    "graphsurgery.torch.ultralytics.blocks",
    "graphsurgery.torch.ultralytics.checkpoint",
    "graphsurgery.torch.ultralytics.exporting",
    "graphsurgery.torch.ultralytics.groups",
    "graphsurgery.torch.ultralytics.models",
    "graphsurgery.torch.ultralytics.trainer",
    "graphsurgery.torch.untouched",
    "graphsurgery.userblocks.export",
    "graphsurgery.userblocks.onnx_reference",
}
"""modules that are of use with a heavy package only, and import it at once"""


@dataclass(frozen=True)
class Import:
    """One import statement of the engine."""

    importer: str
    imported: str
    """a module of the engine, or the top package of anything else"""
    inside: bool
    """of a function"""
    for_types: bool = False
    """alone: below ``if TYPE_CHECKING``"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.glob("graphsurgery/**/*.py"))}


def imports_of(module: str, source: str, package: str) -> Iterator[Import]:
    """What a source text imports; ``package`` is where its relative imports start."""
    tree = ast.parse(source)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    guarded = {id(node) for guard in guards for node in ast.walk(guard)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{whole}.{a.name}" if f"{whole}.{a.name}" in FILES else whole for a in node.names]
        else:
            continue
        for name in names:
            inside = name if name in FILES else name.partition(".")[0]
            yield Import(module, inside, id(node) in inner, id(node) in guarded)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(
        found
        for name, path in FILES.items()
        for found in imports_of(
            name, path.read_text(encoding="utf-8"), name if path.stem == "__init__" else name.rpartition(".")[0]
        )
    )


def room(module: str) -> str:
    """The folder or file right inside of graphsurgery/ that a module is in."""
    return [*module.split("."), "__init__"][1]


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(name) for name in FILES} <= set(ORDER)


def test_imports_point_downwards() -> None:
    upwards = {
        f"{each.importer} -> {each.imported}"
        for each in imports()
        if each.imported in FILES and ORDER.index(room(each.imported)) < ORDER.index(room(each.importer))
    }
    assert upwards == set()


def test_there_is_no_circle() -> None:
    graph = defaultdict(set)
    for each in imports():
        if each.imported in FILES and each.imported != each.importer:
            graph[each.importer].add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_imports_inside_of_functions_are_known() -> None:
    found = {
        (each.importer, each.imported)
        for each in imports()
        if each.inside and each.imported not in HEAVY and room(each.importer) != "cli"
    }
    assert found == {(importer, imported) for importer, known in INSIDE.items() for imported in known}


def test_heavy_packages_are_imported_inside_of_functions() -> None:
    at_the_top = (each for each in imports() if each.imported in HEAVY and not each.inside and not each.for_types)
    assert {each.importer for each in at_the_top} == AT_THE_TOP


def test_few_files_lie_flat() -> None:
    assert len(list((ROOT / "graphsurgery").glob("*.py"))) <= AT_THE_ROOT


@pytest.mark.parametrize(
    ("source", "imported", "inside"),
    [
        ("from .. import messages", "graphsurgery.messages", False),
        ("from ..graph.index import GraphIndex", "graphsurgery.graph.index", False),
        ("from graphsurgery.graph import shapes", "graphsurgery.graph.shapes", False),
        ("if TYPE_CHECKING:\n    from ..api import insert", "graphsurgery.api", False),
        ("def f():\n    from ..api import insert", "graphsurgery.api", True),
        ("class A:\n    def f(self):\n        import torch.nn", "torch", True),
    ],
)
def test_the_graph_has_every_kind_of_import(source: str, imported: str, inside: bool) -> None:
    found = list(imports_of("graphsurgery.cards.facts", source, "graphsurgery.cards"))
    assert found == [Import("graphsurgery.cards.facts", imported, inside, "TYPE_CHECKING" in source)]
