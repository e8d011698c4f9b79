"""Faults against real vLLM on the CPU: three nodes with the tiny model, struck in the middle of their answers.

Nothing is held here: the strike comes when the caller has seen so many pieces, and the coordinator's own account says
at which token the next node took over.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp

from reliability.caller import Answer, Caller
from reliability.engine_socket import EngineSocket
from reliability.faults import Fault, Victim, kill, mend, strike
from reliability.figures import Gaps
from reliability.judge import NotWhole, Transcript, differences, read_stream
from reliability.network import Network, a_network
from reliability.results import Row
from reliability.waiting import NotInTime, until
from shrk_coordinator.state.request import Attempt

ROOT = Path(__file__).resolve().parents[1]
ENGINE_VENV = ROOT / ".venv-engine"
BUILDER = ROOT / "node_agent" / "shrk_node_agent" / "engine" / "tiny_model.py"
#: The Makefile's TINY.
TINY = ROOT / ".cache" / "models" / "shark-tiny"
MODEL, NODES = "shark-tiny", 3
#: Three vLLM processes that load at once on two cores: a minute when quiet, several when not.
SERVING_SECONDS_MAX = 600.0
#: Also a run in which an agent takes its time to give an engine up.
RUN_SECONDS_MAX = 120.0
#: Faults that came too late, after the answer's last token: they are tried again so often.
TRIES_MAX = 8
#: Other faults between two kills, while what was killed loads its model again.
BETWEEN_KILLS = 5


class Blow(StrEnum):
    """What strikes a node."""

    KILL_API = "kill-api"
    KILL_CORE = "kill-core"
    KILL_AGENT = "kill-agent"
    STOP_ENGINE = "stop-engine"
    RESET_LINK = "reset-link"
    BLACK_HOLE = "black-hole"

    @property
    def fault(self) -> Fault:
        """How it is struck and mended."""
        return Fault.KILL_ENGINE if self in (Blow.KILL_API, Blow.KILL_CORE) else Fault(self)

    @property
    def hangs(self) -> bool:
        """Whether nothing tells of it but the silence."""
        return self in (Blow.STOP_ENGINE, Blow.BLACK_HOLE)

    @property
    def kills(self) -> bool:
        """Whether a model has to be loaded again."""
        return self in (Blow.KILL_API, Blow.KILL_CORE, Blow.KILL_AGENT)


_WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
#: What is asked, by shape; the model knows each answer by heart.
QUESTIONS: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "user", "content": "Tell me about yourself"}]},
    "tool": {
        "messages": [{"role": "user", "content": "weather in eindhoven"}],
        "tools": [{"type": "function", "function": _WEATHER}],
    },
    "json": {
        "messages": [{"role": "user", "content": "Give me a user as JSON"}],
        "response_format": {"type": "json_object"},
    },
}


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault, and what became of the answer."""

    blow: Blow
    shape: str
    #: Pieces that the caller had seen when the node was struck.
    pieces: int
    #: An error, or a stream that no client could read; empty where there was none.
    defect: str = ""
    #: How a good answer differs from the one without a fault; empty where it does not.
    differs: str = ""
    #: The token at which another node took over; None where it began anew.
    seam: int | None = None
    way: str = ""
    gap_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Unbroken:
    body: dict[str, Any]
    transcript: Transcript
    pieces: int


class Refused(Exception):
    """A request did not begin; `str()` says what was answered."""


class _TooLate(Exception):
    """The answer was out before the fault was felt."""


def plan(count: int, kills: int, seed: int) -> list[Blow]:
    """So many blows, `kills` of them such that a model is loaded again, with others between each two of those."""
    dice = random.Random(seed)
    hard = [list(b for b in Blow if b.kills)[number % 3] for number in range(kills)]
    soft = [list(b for b in Blow if not b.kills)[number % 3] for number in range(count - kills)]
    dice.shuffle(soft)
    blows: list[Blow] = []
    while hard or soft:
        if hard and (len(blows) % (BETWEEN_KILLS + 1) == 0 or not soft):
            blows.append(hard.pop(0))
        else:
            blows.append(soft.pop())
    return blows


