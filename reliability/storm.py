"""A coordinator is killed and started again, and two thousand agents dial it at once. All of them must be back soon,
and the coordinator must not stand still meanwhile.

The coordinator is the product's own process, with its own certificates; the agents are the product's dialler, session
and backoff, many to a process. All of them share this machine: in the field, each agent's half of a handshake is
somebody else's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench.engine import WHOLE
from bench.mock_node import Wish
from reliability.figures import percentile
from reliability.network import TIED
from reliability.results import Row
from reliability.storm_agents import Told
from reliability.waiting import NotInTime, until
from shrk_contract.settings import load
from shrk_coordinator.admin import Administration
from shrk_coordinator.app import unix_ms
from shrk_coordinator.records import Visibility
from shrk_coordinator.settings import CoordinatorSettings

#: Processes that play the agents: one cannot hold as many connections as the coordinator does.
PROCESSES = 4
#: The promises: when all agents are back …
BACK_SECONDS_MAX = 60.0
#: … and how late all but one in a hundred ticks of the coordinator's event loop are meanwhile.
LAG_SECONDS_MAX = 0.1
#: A service manager starts a process that was killed again after this.
RESTART_SECONDS = 1.0
#: Links that have lived so long are good ones, and are dialled anew at once.
STEADY_SECONDS = 11.0
#: What the first agent that is back brings is served before long; after this every request is to be answered.
SERVED_SECONDS_MAX = 1.0
#: Two thousand enrolments, and their first links.
ENROLLED_SECONDS_MAX = 240.0
READY_SECONDS_MAX = 30.0
#: Between two requests of the caller, and between two looks at who is back.
ASK_SECONDS, LOOK_SECONDS = 0.05, 0.5
TOKEN_MS = 3_600_000
_LAG_BUCKET = 'shrk_loop_lag_seconds_bucket{le="'


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    agents: int
    kills: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the caller; `at` and `seconds` are monotonic."""

    at: float
    seconds: float
    #: Empty: it was answered.
    problem: str


@dataclass(slots=True)
class Storm:
    """One kill and what followed. All times are seconds after the coordinator was started again."""

    agents: int
    #: When it listened again.
    ready: float
    #: When each agent was welcomed.
    back: list[float]
    #: When the last one's report was in; None: not in time.
    all_back: float | None
    failed_dials: int
    refused: tuple[str, ...]
    #: Ticks of the event loop by the most they were late.
    lag: Mapping[float, int]
    asked: list[Asked] = field(default_factory=list)

    @property
    def ticks(self) -> int:
        """All of them."""
        return max(self.lag.values(), default=0)

    @property
    def late(self) -> int:
        """Ticks that were later than promised."""
        return self.ticks - self.lag[LAG_SECONDS_MAX]

    @property
    def meanwhile(self) -> list[Asked]:
        """Requests of the time in which agents came back and some were there to answer."""
        served = min(self.back, default=0.0) + SERVED_SECONDS_MAX
        return [one for one in self.asked if served <= one.at <= (self.all_back or BACK_SECONDS_MAX)]


def lag_counts(exposition: str) -> dict[float, int]:
    """How many ticks were at most so late, from Prometheus's text."""
    counts = {}
    for line in exposition.splitlines():
        if line.startswith(_LAG_BUCKET):
            bound, _, count = line.removeprefix(_LAG_BUCKET).partition('"} ')
            counts[float(bound)] = int(float(count))
    return counts


# --- the coordinator -------------------------------------------------------------------------------------------------


class _Coordinator:
    """The coordinator's process, in one state folder and on the same ports each time."""

    def __init__(self, folder: Path) -> None:
        self.settings = load(CoordinatorSettings, state_dir=folder / "c")
        self._folder = folder
        self._run_file = folder / "c" / "run" / "coordinator.json"
        self._process: asyncio.subprocess.Process | None = None
        self.ports = {"listen_port": 0, "link_port": 0, "enrolment_port": 0}

    async def start(self) -> None:
        """Start it; returns once it listens. Raises NotInTime with its last words."""
        self._run_file.unlink(missing_ok=True)
        config = self._folder / "coordinator.toml"
        config.touch()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHRK_")}
        with (self._folder / "coordinator.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TIED), sys.executable, "-m", "shrk_coordinator", "serve"),
                *("--state-dir", str(self._folder / "c"), "--log-format", "json", "--drain-seconds", "0"),
                *("--listen", f"127.0.0.1:{self.ports['listen_port']}"),
                *("--link-listen", f"127.0.0.1:{self.ports['link_port']}"),
                *("--enrolment-listen", f"127.0.0.1:{self.ports['enrolment_port']}"),
                env=environment | {"SHRK_COORDINATOR_CONFIG": str(config)},
                stdout=log,
                stderr=log,
            )
        try:
            await until(self._run_file.exists, "the coordinator listens", READY_SECONDS_MAX)
        except NotInTime as late:
            words = (self._folder / "coordinator.log").read_text()[-2000:]
            raise NotInTime(f"{late}\n{words}") from late
        self.ports = json.loads(self._run_file.read_text())

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by this signal."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    def url(self, path: str) -> str:
        """Where callers find this."""
        return f"http://127.0.0.1:{self.ports['listen_port']}{path}"


