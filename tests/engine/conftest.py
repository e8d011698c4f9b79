"""Three nodes with real vLLM on the CPU, for every test here that leaves them as it found them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.network import Network, a_network
from support.real_engine import ROOT, tiny_model

#: Four vLLM processes at once on two cores: a minute and a half when quiet, several when not.
SERVING_SECONDS_MAX = 600.0


@pytest.fixture(scope="session")
async def vllm_network() -> AsyncIterator[Network]:
    """`shark-tiny` on three nodes, `shark-tiny-embed` on the first: what `shrk dev` starts by default."""
    source = tiny_model()
    chat = f'[catalogue.shark-tiny]\nsource = "{source}"\nslots = 16\ncontext_tokens = 65536\n'
    embed = f'[catalogue.shark-tiny-embed]\nsource = "{source}"\ntask = "embed"\ncontext_tokens = 4096\n'
    shared = f'engine = "vllm"\nengine_venv = "{ROOT / ".venv-engine"}"\n'
    async with a_network() as network:
        await network.add_node("one", shared + chat + embed)
        await network.add_node("two", shared + chat)
        await network.add_node("three", shared + chat)
        await network.until_serving("shark-tiny", 3, SERVING_SECONDS_MAX)
        await network.until_serving("shark-tiny-embed", 1, SERVING_SECONDS_MAX)
        yield network
