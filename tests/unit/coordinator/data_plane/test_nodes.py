"""`GET /v1/nodes`: who is shown what, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from multidict import MultiDict

from shrk_contract.terms import Device, Pin, State, Terms
from shrk_coordinator.data_plane.nodes import LIMIT_DEFAULT, LIMIT_MAX, Moment, listing, one
from shrk_coordinator.errors import ApiError
from shrk_coordinator.records import ApiKey, Scope
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from support.front import a_front
from support.states import a_report, ask, fail, link_node, new_link, only_start

CALLER = ApiKey(id="c", sha256=b"", name="caller", scope=Scope.CALLER, created_at=0)
ADMIN = replace(CALLER, id="a", scope=Scope.ADMIN)
#: The state's clock began 1,000 seconds after 1970.
MOMENT = Moment(now=100.0, unix=1_100.0)


def pseudonym(node_id: str) -> str:
    return f"node-{node_id}"


def listed(state: CoordinatorState, key: ApiKey = ADMIN, /, **query: str) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = listing(state, query, key, MOMENT, pseudonym)["data"]
    return nodes


def refused(state: CoordinatorState, query: Mapping[str, str]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        listing(state, query, CALLER, MOMENT, pseudonym)
    return caught.value


def test_a_caller_sees_pseudonyms_models_and_states_and_nothing_else() -> None:
    state = CoordinatorState()
    link_node(state, "secret", "m", now=90.0)
    assert listed(state, CALLER) == [
        {
            "id": "node-secret",
            "object": "node",
            "state": "online",
            "since": 1_090.0,
            "models": [{"id": "m", "state": "online"}],
        }
    ]


def test_an_admin_sees_the_node_behind_the_pseudonym_and_how_it_is() -> None:
    state, link = CoordinatorState(), new_link()
    state.handle(seen.NodeHello(90.0, "n1", link, 1, owner="ann", address="192.0.2.7"))
    report = replace(
        a_report("m", slots=8, pin=Pin(engine="sim")),
        devices=(Device("gpu0", temperature_celsius=51.0),),
        terms=Terms(temperature_celsius_max=70.0, schedule="22:00-08:00", closes_in_seconds=3_600.0),
        agent_version="0.1.0",
    )
    state.handle(seen.NodeReported(95.0, "n1", link, report))
    ask(state, now=96.0)
    [node] = listed(state)
    assert (node["id"], node["node_id"], node["name"], node["owner"]) == ("node-n1", "n1", "host", "ann")
    assert (node["address"], node["agent_version"]) == ("192.0.2.7", "0.1.0")
    assert (node["linked_at"], node["heard_at"], node["in_flight"]) == (1_090.0, 1_095.0, 1)
    assert node["devices"][0]["temperature_celsius"] == 51.0
    assert (node["terms"]["closes_in_seconds"], node["terms"]["temperature_celsius_max"]) == (3_600.0, 70.0)
    assert {check["check"]: check["passed"] for check in node["checks"]}["demand"]
    [engine] = node["engines"]
    assert (engine["model"], engine["slots"], engine["in_flight"], engine["why_not"]) == ("m", 8, 1, None)
    assert engine["pin"] == {"engine": "sim"}
    assert (engine["breaker"]["state"], engine["breaker"]["failures"]) == ("closed", 0)
    assert [engine["breaker"][name] for name in ("stalled", "opened_at", "open_until", "last_failure")] == [
        False,
        None,
        None,
        None,
    ]
    assert engine["speed"] == {"expected_seconds": None, "first_token_seconds": None}
    assert set(node) > set(listed(state, CALLER)[0]), "whoever reads the callers' fields finds them here, too"


def test_why_the_next_request_would_not_go_there_is_told_for_each_engine() -> None:
    state = CoordinatorState()
    link_node(state, "full", "m", slots=1, now=90.0)
    ask(state, now=91.0)
    link_node(state, "out", "m", now=90.0)
    standing = state.roster.nodes["out"].standing("m")
    served = state.roster.served("m")
    assert served is not None
    served.usual.first_token(0.25)
    standing.speed.first_token(90.0, 0.25, served.usual)
    standing.breaker.stall(99.0)
    loading = link_node(state, "loads", "m", now=90.0)
    state.handle(seen.NodeReported(95.0, "loads", loading, a_report("m", state=State.LOADING)))
    engines = {node["node_id"]: node["engines"][0] for node in listed(state)}
    whys = {node: engine["why_not"] for node, engine in engines.items()}
    assert whys == {"full": "busy", "out": "stalled_or_silent", "loads": "loading"}
    breaker = engines["out"]["breaker"]
    assert (breaker["state"], breaker["stalled"], breaker["open_until"]) == ("open", True, 1_129.0)
    assert engines["out"]["speed"]["first_token_seconds"] == 0.25
    assert (engines["loads"]["breaker"], engines["loads"]["speed"]) == (None, None)


def test_a_model_at_which_requests_fail_is_quarantined_with_since_when_and_what_failed() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", "n", now=90.0)
    for now in (91.0, 92.0, 93.0):
        fail(state, only_start(ask(state, now=now)[1]), "engine_error", now=now)
    [node] = listed(state)
    assert node["state"] == "online", "it serves the other"
    assert node["models"] == [{"id": "m", "state": "quarantined"}, {"id": "n", "state": "online"}]
    assert listed(state, CALLER)[0]["models"] == node["models"]
    engine = node["engines"][0]
    assert engine["state"] == "online", "by its node's own word"
    assert (engine["breaker"]["opened_at"], engine["breaker"]["open_until"]) == (1_093.0, 1_123.0)
    assert engine["breaker"]["last_failure"] == {"code": "engine_error", "message": "it ended with engine_error"}
    assert node["reason"] == (
        "'m': requests have failed for 7 s (3 in a row, the last with engine_error: it ended with engine_error); "
        "it is tried again in 23 s"
    )


def test_a_node_that_drains_still_shows_the_work_that_it_ends() -> None:
    state = CoordinatorState()
    link = link_node(state, "a", "m", now=90.0)
    ask(state, now=91.0)
    state.handle(seen.NodeDraining(92.0, "a", link, 30.0))
    state.handle(seen.NodeReported(92.0, "a", link, a_report("m", state=State.DRAINING)))
    [node] = listed(state)
    assert (node["state"], node["in_flight"]) == ("draining", 1)
    assert node["engines"][0]["in_flight"] == 1


def test_a_node_that_was_stopped_is_told_so_and_keeps_the_models_that_it_had() -> None:
    state = CoordinatorState()
    link = link_node(state, "a", "m", now=10.0)
    for _ in range(2):
        state.handle(seen.NodeDraining(20.0, "a", link, 30.0))
        state.handle(seen.NodeReported(21.0, "a", link, a_report("m", state=State.DRAINING)))
    state.handle(seen.LinkClosed(22.0, "a", link, "the node closed it"))
    [node] = listed(state)
    assert node["models"] == [{"id": "m", "state": "offline"}]
    assert (node["state"], node["reason"]) == ("offline", "it was stopped by its operator")
    assert node["next_action"] == "Start the agent again when it should serve."
    again = link_node(state, "a", "m", now=30.0)
    state.handle(seen.LinkClosed(40.0, "a", again, "cut"))
    assert listed(state)[0]["reason"] == "its link was lost: cut"


def test_why_a_model_is_or_is_not_on_a_node_is_told_for_each_engine() -> None:
    state, gb = CoordinatorState(), 1 << 30
    for number in range(4):
        loaded = number < 3
        report = a_report("m", state=State.ONLINE if loaded else State.PAUSED)
        engines = tuple(replace(engine, memory_bytes=16 * gb) for engine in report.engines)
        terms = Terms(memory_bytes=24 * gb, scales_to_zero=not loaded)
        link = new_link()
        state.handle(seen.NodeHello(50.0, f"n{number}", link, 1, owner=f"o{number}"))
        state.handle(seen.NodeReported(50.0, f"n{number}", link, replace(report, engines=engines, terms=terms)))
    state.handle(seen.Reconcile(100.0))
    nodes = listed(state)
    told = [(node["engines"][0]["assigned"], node["engines"][0]["why_not_assigned"]) for node in nodes]
    assert told == [(True, None), (True, None), (True, None), (False, "3 copies are elsewhere")]
    assert nodes[3]["engines"][0]["memory_bytes"] == 16 * gb
    assert (nodes[3]["terms"]["memory_bytes"], nodes[3]["terms"]["scales_to_zero"]) == (24 * gb, True)


def test_a_node_that_is_away_is_shown_with_its_name_and_what_it_served() -> None:
    state = CoordinatorState()
    link = link_node(state, "a", "m", now=10.0)
    state.handle(seen.LinkClosed(20.0, "a", link, "cut"))
    [node] = listed(state, model="m")
    assert (node["state"], node["since"], node["name"]) == ("offline", 1_020.0, "host")
    assert node["models"] == [{"id": "m", "state": "offline"}]
    assert (node["linked_at"], node["engines"], node["terms"]) == (None, [], None)
    assert node["reason"] == "its link was lost: cut"


def test_nodes_can_be_asked_for_by_model_and_by_state() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    link_node(state, "b", "n")
    state.handle(seen.LinkClosed(0.0, "c", link_node(state, "c", "m"), "cut"))
    assert [node["node_id"] for node in listed(state, model="m")] == ["a", "c"]
    assert [node["node_id"] for node in listed(state, state="online")] == ["a", "b"]
    assert [node["node_id"] for node in listed(state, state="online", model="m")] == ["a"]
    assert listed(state, state="cooling") == []


def test_pages_follow_each_other_and_together_hold_every_node_once() -> None:
    state = CoordinatorState()
    nodes = [f"{number:03}" for number in range(LIMIT_DEFAULT + 5)]
    for node in reversed(nodes):
        link_node(state, node, "m")
    first = listing(state, {}, ADMIN, MOMENT, pseudonym)
    assert (len(first["data"]), first["has_more"]) == (LIMIT_DEFAULT, True)
    assert (first["first_id"], first["last_id"]) == ("node-000", "node-099")
    second = listing(state, {"after": first["last_id"], "limit": "5"}, ADMIN, MOMENT, pseudonym)
    assert second["has_more"] is False
    assert [node["node_id"] for node in first["data"] + second["data"]] == nodes
    empty = listing(state, {"after": second["last_id"]}, ADMIN, MOMENT, pseudonym)
    assert (empty["data"], empty["first_id"], empty["last_id"], empty["has_more"]) == ([], None, None, False)


def test_a_mistyped_state_is_refused_with_the_one_that_was_meant() -> None:
    error = refused(CoordinatorState(), {"state": "Onlin"})
    assert (error.status, error.param) == (400, "state")
    assert "did you mean 'online'?" in error.message
    assert "cooling" in error.message
    assert "did you mean" not in refused(CoordinatorState(), {"state": "zzz"}).message


def test_a_model_that_nobody_named_is_refused_with_those_like_it() -> None:
    state = CoordinatorState()
    link_node(state, "a", "shark-tiny")
    error = refused(state, {"model": "shark-tin"})
    assert (error.code, "'shark-tiny'" in error.message) == ("model_not_found", True)


@pytest.mark.parametrize("limit", ["0", str(LIMIT_MAX + 1), "-1", "1.5", "", "many", "٣", "9" * 5_000])
def test_a_limit_that_is_no_number_of_nodes_is_refused(limit: str) -> None:
    error = refused(CoordinatorState(), {"limit": limit})
    assert (error.status, error.param) == (400, "limit")


def test_a_parameter_that_is_not_known_or_told_twice_is_refused_by_its_name() -> None:
    error = refused(CoordinatorState(), {"stat": "online"})
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", "stat")
    assert "model, state, limit, after" in error.message
    twice = refused(CoordinatorState(), MultiDict([("state", "online"), ("state", "busy")]))
    assert (twice.status, twice.param) == (400, "state")


def test_one_node_is_found_by_its_pseudonym_and_by_admins_also_by_its_id() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    assert one(state, "node-a", CALLER, MOMENT, pseudonym)["id"] == "node-a"
    assert one(state, "a", ADMIN, MOMENT, pseudonym)["node_id"] == "a"
    with pytest.raises(ApiError) as caught:
        one(state, "a", CALLER, MOMENT, pseudonym)
    assert (caught.value.status, caught.value.code) == (404, "node_not_found")


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", ""])
async def test_it_is_served_under_every_prefix(prefix: str) -> None:
    async with a_front() as front:
        root = f"http://127.0.0.1:{front.port}{prefix}"
        async with front.session.get(f"{root}/nodes?limit=1") as answer:
            page = orjson.loads(await answer.read())
        assert (answer.status, page["object"], page["has_more"], len(page["data"])) == (200, "list", True, 1)
        async with front.session.get(f"{root}/nodes/{page['last_id']}") as answer:
            assert orjson.loads(await answer.read()) == page["data"][0]
        async with front.session.get(f"{root}/nodes/?limit=1") as answer:
            assert orjson.loads(await answer.read()) == page
        for query in ("state=onlin", "limit=1&limit=2", "page=1"):
            async with front.session.get(f"{root}/nodes?{query}") as answer:
                assert answer.status == 400
        async with front.session.get(f"{root}/nodes", headers={"Authorization": ""}) as answer:
            assert answer.status == 401
