"""`graphsurgery insert`: what it writes, what it says, and what it refuses to write."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphsurgery as gsx
from graphsurgery import api
from graphsurgery.verification import memory
from tests.models import model, node, value

WRITE = ("-o", "out.onnx")


def test_what_the_user_sees(cli: Any) -> None:
    ended = cli("insert", "detector.onnx", "--module", "simam", "--after", "/model.8", *WRITE)
    lines = ended.text.splitlines()
    assert ended.code == 0
    assert lines[:5] == [
        "model.8.simam: simam after /model.8",
        "  site: /model.8/cv2/act/Mul_output_0, [1, 32, 10, 10] float32, stride 32",
        "  rewired: 1 consumer: /model.9/cv1/conv/Conv",
        "  added: 5 nodes, 0 parameters",
        "  work: 0 MACs, 0% of the model's 34,963,200; largest activation [1, 32, 10, 10], 0.013 MB",
    ]
    assert lines[5].startswith("  parity on cpu: passed, max error ")
    assert "rest of the model: unchanged" in lines[-3]
    assert lines[-2].startswith("no claim about accuracy: the model has not been trained with simam")
    assert lines[-1] == "written to out.onnx"


def test_target_and_precision(cli: Any, folder: Path) -> None:
    """What a DLA does not run is a warning; the choices are in the record."""
    arguments = ("--module", "srm", "--after", "/model.4", "--target", "dla", "--precision", "site")
    ended = cli("insert", "detector.onnx", *arguments, "--no-verify", *WRITE, "--json")
    assert ended.code == 0
    (insertion,) = json.loads(ended.out)["insertions"]
    assert (insertion["target"], insertion["precision"]) == ("dla", "site")
    said = "1 node falls back from the DLA to the GPU, with a change of format each way: Sqrt"
    assert insertion["warnings"][0] == said
    recorded = gsx.ModelFile.load(folder / "out.onnx").insertions()[0]
    assert (recorded.target, recorded.precision) == ("dla", "site")
    refused = cli("insert", "detector.onnx", "--module", "srm", "--after", "/model.4", "--precision", "int4", "-o", "-")
    assert refused.code == 2
    assert "there is no precision 'int4'; it is one of safe, site, fp32, fp16" in refused.err


def test_calibrated_on_images(cli: Any, folder: Path) -> None:
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        np.save(folder / "images" / f"{number}.npy", rng.random((3, 320, 320), np.float32))
    words = ("insert", "detector.onnx", "-m", "se", "--after", "/model.{6,8}", "--init", "calibrated")
    assert "say which images the block is calibrated on: --images DIR" in cli(*words, *WRITE).sentence(2)
    assert "the image folder pictures does not exist" in cli(*words, "--images", "pictures", *WRITE).sentence(2)
    images = ("--images", "images")
    both = "weights come from a file or from an initialisation, not from both: drop --init or --weights"
    assert both in cli(*words, *images, "--weights", "best.pt:m", *WRITE).sentence(2)
    assert cli(*words, *images, "--dry-run", "--no-verify").code == 0
    assert not (folder / "out.onnx").exists()
    ended = cli(*words, *images, *WRITE, "--json")
    assert ended.code == 0
    for insertion in json.loads(ended.out)["insertions"]:
        assert insertion["parity"]["passed"]
        assert "the activation of 0.npy" in insertion["parity"]["inputs"]
        claim = "no claim about accuracy: the model has not been trained with se (calibrated: each channel has its mean"
        assert insertion["warnings"][-1].startswith(claim)
    (folder / "recipe.yaml").write_text("- {module: se, after: '/model.{6,8}', init: calibrated}")
    assert cli("apply", "recipe.yaml", "detector.onnx", *images, "--no-verify", "-o", "same.onnx").code == 0
    assert (folder / "same.onnx").read_bytes() == (folder / "out.onnx").read_bytes()
    assert cli("remove", "out.onnx", "--all", "-o", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_json(cli: Any, folder: Path) -> None:
    arguments = ("--module", "se", "--set", "reduction=8", "--after", "/model.{4,6}", *WRITE, "--json")
    ended = cli("insert", "detector.onnx", *arguments)
    assert ended.code == 0
    data = json.loads(ended.out)
    assert list(data) == ["model", "output", "insertions", "macs"]
    assert data["macs"] == 34_963_200
    assert (data["model"], data["output"]) == ("detector.onnx", "out.onnx")
    first, second = data["insertions"]
    assert [first["id"], second["id"]] == ["model.4.se", "model.6.se"]
    keys = ["id", "module", "settings", "target", "lowering", "precision", "site", "output_tensor", "nodes"]
    assert list(first) == [*keys, "parameters", "macs", "largest_activation", "qdq", "warnings", "parity"]
    assert (first["macs"], second["macs"]) == (2 * 16 * 2, 2 * 16 * 2)
    assert first["largest_activation"] == {"shape": [1, 16, 40, 40], "bytes": 4 * 16 * 40 * 40}
    assert [first[key] for key in ("target", "lowering", "precision")] == ["tensorrt", "convolution", "safe"]
    assert first["settings"] == {"reduction": 8, "hidden": None, "bias": True}
    assert first["site"] == {
        "path": "/model.4",
        "type": None,
        "tensor": "/model.4/cv2/act/Mul_output_0",
        "shape": [1, 16, 40, 40],
        "dtype": "float32",
        "stride": 8,
        "consumers": ["/model.5/conv/Conv", "/model.14/Concat"],
        "position": "after",
        "others": [],
    }
    written = onnx.load(folder / "out.onnx")
    assert set(first["nodes"]) <= {node.name for node in written.graph.node}
    assert (
        first["output_tensor"]
        in written.graph.node[[n.name for n in written.graph.node].index("/model.5/conv/Conv")].input
    )
    assert first["parameters"] == 2 * 16 * 2 + 16 + 2
    assert "not been trained" in first["warnings"][-1]
    assert first["parity"]["passed"] is True
    assert first["parity"]["unchanged"]["passed"] is True
    assert {row["provider"] for row in first["parity"]["rows"]} == {"cpu"}


def test_some_of_the_readers(cli: Any, folder: Path) -> None:
    """The skip connection from model.4 into the neck, and not the next stage of the backbone."""
    ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.4", "--consumers", "/model.14", *WRITE)
    assert ended.code == 0
    lines = ended.text.splitlines()
    assert lines[0] == "model.4.simam: simam after /model.4"
    assert lines[2:4] == [
        "  rewired: 1 consumer: /model.14/Concat",
        "  left as they are: 1 consumer: /model.5/conv/Conv",
    ]
    assert lines[6].startswith("  parity on cpu: passed")
    listed = cli("remove", "out.onnx").text.splitlines()
    assert "after /model.4 for /model.14/Concat" in listed[1]
    assert cli("remove", "out.onnx", "--all", "-o", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_in_front_of_a_module(cli: Any) -> None:
    ended = cli("insert", "detector.onnx", "-m", "simam", "--before", "/model.5", *WRITE, "--json", "--no-verify")
    site = json.loads(ended.out)["insertions"][0]["site"]
    assert (site["position"], site["path"]) == ("before", "/model.5")
    assert (site["consumers"], site["others"]) == (["/model.5/conv/Conv"], ["/model.14/Concat"])
    ended = cli("insert", "detector.onnx", "-m", "simam", "--before", "/model.5", "-o", "two.onnx", "--no-verify")
    assert ended.text.splitlines()[0] == "model.5.simam: simam before /model.5"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "where should simam go? give --after SELECTOR or --before SELECTOR"),
        (("-a", "/model.4", "-b", "/model.5"), "give --after or --before, not both"),
        (("-b", "/model.5", "--consumers", "/model.5"), "--consumers goes with --after"),
        (
            ("-a", "/model.4", "--consumers", "/model.8"),
            "--consumers names no consumer of '/model.4/cv2/act/Mul_output_0'",
        ),
    ],
)
def test_where_is_said_once(cli: Any, unchanged: Any, arguments: tuple[str, ...], said: str) -> None:
    with unchanged():
        assert said in cli("insert", "detector.onnx", "-m", "simam", *arguments, *WRITE).sentence(2)


def test_a_wrong_selector_is_shown_with_a_mark(cli: Any) -> None:
    ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.{4,99}/cv2", *WRITE)
    assert ended.sentence(2).startswith("no module of the model matches '/model.99/cv2'; the nearest are /model.")
    assert ended.err.splitlines()[1:] == ["  /model.{4,99}/cv2", "            ^^^^^^^"]


def test_without_verifying(cli: Any) -> None:
    ended = cli("insert", "detector.onnx", "-m", "se", "-a", "/model.8", *WRITE, "--no-verify", "--json")
    assert json.loads(ended.out)["insertions"][0]["parity"] is None
    assert ended.err == ""


@pytest.mark.parametrize(
    ("arguments", "claims"),
    [((), 1), (("--init", "identity"), 0), (("--gate", "residual"), 0), (("--weights", "w.npz"), 0)],
)
def test_untrained_weights_are_told_in_one_line(
    cli: Any, folder: Path, arguments: tuple[str, ...], claims: int
) -> None:
    shapes = {"fc1.weight": (2, 32, 1, 1), "fc1.bias": (2,), "fc2.weight": (32, 2, 1, 1), "fc2.bias": (32,)}
    np.savez(folder / "w.npz", **{key: np.zeros(shape, np.float32) for key, shape in shapes.items()})
    ended = cli("insert", "detector.onnx", "-m", "se", "-a", "/model.{8,9}", *WRITE, "--no-verify", *arguments)
    assert ended.code == 0
    assert ended.text.count("no claim about accuracy") == claims


def test_the_same_request_gives_the_same_bytes(command: Any, folder: Path) -> None:
    request = ("insert", "detector.onnx", "-m", "se", "-a", "/model.8", "--no-verify", "-q")
    for name, seed in (("a.onnx", "1"), ("b.onnx", "1"), ("c.onnx", "2")):
        assert command(*request, "--seed", seed, "-o", name).code == 0
    first, second, third = ((folder / name).read_bytes() for name in ("a.onnx", "b.onnx", "c.onnx"))
    assert first == second != third


def test_force_replaces_and_keeps_the_mode(cli: Any, folder: Path) -> None:
    (folder / "out.onnx").write_bytes(b"old")
    (folder / "out.onnx").chmod(0o640)
    assert cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE, "--no-verify", "--force").code == 0
    assert (folder / "out.onnx").stat().st_mode & 0o777 == 0o640
    assert gsx.ModelFile.load(folder / "out.onnx").insertions()


def test_in_place(cli: Any, folder: Path) -> None:
    (folder / "link.onnx").symlink_to("detector.onnx")
    before = (folder / "detector.onnx").read_bytes()
    assert cli("insert", "link.onnx", "-m", "simam", "-a", "/model.8", "--in-place").code == 0
    assert (folder / "link.onnx").is_symlink()
    assert len((folder / "detector.onnx").read_bytes()) > len(before)
    assert cli("remove", "detector.onnx", "--all", "--in-place", "-o", "link.onnx").code == 0
    assert (folder / "detector.onnx").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["detector.onnx", "link.onnx"]


def test_in_place_contradictions(cli: Any, unchanged: Any) -> None:
    request = ("-m", "simam", "-a", "/model.8", "--in-place")
    with unchanged():
        assert "cannot be replaced in place" in cli("insert", *request).sentence(2)
        assert "not both" in cli("insert", "detector.onnx", *request, *WRITE).sentence(2)
        assert "not both" in cli("insert", "detector.onnx", *request, "-o", "-").sentence(2)


def test_a_second_insertion_is_verified_alone(cli: Any, folder: Path) -> None:
    assert cli("insert", "detector.onnx", "-m", "se", "-a", "/model.8", "-o", "one.onnx", "-q").code == 0
    ended = cli("insert", "one.onnx", "-m", "simam", "-a", "/model.8", *WRITE, "--json")
    (only,) = json.loads(ended.out)["insertions"]
    assert only["id"] == "model.8.simam"
    assert only["parity"]["unchanged"] == {
        "passed": True,
        "sentence": "without the insertions it is the given model, byte for byte",
    }


def test_a_site_that_is_an_output_of_the_model(cli: Any, small_model: Callable[..., Path]) -> None:
    small_model()
    ended = cli("insert", "small.onnx", "-m", "simam", "-a", "/b", "-a", "tensor:y", *WRITE)
    assert ended.code == 0
    assert "rewired: 1 consumer: the model's output" in ended.text
    assert "z_before" not in ended.text, "what the given model does not have"


def test_a_site_that_is_an_output_in_json(cli: Any, small_model: Callable[..., Path]) -> None:
    """Under its name in the given model, with the output among what was rewired."""
    small_model()
    words = ("insert", "small.onnx", "-m", "simam", "-a", "tensor:z", "-o", "out.onnx", "--force", "--json")
    (done,) = json.loads(cli(*words).out)["insertions"]
    assert (done["site"]["tensor"], done["output_tensor"]) == ("z", "z")
    assert done["site"]["consumers"] == ["output:z"]
    (inner,) = json.loads(cli(*words[:5], "/a", *words[6:]).out)["insertions"]
    assert inner["site"]["consumers"] == ["/b/Op"]


def test_the_memory_that_verifying_may_take(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_COMPARED", 12_000)  # 10 x 10 positions fit into 2 GB, and not into one
    arguments = ("insert", "detector.onnx", "-m", "mhsa[yolo]", "-a", "/model.8", *WRITE, "--force", "--json")
    (small,), (usual,) = (json.loads(cli(*arguments, *m).out)["insertions"] for m in (("--memory", "1"), ()))
    assert (small["parity"]["passed"], usual["parity"]["passed"]) == (True, True)
    assert "and the limit is 1 GB" in small["parity"]["size"]
    assert not usual["parity"]["size"]


@pytest.mark.parametrize("read", [True, False])
def test_a_dead_end(cli: Any, unchanged: Any, folder: Path, read: bool) -> None:
    """No output of the model depends on the block, whether something reads it or not."""
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["dead"])] + read * [node("Abs", ["dead"], ["end"])]
    (folder / "dead.onnx").write_bytes(model(nodes, [value("x")], [value("y")]).SerializeToString())
    arguments = ("insert", "dead.onnx", "-m", "simam", "-a", "tensor:dead", *WRITE)
    with unchanged():
        ended = cli(*arguments)
    assert ended.code == 1
    said = "no output of the model depends on" if read else "nothing reads"
    assert f"simam is not connected as it was inserted: {said}" in ended.err
    assert "with --no-verify it is written all the same; nothing was written" in ended.err
    assert cli(*arguments, "--no-verify").code == 0
    assert cli("verify", "out.onnx").code == 1
    listed = cli("sites", "dead.onnx", "tensor:dead").text
    assert "not advisable: dead: no output of the model depends on this, so a block here changes nothing" in listed


def test_parity_that_fails(cli: Any, unchanged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, the report is printed, and the exit code is 1."""
    from graphsurgery.patterns.modules.simam import SimAM

    monkeypatch.setattr(SimAM, "forward", lambda self, x: x * 1.001)
    with unchanged():
        ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE)
        assert ended.error(1).endswith("; nothing was written")
        assert re.search(r", an error of \S+ times what is permitted \(1e-05 \+ 1e-05\*\|y\|\); ", ended.error(1))
        assert "; with --no-verify it is written all the same; " in ended.error(1)
        assert "parity on cpu: FAILED" in ended.text
        assert "written to" not in ended.text
        as_json = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE, "--json")
        assert as_json.error(1)
        data = json.loads(as_json.out)
        assert data["output"] is None
        assert data["insertions"][0]["parity"]["passed"] is False
        piped = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", "-o", "-")
        assert piped.error(1)
        assert piped.out == b""


