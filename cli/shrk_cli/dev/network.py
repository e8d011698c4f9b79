"""A whole network on this machine: brings it up, keeps it up, takes it down in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shrk_cli.dev import logs, scripted
from shrk_cli.dev.coordinator import Coordinator
from shrk_cli.dev.plan import AGENT_DRAIN_SECONDS, NodePlan, Plan, agent_config
from shrk_cli.dev.processes import Child, Command, how_it_ended, python, spawn
from shrk_cli.dev.progress import Progress
from shrk_cli.dev.ready import Ready
from shrk_cli.dev.service import Service
from shrk_cli.dev.status import INCOMPATIBLE, NodeStatus, follow
from shrk_cli.errors import Exit, Trouble

#: Until all models are served. Each node bounds its own engines' silence; this bounds the sum, and leaves
#: room for a first download of a large model over a home line.
READY_SECONDS_MAX = 2 * 3600.0
#: How often the display moves and the coordinator is asked whether everything is there.
TICK_SECONDS = 0.5
#: How often the size of the logs is looked at.
LOGS_SECONDS = 10.0
#: Past its drain, an agent stops its engines and closes its link.
AGENT_GRACE_SECONDS = AGENT_DRAIN_SECONDS + 10.0
#: Unasked ends of one process before the network was ready, after which more starts would not help.
EARLY_ENDS_MAX = 3
#: The last lines of an engine are the ones that name its trouble; all of them are in its log.
ENGINE_TAIL_LINES = 5
#: Starting again would end the same way.
HOPELESS = (Exit.USAGE, Exit.CONFIG_INVALID)


class Network:
    """The processes of one plan. run() to bring it up; stop() or kill() always comes last."""

    def __init__(self, plan: Plan, environment: Mapping[str, str], lifeline: int, progress: Progress) -> None:
        self._plan = plan
        self._environment = environment
        self._lifeline = lifeline
        self._progress = progress
        self._coordinator = Coordinator(plan, environment, lifeline)
        self._tokens: dict[str, str] = {}
        self._statuses: dict[str, NodeStatus] = {}
        self._ready = False
        self._stopping = False
        self._early_ends: dict[str, int] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._services = {"coordinator": self._service("coordinator", self._start_coordinator)}
        for node in plan.nodes:
            self._services[node.name] = self._service(node.name, partial(self._start_agent, node))

    async def start(self) -> Ready:
        """Bring everything up; returns when a caller sees every model on every node that should have it.

        Raises Trouble with the reason when that will not happen.
        """
        await self._coordinator.prepare()
        self._begin(self._services["coordinator"].run())
        await self._or_failure(self._services["coordinator"].started.wait())
        joining = [node.name for node in self._plan.nodes if not node.enrolled]
        self._tokens = await self._coordinator.join_tokens(joining) if joining else {}
        for node in self._plan.nodes:
            node.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            node.config_file.write_text(agent_config(self._plan, node, self._coordinator.link_port))
            scripted.lay_down(self._plan, node)
            self._begin(self._services[node.name].run())
            self._begin(follow(node.control_socket, node.name, self._on_status))
        self._begin(self._bound_logs())
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                await self._or_failure(self._until_all_is_served())
        except TimeoutError as error:
            raise Trouble(
                f"the network is not ready after {READY_SECONDS_MAX / 3600:g} h",
                why="\n".join(f"{node.name}: {node.state} {node.reason}" for node in self._statuses.values()),
                remedy="look at the lines above for the node that does not come up",
            ) from error
        self._ready = True
        return Ready(
            port=self._coordinator.port,
            api_key=self._coordinator.memory.api_key,
            admin_key=self._coordinator.memory.admin_key,
            coordinator_pid=self._services["coordinator"].pid or 0,
            nodes=[self._statuses[node.name] for node in self._plan.nodes],
        )

    async def failed(self) -> None:
        """Never returns; raises what makes the network impossible to keep up."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Drain and stop: the nodes first, so that callers get the end of their answers; then the coordinator."""
        self._stopping = True
        await asyncio.gather(*(self._services[node.name].stop() for node in self._plan.nodes))
        await self._services["coordinator"].stop()
        await self._end_tasks()

    async def kill(self) -> None:
        """End everything at once."""
        self._stopping = True
        await asyncio.gather(*(service.kill() for service in self._services.values()))
        await self._end_tasks()

    async def _start_coordinator(self) -> Child:
        child = await self._coordinator.start()
        if self._services["coordinator"].started.is_set():
            self._progress.say(f"coordinator runs again as process {child.pid}")
        return child

    async def _start_agent(self, node: NodePlan) -> Child:
        environment = dict(self._environment, SHRK_CONFIG=str(node.config_file))
        if not node.enrolled:
            # A token is good for one use and a short time: a node that died before it had its
            # certificate gets another.
            token = self._tokens.pop(node.name, None)
            environment["SHRK_JOIN_TOKEN"] = token or (await self._coordinator.join_tokens([node.name]))[node.name]
        command = Command(
            name=node.name,
            arguments=python("-m", "shrk_node_agent", "run"),
            environment=environment,
            working_dir=node.directory,
            log=self._plan.logs_dir / f"{node.name}.log",
            grace_seconds=AGENT_GRACE_SECONDS,
        )
        return await spawn(command, self._lifeline)

    async def _until_all_is_served(self) -> None:
        expected = self._plan.expected()
        while not (self._nodes_say_so() and self._served(expected, await self._coordinator.serving())):
            self._progress.tick()
            await asyncio.sleep(TICK_SECONDS)

    def _nodes_say_so(self) -> bool:
        """Whether every node is connected and every engine of it serves."""
        return all(
            (status := self._statuses.get(node.name)) is not None
            and status.link == "connected"
            and {model.name for model in node.models} == {e.model for e in status.engines if e.serving and e.pids}
            for node in self._plan.nodes
        )

    @staticmethod
    def _served(expected: Mapping[str, int], serving: Mapping[str, int]) -> bool:
        return all(serving.get(model, 0) >= count for model, count in expected.items())

    def _on_status(self, status: NodeStatus) -> None:
        before = self._statuses.get(status.name)
        self._statuses[status.name] = status
        if self._stopping:
            return  # engines that end now are no news
        self._progress.node(status)
        if not self._ready:
            self._refuse_hopeless_status(status)
        elif before and before.pid != status.pid:
            self._progress.say(f"{status.name} runs again as process {status.pid}")

    def _refuse_hopeless_status(self, status: NodeStatus) -> None:
        if status.link == "refused":
            raise Trouble(
                f"the coordinator refuses {status.name}",
                why=status.link_reason,
                remedy="start with a fresh state folder: leave --state-dir out",
            )
        for engine in status.engines:
            if engine.state == INCOMPATIBLE:
                log = self._plan.state_dir / status.name / "logs" / f"{quote(engine.id, safe='')}.log"
                raise Trouble(
                    f"{status.name} cannot serve {engine.model}: {engine.state}",
                    why="\n".join(
                        [engine.reason, *engine.tail[-ENGINE_TAIL_LINES:], self._whereabouts(log, status.name)]
                    ),
                    remedy="name another path or id with --model NAME=PATH_OR_HF_ID",
                )

    def _service(self, name: str, start: Callable[[], Coroutine[Any, Any, Child]]) -> Service:
        return Service(name, start, self._progress.say, self._judge, restart=self._plan.restart)

    def _judge(self, child: Child, status: int) -> None:
        """Raise Trouble where a process that ended makes the network impossible."""
        name = child.command.name
        self._early_ends[name] = self._early_ends.get(name, 0) + 1
        early = not self._ready and (not self._plan.restart or self._early_ends[name] >= EARLY_ENDS_MAX)
        if early or status in HOPELESS:
            raise Trouble(
                f"{name} {how_it_ended(status)}" + ("" if self._ready else " before the network was ready"),
                why="\n".join([*logs.tail(child.command.log), self._whereabouts(child.command.log, name)]),
                remedy="correct what it names; its settings come from the options of shrk dev",
            )

    def _whereabouts(self, log: Path | None, name: str) -> str:
        """Where a person finds a whole log after the end; out of a temporary folder it is copied."""
        if log is None or not log.exists():
            return "it wrote no log"
        return f"the whole log: {logs.keep(log, name) if self._plan.temporary else log}"

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOGS_SECONDS)
            logs.bound(self._plan.logs_dir)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside; its failure is the network's."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._failure.done():
            self._failure.set_exception(error)

    async def _or_failure(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something, unless the network fails meanwhile: then raise why."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task, self._failure], return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            task.result()
        finally:
            task.cancel()

    async def _end_tasks(self) -> None:
        """After the processes: what watched them. One that was just being started is killed by its task."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failure.done():
            self._failure.exception()  # reported already, or overtaken by the wish to stop
