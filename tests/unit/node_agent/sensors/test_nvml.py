"""NVML through ctypes, against a stub library in a process of its own: what it tells, and all that may go wrong."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shrk_node_agent.sensors.nvml_words import throttle_words
from support.nvml import (
    DRIVER_NOT_LOADED,
    FIRST,
    GPU_IS_LOST,
    MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    SECOND,
    STUB,
    UNINITIALIZED,
    UNKNOWN,
    NvmlChild,
    StubDriver,
    compile_stub,
    compiler,
    held,
    nvml_child,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler here to build the stub library with")

#: A healthy first GPU.
HEALTHY = {
    "uuid": FIRST,
    "index": 0,
    "name": "NVIDIA GeForce RTX 4090",
    "memory_bytes": 25757220864,
    "memory_free_bytes": 25757220864 - 512 * 1024 * 1024,
    "temperature_celsius": 41.0,
    "power_watts": 312.0,
    "power_limit_watts": 450.0,
    "utilisation": 0.37,
    "throttle": ["power cap"],
    "processes": [{"pid": 12, "memory_bytes": 100}, {"pid": 34, "memory_bytes": 200}],
    "lost": False,
}
#: What makes it so.
TOLD = {"utilisation__0": 37, "reasons__0": 4, "compute__0": "12:100", "graphics__0": "34:200"}
#: Every call about a GPU, the metric that goes with it, and what is left of a reading without it.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "nvmlDeviceGetName": ("name", {"name": "unknown GPU"}),
    "nvmlDeviceGetUUID": ("UUID", {"uuid": "index-0"}),
    "nvmlDeviceGetMemoryInfo": ("memory", {"memory_bytes": 0, "memory_free_bytes": None}),
    "nvmlDeviceGetTemperature": ("temperature", {"temperature_celsius": None}),
    "nvmlDeviceGetPowerUsage": ("power", {"power_watts": None}),
    "nvmlDeviceGetPowerManagementLimit": ("power limit", {"power_limit_watts": None}),
    "nvmlDeviceGetPowerManagementLimitConstraints": ("range of the power limit", {}),
    "nvmlDeviceGetTemperatureThreshold": ("target temperature", {}),
    "nvmlDeviceGetUtilizationRates": ("utilisation", {"utilisation": None}),
    "nvmlDeviceGetCurrentClocksEventReasons": ("throttle reasons", {"throttle": []}),
    "nvmlDeviceGetComputeRunningProcesses_v3": (
        "computing processes",
        {"processes": [{"pid": 34, "memory_bytes": 200}]},
    ),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": (
        "drawing processes",
        {"processes": [{"pid": 12, "memory_bytes": 100}]},
    ),
}


# --- what it tells ---------------------------------------------------------------------------------


async def test_everything_that_a_healthy_driver_tells_is_read(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(**TOLD)
    first, second = await child.read()
    assert first == HEALTHY
    assert (second["uuid"], second["temperature_celsius"], second["processes"]) == (SECOND, 38.0, [])
    told = await child.ask("capabilities")
    assert told["driver"] == "580.82.07"
    assert [gpu["power_limit_watts"] for gpu in told["gpus"]] == [[150.0, 600.0], [100.0, 200.0]]
    assert [gpu["target_celsius"] for gpu in told["gpus"]] == [[65.0, 88.0]] * 2
    assert [gpu["not_told"] for gpu in told["gpus"]] == [{}, {}]


@pytest.mark.parametrize(("told", "read"), [("0", 0.0), ("255", 255.0), ("-1", -1.0), ("151", 151.0)])
async def test_absurd_temperatures_are_passed_on_as_the_driver_means_them(
    child: NvmlChild, stub: StubDriver, told: str, read: float
) -> None:
    stub.says(temperature__0=told)
    assert [gpu["temperature_celsius"] for gpu in await child.read()] == [read, 38.0]


async def test_a_process_that_computes_and_draws_is_one_process(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(compute__0="6:0,7:100,9:-", graphics__0="7:300,8:50")
    first, _ = await child.read()
    assert first["processes"] == [
        {"pid": 6, "memory_bytes": 0},
        {"pid": 7, "memory_bytes": 300},
        {"pid": 8, "memory_bytes": 50},
        {"pid": 9, "memory_bytes": None},
    ]


def test_why_clocks_are_held_down_is_told_in_words_and_idling_is_no_reason() -> None:
    assert throttle_words(0x1) == ()
    assert throttle_words(0x1 | 0x40 | 0x20) == ("software thermal slowdown", "hardware thermal slowdown")
    assert throttle_words(1 << 40) == ("reason 0x10000000000",)


async def test_a_driver_from_before_the_newer_calls_is_asked_by_the_older_ones(tmp_path: Path) -> None:
    old = StubDriver(compile_stub(tmp_path / "old", "-DOLD_DRIVER"), tmp_path / "stub.txt")
    old.says(**TOLD)
    async with nvml_child(old) as child:
        assert (await child.read())[0] == HEALTHY
        assert [gpu["not_told"] for gpu in (await child.ask("capabilities"))["gpus"]] == [{}, {}]


def test_the_fake_nvidia_smi_tells_of_the_same_gpus(driver: StubDriver) -> None:
    driver.forgets()
    driver.says(temperature__1=66)
    query = "--query-gpu=index,name,memory.total,temperature.gpu,driver_version,uuid"
    asked = subprocess.run(
        ["sh", str(STUB / "nvidia-smi"), query, "--format=csv,noheader,nounits"],
        env=driver.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert asked.stdout.splitlines() == [
        f"0, NVIDIA GeForce RTX 4090, 24564, 41, 580.82.07, {FIRST}",
        f"1, NVIDIA GeForce RTX 3060, 12288, 66, 580.82.07, {SECOND}",
    ]


# --- what is not supported -------------------------------------------------------------------------


def test_twelve_calls_are_made_about_a_gpu() -> None:
    assert len(CALLS) == 12


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_is_not_supported_costs_one_metric_on_one_gpu(
    child: NvmlChild, stub: StubDriver, call: str
) -> None:
    metric, missing = CALLS[call]
    stub.says(**TOLD, **{f"{call}__0": NOT_SUPPORTED})
    first, second = await child.read()
    assert first == HEALTHY | missing
    assert second["uuid"] == SECOND
    assert second["temperature_celsius"] == 38.0
    told = (await child.ask("capabilities"))["gpus"]
    assert [list(gpu["not_told"]) for gpu in told] == [[metric], []]


async def test_a_gpu_that_supports_nothing_is_still_a_gpu(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(**dict.fromkeys(CALLS, NOT_SUPPORTED))
    first, _ = await child.read()
    nothing = {key: value for _, missing in CALLS.values() for key, value in missing.items()}
    assert first == HEALTHY | nothing | {"processes": None}
    told = (await child.ask("capabilities"))["gpus"][0]
    assert len(told["not_told"]) == 12
    assert (told["power_limit_watts"], told["target_celsius"]) == (None, None)


async def test_what_was_never_supported_is_not_asked_for_again(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(nvmlDeviceGetPowerUsage=NOT_SUPPORTED)
    await child.read()
    stub.says(nvmlDeviceGetPowerUsage=None)
    assert [gpu["power_watts"] for gpu in await child.read()] == [None, None]


async def test_what_was_told_once_is_asked_for_again_whatever_the_driver_says_for_a_while(
    child: NvmlChild, stub: StubDriver
) -> None:
    await child.read()
    stub.says(nvmlDeviceGetTemperature=NOT_SUPPORTED)
    assert [gpu["temperature_celsius"] for gpu in await child.read()] == [None, None]
    stub.says(nvmlDeviceGetTemperature=None)
    assert [gpu["temperature_celsius"] for gpu in await child.read()] == [41.0, 38.0]


async def test_a_passing_failure_costs_one_reading_of_one_metric(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(**TOLD, nvmlDeviceGetTemperature__0=UNKNOWN, nvmlDeviceGetGraphicsRunningProcesses_v3__0=UNKNOWN)
    first, _ = await child.read()
    assert first == HEALTHY | {"temperature_celsius": None, "processes": None}
    stub.forgets()
    stub.says(**TOLD)
    assert (await child.read())[0] == HEALTHY


# --- what is gone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"nvmlDeviceGetName", "nvmlDeviceGetUUID"}))
async def test_a_gpu_that_falls_off_the_bus_is_lost_and_the_other_one_is_not(
    child: NvmlChild, stub: StubDriver, call: str
) -> None:
    stub.says(nvmlDeviceGetPowerManagementLimitConstraints=UNKNOWN, nvmlDeviceGetTemperatureThreshold=UNKNOWN)
    await child.read()
    stub.says(**{f"{call}__0": GPU_IS_LOST})
    first, second = await child.read()
    assert (first["uuid"], first["lost"], first["temperature_celsius"]) == (FIRST, True, None)
    assert (second["uuid"], second["lost"], second["temperature_celsius"]) == (SECOND, False, 38.0)
    refused = await child.ask("power_limit", uuid=FIRST, value=300)
    assert not refused["confirmed"]


async def test_a_gpu_that_is_lost_from_the_start_is_told_by_its_index_and_found_when_it_is_back(
    child: NvmlChild, stub: StubDriver
) -> None:
    stub.says(nvmlDeviceGetHandleByIndex_v2__1=GPU_IS_LOST)
    assert [(gpu["uuid"], gpu["lost"]) for gpu in await child.read()] == [(FIRST, False), ("index-1", True)]
    stub.forgets()
    assert [(gpu["uuid"], gpu["lost"]) for gpu in await child.read()] == [(FIRST, False), (SECOND, False)]


async def test_a_gpu_that_we_are_not_permitted_is_left_out_and_named(child: NvmlChild, stub: StubDriver) -> None:
    stub.says(nvmlDeviceGetHandleByIndex_v2__0=NO_PERMISSION)
    assert [gpu["uuid"] for gpu in await child.read()] == [SECOND]
    left_out = (await child.ask("capabilities"))["left_out"]
    assert left_out == [{"index": 0, "reason": "the driver does not permit it to this user"}]


@pytest.mark.parametrize(
    ("call", "code", "remedy"),
    [
        ("nvmlInitWithFlags", DRIVER_NOT_LOADED, "modprobe"),
        ("nvmlInitWithFlags", UNKNOWN, "kernel's log"),
        ("nvmlDeviceGetCount_v2", UNKNOWN, "kernel's log"),
        ("nvmlDeviceGetHandleByIndex_v2", UNINITIALIZED, "asked anew"),
        ("nvmlDeviceGetTemperature", MISMATCH, "restart the machine"),
    ],
)
async def test_a_driver_that_is_gone_fails_the_poll_with_a_remedy_and_is_asked_anew(
    child: NvmlChild, stub: StubDriver, call: str, code: int, remedy: str
) -> None:
    stub.says(**{call: code})
    failed = await child.read()
    assert failed["failed"] == "SensorsFailed"
    assert remedy in failed["reason"]
    assert not (await child.ask("power_limit", uuid=FIRST, value=300))["confirmed"]
    stub.forgets()
    assert [gpu["uuid"] for gpu in await child.read()] == [FIRST, SECOND]


async def test_while_the_driver_hangs_everything_else_goes_on_and_afterwards_reading_does(
    child: NvmlChild, stub: StubDriver
) -> None:
    fifo = stub.hangs_in("nvmlDeviceGetTemperature")
    reading = asyncio.create_task(child.read())
    async with held(fifo):
        assert await child.ask("ping") == "pong"
        assert not reading.done()
        stub.forgets()
    assert [gpu["temperature_celsius"] for gpu in await reading] == [41.0, 38.0]


async def test_a_poll_that_hangs_fails_in_time_and_no_other_call_is_made_before_it_returns(
    child: NvmlChild, stub: StubDriver
) -> None:
    await child.new(seconds=0.05)
    fifo = stub.hangs_in("nvmlInitWithFlags")
    reading = asyncio.create_task(child.read())
    async with held(fifo):
        failed = await reading
        assert failed["failed"] == "SensorsFailed"
        assert "has not answered for 0.05 s" in failed["reason"]
        # The driver would answer any other call; none is made.
        assert (await child.read())["failed"] == "SensorsFailed"
        assert not (await child.ask("power_limit", uuid=FIRST, value=300))["confirmed"]
        assert await child.ask("ping") == "pong"
        stub.forgets()
    while isinstance(read := await child.read(), dict):
        pass  # As the agent does: the poll after the one that returned goes well.
    assert [gpu["temperature_celsius"] for gpu in read] == [41.0, 38.0]


# --- which of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("visible", ["1", SECOND, "GPU-a0000001"])
async def test_only_visible_devices_are_read(child: NvmlChild, stub: StubDriver, visible: str) -> None:
    await child.new(visible)
    assert [gpu["uuid"] for gpu in await child.read()] == [SECOND]
    left_out = (await child.ask("capabilities"))["left_out"]
    assert left_out == [{"index": 0, "reason": "visible_devices does not name it"}]


async def test_a_visible_device_that_is_not_there_is_refused_with_those_that_are(
    child: NvmlChild, stub: StubDriver
) -> None:
    await child.new("2")
    refused = await child.read()
    assert refused["failed"] == "VisibleDevicesWrong"
    assert FIRST in refused["reason"]
    assert SECOND in refused["reason"]
