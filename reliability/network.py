"""A network on loopback whose nodes can be struck: real agents and engines, each behind a line that can be cut.

The coordinator runs in this process, so that its own account of each request can be read. Agents are processes of
their own and end with this one, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from reliability.engine_socket import EngineSocket
from reliability.waiting import SECONDS_MAX, NotInTime, until
from shrk_cli.chaos.proxy import ChaosProxy
from shrk_contract.settings import load
from shrk_coordinator.admin import Administration
from shrk_coordinator.app import Coordinator, unix_ms
from shrk_coordinator.records import Visibility
from shrk_coordinator.settings import CoordinatorSettings
from shrk_coordinator.state.journal import Entry
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.request import Attempt, Phase
from shrk_node_agent.link import identity as identities
from shrk_node_agent.link.enrol import enrol

#: Agents that start at once: more only get in each other's way on few cores.
STARTING_MAX = 6
TIED = Path(__file__).with_name("tied.py")


@dataclass
class Node:
    """One agent, its engine and its line."""

    name: str
    directory: Path
    line: ChaosProxy
    process: asyncio.subprocess.Process | None = None
    #: Ends of its engine that the present agent has seen: after some, it waits long before it starts the next.
    engine_ends: int = 0

    async def start(self) -> None:
        """Start the agent; its identity is on disk."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHRK_")}
        environment |= {"SHRK_CONFIG": str(self.directory / "config.toml"), "SHRK_LOG_FORMAT": "json"}
        with (self.directory / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TIED)),
                *(sys.executable, "-m", "shrk_node_agent", "run"),
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.engine_ends = 0

    def signal(self, number: int) -> None:
        """To the agent, if it lives."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def gone(self) -> None:
        """Return once the agent has ended."""
        if self.process is not None:
            await self.process.wait()

    async def restart(self) -> None:
        """Kill the agent, if it lives, and start it anew."""
        self.signal(signal.SIGKILL)
        await self.gone()
        await self.start()

    async def stop(self) -> None:
        """End the agent in good order; kill it where it does not end."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(SECONDS_MAX):
                await self.gone()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.gone()

    async def engine_pids(self) -> tuple[int, ...]:
        """Of the present engine: its own process, then those it has started. Raises aiohttp.ClientError, OSError."""
        connector = aiohttp.UnixConnector(str(self.directory / "control.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://agent/status") as answer:
            status: dict[str, Any] = await answer.json()
        return tuple(status["engines"][0]["pids"])

    def engine(self) -> EngineSocket | None:
        """The present engine's door, if there is one."""
        sockets = list(self.directory.glob("engines/*/engine.sock"))
        return EngineSocket(sockets[0]) if len(sockets) == 1 else None

    def log(self) -> str:
        """All that the agent has said so far."""
        return (self.directory / "agent.log").read_text()

    def log_tail(self) -> str:
        """The agent's last words."""
        return self.log()[-2000:]


@dataclass
class Network:
    """A coordinator and its nodes."""

    folder: Path
    coordinator: Coordinator
    session: aiohttp.ClientSession
    administration: Administration
    nodes: dict[str, Node] = field(default_factory=dict)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTING_MAX))

    @property
    def chat_url(self) -> str:
        """Where chats are asked."""
        assert self.coordinator.ports is not None
        return f"http://127.0.0.1:{self.coordinator.ports.listen}/v1/chat/completions"

    async def add(self, name: str, config: str) -> Node:
        """Enrol a node and start its agent with this TOML; its link goes over a line of its own."""
        ports = self.coordinator.ports
        assert ports is not None
        directory = self.folder / name
        directory.mkdir(mode=0o700)
        line = await self._stack.enter_async_context(ChaosProxy.open(to=("127.0.0.1", ports.link)))
        controller = f"tcp://127.0.0.1:{line.port}"
        async with self._places:
            made = await self.administration.create_join_tokens([name], 60_000, Visibility.PUBLIC, {})
            identity = await enrol(
                f"tcp://127.0.0.1:{ports.link}", made.tokens[0].token, directory / "identity", name, "reliability"
            )
            # It enrolled past the line, and must not know another way than over it.
            identities.save(directory / "identity", replace(identity, link_addresses=(controller,)))
            toml = f'controller = "{controller}"\nstate_dir = "{directory}"\nname = "{name}"\ndrain_seconds = 0\n'
            (directory / "config.toml").write_text(toml + config)
            node = self.nodes[name] = Node(name, directory, line)
            await node.start()
        return node

    async def add_simulated(self, name: str, model: str, slots: int = 64, **speeds: float) -> Node:
        """Add a node with one simulated engine; `speeds` as in `[sim]`."""
        figures = "".join(f"{figure} = {value}\n" for figure, value in speeds.items())
        catalogue = f'[catalogue.{model}]\nsource = "simulated"\nslots = {slots}\n'
        return await self.add(name, f'engine = "sim"\n{catalogue}[sim]\n{figures}')

    # --- the coordinator's account -------------------------------------------------------------------

    def serving(self, model: str) -> dict[str, EngineLife]:
        """The engines that are offered now, by the name of their node."""
        return {node.owner: offer.life for node, offer in self.coordinator.driver.state.roster.offers(model)}

    def well(self, model: str) -> int:
        """How many nodes serve and have not stalled lately: to these, and no others, an answer is handed over."""
        offers = self.coordinator.driver.state.roster.offers(model)
        now = self.coordinator.driver.now()
        return sum(offer.standing.breaker.allows(now) and not node.quiet for node, offer in offers)

    async def until_well(self, model: str, least: int, seconds: float = SECONDS_MAX) -> None:
        """Wait until so many nodes serve the model and are well. Raises NotInTime with the agents' last words."""
        try:
            await until(lambda: self.well(model) >= least, f"{least} nodes serve {model}", seconds)
        except NotInTime as late:
            absent = [node for name, node in self.nodes.items() if name not in self.serving(model)]
            words = "\n".join(f"--- {node.name}\n{node.log_tail()}" for node in absent)
            raise NotInTime(f"{late}\n{words}") from late

    def attempt(self, model: str, *, spoken: bool = False) -> Attempt | None:
        """The one attempt under way for a model of which only one request is; `spoken`: once a token of it has come, so
        that no second node can be faster any more."""
        attempts = self.coordinator.driver.state.attempts.by_stream.values()
        of_model = (a for a in attempts if a.request.model == model and a.phase is not Phase.ASKED)
        return next((a for a in of_model if not spoken or a.spoke_at is not None), None)

    def node_of(self, attempt: Attempt) -> Node:
        """Where an attempt runs."""
        return self.nodes[self.coordinator.driver.state.roster.nodes[attempt.node_id].owner]

    def entry(self, request_id: str) -> Entry | None:
        """What the coordinator wrote down of a request, by the name its caller knows."""
        return self.coordinator.driver.state.journal.find(bytes.fromhex(request_id.removeprefix("req_")))


@contextlib.asynccontextmanager
async def a_network() -> AsyncIterator[Network]:
    """A coordinator without nodes; everything of it is gone at the end."""
    # Short: the path of a unix socket holds 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="shrk-r-"))
    anywhere = "127.0.0.1:0"
    settings = load(
        CoordinatorSettings,
        state_dir=folder / "c",
        listen=anywhere,
        link_listen=anywhere,
        enrolment_listen=anywhere,
        drain_seconds=1,
    )
    administration = Administration(settings, unix_ms, os.urandom)
    made = await administration.initialise()
    assert made.api_key is not None
    coordinator = Coordinator(settings)
    await coordinator.start()
    headers = {"Authorization": f"Bearer {made.api_key.text}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        network = Network(folder, coordinator, session, administration)
        try:
            yield network
        finally:
            await asyncio.gather(*(node.stop() for node in network.nodes.values()))
            await coordinator.stop()
            await network._stack.aclose()
            shutil.rmtree(folder, ignore_errors=True)
