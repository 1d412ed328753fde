"""No byte of a run is ever run: nothing that reads one unpickles or evaluates."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.world import PATIENCE

WATCH = """
import sys
import pipeline.api, pipeline.report.page, pipeline.storage.local
from pipeline.cli import main
OPENS = {"pickle.find_class", "marshal.load", "marshal.loads"}
def watch(event, given):
    # Importing a module loads its code with marshal.
    if event in OPENS and "importlib" not in sys._getframe(1).f_code.co_filename:
        print("opened:", event, str(given)[:80], file=sys.stderr)
sys.addaudithook(watch)
sys.exit(main(sys.argv[1:]))
"""
"""The interpreter itself says when something is unpickled, whoever's code it is."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["verify", "status", "report", "repair"])
def test_no_reader_of_a_run_unpickles(name: str, images_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(images_run, run)
    done = subprocess.run(
        [sys.executable, "-c", WATCH, name, "--run", str(run)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "opened:" not in done.stderr


FORBIDDEN_MODULES = {
    *(
        "pickle",
        "_pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "jsonpickle",
        "yaml",
    ),
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    *("torch.load", "np.load", "numpy.load", "np.fromfile", "pd.read_pickle", "os.system", "os.popen"),
}
FORBIDDEN_METHODS = {"extract", "extractall", "read_pickle", "unpack_archive"}
FORBIDDEN_KEYWORDS = {"allow_pickle", "shell", "weights_only"}


def test_no_source_of_the_package_can_run_what_it_reads() -> None:
    """Worker processes are sent stages by multiprocessing and Ray, which pickle; stored bytes never are."""
    found = [
        f"{path.name}:{line}: {what}"
        for path in sorted((Path(__file__).parents[2] / "pipeline").rglob("*.py"))
        for line, what in suspects(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "import torch\ntorch.load(path)",
        "x = np.load(path, allow_pickle=True)",
        "eval(text)",
        "tar.extractall(folder)",
        "subprocess.run(text, shell=True)",
        "def f():\n    from cloudpickle import loads",
        "importlib.import_module('pickle')",
    ],
)
def test_the_scan_finds_what_it_is_for(source: str) -> None:
    assert list(suspects(ast.parse(source)))


def suspects(tree: ast.AST) -> list[tuple[int, str]]:
    """Return lines of a module that could run stored bytes as code, with what they use."""
    found = []
    for node in ast.walk(tree):
        for name in sorted(_names(node)):
            found.append((getattr(node, "lineno", 0), name))
    return found


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES}
    if isinstance(node, ast.ImportFrom):
        return {str(node.module)} if str(node.module).split(".")[0] in FORBIDDEN_MODULES else set()
    if isinstance(node, ast.Call):
        return _called(node)
    if isinstance(node, ast.Attribute):
        return {ast.unparse(node)} & FORBIDDEN_ATTRIBUTES
    return set()


def _called(node: ast.Call) -> set[str]:
    used = {keyword.arg for keyword in node.keywords if keyword.arg in FORBIDDEN_KEYWORDS}
    texts = {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    if isinstance(node.func, ast.Name):
        used |= {node.func.id} & FORBIDDEN_CALLS
    if isinstance(node.func, ast.Attribute):
        used |= {node.func.attr} & FORBIDDEN_METHODS
        if node.func.attr == "import_module":
            used |= texts & FORBIDDEN_MODULES
    return {str(name) for name in used}