def test_a_result_that_is_no_valid_model(cli: Any, unchanged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out = api.carry_out

    def spoiled(model: gsx.ModelFile, requests: Any, **others: Any) -> Any:
        edited, done = carry_out(model, requests, **others)
        proto = edited.proto()
        proto.graph.node[-1].input[0] = "nowhere"
        return gsx.ModelFile.load(proto), done

    monkeypatch.setattr(api, "carry_out", spoiled)
    with unchanged():
        ended = cli("insert", "detector.onnx", "--module", "simam", "--after", "/model.8", *WRITE)
    assert "reads the tensor 'nowhere', which nothing makes; nothing was written" in ended.error(1)


@pytest.mark.parametrize("package", ["torch", "onnxruntime"])
def test_without_torch_or_onnxruntime(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE)
    assert ended.code == 0
    assert ended.err.count("\n") == 1
    assert f"not compared with PyTorch, because {package} is not installed" in ended.err
    assert (folder / "out.onnx").exists()
    asked = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", "-o", "new.onnx", "--providers", "cpu")
    assert package.lower() in asked.sentence(3).lower().replace("pytorch", "torch")
    assert not (folder / "new.onnx").exists()


def test_torch_that_cannot_be_loaded(command: Any, folder: Path) -> None:
    (folder / "broken").mkdir()
    (folder / "broken" / "torch.py").write_text("raise ImportError('libtorch.so: file too short')\n")
    environment = {**os.environ, "PYTHONPATH": str(folder / "broken")}
    arguments = ("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE)
    ended = command(*arguments, env=environment)
    assert ended.code == 0
    assert "libtorch.so: file too short" in ended.err
    assert "cannot be loaded" in command(*arguments, "--force", "--providers", "cpu", env=environment).sentence(3)


def test_a_provider_that_is_missing(cli: Any, unchanged: Any) -> None:
    with unchanged():
        ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE, "--providers", "cpu,coreml")
        assert "coreml" in ended.sentence(3)


def test_external_data_is_copied_along(cli: Any, small_model: Callable[..., Path], folder: Path) -> None:
    small_model(external="data/weights.bin")
    (folder / "data").mkdir()
    (folder / "data" / "weights.bin").write_bytes(np.ones((8, 4), np.float32).tobytes())
    (folder / "other").mkdir()
    ended = cli("insert", "small.onnx", "-m", "simam", "-a", "/a", "-o", "other/out.onnx")
    assert ended.code == 0
    assert "parity on cpu: passed" in ended.text
    assert sorted(str(path.relative_to(folder / "other")) for path in (folder / "other").rglob("*")) == [
        "data",
        "data/weights.bin",
        "out.onnx",
    ]


def test_external_data_is_not_overwritten(
    cli: Any, unchanged: Any, small_model: Callable[..., Path], folder: Path
) -> None:
    small_model(external="weights.bin")
    (folder / "weights.bin").write_bytes(bytes(128))
    with unchanged():
        ended = cli("insert", "small.onnx", "-m", "simam", "-a", "/a", "--no-verify", "-o", "weights.bin", "--force")
        assert "is the model's external data" in ended.sentence(2)


def test_control_characters_in_names_do_not_reach_the_terminal(cli: Any, folder: Path) -> None:
    nodes = [helper.make_node("Identity", [a], [b], name=b) for a, b in (("x", "y\x1b[2J\n"), ("y\x1b[2J\n", "z"))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 4, 4]) for name in "xz"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "odd.onnx").write_bytes(model.SerializeToString())
    for arguments in (("sites", "odd.onnx"), ("insert", "odd.onnx", "-m", "simam", "-a", "tensor:y\x1b[2J\n", *WRITE)):
        ended = cli(*arguments)
        assert ended.code == 0
        assert "y\\x1b[2J\\n" in ended.text
        assert "\x1b" not in ended.text


