"""The coordinator's side of a dev network: its commands, its keys, its ports, and what callers see of it.

It is run as the program it is in production; nothing of it is imported.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from shrk_cli.dev.logs import tail
from shrk_cli.dev.plan import Plan
from shrk_cli.dev.processes import Child, Command, python, run_to_end, spawn
from shrk_cli.dev.statedir import Memory, recall, remember
from shrk_cli.errors import Trouble

#: Making a CA, a database and keys takes under a second; a machine full of loading engines is slow.
ADMIN_SECONDS_MAX = 60.0
#: From its start to listening.
READY_SECONDS_MAX = 60.0
READY_POLL_SECONDS = 0.05
#: Its nodes are gone by the time it is stopped: what is left are the ends of answers.
DRAIN_SECONDS = 5.0
#: Past its drain, it closes its ports and its database.
GRACE_SECONDS = DRAIN_SECONDS + 10.0
#: The model list is answered from memory.
MODELS_SECONDS_MAX = 10.0


class Coordinator:
    """One network's coordinator: start() is one life of it, the rest talks to it."""

    def __init__(self, plan: Plan, environment: Mapping[str, str], lifeline: int) -> None:
        self._plan = plan
        self._environment = {
            **environment,
            # Without it, the settings of this machine's real coordinator would apply.
            "SHRK_COORDINATOR_CONFIG": str(plan.coordinator_config_file),
        }
        self._lifeline = lifeline
        self._memory: Memory | None = None
        self.port = plan.port

    @property
    def memory(self) -> Memory:
        """Keys and ports, known from prepare() on."""
        assert self._memory is not None, "prepare() comes first"
        return self._memory

    @property
    def link_port(self) -> int:
        return self.memory.link_port

    async def prepare(self) -> None:
        """First start: CA, database, keys. Later ones: the keys that the state folder remembers."""
        self._plan.coordinator_config_file.write_text("# Settings of shrk dev are options of its commands.\n")
        made = await self._admin("init", "--state-dir", str(self._plan.coordinator_dir), "--json")
        memory = recall(self._plan.memory_file)
        if "api_key" in made:
            memory = Memory(made["api_key"], made["admin_key"], link_port=0, enrolment_port=0)
        elif memory is None:
            memory = Memory(await self._new_key(), await self._new_key("--admin"), link_port=0, enrolment_port=0)
        self._keep(
            memory.api_key, memory.admin_key, _free_or_any(memory.link_port), _free_or_any(memory.enrolment_port)
        )

    async def start(self) -> Child:
        """One life, up to listening. Ports stay what they were in the first: nodes know them."""
        self._plan.coordinator_ready_file.unlink(missing_ok=True)
        child = await spawn(
            Command(
                name="coordinator",
                arguments=python(
                    *("-m", "shrk_coordinator", "serve", "--state-dir", str(self._plan.coordinator_dir)),
                    *("--listen", f"127.0.0.1:{self.port}"),
                    *("--link-listen", f"127.0.0.1:{self.memory.link_port}"),
                    *("--enrolment-listen", f"127.0.0.1:{self.memory.enrolment_port}"),
                    *("--drain-seconds", f"{DRAIN_SECONDS:g}"),
                ),
                environment=self._environment,
                working_dir=self._plan.state_dir,
                log=self._plan.logs_dir / "coordinator.log",
                grace_seconds=GRACE_SECONDS,
            ),
            self._lifeline,
        )
        try:
            await self._until_it_listens(child)
        except BaseException:
            await child.kill()
            raise
        return child

    async def join_tokens(self, owners: Sequence[str]) -> dict[str, str]:
        """Owner -> a fresh single-use join token."""
        arguments = [argument for owner in owners for argument in ("--owner", owner)]
        made = await self._admin(
            "tokens", "create", "--state-dir", str(self._plan.coordinator_dir), *arguments, "--json"
        )
        return {token["owner"]: token["token"] for token in made["tokens"]}

    async def serving(self) -> dict[str, int]:
        """Model -> nodes that serve it, as a caller sees it. Empty while the coordinator does not answer."""
        url = f"http://127.0.0.1:{self.port}/v1/models"
        headers = {"Authorization": f"Bearer {self.memory.api_key}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=MODELS_SECONDS_MAX)) as session,
                session.get(url, headers=headers) as response,
            ):
                response.raise_for_status()
                listed = await response.json()
        except (aiohttp.ClientConnectionError, TimeoutError):
            return {}
        except aiohttp.ClientResponseError as error:
            raise Trouble(
                f"the coordinator refused GET /v1/models: {error.status} {error.message}",
                why="\n".join(tail(self._plan.logs_dir / "coordinator.log")),
                remedy="start with a fresh state folder: leave --state-dir out",
            ) from error
        return {model["id"]: model["shrk"]["nodes"] for model in listed["data"]}

    async def _until_it_listens(self, child: Child) -> None:
        """Wait for the file that it writes when all its ports are open; take the ports from it."""
        ended = asyncio.create_task(child.wait())
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                while not self._plan.coordinator_ready_file.exists():
                    if ended.done():
                        raise Trouble(
                            "the coordinator did not start",
                            why="\n".join(tail(child.command.log)),
                            remedy="correct what it names; a port is chosen with --port",
                        )
                    await asyncio.wait([ended], timeout=READY_POLL_SECONDS)
        except TimeoutError as error:
            raise Trouble(
                f"the coordinator does not listen after {READY_SECONDS_MAX:g} s",
                why="\n".join(tail(child.command.log)),
                remedy="stop what else loads this machine and try again",
            ) from error
        finally:
            ended.cancel()
        ports = json.loads(self._plan.coordinator_ready_file.read_text())
        self.port = ports["listen_port"]
        self._keep(self.memory.api_key, self.memory.admin_key, ports["link_port"], ports["enrolment_port"])

    async def _new_key(self, *scope: str) -> str:
        directory = str(self._plan.coordinator_dir)
        made = await self._admin("keys", "create", "--state-dir", directory, "--name", "dev", *scope, "--json")
        return str(made["key"])

    async def _admin(self, *arguments: str) -> dict[str, Any]:
        command = Command(
            name=f"shrk coordinator {arguments[0]}",
            arguments=python("-m", "shrk_coordinator", *arguments),
            environment=self._environment,
            working_dir=self._plan.state_dir,
        )
        made: dict[str, Any] = json.loads(await run_to_end(command, self._lifeline, ADMIN_SECONDS_MAX))
        return made

    def _keep(self, api_key: str, admin_key: str, link_port: int, enrolment_port: int) -> None:
        self._memory = Memory(api_key, admin_key, link_port, enrolment_port)
        remember(self._plan.memory_file, self._memory)


def refuse_busy_port(port: int) -> None:
    """Raise Trouble when callers' port cannot be had, before anything is started."""
    try:
        _bind(port)
    except OSError as error:
        raise Trouble(
            f"--port {port} cannot be used",
            why=f"127.0.0.1:{port}: {error.strerror}",
            remedy=f"choose another (0 takes any free one): shrk dev --port {port + 1 if port < 65535 else 0}",
        ) from error


def _free_or_any(port: int) -> int:
    """A port that was used before if it is free, else 0."""
    try:
        _bind(port)
    except OSError:
        return 0
    return port


def _bind(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
