"""The house is tidy: the rules of STYLE.md that a machine can hold, and the proof that each rule catches something."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import tidy
from support.house import PACKAGES, ROOT, UNIT_FOLDERS, Module, modules, repository_files

Rule = Callable[[Module], Iterator[str]]

#: A repository is cloned by everybody, for ever; nothing that people wrote is larger.
FILE_BYTES_MAX = 512 * 1024

#: Folders of somebody's machine, and places that packages are fetched from: pip's, uv's and npm's own settings
#: name those. Written in halves, so that this file does not offend itself.
_PLACES_OF_OTHERS = (
    "/" + r"work/\w",
    "/" + r"root/\w",
    "/" + r"home/\w",
    "/" + r"Users/\w",
    r"pypi\." + "org",
    r"python" + r"hosted\.org",
    r"registry\." + r"(npmjs|yarnpkg)\.",
    r"download\." + r"pytorch\.org",
    r"index-url\s*=\s*" + "http",
)
PLACES_OF_OTHERS = re.compile("|".join(_PLACES_OF_OTHERS))

#: One offence for each rule, in the path of a product module.
PLANTED: tuple[tuple[Rule, str], ...] = (
    (tidy.module_opens_with_its_purpose, "x = 1\n"),
    (tidy.docstrings_stand_first, 'def f():\n    x = 1\n    """What it is for."""\n'),
    (tidy.module_is_small, "x = 1\n" * 601),
    (tidy.module_is_small, "x = 1\n" * 401),
    (tidy.functions_are_short, "def f():\n" + "    x = 1\n" * 70),
    (tidy.names_say_something, "class NodeManager: ...\n"),
    (tidy.names_say_something, "class BaseNode: ...\n"),
    (tidy.names_say_something, "def helper_of(x): ...\n"),
    (tidy.time_and_dice_are_given, "import time as t\nt.monotonic()\n"),
    (tidy.time_and_dice_are_given, "from datetime import datetime\ndatetime.now()\n"),
    (tidy.time_and_dice_are_given, "import os\ntoken = os.urandom\n"),
    (tidy.time_and_dice_are_given, "from random import random\nrandom()\n"),
    (tidy.nobody_sleeps, "from time import sleep\nsleep(1)\n"),
    (tidy.our_own_code_is_not_patched, "from unittest import mock\nmock.patch('x')\n"),
    (tidy.our_own_code_is_not_patched, "from unittest.mock import patch\npatch('x')\n"),
    (tidy.surprises_are_not_swallowed, "try: f()\nexcept: raise\n"),
    (tidy.surprises_are_not_swallowed, "try: f()\nexcept Exception: pass\n"),
    (tidy.surprises_are_not_swallowed, "try: f()\nexcept (OSError, BaseException): x = 1\n"),
    (tidy.surprises_are_not_swallowed, "import contextlib\nwith contextlib.suppress(Exception): f()\n"),
    (tidy.bounds_have_a_reason, "x = 1\nFRAMES_MAX = 8\n"),
    (tidy.bounds_have_a_reason, "#: Why.\nFRAMES_MAX = 8\n\nWAIT_SECONDS: float = 8\n"),
    (tidy.exemptions_have_a_reason, "x = y  # type: " + "ignore[attr-defined]\n"),
    (tidy.exemptions_have_a_reason, "x = y  # no" + "qa: F403\n"),
)


def state_modules() -> list[Module]:
    """Modules of `state/` that decide something; events and effects are only words."""
    return [
        module
        for module in modules()
        if module.in_product
        and Path(module.path).parent.name == "state"
        and any(isinstance(node, tidy.Function) for node in module.nodes)
    ]


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    offences = [offence for module in modules() for offence in rule(module)]
    assert not offences, "\n" + "\n".join(offences)


@pytest.mark.parametrize(("rule", "source"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_offence_is_caught(rule: Rule, source: str) -> None:
    assert list(rule(Module("coordinator/shrk_coordinator/planted.py", source)))


def test_every_rule_has_a_planted_offence() -> None:
    assert {rule for rule, _ in PLANTED} == set(tidy.RULES)


def test_lists_of_exceptions_name_only_modules_that_need_them() -> None:
    uses_clock = {m.path for m in modules() if list(tidy.uses(m, tidy.CLOCKS_AND_DICE))}
    sleeps = {m.path for m in modules() if list(tidy.uses(m, re.compile(r"time\.sleep")))}
    large = {m.path for m in modules() if m.source.count("\n") > tidy.MODULE_LINES_ASK}
    assert not [owner for owner in tidy.CLOCK_OWNERS if not any(path.startswith(owner) for path in uses_clock)]
    assert sleeps >= tidy.SLEEPERS
    assert set(tidy.LARGE_MODULES) <= large


def test_every_state_module_has_unit_tests_of_its_own() -> None:
    folder_of = {f"{folder.relative_to(ROOT)}/": UNIT_FOLDERS[package] for package, folder in PACKAGES.items()}
    missing = []
    for module in state_modules():
        unit = next(unit for folder, unit in folder_of.items() if module.path.startswith(folder))
        test = f"test_{Path(module.path).name}"
        if not list((ROOT / "tests" / "unit" / unit).rglob(test)):
            missing.append(f"{module.path}: no tests/unit/{unit}/**/{test}")
    assert not missing, "\n" + "\n".join(missing)


def test_every_setting_is_documented_where_it_is_declared() -> None:
    undocumented = []
    for module in modules():
        if module.in_product and module.path.endswith("/settings.py"):
            undocumented += [f"{module.path}:{line}: {name}; put a #: comment above" for line, name in bare(module)]
    assert not undocumented, "\n" + "\n".join(undocumented)


def bare(module: Module) -> Iterator[tuple[int, str]]:
    """Settings without a `#:` comment above. Fields in a row may share the first one's comment."""
    lines = module.source.splitlines()
    for owner in module.nodes:
        if not isinstance(owner, ast.ClassDef) or not any(map(_is_settings, owner.bases)):
            continue
        documented_until = 0
        for field in owner.body:
            if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
                continue
            if lines[field.lineno - 2].strip().startswith("#:") or documented_until == field.lineno - 1:
                documented_until = field.end_lineno or field.lineno
            else:
                yield field.lineno, f"{owner.name}.{ast.unparse(field.target)}"


def _is_settings(parent: ast.expr) -> bool:
    return isinstance(parent, ast.Name) and parent.id in {"BaseModel", "BaseSettings", "ServiceSettings"}


def test_no_file_is_larger_than_half_a_mebibyte() -> None:
    large = [f"{path.relative_to(ROOT)}: {size} bytes" for path in repository_files() if (size := _size(path))]
    assert not large, "\n" + "\n".join(large)


def _size(path: Path) -> int:
    """Its size where that is too large, else 0."""
    size = path.stat().st_size
    return size if size > FILE_BYTES_MAX else 0


def test_no_file_names_a_folder_or_a_package_host_of_one_machine() -> None:
    offences = []
    for path in repository_files():
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if found := PLACES_OF_OTHERS.search(line):
                offences.append(f"{path.relative_to(ROOT)}:{number}: {found.group()!r}")
    assert not offences, "\n" + "\n".join(offences)