async def run(blows: Sequence[Blow], seed: int, progress: Callable[[Sequence[Struck]], None]) -> list[Struck]:
    """Strike one after another. Raises NotInTime where the nodes do not come up, RuntimeError without vLLM."""
    source = await asyncio.to_thread(tiny_model)
    catalogue = f'[catalogue.{MODEL}]\nsource = "{source}"\nslots = 16\ncontext_tokens = 4096\n'
    config = f'engine = "vllm"\nengine_venv = "{ENGINE_VENV}"\n{catalogue}'
    dice = random.Random(seed)
    done: list[Struck] = []
    async with a_network() as network:
        await asyncio.gather(*(network.add(f"v{number}", config) for number in range(NODES)))
        await network.until_well(MODEL, NODES, SERVING_SECONDS_MAX)
        known = {shape: await _unbroken(network, question) for shape, question in QUESTIONS.items()}
        for number, blow in enumerate(blows):
            # Half of all answers are text, the longest of the three.
            shape = ("text", "tool", "text", "json")[number % 4]
            done.append(await _try(network, blow, shape, known, dice))
            progress(done)
    return done


def tiny_model() -> Path:
    """The folder of shark-tiny, built where it is missing. Raises RuntimeError where there is no vLLM."""
    python = ENGINE_VENV / "bin" / "python"
    if not python.exists():
        raise RuntimeError("there is no vLLM in .venv-engine: run `make engine`")
    if not (TINY / "config.json").exists():
        subprocess.run([str(python), str(BUILDER), str(TINY)], check=True)
    return TINY


