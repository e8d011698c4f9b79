"""GPUs that are played from a script, and steered while they play."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shrk_node_agent.sensors.gpu import Abilities, Actuated, SensorsFailed, Span, VisibleDevicesWrong
from shrk_node_agent.sensors.scripted import ScriptedGpus
from shrk_node_agent.state.devices import GpuProcess, GpuReading

UUID = "GPU-scripted-0"


class Stage:
    """A script, a clock that is wound by hand, and the GPUs that play it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "script.json"
        self.now = 1000.0
        self.load = 0.0

    def play(self, *gpus: dict[str, Any], **others: Any) -> None:
        """As `shrk dev` steers: the new script beside the old one, renamed."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"gpu": gpus, **others}))
        new.rename(self.path)

    def gpus(self, *visible: str) -> ScriptedGpus:
        return ScriptedGpus(self.path, visible, clock=lambda: self.now, load=lambda: self.load)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def only(gpus: ScriptedGpus) -> GpuReading:
    (reading,) = await gpus.read()
    return reading


async def test_what_the_script_says_is_read(stage: Stage) -> None:
    stage.play(
        {
            "name": "One",
            "uuid": "GPU-1",
            "memory_gb": 24,
            "temperature": 66,
            "power": 300,
            "load": 0.5,
            "throttle": ["hardware thermal slowdown"],
            "processes": [{"pid": 7, "memory_gb": 4}, {"pid": 8}],
            "power_limit_range": [100, 450],
        }
    )
    assert await only(stage.gpus()) == GpuReading(
        "GPU-1",
        0,
        "One",
        memory_bytes=24_000_000_000,
        memory_free_bytes=20_000_000_000,
        temperature_celsius=66.0,
        power_watts=300.0,
        power_limit_watts=450.0,
        utilisation=0.5,
        throttle=("hardware thermal slowdown",),
        processes=(GpuProcess(7, 4_000_000_000), GpuProcess(8, None)),
    )


async def test_temperatures_count_from_the_first_look_at_the_script(stage: Stage) -> None:
    stage.play({"temperatures": [[0, 40], [10, 80]]})
    gpus = stage.gpus()
    assert (await only(gpus)).temperature_celsius == 40
    stage.now += 5
    assert (await only(gpus)).temperature_celsius == 60


async def test_a_new_script_is_played_from_its_beginning_at_the_next_poll(stage: Stage) -> None:
    stage.play({"temperature": 50})
    gpus = stage.gpus()
    await gpus.read()
    stage.now += 100
    stage.play({"temperatures": [[0, 50], [10, 90]]})
    assert (await only(gpus)).temperature_celsius == 50
    stage.now += 10
    assert (await only(gpus)).temperature_celsius == 90


@pytest.mark.parametrize("absurd", [0, 255, -1, 1000])
async def test_absurd_temperatures_are_played_as_they_are(stage: Stage, absurd: float) -> None:
    stage.play({"temperature": absurd})
    assert (await only(stage.gpus())).temperature_celsius == absurd


async def test_by_the_heat_model_a_gpu_warms_with_the_load_that_the_agent_tells_and_cools_without(
    stage: Stage,
) -> None:
    stage.play({"heat": {"ambient": 25}})
    gpus = stage.gpus()
    assert (await only(gpus)).temperature_celsius == 25
    stage.load = 1.0
    warm = []
    for _ in range(20):
        stage.now += 60
        warm.append((await only(gpus)).temperature_celsius)
    assert warm == sorted(warm, key=lambda celsius: celsius or 0)
    assert warm[-1] == pytest.approx(25 + 350 * 0.18, abs=0.1)
    stage.load = 0.0
    stage.now += 3600
    assert (await only(gpus)).temperature_celsius == pytest.approx(25 + 20 * 0.18, abs=0.1)


async def test_a_power_limit_and_a_target_cool_the_modelled_gpu_and_are_taken_back_at_the_end(stage: Stage) -> None:
    stage.play({"heat": {}, "load": 1, "power_limit": "settable", "target_temperature": "settable"})
    gpus = stage.gpus()
    await gpus.read()
    assert await gpus.set_power_limit(UUID, 200) == Actuated(True)
    stage.now += 3600
    limited = await only(gpus)
    assert (limited.power_watts, limited.power_limit_watts) == (200, 200)
    assert limited.temperature_celsius == pytest.approx(25 + 200 * 0.18)
    assert await gpus.set_target_temperature(UUID, 55) == Actuated(True)
    stage.now += 3600
    assert (await only(gpus)).temperature_celsius == pytest.approx(55)
    await gpus.close()
    stage.now += 3600
    assert (await only(gpus)).temperature_celsius == pytest.approx(25 + 350 * 0.18)


async def test_a_heat_that_was_reached_is_kept_when_the_script_changes(stage: Stage) -> None:
    stage.play({"temperature": 80})
    gpus = stage.gpus()
    await gpus.read()
    stage.play({"heat": {"ambient": 20}, "load": 0})
    hot = (await only(gpus)).temperature_celsius
    assert hot == 80
    stage.now += 1
    assert 79 < ((await only(gpus)).temperature_celsius or 0) < 80


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("refused", "needs root"),
        ("ignored", "still has another"),
        ("unsupported", "does not tell"),
    ],
)
async def test_what_the_script_does_not_let_set_is_not_confirmed_and_changes_nothing(
    stage: Stage, setting: str, reason: str
) -> None:
    stage.play({"power_limit": setting, "target_temperature": setting})
    gpus = stage.gpus()
    before = await only(gpus)
    for done in (await gpus.set_power_limit(UUID, 200), await gpus.set_target_temperature(UUID, 70)):
        assert not done.confirmed
        assert reason in done.reason
    assert await only(gpus) == before


async def test_a_value_outside_its_range_and_a_gpu_that_is_not_there_are_refused(stage: Stage) -> None:
    stage.play({"power_limit": "settable", "power_limit_range": [100, 350]})
    gpus = stage.gpus()
    await gpus.read()
    assert "100 to 350 W" in (await gpus.set_power_limit(UUID, 50)).reason
    assert "100 to 350 W" in (await gpus.set_power_limit(UUID, float("nan"))).reason
    assert "no GPU 'GPU-x'" in (await gpus.set_power_limit("GPU-x", 200)).reason
    assert "no GPU 'GPU-x'" in (await gpus.set_target_temperature("GPU-x", 70)).reason


async def test_abilities_and_what_is_untold_are_those_of_the_script(stage: Stage) -> None:
    stage.play(
        {
            "power_limit": "settable",
            "power_limit_range": [100, 350],
            "processes": None,
            "untold": ["temperature", "memory", "power", "power limit", "utilisation", "throttle reasons"],
        }
    )
    gpus = stage.gpus()
    assert gpus.abilities(UUID) == Abilities()
    assert await only(gpus) == GpuReading(UUID, 0, "Scripted GPU")
    assert gpus.abilities(UUID).power_limit == Span(100, 350)
    assert gpus.abilities(UUID).target_temperature is None
    assert len(gpus.abilities(UUID).untold) == 6
    assert gpus.capabilities().document()["source"] == "scripted"


async def test_a_lost_gpu_is_lost_and_the_other_one_is_not(stage: Stage) -> None:
    stage.play({"lost": True}, {"temperature": 44})
    first, second = await stage.gpus().read()
    assert (first.lost, first.temperature_celsius) == (True, None)
    assert (second.lost, second.temperature_celsius) == (False, 44)


async def test_a_script_that_fails_breaks_or_goes_is_a_driver_that_is_gone_until_it_is_mended(stage: Stage) -> None:
    gpus = stage.gpus()
    with pytest.raises(SensorsFailed, match="No such file"):
        await gpus.read()
    stage.play({}, fails="the bus is on fire")
    with pytest.raises(SensorsFailed, match="the bus is on fire"):
        await gpus.read()
    stage.path.write_text("{")
    for _ in range(2):
        with pytest.raises(SensorsFailed, match="is not JSON"):
            await gpus.read()
    stage.play({"temperature": 41})
    assert (await only(gpus)).temperature_celsius == 41
    stage.path.unlink()
    with pytest.raises(SensorsFailed, match="No such file"):
        await gpus.read()


async def test_only_visible_devices_are_read_and_unknown_ones_refused(stage: Stage) -> None:
    stage.play({"name": "One"}, {"name": "Two"})
    assert [reading.name for reading in await stage.gpus("1").read()] == ["Two"]
    with pytest.raises(VisibleDevicesWrong, match="no GPU '2'"):
        await stage.gpus("2").read()
