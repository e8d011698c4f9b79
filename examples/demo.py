"""From nothing to an answer by real vLLM, through three nodes of which one is then killed. Run by `make demo`.

It does what a user would: starts `shrk dev`, talks to it with the official `openai` package, kills a node
with kill -9 while requests are under way, and stops the network again. Exit status 0 only if all went well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAIError

ROOT = Path(__file__).resolve().parent.parent
#: Building the model, then four vLLM processes that load at once on two cores; both generous.
READY_SECONDS_MAX = 900.0
#: `shrk dev` drains and stops in well under a minute.
STOP_SECONDS_MAX = 90.0
#: Requests while a node is killed: enough that each node has some, whatever the moment.
CALLERS, REQUESTS_EACH = 6, 8
#: Answers after which the node is killed, so that all nodes are at work.
ANSWERS_BEFORE_THE_KILL = 6


class DemoFailed(Exception):
    """Something did not go as it should; the message is for the person who ran the demo."""


async def main() -> None:
    """The whole demonstration. Raises DemoFailed."""
    began = time.monotonic()
    async with network() as ready:
        async with AsyncOpenAI(base_url=ready["base_url"], api_key=ready["api_key"], max_retries=0) as openai:
            await stream_an_answer(openai, began)
            await list_models(openai)
            await ask_while_a_node_dies(openai, ready["nodes"][-1])
        print("\n4. Stopping the network.")
    if left := still_there(ready):
        raise DemoFailed(f"processes were left behind: {left}")
    print(f"   Nothing is left of it. The demo took {time.monotonic() - began:.0f} s.")


def still_there(ready: dict[str, Any]) -> list[int]:
    """Processes of the network that have not ended."""
    pids = [ready["coordinator_pid"]]
    for node in ready["nodes"]:
        pids += [node["pid"], *node["engine_pids"]]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@contextlib.asynccontextmanager
async def network() -> AsyncIterator[dict[str, Any]]:
    """`shrk dev` with three vLLM nodes on a free port; yields what it prints when it is ready."""
    print("Starting a coordinator and three nodes with real vLLM on this machine (one to two minutes).")
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).parent / "shrk", "dev", "--json", "--engine", "vllm", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        # What it makes stays in this folder.
        env=os.environ | {"SHRK_CACHE_DIR": str(ROOT / ".cache")},
    )
    try:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_SECONDS_MAX)
        except TimeoutError:
            raise DemoFailed(f"the network was not ready after {READY_SECONDS_MAX:g} s") from None
        if not line:
            raise DemoFailed("`shrk dev` ended before the network was ready; its own words are above")
        yield json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            status = await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
        except TimeoutError:
            process.kill()  # what it started ends with it
            raise DemoFailed(f"`shrk dev` did not stop within {STOP_SECONDS_MAX:g} s") from None
    if status != 0:
        raise DemoFailed(f"`shrk dev` ended with status {status}")


async def stream_an_answer(openai: AsyncOpenAI, began: float) -> None:
    """Print an answer token by token, and when its first token came."""
    question = "Tell me about yourself"
    print(f'\n1. "{question}", streamed through the coordinator from vLLM:\n\n   ', end="", flush=True)
    first_token_seconds = None
    stream = await openai.chat.completions.create(
        model="shark-tiny", messages=[{"role": "user", "content": question}], stream=True
    )
    async for chunk in stream:
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            first_token_seconds = first_token_seconds or time.monotonic() - began
            print(text, end="", flush=True)
    if first_token_seconds is None:
        raise DemoFailed("the streamed answer was empty")
    print(f"\n\n   First token {first_token_seconds:.1f} s after the start of this demo.")


async def list_models(openai: AsyncOpenAI) -> None:
    """Print what the network serves."""
    print("\n2. Models:\n")
    async for model in openai.models.list():
        nodes = (model.model_extra or {})["shrk"]["nodes"]
        print(f"   {model.id:<18} on {nodes} node{'' if nodes == 1 else 's'}")


async def ask_while_a_node_dies(openai: AsyncOpenAI, node: dict[str, Any]) -> None:
    """Several callers ask at once; in their midst a node gets kill -9. Nobody may notice."""
    print(f"\n3. {CALLERS} callers ask {REQUESTS_EACH} times each, and {node['name']} gets kill -9 meanwhile:\n")
    seconds: list[float] = []
    errors: list[str] = []
    warm = asyncio.Event()

    async def caller() -> None:
        for _ in range(REQUESTS_EACH):
            asked = time.monotonic()
            try:
                answer = await openai.chat.completions.create(
                    model="shark-tiny", messages=[{"role": "user", "content": "Count to 10"}]
                )
                if not answer.choices[0].message.content:
                    errors.append("an empty answer")
            except OpenAIError as error:
                errors.append(str(error))
            seconds.append(time.monotonic() - asked)
            if len(seconds) == ANSWERS_BEFORE_THE_KILL:
                warm.set()

    callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
    await warm.wait()
    os.kill(node["pid"], signal.SIGKILL)
    print(f"   kill -9 {node['pid']}", flush=True)
    await asyncio.gather(*callers)
    if errors:
        raise DemoFailed(f"{len(errors)} of {len(seconds)} callers saw an error, first: {errors[0]}")
    print(f"   {len(seconds)} answers, no error; the slowest took {max(seconds):.1f} s.")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except DemoFailed as failure:
        sys.exit(f"demo: {failure}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; everything it started is stopped")
    print("\ndemo: all well.")
