"""New settings for an agent that serves, a process of its own: by SIGHUP, and by `shrk set`."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from typer.testing import CliRunner

from shrk_node_agent.config import set_value
from shrk_node_agent.config_command import set_
from support.network import NodeProcess, a_network, until


async def reloaded(node: NodeProcess, told: str) -> object:
    """Ask for a reload; once the log says this of it: what the status says of the settings."""
    node.process.send_signal(signal.SIGHUP)
    await until(lambda: told in node.log(), f"the log says {told!r}")
    return (await node.status())["settings"]


async def test_an_agent_that_serves_takes_in_new_settings_and_survives_wrong_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_network() as network:
        node = await network.add_simulated("one", "m")
        await network.until_serving("m", 1)
        file = node.directory / "config.toml"
        monkeypatch.setenv("SHRK_CONFIG", str(file))

        right = file.read_text()
        file.write_text("temp_max = 30\n" + right)
        problem = f"{file}:1: temp_max: Input should be greater than or equal to 40, not 30; allowed is 40 to 95"
        assert await reloaded(node, "are not taken in") == {"problems": [problem], "needs_restart": []}

        file.write_text(right)
        set_value("temp_max", "60")
        set_value("gpu", "none")
        assert await reloaded(node, "read again") == {"problems": [], "needs_restart": ["gpu"]}
        assert '"applied": ["temp_max"]' in node.log()
        assert network.serving("m") == 1, "it served all the time"


async def test_what_an_owner_sets_holds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_network() as network:
        node = await network.add_simulated("one", "m")
        await network.until_serving("m", 1)
        monkeypatch.setenv("SHRK_CONFIG", str(node.directory / "config.toml"))
        monkeypatch.delenv("SHRK_STATE_DIR", raising=False)

        changed = await asyncio.to_thread(CliRunner().invoke, set_, ["schedule", "00:00-24:00", "--json"])
        assert json.loads(changed.stdout)["agent"] == {"running": True, "applied": ["schedule"], "needs_restart": []}
        status = await node.status()
        assert (status["schedule"]["text"], network.serving("m")) == ("00:00-24:00", 1)

        await asyncio.to_thread(CliRunner().invoke, set_, ["name", "two"])
        assert (await node.status())["settings"] == {"problems": [], "needs_restart": ["name"]}
