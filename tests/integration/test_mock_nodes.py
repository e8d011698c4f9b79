"""Mock nodes of `make bench` and of the storm, as the programs that they are, beside a real coordinator."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bench.engine import WHOLE
from support.house import ROOT
from support.network import a_network


@pytest.mark.parametrize(("program", "said"), [("bench.nodes", "linked"), ("reliability.storm_agents", '"enrolled"')])
async def test_mock_nodes_link_and_answer_as_real_ones_do(program: str, said: str, tmp_path: Path) -> None:
    async with a_network() as network:
        assert network.coordinator.ports is not None
        wish = {
            "controller": f"tcp://127.0.0.1:{network.coordinator.ports.link}",
            "directory": str(tmp_path),
            "join_tokens": [await network.token("one"), await network.token("two")],
        }
        nodes = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", program),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert nodes.stdin is not None
            assert nodes.stdout is not None
            nodes.stdin.write(f"{json.dumps(wish)}\n".encode())
            assert (await nodes.stdout.readline()).decode().strip() == said
            await network.until_serving(WHOLE, 2)
            body = {"model": WHOLE, "messages": [{"role": "user", "content": "hello"}]}
            async with (
                network.session() as session,
                session.post(f"{network.base_url}/chat/completions", json=body) as answer,
            ):
                assert (answer.status, (await answer.json())["model"]) == (200, WHOLE)
            nodes.stdin.close()
            assert await nodes.wait() == 0
        finally:
            if nodes.returncode is None:
                nodes.kill()
                await nodes.wait()
