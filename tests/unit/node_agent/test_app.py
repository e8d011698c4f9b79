"""What the agent does in which order when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_contract.settings import load
from shrk_contract.terms import State
from shrk_node_agent.app import Agent
from shrk_node_agent.errors import AgentCannotRun
from shrk_node_agent.settings import AgentSettings
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.seats import Seat
from shrk_node_agent.time_zone import in_force, zone


def an_agent(state_dir: Path, **settings: object) -> Agent:
    catalogue = {"m": {"source": "simulated"}}
    return Agent(load(AgentSettings, state_dir=state_dir, engine="sim", catalogue=catalogue, **settings))


def hours_of(agent: Agent) -> dict[str, object]:
    """What the status says of them."""
    told = agent._status()["schedule"]
    assert isinstance(told, dict)
    return told


async def ended_before_any_engine(agent: Agent) -> str:
    """Why it cannot run; no engine was started for it."""
    with pytest.raises(AgentCannotRun) as why:
        await agent.start()
    assert agent.driver.state.engines["m"].life == 0
    return str(why.value)


async def test_a_machine_that_is_no_node_loads_nothing(tmp_path: Path) -> None:
    for settings in ({}, {"join_token": "shrk_join_x"}, {"controller": "tcp://127.0.0.1:1"}):
        said = await ended_before_any_engine(an_agent(tmp_path, **settings))
        assert said.startswith("This machine is not a node yet.")


async def test_a_node_whose_identity_is_damaged_loads_nothing(tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.mkdir(mode=0o700)
    (identity / "node.json").write_text("{}")
    assert "identity" in await ended_before_any_engine(an_agent(tmp_path))


async def test_resuming_tries_an_incompatible_model_again(tmp_path: Path) -> None:
    agent = an_agent(tmp_path)
    engine = agent.driver.state.engines["m"]
    engine.started(0.0, Seat())
    agent.driver.post(seen.EngineEnded(1.0, "m", "it cannot be loaded", incompatible=True))
    assert (engine.state, engine.start_at) == (State.INCOMPATIBLE, None)
    agent.resume()
    assert engine.state is State.STARTING
    assert engine.start_at is not None


async def test_the_status_tells_the_zone_in_which_the_hours_are_meant(tmp_path: Path) -> None:
    berlin = hours_of(an_agent(tmp_path, schedule="22:00-08:00", time_zone="Europe/Berlin"))
    assert (berlin["zone"], berlin["zone_why"]) == ("Europe/Berlin", "")
    own = hours_of(an_agent(tmp_path, schedule="22:00-08:00"))
    told = in_force("", zone(""))
    assert (own["zone"], own["zone_why"]) == (told.name, told.why) != ("", "")
