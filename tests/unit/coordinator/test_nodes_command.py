"""`shrk coordinator nodes`: what people and programs are shown, and what they are told where nothing can be."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from shrk_contract.terms import State
from shrk_contract.trouble import Trouble
from shrk_coordinator import nodes_command
from shrk_coordinator.cli import app
from shrk_coordinator.data_plane.nodes import LIMIT_MAX
from shrk_coordinator.nodes_command import NotReached, Seen, ask, follow, text
from shrk_coordinator.records import Scope
from shrk_coordinator.state import events as seen
from support.front import KEY, a_front
from support.states import a_report, link_node

ADMIN = replace(KEY, scope=Scope.ADMIN)
#: A port below 1024 that no service uses.
NOBODY_LISTENS = "http://127.0.0.1:1/v1"


def test_one_page_is_as_long_as_the_coordinator_gives_it() -> None:
    assert nodes_command.PAGE_NODES == LIMIT_MAX


async def test_an_admin_sees_a_line_for_each_node_and_a_remark_where_something_is_to_be_done() -> None:
    async with a_front(nodes=("a", "b"), key=ADMIN) as front:
        now = front.driver.now()
        link = link_node(front.driver.state, "c", "m", now=now)
        front.driver.post(seen.LinkClosed(now, "c", link, "cut\x1b[2J"))
        told = await ask(f"http://127.0.0.1:{front.port}/v1", "key", {})
        shown = text(told, told.nodes[0]["since"] + 150.0, {})
    lines = shown.splitlines()
    assert lines[0] == "3 nodes: 2 online, 1 offline"
    assert lines[2].split() == ["NODE", "NAME", "OWNER", "STATE", "FOR", "MODELS", "WORK", "TEMP", "HEARD"]
    assert lines[3].split() == ["a", "host", "owner-of-a", "online", "2", "min", "m", "0/4", "-", "2", "min", "ago"]
    assert lines[-3].startswith("c (host): its link was lost: cut?[2J. Wait a few seconds")
    assert lines[-1].startswith("m: redundancy is degraded, 2 of 3 replicas that fail apart")
    assert all(line.isprintable() for line in lines)


async def test_a_callers_key_shows_states_and_models_and_says_what_shows_more() -> None:
    async with a_front() as front:
        told = await ask(f"http://127.0.0.1:{front.port}/v1", "key", {})
        shown = text(told, told.nodes[0]["since"], {})
    assert "owner" not in shown
    assert shown.splitlines()[3].split() == ["a", "online", "0", "s", "m"]
    assert "An admin key" in shown


async def test_more_nodes_than_a_page_holds_are_all_fetched() -> None:
    names = tuple("abcde")
    async with a_front(nodes=names) as front:
        told = await ask(f"http://127.0.0.1:{front.port}/v1", "key", {}, page_nodes=2)
    assert tuple(node["id"] for node in told.nodes) == names


async def test_only_the_nodes_that_are_wanted_are_asked_for() -> None:
    async with a_front(nodes=("a",)) as front:
        now = front.driver.now()
        link = link_node(front.driver.state, "b", "m", now=now)
        front.driver.post(seen.NodeReported(now, "b", link, a_report("m", "n")))
        url = f"http://127.0.0.1:{front.port}/v1"
        assert [node["id"] for node in (await ask(url, "key", {"model": "n"})).nodes] == ["b"]
        with pytest.raises(Trouble, match="did you mean 'online'"):
            await ask(url, "key", {"state": "onlin"})


async def test_the_watch_goes_on_over_a_restart_of_the_coordinator() -> None:
    first, second = Seen([{"id": "1"}], []), Seen([{"id": "2"}], [])
    answers: list[Seen | NotReached] = [first, NotReached("it is gone"), second]
    shown: list[Seen] = []
    said: list[str] = []

    async def fetch() -> Seen:
        if not answers:
            raise asyncio.CancelledError
        answer = answers.pop(0)
        if isinstance(answer, NotReached):
            raise answer
        return answer

    with pytest.raises(asyncio.CancelledError):
        await follow(fetch, shown.append, said.append, seconds=0.0)
    assert shown == [first, second]
    assert said == ["it is gone\nTrying again."]


def test_a_model_that_nobody_serves_is_told_from_one_that_is_degraded_and_one_that_is_idle() -> None:
    def about(model: str, redundancy: str, count: int, why: str) -> dict[str, Any]:
        shrk = {"redundancy": redundancy, "redundancy_reason": why, "effective_n": count, "wanted_n": 3}
        return {"id": model, "shrk": shrk}

    models = [
        about("well", "ok", 3, ""),
        about("short", "degraded", 2, "1 of 3 is loading"),
        about("gone", "none", 0, "1 of 3 was lost 4 s ago and may be back"),
        about("rare", "idle", 0, "idle: loaded again when somebody asks"),
    ]
    shown = text(Seen([an_admins("n")], models), 1.0, {})
    assert shown.splitlines()[-3:] == [
        "short: redundancy is degraded, 2 of 3 replicas that fail apart: 1 of 3 is loading",
        "gone: nobody can answer now, 0 of 3 replicas that fail apart: 1 of 3 was lost 4 s ago and may be back",
        "rare: idle: loaded again when somebody asks",
    ]


def an_admins(node: str, /, **told: Any) -> dict[str, Any]:
    """What an admin is told of one node."""
    return {
        "id": node,
        "node_id": node,
        "name": "",
        "owner": "o",
        "state": "online",
        "since": 0.0,
        "heard_at": 0.0,
        "models": [],
        "engines": [],
        "devices": [],
        "in_flight": 0,
        "reason": "",
        "next_action": "",
        **told,
    }


def test_what_holds_for_several_nodes_is_said_once() -> None:
    loads = {"reason": "'m' is loading", "next_action": "Wait."}
    nodes = [an_admins("a", name="attic", **loads), an_admins("b"), an_admins("c", **loads)]
    assert text(Seen(nodes, []), 1.0, {}).splitlines()[-1] == "a (attic), c: 'm' is loading. Wait."


def test_work_is_counted_against_the_slots_of_engines_that_serve() -> None:
    put_away, serving = {"slots": 32, "state": "paused"}, {"slots": 8, "state": "online"}
    nodes = [
        an_admins("a", engines=[put_away, serving], in_flight=3),
        an_admins("b", engines=[put_away]),
        an_admins("c", state="draining", engines=[{"slots": 32, "state": "draining"}], in_flight=1),
    ]
    rows = text(Seen(nodes, []), 1.0, {}).splitlines()[3:6]
    assert [row.split()[7] for row in rows] == ["3/8", "-", "1"]


def test_a_model_at_which_requests_fail_is_shown_as_failing() -> None:
    models = [{"id": "m", "state": "quarantined"}, {"id": "n", "state": "online"}]
    assert "m (failing), n" in text(Seen([an_admins("a", models=models)], []), 1.0, {})


def test_where_none_is_as_wanted_the_others_are_counted() -> None:
    assert text(Seen([], [], 3), 0.0, {"state": "offline"}) == "No node is offline now (3 others)."
    wanted = {"model": "m", "state": "busy"}
    assert text(Seen([], [], 1), 0.0, wanted) == "No node that has m is busy now (1 other)."


async def test_of_one_model_its_own_nodes_and_redundancy_are_shown_and_no_other() -> None:
    async with a_front(nodes=("a",), key=ADMIN) as front:
        link_node(front.driver.state, "b", "beta", now=front.driver.now())
        url = f"http://127.0.0.1:{front.port}/v1"
        told = await ask(url, "key", {"model": "m"})
        assert [model["id"] for model in told.models] == ["m"]
        none = await ask(url, "key", {"state": "offline"})
        assert (none.nodes, none.others) == ([], 2)


def test_the_help_lists_the_states() -> None:
    shown = "".join(CliRunner().invoke(app, ["nodes", "--help"]).stdout.split())
    assert all(state in shown for state in State)


def test_where_no_node_ever_connected_the_next_commands_are_told() -> None:
    assert "shrk coordinator tokens create --owner NAME" in text(Seen([], []), 0.0, {})
    assert "with model m and state online" in text(Seen([], []), 0.0, {"model": "m", "state": "online"})


def run(*words: str, key: str | None = "k") -> Any:
    environment = {"SHRK_API_KEY": key, "SHRK_BASE_URL": None}
    return CliRunner().invoke(app, ["nodes", *words], env=environment)


def test_without_a_key_the_command_says_where_one_comes_from() -> None:
    result = run(key=None)
    assert result.exit_code == 2
    assert "shrk coordinator keys create --admin" in result.stderr


def test_an_address_without_its_scheme_is_refused_with_one_that_has_it() -> None:
    result = run("--base-url", "nonsense")
    assert (result.exit_code, "http://127.0.0.1:8080/v1" in result.stderr) == (2, True)


def test_a_coordinator_that_does_not_run_is_told_as_that() -> None:
    result = run("--base-url", NOBODY_LISTENS)
    assert result.exit_code == 1
    assert "the coordinator could not be asked" in result.stderr
    assert "--base-url" in result.stderr


async def test_programs_read_one_object_with_a_schema() -> None:
    async with a_front(key=ADMIN) as front:
        words = ("--json", "--base-url", f"http://127.0.0.1:{front.port}/v1/")
        result = await asyncio.to_thread(run, *words)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["schema"], [node["node_id"] for node in answer["nodes"]]) == (1, ["a", "b"])
