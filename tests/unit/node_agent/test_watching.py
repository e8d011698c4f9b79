"""The driver watches GPUs: what their drivers tell reaches the terms, and what these wish is set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shrk_contract.service import running
from shrk_node_agent.driver import Driver
from shrk_node_agent.engine.engine import EngineEvent, EngineProcess, EngineSpec
from shrk_node_agent.sensors.scripted import ScriptedGpus
from shrk_node_agent.state.terms.actuators import Rung
from shrk_node_agent.state.terms.terms import Wanted
from support.simulated_engine import until


async def test_a_target_is_set_to_what_the_card_takes_and_a_driver_tells_that_span(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    able = 'target_temperature = "settable"\ntarget_temperature_range = [65, 90]'
    script.write_text(f'[[gpu]]\nuuid = "GPU-0"\ntemperature = 40\n{able}')

    async def never(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
        raise AssertionError("there is no model here")

    driver = Driver([], never, lambda: None)
    # Four degrees below this cap would be less than the card takes.
    driver.state.terms.change(Wanted(cap=68.0, gpus=True))
    heats = driver.state.terms.heats
    async with running(driver.watch(ScriptedGpus(script, clock=driver.now)), "sensors"):
        await until(lambda: "GPU-0" in heats and heats["GPU-0"].view.rung is Rung.TARGET_TEMPERATURE)
    await driver.stop()
