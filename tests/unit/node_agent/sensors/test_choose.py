"""Which sensors a machine gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_node_agent.sensors.choose import choose
from shrk_node_agent.sensors.gpu import GpuKind, Gpus, SensorsFailed, VisibleDevicesWrong
from shrk_node_agent.sensors.none import NoGpus
from shrk_node_agent.sensors.scripted import ScriptedGpus
from shrk_node_agent.sensors.threaded import ThreadedGpus


def chosen(kind: GpuKind | str, *visible: str, script: Path | None = None, nvidia: bool = False) -> Gpus:
    return choose(kind, visible, script, clock=lambda: 0.0, nvidia=lambda: nvidia)


def test_auto_is_nvml_where_its_driver_is_and_nothing_elsewhere() -> None:
    assert isinstance(chosen("auto", nvidia=True), ThreadedGpus)
    assert isinstance(chosen("auto", nvidia=False), NoGpus)


def test_what_the_owner_says_is_taken_whatever_is_here(tmp_path: Path) -> None:
    assert isinstance(chosen(GpuKind.NVML, nvidia=False), ThreadedGpus)
    assert isinstance(chosen(GpuKind.NONE, nvidia=True), NoGpus)
    assert isinstance(chosen(GpuKind.SCRIPTED, script=tmp_path / "script.json", nvidia=True), ScriptedGpus)


def test_a_script_and_no_scripted_gpu_or_the_other_way_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SensorsFailed, match="needs scripted_gpu"):
        chosen("scripted")
    for kind in ("auto", "nvml", "none"):
        with pytest.raises(SensorsFailed, match='with gpu = "scripted" only'):
            chosen(kind, script=tmp_path / "script.json")


def test_a_gpu_that_is_named_where_there_are_none_is_refused() -> None:
    with pytest.raises(VisibleDevicesWrong, match="this machine has none"):
        chosen("auto", "0")


async def test_without_gpus_there_is_nothing_to_read_and_nothing_to_set() -> None:
    gpus = chosen("none")
    assert await gpus.read() == ()
    assert not (await gpus.set_power_limit("GPU-x", 100)).confirmed
    assert not (await gpus.set_target_temperature("GPU-x", 70)).confirmed
    assert gpus.abilities("GPU-x").power_limit is None
    assert gpus.capabilities().document() == {"source": "none", "driver": "", "gpus": [], "left_out": []}
    await gpus.close()
