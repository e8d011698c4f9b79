"""One network of three simulated nodes for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.network import Network, a_network


@pytest.fixture(scope="session")
async def network() -> AsyncIterator[Network]:
    """Three nodes serve `m`, the first also `m-embed`."""
    async with a_network() as network:
        await network.add_simulated("one", "m", "m-embed")
        await network.add_simulated("two", "m")
        await network.add_simulated("three", "m")
        await network.until_serving("m", 3)
        await network.until_serving("m-embed", 1)
        yield network
