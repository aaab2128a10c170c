from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphsurgery.process import signals

SIGNALS = [getattr(signal, name) for name in signals._ENDING if hasattr(signal, name)]
START = """
import os, signal, sys, time
from graphsurgery.process import leftovers, signals
signals.install()
for name in ("a.part", "b.part"):
    leftovers.register(name)
    open(name, "x").close()
leftovers.register("empty")
os.mkdir("empty")
leftovers.register("full", content=True)
os.makedirs("full/deep")
open("full/deep/file", "x").close()
leftovers.register("used")
os.mkdir("used")
open("used/of another", "x").close()
os.symlink("../used", "full/link")
leftovers.forget("b.part")
"""


def run(code: str, folder: Path, *arguments: str, ignored: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with signals as a shell leaves them, but for one that is ignored."""

    def prepare() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    command = [sys.executable, "-c", START + code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, preexec_fn=prepare)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_process_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    done = run(f"os.kill(os.getpid(), {int(number)}); time.sleep(60)", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "b.part",
        "used",
        "used/of another",
    ]


def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As ``nohup`` asks for."""
    done = run("os.kill(os.getpid(), signal.SIGHUP); print('lives')", tmp_path, ignored=signal.SIGHUP)
    assert (done.returncode, done.stdout) == (0, "lives\n")


def test_it_waits_for_what_must_not_be_interrupted(tmp_path: Path) -> None:
    code = """
with signals.held():
    with signals.held():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    print("done", flush=True)
print("not reached", flush=True)
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (143, "done\n", "")
    assert not (tmp_path / "a.part").exists()


def test_it_passes_through_foreign_code(tmp_path: Path) -> None:
    """An exception from a handler would be caught here, as C++ code catches it and aborts."""
    code = """
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except BaseException:
    os.abort()
"""
    assert run(code, tmp_path).returncode == 143


def test_a_fork_leaves_the_files_of_its_parent(tmp_path: Path) -> None:
    code = """
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.path.exists("a.part"))
"""
    assert run(code, tmp_path).stdout == "143 True\n"


def test_python_users_keep_their_handlers(tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "before = [signal.getsignal(number) for number in signal.valid_signals()]\n"
        "import graphsurgery\n"
        "from graphsurgery.cli.main import main\n"
        "graphsurgery.insert(sys.argv[1], 'simam', after='/model.8').save('a.onnx')\n"
        "main(['sites', sys.argv[1], '-q'])\n"
        "assert before == [signal.getsignal(number) for number in signal.valid_signals()]\n"
    )
    model = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
    subprocess.run([sys.executable, "-c", code, model], cwd=tmp_path, check=True)


def test_the_command_catches_them_before_it_loads_anything() -> None:
    code = (
        "import signal, sys\n"
        "import graphsurgery.__main__ as program\n"
        "from graphsurgery.process import signals\n"
        "signals.install = lambda: print(*sys.modules)\n"
        "sys.argv = ['graphsurgery', '--version']\n"
        "sys.exit(program.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[0].split())
    ours = {name for name in loaded if name.startswith("graphsurgery")}
    assert ours <= {
        "graphsurgery",
        "graphsurgery._version",
        "graphsurgery.__main__",
        "graphsurgery.process",
        "graphsurgery.process.leftovers",
        "graphsurgery.process.open_files",
        "graphsurgery.process.signals",
    }
    assert not loaded & {"typer", "click", "numpy", "onnx"}


def test_a_command_that_has_done_its_work_ends_with_its_own_code(tmp_path: Path) -> None:
    """Python gives its handlers up before it ends; signals would kill it then."""
    code = """
import atexit
from graphsurgery.__main__ import main
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
sys.argv = ["graphsurgery", "insert"]
sys.exit(main())
"""
    assert run(code, tmp_path).returncode == 2


def test_a_run_that_is_ended_while_it_writes(tmp_path: Path) -> None:
    """A model with external data: both are on the way when the signal comes."""
    code = """
from graphsurgery.modelfile import replacing
import graphsurgery
real = os.fsync
def sync(descriptor):
    real(descriptor)
    if len([name for name in os.listdir("out") if name.endswith(".part")]) > 1:
        os.kill(os.getpid(), signal.SIGHUP)
os.fsync = sync
graphsurgery.insert(sys.argv[1], "simam", after="/model.2").save("out/m.onnx")
"""
    from tests import models

    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    source = models.external(tmp_path / "in", "w.data")
    done = run(code, tmp_path, str(source))
    assert (done.returncode, done.stderr) == (129, "")
    assert os.listdir(tmp_path / "out") == []
