"""What an owner asks of a running agent, end to end: why, doctor and netcheck against a real coordinator."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

from shrk_contract.terms import Fault, State
from shrk_contract.v1 import link_pb2
from shrk_coordinator.app import Coordinator
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import FAILURES_MAX
from shrk_coordinator.state.verdict import state_of
from shrk_node_agent.control_client import ask
from support.network import NodeProcess, a_network, until
from support.raw_coordinated_agent import coordinated_agent


async def shrk(node: NodeProcess, *words: str) -> tuple[int, str]:
    """One command, as the owner of this node runs it; its exit code and what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
    environment["SHRK_CONFIG"] = str(node.directory / "config.toml")
    shrk = str(Path(sys.executable).parent / "shrk")
    process = await asyncio.create_subprocess_exec(
        shrk, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in error, error.decode()
    return process.returncode, out.decode() + error.decode()


async def asked(node: NodeProcess, *words: str) -> tuple[int, Any]:
    """The same with --json, read."""
    code, said = await shrk(node, *words, "--json")
    return code, json.loads(said)


async def until_why(node: NodeProcess, state: str) -> Any:
    """Ask the agent until the coordinator says this state; each answer takes a second."""
    for _ in range(60):
        answer = await asyncio.to_thread(ask, node.directory, "GET", "/why")
        if answer["state"] == state:
            return answer
    raise AssertionError(f"it never was {state}: {answer}")


async def test_a_node_that_is_well_is_told_so_by_all_three_commands() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic", "m", "m-embed")
        await network.until_serving("m", 1)
        await network.until_serving("m-embed", 1)

        code, said = await shrk(node, "why")
        assert code == 0, said
        assert "is online: it is asked whenever somebody wants one of its models" in said
        assert "passed   connected" in said
        assert "noted    demand" in said

        code, found = await asked(node, "doctor")
        assert (code, found["passed"], found["schema"]) == (0, True, 1), found
        assert found["first_token_ms"] >= 1
        assert [check for check in found["checks"] if check["mark"] == "failed"] == []
        [token] = [check for check in found["checks"] if check["name"] == "token"]
        assert "m answered through the coordinator" in token["reason"]
        # The one real token was an attempt like any other, and no caller's.
        [attempt] = network.coordinator.driver.state.journal._entries.values()
        assert (attempt.tokens, attempt.key_id) == (1, "")

        code, found = await asked(node, "doctor", "--model", "m-embed")
        assert code == 0, found

        code, said = await shrk(node, "doctor", "--quick")
        assert code == 0, said
        assert "no token was asked for" in said

        code, said = await shrk(node, "netcheck")
        assert code == 0, said
        assert "the coordinator sees this node come from 127.0.0.1" in said
        assert "The way to the coordinator is open." in said


async def test_a_model_that_nobody_has_is_answered_with_those_the_node_has() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic")
        await network.until_serving("m", 1)
        code, found = await asked(node, "doctor", "--model", "nobody")
        assert code == 4
        [token] = [check for check in found["checks"] if check["name"] == "token"]
        assert "it does not have 'nobody' among its models; it serves 'm'" in token["reason"]


async def test_a_node_whose_model_is_unloaded_runs_and_is_not_eligible() -> None:
    async with a_network() as network:
        node = await network.add_node(
            "attic",
            'engine = "sim"\nmemory_gb = 8\nscale_to_zero = true\n[catalogue.m]\nsource = "x"\nmemory_gb = 8\n'
            '[catalogue.other]\nsource = "x"\nmemory_gb = 8\n',
        )
        await network.until_serving("m", 1)
        roster = network.coordinator.driver.state.roster
        # What a coordinator that wants nothing here would tell it.
        [known] = roster.nodes.values()
        link = next(link for link in network.coordinator.links.all() if link.id == known.link)
        term = 1 << 62
        link.send(link_pb2.CoordinatorFrame(assign=link_pb2.Assign(leader_term=term, revision=1)))
        await until(lambda: state_of(known) is State.PAUSED, "the model is unloaded")
        code, answer = await asked(node, "why")
        assert (code, answer["eligible"], answer["state"]) == (4, False, "paused"), answer
        [models] = [check for check in answer["checks"] if check["name"] == "models"]
        assert not models["passed"]
        assert "'m' is paused" in models["reason"]
        code, found = await asked(node, "doctor")
        assert code == 4
        [token] = [check for check in found["checks"] if check["name"] == "token"]
        assert (token["mark"], token["reason"]) == ("failed", answer["reason"])
        assert token["next_action"] == answer["next_action"]


async def test_a_breaker_that_is_open_is_told_with_what_failed_and_when_it_is_tried_again() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic")
        await network.until_serving("m", 1)
        driver = network.coordinator.driver
        [known] = driver.state.roster.nodes.values()
        failure = seen.FailureDetail(Fault.ENGINE, "the engine said nonsense", code="engine_nonsense")
        for _ in range(FAILURES_MAX):
            known.offers["m"].standing.failed(driver.now(), None, driver.now(), failure)
        code, answer = await asked(node, "why")
        assert (code, answer["state"]) == (4, "quarantined")
        [trusted] = [check for check in answer["checks"] if check["name"] == "trusted"]
        assert "engine_nonsense" in trusted["reason"]
        assert "is tried again in" in trusted["reason"]
        code, found = await asked(node, "doctor")
        assert code == 4
        [token] = [check for check in found["checks"] if check["name"] == "token"]
        assert "is tried again in" in token["reason"]
        # Once it may be tried, the owner's own probe is the try that closes it.
        known.offers["m"].standing.breaker.open_until = driver.now()
        code, found = await asked(node, "doctor")
        assert code == 0, found
        assert known.offers["m"].standing.breaker.closed


async def test_a_draining_node_says_so_and_one_that_is_gone_ends_with_3() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic", tokens_per_second=2.0)
        await network.until_serving("m", 1)
        # Minutes long: the drain waits for it.
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        body |= {"max_tokens": 500, "ignore_eos": True}
        async with network.session() as session:
            asking = asyncio.ensure_future(session.post(f"{network.base_url}/chat/completions", json=body))
            await until(lambda: bool(network.coordinator.driver.state.attempts.by_stream), "it works")
            node.process.terminate()
            answer = await until_why(node, "draining")
            assert (answer["eligible"], answer["next_action"] != "") == (False, True)
            code, found = await asked(node, "doctor")
            assert code == 4
            [token] = [check for check in found["checks"] if check["name"] == "token"]
            assert "stopping" in token["reason"]
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await network.stop_node("attic")
        for command in ("why", "doctor"):
            code, said = await shrk(node, command)
            assert code == 3, said
            assert "not run" in said


async def test_a_coordinator_that_is_too_old_to_tell_is_named_at_once() -> None:
    async with coordinated_agent() as old:
        folder = old.agent._settings.state_dir
        why = await asyncio.to_thread(ask, folder, "GET", "/why")
        probed = await asyncio.to_thread(ask, folder, "POST", "/probe", {})
        assert (why["problem"], why["reason"]) == ("old_coordinator", "the coordinator is too old to tell")
        assert (probed["problem"], probed["passed"]) == ("old_coordinator", False)
        assert old.of("ask_verdict") == old.of("probe") == []


async def test_without_a_coordinator_the_direction_that_fails_is_named() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic")
        await network.until_serving("m", 1)
        await network.coordinator.stop()
        try:
            code, said = await shrk(node, "netcheck")
            assert code == 1
            assert "this machine cannot reach 127.0.0.1:" in said
            assert "connection refused" in said
            code, answer = await asked(node, "why")
            assert (code, answer["problem"]) == (4, "not_linked"), answer
            code, found = await asked(node, "doctor")
            assert code == 4
            assert [c["name"] for c in found["checks"] if c["mark"] == "failed"] == ["link", "connected", "token"]
        finally:
            network.coordinator = Coordinator(network.coordinator._settings)
            await network.coordinator.start()


async def test_an_identity_of_another_coordinator_is_told_from_a_line_that_is_down() -> None:
    async with a_network() as network, a_network() as other:
        node = await network.add_simulated("attic")
        await network.until_serving("m", 1)
        assert other.coordinator.ports is not None
        there = f"tcp://127.0.0.1:{other.coordinator.ports.link}"
        code, said = await shrk(node, "netcheck", "--controller", there)
        assert code == 1
        assert "is not the coordinator that this node enrolled with" in said
        assert other.coordinator.driver.state.roster.nodes == {}


async def test_a_machine_that_is_no_node_yet_is_told_whether_the_join_tokens_coordinator_answers() -> None:
    async with a_network() as network, a_network() as other:
        folder = network.folder / "new"
        folder.mkdir()
        ports = network.coordinator.ports
        assert ports is not None
        for token, code, words in (
            (await network.token("o"), 0, "shows the CA that the join token pins"),
            (await other.token("o"), 1, "The join token belongs to another coordinator"),
        ):
            (folder / "config.toml").write_text(
                f'controller = "tcp://127.0.0.1:{ports.link}"\nstate_dir = "{folder}"\n'
                f'join_token = "{_with_port(token, ports.enrolment)}"\n'
            )
            node = NodeProcess("new", folder, None)  # type: ignore[arg-type]  # nothing runs
            found, said = await shrk(node, "netcheck")
            assert (found, words in said) == (code, True), said


def _with_port(token: str, port: int) -> str:
    """The same token, as if its coordinator let nodes enrol there."""
    secret, _, pin, _ = token.split(".")
    covered = f"{secret}.{port}.{pin}"
    return f"{covered}.{zlib.crc32(covered.encode()):08x}"
