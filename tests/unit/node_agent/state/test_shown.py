"""An engine as it is shown to people and to coordinators."""

from __future__ import annotations

from shrk_contract.terms import State
from shrk_node_agent.state.engines import RETRY_COMMAND, EngineView
from shrk_node_agent.state.shown import REASON_CHARACTERS_MAX, Shown, report, shown
from shrk_node_agent.state.terms.permit import Permit

HOT = Permit(State.COOLING, "GPU 0: 71 °C of 70 °C", "Nothing: it cools down.", admits=False, slot_share=0.5)


def test_what_serves_is_shown_as_its_own_gpus_leave_it_and_the_nodes_state_is_said_once() -> None:
    engine = EngineView("m", "m", State.ONLINE, permit=HOT)
    assert shown(engine, node_admits=True) == Shown(State.COOLING, "GPU 0: 71 °C of 70 °C", "Nothing: it cools down.")
    assert shown(engine, node_admits=False).state is State.ONLINE
    engine.permit = Permit()
    assert shown(engine, node_admits=True).state is State.ONLINE


def test_what_is_kept_back_has_the_remedy_of_the_owners_terms() -> None:
    engine = EngineView("m", "m", State.PAUSED, "kept back", permit=HOT, kept=True, start_at=None)
    assert shown(engine, node_admits=True) == Shown(State.PAUSED, "kept back", "Nothing: it cools down.")
    engine.kept = False
    assert "as soon as a coordinator wants it" in shown(engine, node_admits=True).next_action


def test_a_model_that_is_left_alone_needs_a_restart_only_for_another_source() -> None:
    engine = EngineView("m", "m", State.INCOMPATIBLE, "It has a shape that this engine cannot load")
    told = shown(engine, node_admits=True).next_action
    off, mended, another = (told.find(words) for words in ("shrk set models", RETRY_COMMAND, "start the agent again"))
    assert 0 < off < mended < another, told
    assert "source" in told[mended:]


def test_a_report_counts_what_waits_beyond_the_slots_that_heat_leaves_and_keeps_to_the_wires_bound() -> None:
    engine = EngineView("m", "m", State.ONLINE, slots=4, in_flight=5, permit=HOT)
    told = report(engine, Shown(State.COOLING, "x" * 5_000, ""), 7, 1_000)
    assert (told.slots, told.running, told.waiting, told.memory_bytes) == (2, 2, 3, 7)
    assert (len(told.status.reason), told.status.since_unix_ms) == (REASON_CHARACTERS_MAX, 1_000)
