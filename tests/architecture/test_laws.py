"""The laws of who may import whom hold, and each of them catches the violation it is there for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.house import PACKAGES, ROOT

#: For each law, by the start of its name: a module to break, and the line that breaks it.
PLANTED = {
    "State is pure": ("shrk_coordinator/state/roster.py", "import asyncio"),
    "Coordinator, agent, SDK and command": ("shrk_node_agent/cli.py", "import shrk_coordinator.records"),
    "Coordinator: planes": ("shrk_coordinator/store/store.py", "import shrk_coordinator.data_plane.relay"),
    "Agent: link, engine and sensors": ("shrk_node_agent/engine/pin.py", "import shrk_node_agent.link.dial"),
    "The engine is a child process": ("shrk_node_agent/engine/vllm.py", "import torch"),
    "The SDK is openai and us": ("shrk/client.py", "import grpc"),
}
#: A module that state may use if it stays pure; here it becomes a way around the first law.
DETOUR = ("shrk_contract/terms.py", "import shrk_contract.detour")


def laws() -> list[str]:
    """The names of all laws, as pyproject.toml has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]]


def broken_laws(where: Path, *folders: Path) -> list[str]:
    """The names of the laws that the packages in `folders` break; `where` holds the settings to judge by."""
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=where,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"Contracts: \d+ kept, \d+ broken", checked.stdout), checked.stdout + checked.stderr
    return [law for law in laws() if re.search(rf"^{re.escape(law)} ?BROKEN", checked.stdout, re.MULTILINE)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all packages side by side, with the settings."""
    copied = tmp_path_factory.mktemp("packages")
    shutil.copy(ROOT / "pyproject.toml", copied)
    for package, folder in PACKAGES.items():
        shutil.copytree(folder / package, copied / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def plant(copy: Path, module: str, line: str) -> None:
    """Add a line to the end of a module of the copy."""
    path = copy / module
    path.write_text(f"{path.read_text()}\n{line}\n")


def test_the_packages_keep_every_law() -> None:
    assert broken_laws(ROOT, *PACKAGES.values()) == []


def test_a_planted_violation_of_each_law_is_caught(copy: Path) -> None:
    for module, line in PLANTED.values():
        plant(copy, module, line)
    assert broken_laws(copy, copy) == laws()


def test_a_violation_by_a_detour_is_caught(copy: Path) -> None:
    shutil.rmtree(copy / "shrk_contract")
    shutil.copytree(PACKAGES["shrk_contract"] / "shrk_contract", copy / "shrk_contract")
    for module, _ in PLANTED.values():
        shutil.copy(PACKAGES[module.partition("/")[0]] / module, copy / module)
    (copy / "shrk_contract" / "detour.py").write_text("import random\n")
    plant(copy, *DETOUR)
    assert broken_laws(copy, copy) == [law for law in laws() if law.startswith("State is pure")]


def test_every_law_has_a_planted_violation() -> None:
    assert [next(law for law in laws() if law.startswith(start)) for start in PLANTED] == laws()
