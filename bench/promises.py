"""`python -m bench.promises`: the promises to callers, tried on a whole network as `shrk dev` starts it.

1. Many streams through three nodes: every one whole, and its text equal to what the engine itself says.
2. One caller that reads a byte a second beside 200 that read normally: nobody else slows down, and what the
   coordinator holds for the slow one stays within its credit.

Figures are printed, never asserted; the exit code is 1 where an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
SHRK = Path(sys.prefix) / "bin" / "shrk"
#: vLLM on two busy cores takes minutes to load; nothing else here takes long.
READY_SECONDS_MAX = 900.0
NORMAL_READERS = 200
#: Simulated tokens: as a middling GPU gives them, so that a stream lasts long enough to be disturbed.
FIRST_TOKEN_MS, TOKENS_PER_SECOND = 50, 50
#: The slow caller asks for this many tokens, about 12 MB of events.
ENDLESS_TOKENS = 60_000


@dataclass(frozen=True, slots=True)
class Network:
    """What `shrk dev --json` said when it was ready."""

    base_url: str
    key: str
    coordinator_pid: int
    model: str
    #: The engine of one node, to be asked directly.
    engine_socket: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both; 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.promises", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("sim", "vllm"), default="sim")
    parser.add_argument("--streams", type=int, default=1000, metavar="N")
    parser.add_argument("--at-once", type=int, default=64, metavar="N")
    options = parser.parse_args(arguments)
    return asyncio.run(_run(options.engine, options.streams, options.at_once))


async def _run(engine: str, streams: int, at_once: int) -> int:
    async with _network(engine) as network:
        wrong = await _equal_texts(network, streams, at_once)
        print(f"{streams} streams, {at_once} at a time, 3 {engine} nodes: {wrong} errors or differing texts")
    if engine == "sim":
        paced = ("--sim-first-token-ms", str(FIRST_TOKEN_MS), "--sim-tokens-per-second", str(TOKENS_PER_SECOND))
        async with _network(engine, *paced) as network:
            wrong += await _slow_reader(network)
    return int(wrong > 0)


@contextlib.asynccontextmanager
async def _network(engine: str, *options: str) -> AsyncIterator[Network]:
    """A whole network in a folder of ours, gone at the end."""
    command = [str(SHRK), "dev", "--json", "--engine", engine, "--port", "0", "--nodes", "3", *options]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            line = await process.stdout.readline()
        if not line:
            raise SystemExit("shrk dev ended before it was ready; its reasons are above")
        ready = json.loads(line)
        yield Network(
            base_url=ready["base_url"],
            key=ready["api_key"],
            coordinator_pid=ready["coordinator_pid"],
            model="shark-tiny",
            engine_socket=_engine_socket(ready["nodes"][-1]["engine_pids"][0]),
        )
    finally:
        process.terminate()
        await process.wait()


def _engine_socket(pid: int) -> Path:
    """Where an engine listens, read from its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return Path(words[words.index("--uds") + 1])


def _chat(model: str, number: int, **fields: Any) -> dict[str, Any]:
    question = ("Count to 10", "hello", "Write a haiku about GPUs")[number % 3] if number % 2 else f"question {number}"
    return {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, **fields}


async def _equal_texts(network: Network, streams: int, at_once: int) -> int:
    """How many of the streams failed, or said something else than the engine itself."""
    gate = asyncio.Semaphore(at_once)
    expected: dict[str, str] = {}
    limits = {"max_tokens": 200}
    headers = {"Authorization": f"Bearer {network.key}"}
    direct = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(network.engine_socket)))
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session, direct:

        async def one(number: int) -> bool:
            body = _chat(network.model, number, **limits)
            question = body["messages"][0]["content"]
            async with gate:
                text, whole = await _streamed(session, network, body)
                if question not in expected:
                    async with direct.post("http://engine/v1/chat/completions", json=body) as answer:
                        expected[question] = (await answer.json())["choices"][0]["message"]["content"]
            return whole and text == expected[question]

        began = time.monotonic()
        right = await asyncio.gather(*(one(number) for number in range(streams)))
        print(f"  took {time.monotonic() - began:.1f} s")
    return right.count(False)


async def _streamed(session: aiohttp.ClientSession, network: Network, body: dict[str, Any]) -> tuple[str, bool]:
    """The text of one stream, and whether it was whole."""
    url = f"{network.base_url}/chat/completions"
    async with session.post(url, json=body | {"stream": True}) as answer:
        raw = await answer.read()
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n\n") if line.startswith(b"data: ")]
    events = [json.loads(line) for line in lines if line != b"[DONE]"]
    text = "".join(c["delta"].get("content") or "" for e in events for c in e.get("choices", ()))
    whole = answer.status == 200 and lines[-1] == b"[DONE]" and not any("error" in e for e in events)
    return text, whole


async def _slow_reader(network: Network) -> int:
    """Durations of 200 streams without and with a caller that reads a byte a second; how many were not whole."""
    headers = {"Authorization": f"Bearer {network.key}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await _round(session, network)  # warms connections and caches
        alone, wrong_alone = await _round(session, network)
        before = _memory_kib(network.coordinator_pid)
        async with _reading_a_byte_a_second(network) as slow:
            await slow.wait()
            beside, wrong_beside = await _round(session, network)
            after = _memory_kib(network.coordinator_pid)
    print(f"{NORMAL_READERS} normal streams, seconds each (median / 99th of 100):")
    for name, figures in (("without a slow reader", alone), ("beside one that reads 1 byte/s", beside)):
        print(f"  {name}: {statistics.median(figures):.3f} / {statistics.quantiles(figures, n=100)[98]:.3f}")
    print(f"  ratio of the medians: {statistics.median(beside) / statistics.median(alone):.3f}")
    print(f"  the coordinator's memory: {before} KiB before, {after} KiB with it (its credit is 256 KiB)")
    return wrong_alone + wrong_beside


async def _round(session: aiohttp.ClientSession, network: Network) -> tuple[list[float], int]:
    async def one(number: int) -> tuple[float, bool]:
        began = time.monotonic()
        body = _chat(network.model, number, max_tokens=64, ignore_eos=True)
        _, whole = await _streamed(session, network, body)
        return time.monotonic() - began, whole

    done = await asyncio.gather(*(one(number) for number in range(NORMAL_READERS)))
    return [seconds for seconds, _ in done], sum(not whole for _, whole in done)


@contextlib.asynccontextmanager
async def _reading_a_byte_a_second(network: Network) -> AsyncIterator[asyncio.Event]:
    """A caller that asks for megabytes and reads a byte a second; the event says that its answer has begun."""
    host, _, port = network.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    body = json.dumps(_chat(network.model, 0, stream=True, ignore_eos=True, max_tokens=ENDLESS_TOKENS)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {network.key}\r\n"
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        # Small, so that the kernel does not read in its place.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (host, int(port)))
        await loop.sock_sendall(connection, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        begun = asyncio.Event()

        async def read() -> None:
            while await loop.sock_recv(connection, 1):
                begun.set()
                await asyncio.sleep(1.0)

        reading = asyncio.create_task(read())
        try:
            yield begun
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


if __name__ == "__main__":
    sys.exit(main())
