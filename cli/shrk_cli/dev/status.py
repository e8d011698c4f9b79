"""What a node says about itself: read from the agent's control socket, by long polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import aiohttp

#: The version of the agent's status that is understood here.
SCHEMA = 1
#: How long the agent may hold a poll open while nothing changes.
WAIT_SECONDS = 20
#: Past the agent's own limit: it hangs.
ANSWER_SECONDS_MAX = WAIT_SECONDS + 10
#: Between two tries to reach an agent that is not up (yet, or again).
RETRY_SECONDS = 0.2

SERVING = frozenset({"online", "busy"})
INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine of a node, in the agent's words."""

    id: str
    model: str
    state: str
    reason: str = ""
    detail: str = ""
    #: 0 to 1; None where the engine does not tell.
    progress: float | None = None
    elapsed_seconds: float = 0.0
    #: The engine's own process first, then what it started.
    pids: tuple[int, ...] = ()
    #: Its own last lines, when it has ended.
    tail: tuple[str, ...] = ()

    @property
    def serving(self) -> bool:
        return self.state in SERVING


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, in the agent's words. `state` is one of the product's closed list."""

    name: str
    state: str
    reason: str = ""
    node_id: str = ""
    pid: int = 0
    #: "connected", "connecting" or "refused".
    link: str = "connecting"
    link_reason: str = ""
    engines: tuple[EngineStatus, ...] = ()


def parse(document: Mapping[str, Any], name: str) -> NodeStatus:
    """Read one status document. Raises ValueError for another schema, KeyError for a missing field."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"status schema {document['schema']} of {name}, {SCHEMA} is understood")
    return NodeStatus(
        name=name,
        state=document["state"],
        reason=document["reason"],
        node_id=document["node_id"],
        pid=document["pid"],
        link=document["link"],
        link_reason=document["link_reason"],
        engines=tuple(
            EngineStatus(
                id=engine["id"],
                model=engine["model"],
                state=engine["state"],
                reason=engine["reason"],
                detail=engine["detail"],
                progress=engine["progress"],
                elapsed_seconds=engine["elapsed_seconds"],
                pids=tuple(engine["pids"]),
                tail=tuple(engine["tail"]),
            )
            for engine in document["engines"]
        ),
    )


async def follow(control_socket: Path, name: str, on_status: Callable[[NodeStatus], None]) -> NoReturn:
    """Report every change of a node, for ever; cancel to end.

    While the agent is down it is tried again; after that its status is reported from the start.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    while True:
        connector = aiohttp.UnixConnector(str(control_socket))
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            revision: int | None = None
            try:
                while True:
                    query = {} if revision is None else {"after": revision, "wait_seconds": WAIT_SECONDS}
                    async with session.get("http://agent/status", params=query) as response:
                        response.raise_for_status()
                        document = await response.json()
                    revision = document["revision"]
                    on_status(parse(document, name))
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(RETRY_SECONDS)
