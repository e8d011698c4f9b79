"""What an owner asks of a running agent, as the control socket takes it."""

from __future__ import annotations

from typing import Any

import pytest

from shrk_contract.trouble import Trouble
from shrk_node_agent.control_client import Refused, ask
from shrk_node_agent.pauses import PAUSE_SECONDS_MAX
from shrk_node_agent.reload import Changes
from support.asked_agent import PlayedAgent, an_agent
from support.status_documents import healthy


def asked(agent: PlayedAgent, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    return ask(agent.folder, "POST", path, body)


def test_the_agent_is_told_what_is_asked() -> None:
    with an_agent(healthy()) as agent:
        assert asked(agent, "/pause", {"seconds": 7200}) == {"schema": 1}
        assert asked(agent, "/pause", {"seconds": None}) == {"schema": 1}
        assert asked(agent, "/resume", None) == {"schema": 1}
        assert asked(agent, "/stop", {}) == {"schema": 1}
        assert asked(agent, "/stop", {"now": True}) == {"schema": 1}
        assert agent.asked == [("pause", 7200.0), ("pause", None), "resume", ("stop", False), ("stop", True)]


def test_a_reload_tells_what_needs_a_restart_or_why_it_was_not_taken() -> None:
    with an_agent(healthy()) as agent:
        agent.reloaded = Changes(("when",), ("controller",))
        assert asked(agent, "/reload", None) == {
            "schema": 1,
            "applied": ["when"],
            "needs_restart": ["controller"],
        }
        agent.reloaded = Trouble("temp_max: 30 is less than 40")
        with pytest.raises(Refused, match="temp_max: 30 is less than 40") as refused:
            asked(agent, "/reload", None)
        assert refused.value.status == 422


@pytest.mark.parametrize("seconds", [0, -1, 59, PAUSE_SECONDS_MAX + 1, "2h", True, [1]])
def test_a_pause_out_of_range_is_refused_with_the_range(seconds: object) -> None:
    with an_agent(healthy()) as agent:
        with pytest.raises(Refused, match=f"60 to {PAUSE_SECONDS_MAX} is allowed"):
            asked(agent, "/pause", {"seconds": seconds})
        assert agent.asked == []


def test_a_stop_with_anything_but_yes_or_no_is_refused() -> None:
    with an_agent(healthy()) as agent:
        with pytest.raises(Refused, match="true or false"):
            asked(agent, "/stop", {"now": "yes"})
        assert agent.asked == []
