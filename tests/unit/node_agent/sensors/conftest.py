"""A driver that is a stub, and a process that reads it: one of both for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.nvml import NvmlChild, StubDriver, compile_stub, nvml_child


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> StubDriver:
    folder = tmp_path_factory.mktemp("nvml")
    return StubDriver(compile_stub(folder / "lib"), folder / "stub.txt")


@pytest.fixture(scope="module")
async def process(driver: StubDriver) -> AsyncIterator[NvmlChild]:
    driver.forgets()
    async with nvml_child(driver) as child:
        yield child
        driver.forgets()


@pytest.fixture
async def child(driver: StubDriver, process: NvmlChild) -> NvmlChild:
    """Knows nothing yet; the driver is well."""
    driver.forgets()
    await process.new()
    return process


@pytest.fixture
def stub(driver: StubDriver, child: NvmlChild) -> StubDriver:
    """The driver that `child` reads."""
    return driver