# --- the agents ------------------------------------------------------------------------------------------------------


class _Agents:
    """One process of them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, wish: Wish) -> _Agents:
        """Start it; `enrolled` returns when all have their certificates."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(TIED), sys.executable, "-m", "reliability.storm_agents"),
            cwd=Path(__file__).parents[1],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        agents = cls(process)
        agents._say(json.dumps(asdict(wish)))
        return agents

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise NotInTime("the process of the agents ended; its reasons are above")
        return json.loads(line)

    async def enrolled(self) -> None:
        """Return when all have their certificates, and dial."""
        assert await self._line() == "enrolled"

    async def told(self) -> Told:
        """What became of them since the last question."""
        self._say("")
        return Told(**await self._line())

    async def stop(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@dataclass(slots=True)
class _Field:
    """Everything that runs."""

    coordinator: _Coordinator
    processes: list[_Agents]
    session: aiohttp.ClientSession
    admin: Mapping[str, str]

    async def serving(self) -> int:
        """Agents whose report is in; 0 where nobody answers."""
        with contextlib.suppress(aiohttp.ClientError):
            async with self.session.get(self.coordinator.url("/v1/models")) as answer:
                listed = (await answer.json())["data"]
                return int(listed[0]["shrk"]["nodes"]) if listed else 0
        return 0

    async def until_serving(self, agents: int, seconds: float) -> float | None:
        """When so many served, in monotonic seconds; None where they did not in time."""
        deadline = time.monotonic() + seconds
        while await self.serving() < agents:
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic()

    async def ask_for_ever(self, asked: list[Asked]) -> None:
        """A caller that asks again and again, one request after another."""
        body = {"model": WHOLE, "messages": [{"role": "user", "content": "hello"}]}
        while True:
            began = time.monotonic()
            problem = ""
            try:
                async with self.session.post(self.coordinator.url("/v1/chat/completions"), json=body) as answer:
                    text = await answer.text()
                    if answer.status != 200:
                        problem = f"status {answer.status}: {text[:200]}"
            except aiohttp.ClientError as error:
                problem = str(error) or type(error).__name__
            asked.append(Asked(began, time.monotonic() - began, problem))
            await asyncio.sleep(ASK_SECONDS)

    async def lag(self) -> dict[float, int]:
        """The coordinator's ticks."""
        async with self.session.get(self.coordinator.url("/metrics"), headers=self.admin) as answer:
            return lag_counts(await answer.text())


@contextlib.asynccontextmanager
async def _a_field(agents: int) -> AsyncIterator[_Field]:
    """A coordinator with that many agents linked; everything of it is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="shrk-s-"))
    coordinator, processes = _Coordinator(folder), []
    try:
        administration = Administration(coordinator.settings, unix_ms, os.urandom)
        made = await administration.initialise()
        assert made.api_key is not None
        assert made.admin_key is not None
        await coordinator.start()
        owners = [f"owner-{number}" for number in range(agents)]
        invitations = await administration.create_join_tokens(owners, TOKEN_MS, Visibility.PUBLIC, {})
        tokens = [invitation.token for invitation in invitations.tokens]
        link = f"tcp://127.0.0.1:{coordinator.ports['link_port']}"
        for number in range(PROCESSES):
            wish = Wish(link, str(folder / f"agents-{number}"), tokens[number::PROCESSES])
            processes.append(await _Agents.start(wish))
        async with asyncio.timeout(ENROLLED_SECONDS_MAX):
            await asyncio.gather(*(process.enrolled() for process in processes))
        headers = {"Authorization": f"Bearer {made.api_key.text}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            admin = {"Authorization": f"Bearer {made.admin_key.text}"}
            yield _Field(coordinator, processes, session, admin)
    finally:
        await asyncio.gather(*(process.stop() for process in processes))
        await coordinator.stop()
        shutil.rmtree(folder, ignore_errors=True)


# --- the storm -------------------------------------------------------------------------------------------------------


async def run(plan: Plan, progress: Callable[[int], None]) -> tuple[Storm, ...]:
    """Kill the coordinator again and again. Raises NotInTime where the agents cannot even come the first time."""
    storms: list[Storm] = []
    async with _a_field(plan.agents) as field_:
        if await field_.until_serving(plan.agents, ENROLLED_SECONDS_MAX) is None:
            raise NotInTime(f"{await field_.serving()} of {plan.agents} agents serve")
        for _ in range(plan.kills):
            await asyncio.sleep(STEADY_SECONDS)
            storms.append(await _storm(field_, plan.agents))
            progress(len(storms))
            if storms[-1].all_back is None:
                break
    return tuple(storms)


async def _storm(field_: _Field, agents: int) -> Storm:
    for process in field_.processes:
        await process.told()  # what was before
    asked: list[Asked] = []
    await field_.coordinator.stop(signal.SIGKILL)
    await asyncio.sleep(RESTART_SECONDS)
    started = time.monotonic()
    asking = asyncio.create_task(field_.ask_for_ever(asked))
    try:
        await field_.coordinator.start()
        ready = time.monotonic()
        back = await field_.until_serving(agents, BACK_SECONDS_MAX)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    lag = await field_.lag()
    told = [await process.told() for process in field_.processes]
    return Storm(
        agents=agents,
        ready=ready - started,
        back=sorted(at - started for one in told for at in one.welcomed_at),
        all_back=None if back is None else back - started,
        failed_dials=sum(one.failed for one in told),
        refused=tuple(reason for one in told for reason in one.refused),
        lag=lag,
        asked=[Asked(one.at - started, one.seconds, one.problem) for one in asked],
    )


def rows(storms: Sequence[Storm]) -> tuple[Row, ...]:
    """That all came back in time, that the loop went on meanwhile, and that callers were answered."""
    agents = storms[0].agents
    tried = (
        f"kill -9 of the coordinator, started again after {RESTART_SECONDS:g} s, {len(storms)} times; {agents:,} "
        f"agents in {PROCESSES} processes on the coordinator's own {os.cpu_count()} cores dial it as agents do"
    )
    ticks, late = sum(storm.ticks for storm in storms), sum(storm.late for storm in storms)
    meanwhile = [one for storm in storms for one in storm.meanwhile]
    unanswered = [one for one in meanwhile if one.problem]
    return (
        Row(
            promise=f"{agents:,} agents are back within {BACK_SECONDS_MAX:g} s of a coordinator's restart",
            tried=tried,
            n=agents * len(storms),
            failures=sum(max(0, agents - len(storm.back)) or storm.all_back is None for storm in storms),
            seen="; ".join(map(_told, storms)),
        ),
        Row(
            promise=f"… and 99 of 100 ticks of its event loop come within {LAG_SECONDS_MAX * 1000:g} ms",
            tried=tried,
            n=ticks,
            failures=late if late * 100 > ticks else 0,
            seen=f"{late} of {ticks} were later",
        ),
        Row(
            promise="… and who asks meanwhile is answered",
            tried=tried,
            n=len(meanwhile),
            failures=len(unanswered),
            seen=f"99 of 100 within {1000 * percentile(sorted(one.seconds for one in meanwhile), 0.99):.0f} ms"
            if meanwhile
            else "nobody asked",
        ),
    )


def _told(storm: Storm) -> str:
    half = f"{percentile(storm.back, 0.5):.1f}" if storm.back else "?"
    last = "not all" if storm.all_back is None else f"all after {storm.all_back:.1f}"
    return (
        f"it listened after {storm.ready:.1f} s, half were back after {half}, {last}; "
        f"{storm.failed_dials:,} dials failed, {len(storm.refused):,} were refused"
    )


def failed(storms: Sequence[Storm]) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = "python -m reliability --only storm"
    lines = [
        f"only {len(s.back):,} of {s.agents:,} agents came back  [{command}]" for s in storms if s.all_back is None
    ]
    lines += [f"a caller was told {one.problem}  [{command}]" for s in storms for one in s.meanwhile if one.problem]
    return tuple(lines)
