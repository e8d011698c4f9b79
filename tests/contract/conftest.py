"""One vLLM that generates, and one simulated engine, for all files here but embeddings, which has its own kind.

They end with this package's last test. Embeddings come first in the alphabet, so the two vLLMs do not meet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shrk_node_agent.engine.simulated.server import Plan, serving
from support.real_engine import GENERATE_FLAGS, vllm

MODEL = "shark-tiny"
CONTEXT_TOKENS = 65_536


@pytest.fixture(scope="package")
async def real() -> AsyncIterator[Path]:
    """The socket of a real vLLM."""
    async with vllm(MODEL, *GENERATE_FLAGS, context_tokens=CONTEXT_TOKENS) as socket:
        yield socket


@pytest.fixture(scope="package")
async def simulated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """The socket of a simulated engine that says it is the same."""
    socket = tmp_path_factory.mktemp("sim") / "engine.sock"
    plan = Plan(MODEL, context_tokens=CONTEXT_TOKENS)
    async with serving(plan, socket, clock=lambda: 1_700_000_000.0, crash=lambda: None):
        yield socket


@pytest.fixture(scope="package")
def sockets(real: Path, simulated: Path) -> dict[str, Path]:
    """Both, by name."""
    return {"real": real, "simulated": simulated}
