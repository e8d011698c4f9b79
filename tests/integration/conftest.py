"""One network of three simulated nodes, and one coordinator that serves the installer, for all tests that leave them as
they found them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.installer import Machine, a_machine, make_release
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


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of this tree."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    make_release(folder)
    return folder


@pytest.fixture(scope="session")
async def offering(dist: Path) -> AsyncIterator[Network]:
    """A coordinator that serves the release; no nodes."""
    async with a_network(dist_dir=dist) as network:
        yield network


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A clean machine."""
    with a_machine() as machine:
        yield machine
