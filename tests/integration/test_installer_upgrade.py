"""One installed node: an upgrade, one that fails, and its owner's commands."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.installer import Machine, a_machine, an_altered_release, clean, put_torch, script_of
from support.network import Network, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("openssl") is None or (shutil.which("curl") is None and shutil.which("wget") is None),
        reason="the installer needs openssl, and curl or wget",
    ),
]
ENDS_AT_ONCE = "import sys\n\nprint('no', file=sys.stderr)\nsys.exit(1)\n"


@pytest.fixture(scope="module")
async def node(offering: Network, dist: Path) -> AsyncIterator[Machine]:
    """An installed node; its release has an engine that costs nothing."""
    with a_machine() as machine, an_altered_release(dist, "engine-cpu.txt", put_torch(machine.folder / "wheels")):
        script, token = await script_of(offering), await offering.token("me")
        status, said = await machine.pipe(script, "--engine", "sim", "--token", token)
        assert (status, "This node is online" in said.splitlines()[-1]) == (0, True), said
        yield machine


def current(machine: Machine) -> Path:
    return (machine.root / "opt/shrk/current").readlink()


def an_engine(machine: Machine) -> Path:
    """One of an earlier release, as its installer left it."""
    old = machine.root / "opt/shrk/engines/old"
    old.mkdir(parents=True)
    (old / "complete").write_text("torch==0.0.0+cpu\n")
    (machine.root / "opt/shrk/engine").symlink_to(old)
    return old


async def test_an_upgrade_stays_and_one_that_fails_is_taken_back(offering: Network, dist: Path, node: Machine) -> None:
    first, engine = current(node), an_engine(node)
    with an_altered_release(dist, "constraints.txt", f"{(dist / 'constraints.txt').read_text()}# another release\n"):
        status, said = await node.pipe(await script_of(offering))
    assert (status, said.splitlines()[-1].startswith("This node is online")) == (0, True), said
    second = current(node)
    assert second != first
    assert first.exists(), "the one before stays, too"

    [agent] = first.glob("lib/python*/site-packages/shrk_node_agent/__main__.py")
    agent.write_text(ENDS_AT_ONCE)
    wheels = f"{os.environ.get('PIP_FIND_LINKS', '')} {node.folder / 'wheels'}".strip()
    status, said = await node.pipe(await script_of(offering), "--engine", "cpu", PIP_FIND_LINKS=wheels)
    assert (status, "not installed: the agent ended by itself" in said) == (1, True), said
    assert (current(node), (node.root / "opt/shrk/engine").readlink()) == (second, engine)
    assert [path.name for path in engine.parent.iterdir()] == ["old"]
    await until(lambda: offering.serving("shark-sim") == 1, "the version that worked serves again")


async def test_its_owner_stops_and_starts_and_removes_it(offering: Network, node: Machine) -> None:
    shrk = node.root / "usr/local/bin/shrk"
    status, said = await node.type(shrk, "stop")
    assert (status, "has ended" in said) == (0, True), said
    await until(lambda: offering.serving("shark-sim") == 0, "the node has gone")
    status, said = await node.type(shrk, "start")
    assert (status, "The node agent is started" in said) == (0, True), said
    await until(lambda: offering.serving("shark-sim") == 1, "the node is back")
    status, said = await node.type(shrk, "uninstall", "--yes")
    assert (status, node.files()) == (0, clean()), said
    await until(lambda: offering.serving("shark-sim") == 0, "the node is gone")
