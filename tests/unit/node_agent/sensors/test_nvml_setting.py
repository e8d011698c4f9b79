"""What is set through NVML: read back, never above the owner's, and set back, whatever happens to the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shrk_node_agent.owner import gpu_settings
from support.nvml import (
    DRIVER_NOT_LOADED,
    FIRST,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    SECOND,
    UNINITIALIZED,
    UNKNOWN,
    NvmlChild,
    StubDriver,
    compiler,
    nvml_child,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler here to build the stub library with")


async def test_a_power_limit_is_read_back_and_taken_back_at_the_end(child: NvmlChild, stub: StubDriver) -> None:
    await child.read()
    assert await child.ask("power_limit", uuid=FIRST, value=300) == {"confirmed": True, "reason": ""}
    assert await child.ask("power_limit", uuid=FIRST, value=250) == {"confirmed": True, "reason": ""}
    assert [gpu["power_limit_watts"] for gpu in await child.read()] == [250.0, 170.0]
    await child.new()
    assert [gpu["power_limit_watts"] for gpu in await child.read()] == [450.0, 170.0]


async def limits(child: NvmlChild) -> list[float]:
    return [gpu["power_limit_watts"] for gpu in await child.read()]


async def not_restored(child: NvmlChild) -> list[dict[str, Any]]:
    """What was logged of settings that were not set back, since it was last asked for."""
    return [line for line in await child.ask("logged") if line["event"] == "gpu_setting_not_restored"]


async def test_after_a_step_that_failed_the_owners_limit_is_still_given_back_at_the_end(
    child: NvmlChild, stub: StubDriver
) -> None:
    await child.read()
    assert (await child.ask("power_limit", uuid=FIRST, value=300))["confirmed"]
    stub.says(nvmlDeviceSetPowerManagementLimit__0=UNKNOWN)
    assert not (await child.ask("power_limit", uuid=FIRST, value=250))["confirmed"]
    stub.forgets()
    assert await limits(child) == [300.0, 170.0]
    await child.new()
    assert await limits(child) == [450.0, 170.0]


async def test_nothing_is_set_above_what_the_owner_has_set_however_lately(driver: StubDriver) -> None:
    driver.forgets()
    async with nvml_child(driver) as child:
        await child.read()
        driver.says(limit__0=200000, target__0=70)
        assert "its owner has set 200 W" in (await child.ask("power_limit", uuid=FIRST, value=300))["reason"]
        assert "its owner has set 70 °C" in (await child.ask("target", uuid=FIRST, value=80))["reason"]
        assert await limits(child) == [200.0, 170.0]
        assert (await child.ask("power_limit", uuid=FIRST, value=170))["confirmed"]
        assert (await child.ask("power_limit", uuid=FIRST, value=200))["confirmed"]


async def test_what_an_agent_set_that_was_killed_is_given_back_by_the_next_one(
    child: NvmlChild, stub: StubDriver, tmp_path: Path
) -> None:
    kept = tmp_path / "gpu-settings.json"
    await child.new(kept=kept)
    await child.read()
    for uuid, value in ((FIRST, 300), (FIRST, 250), (SECOND, 150)):
        assert (await child.ask("power_limit", uuid=uuid, value=value))["confirmed"]
    assert (await child.ask("target", uuid=FIRST, value=70))["confirmed"]
    # One GPU is lost when the next agent starts, and comes back later.
    stub.says(nvmlDeviceGetHandleByIndex_v2__1=GPU_IS_LOST)
    await child.new(kept=kept, killed=True)
    assert await limits(child) == [450.0, None]
    assert SECOND in kept.read_text()
    stub.forgets()
    assert await limits(child) == [450.0, 170.0]
    assert not kept.exists()
    # The target too: what is read back is compared with the owner's, 83.
    assert (await child.ask("target", uuid=FIRST, value=83))["confirmed"]


async def test_while_an_agent_runs_a_driver_that_is_asked_anew_keeps_what_it_has_set(
    child: NvmlChild, stub: StubDriver, tmp_path: Path
) -> None:
    kept = tmp_path / "gpu-settings.json"
    await child.new(kept=kept)
    await child.read()
    assert (await child.ask("power_limit", uuid=FIRST, value=300))["confirmed"]
    stub.says(nvmlDeviceGetTemperature=UNINITIALIZED)
    assert (await child.read())["failed"]
    stub.forgets()
    assert await limits(child) == [300.0, 170.0]
    await child.new(kept=kept)
    assert await limits(child) == [450.0, 170.0]
    assert not kept.exists()


async def test_a_command_that_looks_at_the_gpus_takes_back_nothing_of_the_agent_that_runs(
    child: NvmlChild, stub: StubDriver, tmp_path: Path
) -> None:
    await child.read()
    await child.ask("agent", state_dir=str(tmp_path))
    await child.read()
    assert (await child.ask("power_limit", uuid=FIRST, value=250))["confirmed"]
    assert (await child.ask("target", uuid=FIRST, value=66))["confirmed"]
    written = gpu_settings(tmp_path).read_bytes()
    assert await child.ask("look", state_dir=str(tmp_path)) == [FIRST, SECOND]
    assert await limits(child) == [250.0, 170.0]
    assert gpu_settings(tmp_path).read_bytes() == written
    # The agent's own end gives all of it back.
    await child.new()
    assert await limits(child) == [450.0, 170.0]
    assert not gpu_settings(tmp_path).exists()


async def test_after_a_poll_that_failed_the_driver_is_asked_anew_to_give_back_what_was_set(
    child: NvmlChild, stub: StubDriver
) -> None:
    await child.read()
    assert (await child.ask("power_limit", uuid=FIRST, value=250))["confirmed"]
    stub.says(nvmlDeviceGetTemperature=UNINITIALIZED)
    assert (await child.read())["failed"]
    stub.forgets()
    await child.new()
    assert await limits(child) == [450.0, 170.0]
    assert await not_restored(child) == []


async def test_a_driver_that_has_forgotten_us_by_the_end_is_asked_anew(child: NvmlChild, stub: StubDriver) -> None:
    await child.read()
    assert (await child.ask("power_limit", uuid=FIRST, value=250))["confirmed"]
    stub.says(once__nvmlDeviceGetPowerManagementLimit=f"{UNINITIALIZED} at the end")
    await child.new()
    assert await limits(child) == [450.0, 170.0]
    assert await not_restored(child) == []


async def test_what_cannot_be_set_back_is_logged_with_what_it_was_and_the_others_are_set_back(
    driver: StubDriver,
) -> None:
    driver.forgets()
    async with nvml_child(driver) as child:
        await child.new(FIRST, SECOND)
        await child.read()
        for uuid, watts in ((FIRST, 250), (SECOND, 120)):
            assert (await child.ask("power_limit", uuid=uuid, value=watts))["confirmed"]
        driver.says(count=1, nvmlDeviceGetTemperature=UNINITIALIZED)
        assert (await child.read())["failed"] == "SensorsFailed"
        driver.says(nvmlDeviceGetTemperature=None)
        assert (await child.read())["failed"] == "VisibleDevicesWrong"
        await child.new()
        assert await limits(child) == [450.0]
        (told,) = await not_restored(child)
        assert (told["gpu"], told["setting"], told["was"]) == (SECOND, "power limit", 170.0)
        assert "this GPU is not there" in told["reason"]


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        ("nvmlInitWithFlags", DRIVER_NOT_LOADED, "modprobe"),
        ("nvmlDeviceGetPowerManagementLimit", UNINITIALIZED, "has forgotten us"),
        ("nvmlDeviceSetPowerManagementLimit", UNKNOWN, "Unknown Error"),
    ],
)
async def test_a_driver_that_is_gone_at_the_end_is_logged_with_its_remedy(
    driver: StubDriver, call: str, code: int, reason: str
) -> None:
    driver.forgets()
    async with nvml_child(driver) as child:
        await child.read()
        assert (await child.ask("power_limit", uuid=FIRST, value=250))["confirmed"]
        driver.says(**{"nvmlDeviceGetTemperature": UNINITIALIZED, call: code})
        assert (await child.read())["failed"]
        await child.new()
        (told,) = await not_restored(child)
        assert (told["gpu"], told["was"]) == (FIRST, 450.0)
        assert reason in told["reason"]


async def test_what_cannot_be_kept_is_not_set(child: NvmlChild, stub: StubDriver, tmp_path: Path) -> None:
    await child.new(kept=tmp_path / "no folder" / "gpu-settings.json")
    await child.read()
    refused = await child.ask("power_limit", uuid=FIRST, value=300)
    assert (refused["confirmed"], "cannot be written" in refused["reason"]) == (False, True)
    assert await limits(child) == [450.0, 170.0]


async def test_a_target_temperature_is_read_back(child: NvmlChild, stub: StubDriver) -> None:
    await child.read()
    assert (await child.ask("target", uuid=SECOND, value=70))["confirmed"]
    stub.says(target_set__1="ignored")
    ignored = await child.ask("target", uuid=SECOND, value=80)
    assert ignored == {
        "confirmed": False,
        "reason": "GPU 1 accepted a target temperature of 80 °C, and still has 70 °C",
    }


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"limit_set__0": "ignored"}, "GPU 0 accepted a power limit of 300 W, and still has 450 W"),
        ({"nvmlDeviceSetPowerManagementLimit": NO_PERMISSION}, "it needs root"),
        ({"nvmlDeviceSetPowerManagementLimit": NOT_SUPPORTED}, "not supported"),
        ({"nvmlDeviceGetPowerManagementLimit": UNKNOWN}, "cannot be set"),
    ],
)
async def test_a_limit_that_is_not_taken_is_not_claimed(
    child: NvmlChild, stub: StubDriver, said: dict[str, object], reason: str
) -> None:
    await child.read()
    stub.says(**said)
    refused = await child.ask("power_limit", uuid=FIRST, value=300)
    assert not refused["confirmed"]
    assert reason in refused["reason"]


async def test_what_a_gpu_does_not_take_is_refused_with_its_range(child: NvmlChild, stub: StubDriver) -> None:
    await child.read()
    assert "150 to 600 W" in (await child.ask("power_limit", uuid=FIRST, value=20))["reason"]
    assert "65 to 88 °C" in (await child.ask("target", uuid=FIRST, value=120))["reason"]
    assert "no GPU 'GPU-x'" in (await child.ask("power_limit", uuid="GPU-x", value=300))["reason"]


async def test_a_gpu_without_a_range_takes_no_limit(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(
        nvmlDeviceGetPowerManagementLimitConstraints=NOT_SUPPORTED, nvmlDeviceGetTemperatureThreshold=NOT_SUPPORTED
    )
    await child.read()
    for do, value in (("power_limit", 300), ("target", 70)):
        refused = await child.ask(do, uuid=FIRST, value=value)
        assert not refused["confirmed"]
        assert "not supported by this GPU or driver" in refused["reason"]
