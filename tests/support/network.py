"""A whole network on loopback for tests: the coordinator in this process, every node agent a process of its own.

Everything is real: certificates, gRPC, HTTP, agents, engines (simulated ones, unless a test names vLLM). Only the
coordinator runs in-process, so that a test can look into its state.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from shrk_contract.settings import load
from shrk_coordinator.admin import Administration
from shrk_coordinator.app import Coordinator, unix_ms
from shrk_coordinator.records import Visibility
from shrk_coordinator.settings import CoordinatorSettings

#: Far above what anything here takes: it only ends a test that hangs.
SECONDS_MAX = 90.0


async def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS_MAX) -> None:
    """Poll what no event tells; fails with `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class NodeProcess:
    """One node agent."""

    name: str
    directory: Path
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """The agent's process."""
        return self.process.pid

    def engine_socket(self) -> Path:
        """Where its (first) engine serves."""
        [socket, *_] = sorted((self.directory / "engines").glob("*/*.sock"))
        return socket

    async def status(self) -> dict[str, Any]:
        """What the agent says of itself on its control socket."""
        connector = aiohttp.UnixConnector(str(self.directory / "control.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://agent/status") as answer:
            status: dict[str, Any] = await answer.json()
            return status

    async def news(self, revision: int) -> None:
        """Return when its status is another one than that, or after a while."""
        connector = aiohttp.UnixConnector(str(self.directory / "control.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://agent/status?after={revision}&wait_seconds=1") as answer,
        ):
            assert answer.status == 200

    async def post(self, path: str, body: dict[str, Any]) -> None:
        """Ask it something on its control socket, as the verbs do."""
        connector = aiohttp.UnixConnector(str(self.directory / "control.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://agent{path}", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()

    def log(self) -> str:
        """What the agent wrote."""
        return (self.directory / "agent.log").read_text()


@dataclass
class Network:
    """A coordinator and its nodes."""

    folder: Path
    coordinator: Coordinator
    administration: Administration
    api_key: str
    admin_key: str
    nodes: dict[str, NodeProcess] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        assert self.coordinator.ports is not None
        return f"http://127.0.0.1:{self.coordinator.ports.listen}/v1"

    @property
    def root_url(self) -> str:
        """The same without /v1."""
        return self.base_url.removesuffix("/v1")

    def serving(self, model: str) -> int:
        """Nodes that offer this model now."""
        return len(list(self.coordinator.driver.state.roster.offers(model)))

    async def token(self, owner: str) -> str:
        """A new join token."""
        invitations = await self.administration.create_join_tokens([owner], 600_000, Visibility.PUBLIC, {})
        return invitations.tokens[0].token

    async def add_node(self, name: str, config: str, env: dict[str, str] | None = None) -> NodeProcess:
        """Start an agent with this TOML, in addition to what every node here needs."""
        assert self.coordinator.ports is not None
        directory = self.folder / name
        directory.mkdir(mode=0o700, exist_ok=True)
        controller = f"tcp://127.0.0.1:{self.coordinator.ports.link}"
        toml = f'controller = "{controller}"\nstate_dir = "{directory}"\nname = "{name}"\n'
        (directory / "config.toml").write_text(toml + config)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
        environment |= {"SHRK_CONFIG": str(directory / "config.toml"), "SHRK_LOG_FORMAT": "json", **(env or {})}
        if not (directory / "identity").exists():
            environment["SHRK_JOIN_TOKEN"] = await self.token(name)
        with (directory / "agent.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shrk_node_agent", "run", env=environment, stdout=log, stderr=log
            )
        self.nodes[name] = NodeProcess(name, directory, process)
        return self.nodes[name]

    async def add_simulated(self, name: str, *models: str, **figures: float) -> NodeProcess:
        """Start a node with simulated engines; figures are those of `[sim]`, and `slots`."""
        slots = int(figures.pop("slots", 64))
        tables = "".join(
            f'[catalogue."{model}"]\nsource = "simulated"\nslots = {slots}\n'
            + ('task = "embed"\n' if model.endswith("embed") else "")
            for model in models or ("m",)
        )
        speeds = "".join(f"{figure} = {value}\n" for figure, value in figures.items())
        return await self.add_node(name, f'engine = "sim"\n{tables}[sim]\n{speeds}')

    async def until_serving(self, model: str, count: int, seconds: float = SECONDS_MAX) -> None:
        """Wait until so many nodes offer the model."""
        try:
            what = f"{count} nodes serve {model}"
            await until(lambda: self.serving(model) == count, what, seconds)
        except AssertionError as error:
            logs = "\n".join(f"--- {node.name}\n{node.log()[-2000:]}" for node in self.nodes.values())
            raise AssertionError(f"{error}\n{logs}") from error

    async def stop_node(self, name: str) -> None:
        """End an agent in good order; fails where it does not end."""
        node = self.nodes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            node.process.terminate()
        async with asyncio.timeout(SECONDS_MAX):
            await node.process.wait()

    def session(self, key: str | None = None) -> aiohttp.ClientSession:
        """An HTTP client with the caller's key."""
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key or self.api_key}"}, connector=aiohttp.TCPConnector(limit=0)
        )


@contextlib.asynccontextmanager
async def a_network(**settings: Any) -> AsyncIterator[Network]:
    """A coordinator without nodes; everything of it is gone at the end."""
    # Short: the path of a unix socket holds 107 bytes, and pytest's own folders are longer than that.
    folder = Path(tempfile.mkdtemp(prefix="shrk-"))
    given = {
        "state_dir": folder / "c",
        "listen": "127.0.0.1:0",
        "link_listen": "127.0.0.1:0",
        "enrolment_listen": "127.0.0.1:0",
        "drain_seconds": 5,
        **settings,
    }
    loaded = load(CoordinatorSettings, **given)
    administration = Administration(loaded, unix_ms, os.urandom)
    made = await administration.initialise()
    assert made.api_key is not None
    assert made.admin_key is not None
    coordinator = Coordinator(loaded)
    await coordinator.start()
    network = Network(folder, coordinator, administration, made.api_key.text, made.admin_key.text)
    try:
        yield network
    finally:
        await asyncio.gather(*(network.stop_node(name) for name in list(network.nodes)))
        await network.coordinator.stop()
        shutil.rmtree(folder)


def events_of(body: bytes) -> list[Any]:
    """The payloads of a stream of events; `[DONE]` as a string."""
    payloads = [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: ")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def text_of(events: list[Any]) -> str:
    """All text of the first choice of a streamed chat."""
    deltas = [c["delta"] for e in events if isinstance(e, dict) for c in e.get("choices", ()) if c["index"] == 0]
    return "".join(delta.get("content") or "" for delta in deltas)
