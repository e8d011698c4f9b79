"""What the documents say is true: files exist, bounds have the values named, commands are those that run."""

from __future__ import annotations

import ast
import math
import re
from fnmatch import fnmatch

import pytest

from support.house import ROOT, Module, modules, repository_files

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "BOUNDS.md", "STYLE.md", "CONTRIBUTING.md", "CHANGELOG.md")
ARCHITECTURE_LINES_MAX = 300

#: | `NAME` | 64 KiB | `file` | because |
_BOUND = re.compile(r"^\| `([A-Za-z_.]+)` \| ([\d.,]+)(?: (\w+))? \| `([^`]+)` \|", re.MULTILINE)
_UNITS = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024**2}
#: A path in backquotes, from here on: it has a slash, and ends in a suffix of ours or in a slash.
_PATH = re.compile(r"`(?!/)([\w.*/-]+/(?:[\w.*-]+\.(?:py|proto|md|toml|txt|in))?)`")
_TARGET = re.compile(r"`make ([a-z-]+)|^make ([a-z-]+)", re.MULTILINE)


def number_of(module: Module, name: str) -> float | None:
    """The value of a constant, or of a field's default (`Class.field`): a number, or a product of numbers."""
    owner, _, field = name.rpartition(".")
    classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    for node in classes[0].body if classes else module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if ast.unparse(target) == field:
                return math.prod(float(factor) for factor in ast.unparse(node.value).split("*"))
    return None


def test_every_bound_in_the_table_has_the_value_it_has_in_the_code() -> None:
    by_path = {module.path: module for module in modules()}
    rows = _BOUND.findall((ROOT / "BOUNDS.md").read_text())
    assert len(rows) > 20, "the table of bounds was not found"
    wrong = []
    for name, figure, unit, path in rows:
        stated = float(figure.replace(",", "")) * _UNITS[unit]
        actual = number_of(by_path[path], name) if path in by_path else None
        if actual != stated:
            wrong.append(f"{name}: the document says {stated:g}, {path} says {actual}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_named_in_a_document_exists(document: str) -> None:
    files = [path.relative_to(ROOT).as_posix() for path in repository_files()]
    missing = []
    for named in _PATH.findall((ROOT / document).read_text()):
        # Inside a section a path may be given from its package on: `state/cursor.py`.
        pattern = f"{named}*" if named.endswith("/") else named
        if not any(fnmatch(file, pattern) or fnmatch(file, f"*/{pattern}") for file in files):
            missing.append(named)
    assert not missing, f"{document} names {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_named_in_a_document_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {first or second for first, second in _TARGET.findall((ROOT / document).read_text())}
    assert named <= targets


def test_the_architecture_fits_into_one_sitting() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= ARCHITECTURE_LINES_MAX


def test_the_machine_runs_the_test_command_of_the_readme() -> None:
    assert "\nmake test " in (ROOT / "README.md").read_text()
    script = ROOT / ".ci" / "run"
    assert re.findall(r"^make (\w+)", script.read_text(), re.MULTILINE) == ["test"]
    assert script.stat().st_mode & 0o111, ".ci/run is not executable"
