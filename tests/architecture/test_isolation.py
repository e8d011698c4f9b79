"""Each package stands alone: importing it brings in nothing that it must not know, and it declares what it uses."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from support.house import PACKAGES, ROOT, modules

ENGINE = {"vllm", "torch", "transformers", "tokenizers"}
#: Dear to import, and of no use to somebody who asks for help.
HEAVY = {"grpc", "google.protobuf", "sqlalchemy", "alembic", "openai", "cryptography", "uvloop"}

#: What must not be loaded after a program has been imported, entry points included.
STRANGERS = {
    "shrk_contract.terms": ENGINE | HEAVY | {"asyncio", "shrk_coordinator", "shrk_node_agent", "shrk_cli", "shrk"},
    "shrk_contract.convert": ENGINE | {"shrk_coordinator", "shrk_node_agent", "shrk_cli", "shrk"},
    "shrk_coordinator.state.coordinator": ENGINE | HEAVY | {"asyncio", "aiohttp", "structlog"},
    "shrk_coordinator.app": ENGINE | {"shrk_node_agent", "shrk_cli", "shrk", "openai", "pynvml"},
    "shrk_node_agent.state.node": ENGINE | HEAVY | {"asyncio", "aiohttp", "structlog"},
    "shrk_node_agent.app": ENGINE | {"shrk_coordinator", "shrk_cli", "shrk", "openai", "sqlalchemy", "pynvml"},
    "shrk_node_agent.sensors.choose": ENGINE | HEAVY | {"aiohttp", "pynvml", "shrk_node_agent.link"},
    "shrk_cli.main": ENGINE | HEAVY | {"aiohttp", "shrk_coordinator", "shrk_node_agent", "shrk_contract", "shrk"},
    "shrk": ENGINE | {"grpc", "typer", "shrk_contract", "shrk_coordinator", "shrk_node_agent", "shrk_cli"},
}
#: Programs that the engine environment's Python runs; nobody imports them in ours.
FOREIGN_PROGRAMS = {f"node_agent/shrk_node_agent/engine/{program}.py" for program in ("tiny_model", "fetch")}

#: What a declared dependency hands out as part of its own interface, in the version that it needs.
HANDED_OUT = {"pydantic-settings": {"pydantic"}, "openai": {"httpx2"}}

_HELP = """
import sys
from shrk_cli.main import main
sys.argv = ["shrk", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded_after(program: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running a program."""
    report = "\nimport sys; print('\\nLOADED', *sorted(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program + report], cwd=ROOT / "tests", capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return set(ran.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("module", STRANGERS)
def test_importing_a_package_brings_in_no_stranger(module: str) -> None:
    assert loaded_after(f"import {module}") & STRANGERS[module] == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_asking_the_command_for_help_imports_no_service(arguments: list[str]) -> None:
    loaded = loaded_after(_HELP.format(arguments=arguments))
    assert loaded & (ENGINE | HEAVY | {"aiohttp", "shrk_coordinator", "shrk_node_agent"}) == set()


@pytest.mark.parametrize(
    "service",
    [
        *("coordinator", "node", "why", "doctor", "netcheck", "logs", "models", "pause", "resume", "setup", "start"),
        *("status", "stop", "uninstall", "wait"),
    ],
)
def test_help_on_a_service_imports_neither_grpc_nor_a_database(service: str) -> None:
    loaded = loaded_after(_HELP.format(arguments=[service, "--help"]))
    assert loaded & (ENGINE | {"grpc", "google.protobuf", "sqlalchemy", "alembic", "aiohttp"}) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_what_it_imports(package: str) -> None:
    available = declared_by(PACKAGES[package])
    providers = packages_distributions()
    undeclared = []
    for module in modules():
        if not module.path.startswith(f"{PACKAGES[package].relative_to(ROOT)}/") or module.path in FOREIGN_PROGRAMS:
            continue
        for name in {full.partition(".")[0] for full in module.imports.values()} - set(sys.stdlib_module_names):
            if name != package and not available & set(map(canonical, providers.get(name, [name]))):
                undeclared.append(f"{module.path}: {name}")
    assert not undeclared, "\n" + "\n".join(undeclared)


def declared_by(folder: Path) -> set[str]:
    """Distributions that a member depends on, and those it gets from other members of ours."""
    ours = {canonical(name.replace("_", "-")): member for name, member in PACKAGES.items()}
    dependencies = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {canonical(re.split(r"[^\w.-]", dependency)[0]) for dependency in dependencies}
    handed_out = {other for name in names for other in HANDED_OUT.get(name, ())}
    return (names | handed_out).union(*(declared_by(ours[name]) for name in names & set(ours)))


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
