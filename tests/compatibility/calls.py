"""Python calls that users write, by name: each is run again, and has to give what it gave.

They use `import graphsurgery as gsx` and nothing else of the package. What is said in prose (warnings, messages) is not
part of a result.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs

import graphsurgery as gsx
from tests.compatibility import corpus

CALLS: dict[str, Callable[[], Any]] = {}
SMALL = corpus.host("torchscript")
QUANTISED = corpus.host("uint8")
EXAMPLE = corpus.host(corpus.EXAMPLE)


def call(function: Callable[[], Any]) -> Callable[[], Any]:
    """Make a function part of the corpus, under its own name."""
    CALLS[function.__name__] = function
    return function


def two_blocks() -> gsx.ModelFile:
    model = gsx.insert(SMALL, "se", after="/model.2", settings={"reduction": 4})
    return gsx.insert(model, "simam", before="/model.3", gate="residual")


def refused(request: Callable[[], object]) -> dict[str, Any]:
    """What a call raises: the class and its exit code."""
    try:
        request()
    except gsx.errors.GraphSurgeryError as error:
        return {"error": type(error).__name__, "exit_code": error.exit_code}
    raise AssertionError("nothing was raised")


# ---------------------------------------------------------------------- insert


@call
def insert_from_path() -> object:
    return gsx.insert(str(SMALL), "simam", after="/model.2")


@call
def insert_from_a_path_object() -> object:
    return gsx.insert(SMALL, "simam", after=["/model.1", "/model.2"])


@call
def insert_into_bytes() -> object:
    return gsx.insert(SMALL.read_bytes(), "se", after=("/model.2",), settings={"reduction": "4", "bias": "false"})


@call
def insert_into_a_proto() -> object:
    return gsx.insert(onnx.load(SMALL), "nam[channel+spatial]", after="model.2")


@call
def insert_into_a_graph() -> object:
    return gsx.insert(gs.import_onnx(onnx.load(SMALL)), "simam", after="/model.2").proto().SerializeToString()


@call
def insert_into_a_model_file() -> object:
    return gsx.insert(gsx.ModelFile.load(SMALL), "eca", after="tensor:/model.2/act/Mul_output_0")


@call
def insert_with_external_data() -> object:
    return gsx.insert(
        gsx.ModelFile.load(onnx.load(corpus.host("external"), load_external_data=False), folder=corpus.HOSTS),
        "simam",
        after="/model.2",
    )


@call
def insert_before() -> object:
    return gsx.insert(SMALL, "simam", before="/model.3")


@call
def insert_for_consumers() -> object:
    return gsx.insert(SMALL, "simam", after="/model.2", consumers=["/model.3/m"])


@call
def insert_every_argument() -> object:
    return gsx.insert(
        SMALL,
        "cbam[official]",
        after="/model.2",
        before=(),
        consumers="node:/model.3/Concat",
        settings={"reduction": 4, "kernel": 3},
        init="identity",
        seed=9,
        gate="none",
        weights=None,
        target="onnxruntime",
        precision="fp32",
        lowering="gemm",
        qdq="none",
        qdq_scale="site",
        images=None,
    )


@call
def insert_behind_a_gate() -> object:
    return gsx.insert(SMALL, "se", after="/model.2", settings={"reduction": 4}, gate="residual", seed=3)


@call
def insert_weights() -> object:
    return gsx.insert(SMALL, "se", after="/model.2", weights=corpus.WEIGHTS / "se.npz")


@call
def insert_weights_with_a_prefix() -> object:
    return gsx.insert(SMALL, "se", after="/model.2", weights=f"{corpus.WEIGHTS / 'se.safetensors'}:model.2.se")


@call
def insert_own_onnx() -> object:
    return gsx.insert(SMALL, str(corpus.OWN / "squeeze.onnx"), after="/model.2")


@call
def insert_own_torch() -> object:
    return gsx.insert(SMALL, corpus.TRUSTED[0], after="/model.2", settings={"high": 2.0})


@call
def insert_for_dla() -> object:
    return gsx.insert(EXAMPLE, "cbam", after="/model.8", settings={"reduction": 4}, target="dla")


@call
def insert_at_half_precision() -> object:
    return gsx.insert(corpus.host("half"), "coordatt", after="/model.2", settings={"hidden": 4}, precision="fp32")


@call
def insert_a_pair() -> object:
    return gsx.insert(QUANTISED, "simam", after="/model.1", qdq="int8", qdq_scale="site")


@call
def insert_into_the_example() -> object:
    return gsx.insert(EXAMPLE, "ge[theta]", after="C2f[-1]", settings={"extent": 4})


@call
def insert_warns() -> object:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gsx.insert(SMALL, "simam", after="tensor:/model.2/conv/Conv_output_0")
    return [issubclass(each.category, gsx.GraphSurgeryWarning) for each in caught]


# ---------------------------------------------------------------------- remove, sites, verify


@call
def remove_all() -> object:
    return gsx.remove(two_blocks())


@call
def remove_none_named() -> object:
    return gsx.remove(two_blocks(), None)


@call
def remove_one() -> object:
    return gsx.remove(two_blocks(), "model.2.se")


@call
def remove_a_list() -> object:
    return gsx.remove(two_blocks().proto(), ids=["model.3.simam"])


def site_fields(site: Any) -> dict[str, Any]:
    told = site.to_json()
    del told["warnings"]
    return {
        "tensor": site.tensor,
        "shape": site.shape,
        "dtype": site.dtype,
        "path": site.path,
        "type": site.type,
        "stride": site.stride,
        "consumers": site.consumers,
        "graph_output": site.graph_output,
        "warned": bool(site.warnings),
        "position": site.position,
        "others": site.others,
        "label": site.label,
        "json": told,
    }


@call
def sites_of_modules() -> object:
    return [site_fields(site) for site in gsx.sites(SMALL)]


@call
def sites_of_dynamo_modules() -> object:
    return [site_fields(site) for site in gsx.sites(corpus.host("dynamo").read_bytes())]


@call
def sites_without_paths() -> object:
    return [site_fields(site) for site in gsx.sites(onnx.load(corpus.host("nameless")))]


@call
def sites_of_the_example() -> object:
    return [(site.path, site.stride, site.shape) for site in gsx.sites(EXAMPLE)]


def report_fields(report: Any) -> dict[str, Any]:
    return {
        "passed": report.passed,
        "same": report.require() is report,
        "rest": report.rest.passed,
        "providers": report.providers,
        "lines": bool(report.lines()),
        "versions": sorted(report.versions),
        "json": sorted(report.to_json()),
        "insertions": [
            {
                "id": each.id,
                "module": each.module,
                "path": each.path,
                "tensor": each.tensor,
                "shape": each.shape,
                "dtype": each.dtype,
                "passed": each.passed,
                "rows": sorted({(row.provider, str(row.mode), str(row.verdict), row.gate_opened) for row in each.rows}),
                "inputs": each.inputs,
                "failure": each.failure,
            }
            for each in report.insertions
        ],
    }


@call
def verify_every_argument() -> object:
    report = gsx.verify(
        two_blocks(),
        providers=["cpu"],
        images=corpus.IMAGES,
        seeds=1,
        only=["model.2.se"],
        original=SMALL,
        trust=(),
    )
    return report_fields(report)


@call
def verify_own_torch() -> object:
    return report_fields(gsx.verify(insert_own_torch(), seeds=1, providers=["cpu"], trust=corpus.TRUSTED))


# ---------------------------------------------------------------------- recipes


@call
def recipe_from_text() -> object:
    text = "- {module: se, after: /model.2, weights: se.npz}\n- {module: simam, before: /model.3}\n"
    recipe = gsx.Recipe.from_text(text, folder=corpus.WEIGHTS, name="mine")
    return {
        "model": corpus.plain(recipe.apply(SMALL)),
        "modules": [request.module for request in recipe.requests],
        "places": [(request.after, request.before, request.consumers) for request in recipe.requests],
    }


@call
def recipe_with_a_byte_order_mark() -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(b"\xef\xbb\xbfinsertions: [{module: simam, after: [/model.2]}]\r\n")
        return gsx.Recipe.load(str(path)).apply(SMALL.read_bytes())


@call
def recipe_is_wrong() -> object:
    texts = {
        "unknown key": "- {module: se, after: /model.2, where: here}",
        "no module": "- {after: /model.2}",
        "no place": "- {module: se}",
        "two places": "- {module: se, after: a, before: b}",
        "twice": "- {module: se, module: nam, after: a}",
        "text": "se",
        "empty": "[]",
        "seed": "- {module: se, after: a, seed: -1}",
    }
    return {name: refused(lambda text=text: gsx.Recipe.from_text(text)) for name, text in texts.items()}


# ---------------------------------------------------------------------- ModelFile


@call
def model_file_reads() -> object:
    model = gsx.ModelFile.load(SMALL)
    return {
        "bytes": corpus.plain(model.to_bytes()),
        "proto": corpus.plain(model.proto().SerializeToString(deterministic=True)),
        "size": model.size,
        "opset": model.opset,
        "name": model.name,
        "folder": model.folder == SMALL.parent,
        "external_data": model.external_data,
        "digest": model.digest(),
        "structure": len(model.structure.graph.node),
        "insertions": model.insertions(),
        "tensor": corpus.plain(model.tensor("model.2.conv.weight").tobytes()),
        "same": gsx.ModelFile.load(model) is model,
    }


@call
def model_file_saves() -> object:
    model = two_blocks()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.onnx"
        saved = model.save(path)
        again = refused(lambda: model.save(path))
        model.save(str(path), force=True)
        return {"same": saved == path, "bytes": corpus.plain(path.read_bytes()), "again": again}


@call
def external_data_is_named() -> object:
    return gsx.ModelFile.load(corpus.host("external")).external_data


def insertion_fields(model: gsx.ModelFile) -> list[dict[str, Any]]:
    told = []
    for each in model.insertions():
        site, pair = each.site, each.qdq
        weights = {key: [value.shape, str(value.dtype)] for key, value in each.weights(model).items()}
        told.append(
            {
                "id": each.id,
                "module": each.module,
                "settings": each.settings,
                "gate": each.gate,
                "init": each.init,
                "target": each.target,
                "precision": each.precision,
                "lowering": each.lowering,
                "output_tensor": each.output_tensor,
                "block_output": each.block_output,
                "nodes": each.nodes,
                "initializers": each.initializers,
                "value_info": each.value_info,
                "parameters": each.parameters,
                "stored": sorted(each.stored),
                "original": each.original,
                "weights": weights,
                "site": [
                    *(site.path, site.type, site.tensor, site.shape, site.dtype, site.stride),
                    *(site.consumers, site.position, site.others),
                ],
                "qdq": pair and [pair.type, pair.scale_from, pair.tensor, pair.scale, pair.zero_point, pair.nodes],
            }
        )
    return told


@call
def insertions_tell() -> object:
    return insertion_fields(two_blocks())


@call
def insertions_tell_of_pairs() -> object:
    return insertion_fields(gsx.insert(QUANTISED, "se", after="/model.1", settings={"reduction": 2}, qdq="int8"))


@call
def insertions_give_modules() -> object:
    model = two_blocks()
    return [sorted(each.torch_module(model).state_dict()) for each in model.insertions()]


# ---------------------------------------------------------------------- errors


@call
def errors_and_their_exit_codes() -> object:
    public = {name: kind for name, kind in vars(gsx.errors).items() if not name.startswith("_")}
    known = {name: kind for name, kind in public.items() if isinstance(kind, type)}
    return {
        name: [[base.__name__ for base in kind.__mro__ if base.__name__ in known], kind.exit_code]
        for name, kind in known.items()
        if issubclass(kind, gsx.errors.GraphSurgeryError)
    }


@call
def what_is_wrong_raises() -> object:
    model = two_blocks()
    requests: dict[str, Callable[[], object]] = {
        "no such module": lambda: gsx.insert(SMALL, "simam", after="/model.77"),
        "no such block": lambda: gsx.insert(SMALL, "simmam", after="/model.2"),
        "no such variant": lambda: gsx.insert(SMALL, "cbam[x]", after="/model.2"),
        "no such setting": lambda: gsx.insert(SMALL, "se", after="/model.2", settings={"x": 1}),
        "no such lowering": lambda: gsx.insert(SMALL, "se", after="/model.2", lowering="x"),
        "no such target": lambda: gsx.insert(SMALL, "se", after="/model.2", target="x"),
        "no such precision": lambda: gsx.insert(SMALL, "se", after="/model.2", precision="x"),
        "no place": lambda: gsx.insert(SMALL, "se"),
        "two places": lambda: gsx.insert(SMALL, "se", after="/model.2", before="/model.2"),
        "a weight": lambda: gsx.insert(SMALL, "se", after="tensor:model.2.conv.weight"),
        "no map": lambda: gsx.insert(SMALL, "simam", after="output:scores"),
        "no file": lambda: gsx.insert("no/such/file.onnx", "se", after="/model.2"),
        "no model": lambda: gsx.insert(b"text", "se", after="/model.2"),
        "no weights": lambda: gsx.insert(SMALL, "simam", after="/model.2", weights="no.npz"),
        "no identity": lambda: gsx.insert(SMALL, "simam", after="/model.2", init="identity"),
        "no pairs": lambda: gsx.insert(SMALL, "simam", after="/model.2", qdq="int8"),
        "no insertion": lambda: gsx.remove(model, "model.9.se"),
        "no recipe": lambda: gsx.Recipe.load("no/such/recipe.yaml"),
        "no insertions": lambda: gsx.verify(SMALL),
        "not trusted": lambda: gsx.verify(model, trust=["own_blocks"]),
        "no provider": lambda: gsx.verify(model, providers=["no-such-provider"]),
        "a directory": lambda: model.save(Path(__file__).parent),
    }
    return {name: refused(request) for name, request in requests.items()}


@call
def package_exports() -> object:
    return {name: hasattr(gsx, name) for name in ("__version__", "Block", "errors", "GraphSurgeryWarning")}