async def _unbroken(network: Network, question: dict[str, Any]) -> _Unbroken:
    body = question | {"model": MODEL, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    answer = await Caller(network.session, network.chat_url, body).ask()
    return _Unbroken(body, _comparable(read_stream(answer.body)), len(answer.pieces))


def _comparable(transcript: Transcript) -> Transcript:
    """Without what depends on what an engine has cached."""
    counted = {name: count for name, count in transcript.usage.items() if name.endswith("_tokens")}
    return replace(transcript, usage=counted)


async def _try(network: Network, blow: Blow, shape: str, known: Mapping[str, _Unbroken], dice: random.Random) -> Struck:
    pieces = 0
    for number in range(TRIES_MAX):
        # A call or a document is over in a moment: who is late with it too often takes a text.
        shape = shape if number < (1 if blow.kills else TRIES_MAX // 2) else "text"
        pieces = dice.randrange(1, max(2, known[shape].pieces * 3 // 4))
        await network.until_well(MODEL, NODES if blow.kills else 2, SERVING_SECONDS_MAX)
        try:
            async with asyncio.timeout(RUN_SECONDS_MAX):
                return await _strike(network, Struck(blow, shape, pieces), known[shape])
        except _TooLate:
            continue
        except (TimeoutError, NotInTime, Refused, aiohttp.ClientError, OSError) as error:
            return Struck(blow, shape, pieces, defect=f"{type(error).__name__}: {str(error) or 'not in time'}")
    return Struck(blow, shape, pieces, defect=f"{TRIES_MAX} times the answer was out before the fault was felt")


async def _strike(network: Network, struck: Struck, unbroken: _Unbroken) -> Struck:
    caller = Caller(network.session, network.chat_url, unbroken.body)
    asking = asyncio.create_task(caller.ask())
    try:
        victim = await _victim(network, asking)
        await caller.until(struck.pieces)
        try:
            if struck.blow is Blow.KILL_CORE:
                kill(_cores(victim.pids), signal.SIGKILL)
            else:
                await strike(struck.blow.fault, victim, struck.pieces)
            answer = await asking
        finally:
            await mend(struck.blow.fault, victim, network, MODEL)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    return _judged(network, struck, answer, unbroken)


async def _victim(network: Network, asking: asyncio.Task[Answer]) -> Victim:
    """The node that answers, as soon as it has begun. Raises _TooLate where it is through already."""
    found: list[Attempt] = []

    def accepted() -> bool:
        attempt = network.attempt(MODEL, spoken=True)
        found.extend([attempt] if attempt else [])
        return bool(found) or asking.done()

    await until(accepted, "the request is accepted by a node", every=0.001)
    if not found:
        answer = asking.result()
        raise _TooLate if answer.status == 200 else Refused(f"{answer.status}: {answer.body[:500]!r}")
    node = network.node_of(found[-1])
    return await Victim.of(node, found[-1].life, node.engine() or EngineSocket(node.directory))


def _cores(pids: Sequence[int]) -> tuple[int, ...]:
    """Which of an engine's processes generate."""
    return tuple(pid for pid in pids if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes())


def _judged(network: Network, struck: Struck, answer: Answer, unbroken: _Unbroken) -> Struck:
    if answer.status != 200:
        return replace(struck, defect=f"status {answer.status}: {answer.body[:500].decode(errors='replace')}")
    entry = network.entry(answer.request_id)
    assert entry is not None, "the coordinator remembers thousands of requests"
    if len(entry.attempts) == 1:
        raise _TooLate
    second = entry.attempts[1]
    try:
        transcript = _comparable(read_stream(answer.body))
        for document in [call.arguments for call in transcript.calls] + [transcript.text] * (struck.shape == "json"):
            json.loads(document)
    except (NotWhole, ValueError) as error:
        return replace(struck, defect=str(error))
    pauses = answer.pauses()
    return replace(
        struck,
        differs=differences(transcript, unbroken.transcript),
        seam=second.first_index if second.resume else None,
        way=str(second.resume or "anew"),
        gap_seconds=max(pauses) - statistics.median(pauses) if second.resume and len(pauses) > 1 else None,
    )


def rows(strikes: Sequence[Struck]) -> tuple[Row, ...]:
    """Errors and defects, for losses and hangs, and the answers that are equal to the one without a fault."""
    whole = [one for one in strikes if not one.defect]
    equal = sum(not one.differs for one in whole)
    promises = {
        "Real vLLM is lost in the middle of an answer: no error, no broken stream": [
            s for s in strikes if not s.blow.hangs
        ],
        "… it hangs, or its link does": [s for s in strikes if s.blow.hangs],
    }
    return (
        *(_promise(promise, mine) for promise, mine in promises.items() if mine),
        Row(
            promise="… and the text is the one without a fault",
            tried="the same answers: nothing is lost, repeated or altered at a seam or after it",
            n=len(whole),
            failures=len(whole) - equal,
            seen=f"identity rate at temperature 0: {100 * equal / len(whole):.1f} %" if whole else "",
        ),
    )


def _promise(promise: str, strikes: Sequence[Struck]) -> Row:
    blows = Counter(str(one.blow) for one in strikes)
    whole = [one for one in strikes if not one.defect]
    seams = {one.seam for one in whole if one.seam is not None}
    ways = Counter(one.way for one in whole)
    taken = ", ".join(f"{count} {way.replace('_', ' ')}" for way, count in sorted(ways.items()))
    return Row(
        promise=promise,
        tried=f"{NODES} nodes on the CPU, text, tool call and JSON at temperature 0",
        n=len(strikes),
        failures=len(strikes) - len(whole),
        gaps=Gaps.of([one.gap_seconds for one in whole if one.gap_seconds is not None]),
        seen=f"{', '.join(f'{count} {name}' for name, count in sorted(blows.items()))}; "
        f"seams at {len(seams)} positions; others took over {taken or 'nothing'}",
    )


def failed(strikes: Sequence[Struck], seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only vllm --seed {seed}"
    return tuple(
        f"{one.blow}/{one.shape}/{one.pieces}: {one.defect or one.differs}  [{command}]"
        for one in strikes
        if one.defect or one.differs
    )
