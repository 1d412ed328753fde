"""The house rules a reader relies on: import floors, file length, README's tree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("pipeline", "categories", "prompts", "infra", "tests")
LONGEST = 400  # lines of one module


def test_imports_go_down_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_module_is_too_long() -> None:
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_readme_tree_names_only_what_exists() -> None:
    present = [*files(ROOT), *folders(ROOT)]
    wrong = [entry for entry in tree() if not any(covers(entry, path) for path in present)]
    assert wrong == [], "README.md's tree names what is not there"


def test_readme_tree_leaves_nothing_out() -> None:
    entries = tree()
    # A folder with lines of its own below it vouches for none of its files; one without vouches for all.
    opened = {
        entry
        for entry in entries
        if entry.endswith("/") and any(other != entry and other.startswith(entry) for other in entries)
    }
    leaves = [entry for entry in entries if entry not in opened]
    missing = [path for path in files(ROOT) if not any(covers(entry, path) for entry in leaves)]
    assert missing == [], "files without a line in README.md's tree"


def covers(entry: str, path: str) -> bool:
    """Whether a tree entry (a file, a folder ending in /, or either with wildcards) stands for a path."""
    return fnmatch(path, entry + "*" if entry.endswith("/") else entry)


def files(root: Path) -> list[str]:
    """Paths below the rooms, less caches, hidden files and bare package markers."""
    paths = sorted(path.relative_to(root) for room in ROOMS for path in (root / room).rglob("*"))
    kept = (path for path in paths if (root / path).is_file() and path.name != "__init__.py")
    return [str(path) for path in kept if not re.search(r"(^|/)(\.|__pycache__/)", str(path))]


def folders(root: Path) -> set[str]:
    return {f"{parent}/" for path in files(root) for parent in Path(path).parents if parent.name}


def tree() -> list[str]:
    """README.md's fenced tree as paths: one entry a line, folders end in /, indented lines lie in them."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    block = next((block for block in blocks if re.search(r"^\W*pipeline/(\s|$)", block, re.MULTILINE)), None)
    assert block is not None, "README.md has no fenced tree with a line for pipeline/"
    return [entry for entry in paths_of(block) if entry.startswith(tuple(f"{room}/" for room in ROOMS))]


def paths_of(block: str) -> Iterator[str]:
    above: list[tuple[int, str]] = []  # the folders a line lies in: indent, path
    for line in block.splitlines():
        if found := re.match(r"^([\s│├└─]*)(\S+)", line):
            indent, name = len(found[1]), found[2]
            above = [folder for folder in above if folder[0] < indent]
            path = (above[-1][1] if above else "") + name
            if name.endswith("/"):
                above.append((indent, path))
            yield path