def test_nothing_slow_is_imported_without_need(command: Any, folder: Path) -> None:
    script = folder / "imports.py"
    script.write_text(
        "import sys\nfrom graphsurgery.cli.main import main\n"
        "code = main('insert detector.onnx -m se -a /model.8 -o out.onnx --no-verify -q'.split())\n"
        "print(code, *sorted({'torch', 'onnxruntime', 'rich', 'yaml', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_stopped_run_leaves_nothing_behind(
    cli: Any, unchanged: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    from graphsurgery.cli import inserting

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inserting.Checking, "report", interrupted)
    with unchanged():
        ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", *WRITE)
        assert (ended.code, ended.out, ended.err) == (130, b"", "")


@pytest.mark.parametrize(
    ("where", "there", "words"),
    [
        (("--in-place",), True, "detector.onnx was changed while this was at work on it"),
        (("-o", "out.onnx", "--force"), True, "out.onnx was changed while this was at work on it"),
        (("-o", "out.onnx", "--force"), False, "out.onnx was changed while this was at work on it"),
        (("-o", "out.onnx"), False, "out.onnx exists already: another program made it while this was at work"),
    ],
    ids=["in place", "forced", "forced, new", "new"],
)
def test_another_run_writes_the_same_file(
    cli: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, where: tuple[str, ...], there: bool, words: str
) -> None:
    """It comes first; this run is told, and what the other one inserted stays."""
    from graphsurgery.modelfile.replacing import Replacement

    path = folder / ("detector.onnx" if "--in-place" in where else "out.onnx")
    other = gsx.insert(folder / "detector.onnx", "se", after="/model.4")
    if there and not path.exists():
        path.write_bytes(b"old")
    commit = Replacement.commit

    def late(self: Replacement, *arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(Replacement, "commit", commit)
        other.save(path, force=True)
        commit(self, *arguments, **options)

    monkeypatch.setattr(Replacement, "commit", late)
    assert words in cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", "--no-verify", *where).sentence(2)
    assert path.read_bytes() == other.to_bytes()
    assert sorted(os.listdir(folder)) == sorted({"detector.onnx", path.name})


def test_copies_of_the_model_can_be_chained(cli: Any, folder: Path) -> None:
    shutil.copy(folder / "detector.onnx", folder / "work.onnx")
    for module in ("simam", "se", "nam"):
        assert cli("insert", "work.onnx", "-m", module, "-a", "/model.8", "--in-place", "-q").code == 0
    assert [i.id for i in gsx.ModelFile.load(folder / "work.onnx").insertions()] == [
        "model.8.simam",
        "model.8.se",
        "model.8.nam",
    ]
    assert cli("remove", "work.onnx", "--all", "--in-place").code == 0
    assert (folder / "work.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_weights_that_others_have_under_the_same_keys(cli: Any, folder: Path) -> None:
    """One line of the result, and of the JSON, names them and how they are asked for; an error where the file tells."""
    shapes = {"ca.se.0.weight": (2, 8, 1, 1), "ca.se.2.weight": (8, 2, 1, 1), "sa.conv.weight": (1, 2, 7, 7)}
    arrays = {key: np.full(shape, 0.1, np.float32) for key, shape in (shapes | {"sa.conv.bias": (1,)}).items()}
    np.savez(folder / "w.npz", **arrays)  # type: ignore[arg-type]
    words = ("insert", "detector.onnx", "--after", "/model.2", "--weights", "w.npz", "-o", "o.onnx", "--force")
    said = "which adds x: --module 'cbam[external-attention]'; they are read as cbam[cv-attention]"
    assert f"{said}\n" in cli(*words, "--module", "cbam[cv-attention]").text
    (line,) = json.loads(cli(*words, "--module", "cbam[cv-attention]", "--json").out)["insertions"][0]["warnings"]
    assert line.endswith(said)
    assert "are also those of" not in cli(*words, "--module", "cbam[external-attention]").text
    assert "its keys look like those of cbam[cv-attention] or cbam[external-attention]" in cli(
        *words, "--module", "cbam"
    ).error(2)
