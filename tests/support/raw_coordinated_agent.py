"""An agent in the test's own loop, with real engine processes, linked to a coordinator that a test plays by hand."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import orjson

from shrk_contract.settings import load
from shrk_contract.v1 import link_pb2, report_pb2
from shrk_node_agent.app import Agent
from shrk_node_agent.link import identity as identities
from shrk_node_agent.settings import AgentSettings
from support.network import until
from support.raw_coordinator import WELCOME, Frame, NodesEnd, raw_coordinator

_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # grpc-stubs do not know it


@dataclass
class CoordinatedAgent:
    """An agent that serves `m`, and everything it said."""

    agent: Agent
    link: NodesEnd
    said: list[link_pb2.NodeFrame] = field(default_factory=list)

    async def listen(self) -> None:
        """Write down what the agent says, to the end of its link."""
        while (batch := await self.link.context.read()) is not _END:
            self.said += batch.frames

    async def ask(self, stream: int, *, streaming: bool = True, **fields: Any) -> None:
        """Order one chat that goes on for very long, unless the fields say otherwise."""
        request = {
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "ignore_eos": True,
            "max_tokens": 4000,
            "stream": streaming,
            **fields,
        }
        body = orjson.dumps(request)
        start = link_pb2.Start(
            stream=stream,
            endpoint=report_pb2.ENDPOINT_CHAT_COMPLETIONS,
            model="m",
            streaming=streaming,
            envelope=link_pb2.Envelope(id="chatcmpl-1", created=1, model="m"),
            body_bytes=len(body),
            body=body,
            credit_bytes=1 << 30,
        )
        await self.link.send(Frame(start=start))

    async def cancel(self, stream: int) -> None:
        """Have one attempt stopped."""
        await self.link.send(Frame(cancel=link_pb2.Cancel(stream=stream)))

    def of(self, kind: str, stream: int | None = None) -> list[Any]:
        """All that was said of one kind, about one stream where it is named."""
        found = [getattr(frame, kind) for frame in self.said if frame.WhichOneof("frame") == kind]
        return [one for one in found if stream is None or one.stream == stream]

    async def until_said(self, kind: str, stream: int, what: str = "") -> Any:
        """The first of this kind about this stream, as soon as it has been said."""
        await until(lambda: bool(self.of(kind, stream)), what or f"{kind} of stream {stream}")
        return self.of(kind, stream)[0]

    async def until_reported(self, condition: Callable[[report_pb2.Engine], bool], what: str) -> None:
        """Wait for the engine to be reported so."""
        await until(lambda: any(condition(report.engines[0]) for report in self.of("report")), what)

    def engine_pid(self) -> int:
        """The engine's own process."""
        return self.agent.driver.processes["m"].pids()[0]


def is_online(engine: report_pb2.Engine) -> bool:
    """Whether it takes work, as reported."""
    return engine.status.state == report_pb2.STATE_ONLINE


@asynccontextmanager
async def coordinated_agent(**settings: Any) -> AsyncIterator[CoordinatedAgent]:
    """An agent whose engine is ready and reported so; `sim` are the figures of the simulated engine."""
    # Short: the path of a unix socket holds 107 bytes, and pytest's own folders are longer than that.
    folder = Path(tempfile.mkdtemp(prefix="shrk-"))
    links = asyncio.Queue[NodesEnd]()

    async def welcome(node: NodesEnd) -> None:
        await node.send(WELCOME)
        links.put_nowait(node)
        await asyncio.Event().wait()

    catalogue = {"m": {"source": "simulated"}}
    given = {"state_dir": folder / "n", "engine": "sim", "catalogue": catalogue, "name": "n", **settings}
    try:
        async with raw_coordinator(folder, welcome) as coordinator:
            identities.save(folder / "n" / "identity", coordinator.identity)
            agent = Agent(load(AgentSettings, **given))
            await agent.start()
            try:
                coordinated = CoordinatedAgent(agent, await links.get())
                listening = asyncio.create_task(coordinated.listen())
                await coordinated.until_reported(is_online, "an engine that is ready")
                yield coordinated
            finally:
                await agent.stop()
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        shutil.rmtree(folder)
