"""A program that reads GPUs through NVML as it is asked on its stdin, one JSON document a line, many at the same time.

It runs where the stub library is the one that is found (`support.nvml`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from shrk_contract.settings import load
from shrk_node_agent.app import Agent
from shrk_node_agent.commands.models_suggest import look
from shrk_node_agent.sensors.gpu import Gpus, SensorsFailed
from shrk_node_agent.sensors.nvml import NvmlDriver
from shrk_node_agent.sensors.threaded import ThreadedGpus
from shrk_node_agent.settings import AgentSettings


class _Child:
    def __init__(self, logs: list[Any]) -> None:
        self._logs = logs
        self.gpus: Gpus = ThreadedGpus(NvmlDriver())

    async def answer(self, order: dict[str, Any]) -> Any:
        """Of one order."""
        match order["do"]:
            case "new":
                if not order["killed"]:
                    await self.gpus.close()
                kept = Path(order["kept"]) if order["kept"] else None
                self.gpus = ThreadedGpus(NvmlDriver(order["visible"], kept), order["seconds"])
                return None
            case "ping":
                return "pong"
            case "read":
                try:
                    return [dataclasses.asdict(reading) for reading in await self.gpus.read()]
                except SensorsFailed as failed:
                    return {"failed": type(failed).__name__, "reason": str(failed)}
            case "agent":
                await self.gpus.close()
                self.gpus = Agent(_settings(order))._gpus
                return None
            case "look":
                found, _ = await asyncio.to_thread(look, _settings(order))
                return [gpu.uuid for gpu in found]
            case "logged":
                logged = list(self._logs)
                self._logs.clear()
                return logged
            case "power_limit":
                return dataclasses.asdict(await self.gpus.set_power_limit(order["uuid"], order["value"]))
            case "target":
                return dataclasses.asdict(await self.gpus.set_target_temperature(order["uuid"], order["value"]))
            case "capabilities":
                return self.gpus.capabilities().document()
            case unknown:
                raise AssertionError(f"nobody asks for {unknown}")


def _settings(order: dict[str, Any]) -> AgentSettings:
    catalogue = {"m": {"source": "simulated"}}
    return load(AgentSettings, state_dir=Path(order["state_dir"]), gpu="nvml", engine="sim", catalogue=catalogue)


async def _serve(logs: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    child = _Child(logs)

    async def one(order: dict[str, Any]) -> None:
        answer = await child.answer(order)
        print(json.dumps({"id": order["id"], "answer": answer}, default=str), flush=True)

    async with asyncio.TaskGroup() as orders:
        while line := await lines.readline():
            orders.create_task(one(json.loads(line)))
    await child.gpus.close()


if __name__ == "__main__":
    with capture_logs() as logs:  # Answers are on stdout, where they would go.
        asyncio.run(_serve(logs))
