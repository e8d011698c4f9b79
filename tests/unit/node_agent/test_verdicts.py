"""`GET /why` and `POST /probe`: the coordinator's words, or in words why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from shrk_contract.v1 import link_pb2
from shrk_node_agent.link.dial import LinkState, LinkStatus
from shrk_node_agent.link.questions import CoordinatorTooOld, LinkEnded, TooManyQuestions
from shrk_node_agent.verdicts import Verdicts

VERDICT = link_pb2.Verdict(
    checks=[
        link_pb2.Check(name="connected", passed=True),
        link_pb2.Check(
            name="temperature", passed=False, reason="71 °C, 70 °C are allowed", word="cooling", next_action="More air."
        ),
    ],
    at_unix_ms=1_700_000_000_000,
    state="cooling",
    reason="71 °C, 70 °C are allowed",
    next_action="More air.",
    since_ms=2500,
    eligible=False,
    address="192.0.2.7",
)


@dataclass
class Coordinator:
    """Answers as a test says, or fails so."""

    problem: Exception | None = None
    result: link_pb2.ProbeResult = field(default_factory=link_pb2.ProbeResult)
    asked: list[str] = field(default_factory=list)

    async def verdict(self, seconds: float) -> link_pb2.Verdict:
        if self.problem:
            raise self.problem
        return VERDICT

    async def probe(self, model: str, seconds: float) -> link_pb2.ProbeResult:
        self.asked.append(model)
        if self.problem:
            raise self.problem
        return self.result


def verdicts(coordinator: Coordinator | None, link: LinkStatus | None = None) -> Verdicts:
    return Verdicts(lambda: coordinator, lambda: link)


async def test_the_checklist_is_told_whole() -> None:
    why = await verdicts(Coordinator()).why()
    assert (why["schema"], why["problem"], why["eligible"], why["state"]) == (1, "", False, "cooling")
    assert (why["since_seconds"], why["address"], why["at_unix_ms"]) == (2.5, "192.0.2.7", 1_700_000_000_000)
    assert why["checks"][1] == {
        "name": "temperature",
        "passed": False,
        "reason": "71 °C, 70 °C are allowed",
        "word": "cooling",
        "next_action": "More air.",
    }


async def test_without_a_link_its_own_state_is_the_answer() -> None:
    refused = LinkStatus(LinkState.REFUSED, "The node's certificate has been revoked.")
    why = await verdicts(None, refused).why()
    assert (why["problem"], why["eligible"]) == ("not_linked", False)
    [check] = why["checks"]
    assert (check["name"], check["passed"]) == ("connected", False)
    assert "has been revoked" in check["reason"]
    assert "netcheck" in check["next_action"]
    assert (await verdicts(None).probe(""))["problem"] == "not_linked"


@pytest.mark.parametrize(
    ("error", "problem", "words"),
    [
        (CoordinatorTooOld("old"), "old_coordinator", "the coordinator is too old to tell"),
        (LinkEnded("gone"), "not_linked", "this agent has no link to a coordinator now"),
        (TimeoutError(), "no_answer", "the coordinator did not answer in time"),
        (TooManyQuestions("many"), "too_many", "too many questions about this node are under way"),
    ],
)
async def test_whatever_keeps_the_coordinator_from_answering_is_told_with_what_to_do(
    error: Exception, problem: str, words: str
) -> None:
    asked = verdicts(Coordinator(error))
    for answer in (await asked.why(), await asked.probe("m")):
        assert (answer["problem"], answer["reason"]) == (problem, words)
        assert answer["next_action"]


async def test_a_probe_that_passed_tells_its_model_and_its_time() -> None:
    coordinator = Coordinator(result=link_pb2.ProbeResult(passed=True, model="m", first_token_ms=12))
    answer = await verdicts(coordinator).probe("m")
    assert (answer["passed"], answer["model"], answer["first_token_ms"], coordinator.asked) == (True, "m", 12, ["m"])


async def test_a_probe_that_did_not_tells_why_and_no_time() -> None:
    coordinator = Coordinator(result=link_pb2.ProbeResult(reason="it is too hot", next_action="Wait.", model="m"))
    answer = await verdicts(coordinator).probe("")
    assert (answer["passed"], answer["reason"], answer["first_token_ms"]) == (False, "it is too hot", None)


@pytest.mark.parametrize(
    ("body", "status", "asked"),
    [
        (b"", 200, [""]),
        (b'{"model": "m"}', 200, ["m"]),
        (b"{}", 200, [""]),
        (b"model", 400, []),
        (b'["m"]', 400, []),
        (b'{"model": 1}', 400, []),
        (b'{"model": "%s"}' % (b"x" * 301), 400, []),
    ],
)
async def test_a_question_over_the_socket_names_a_model_or_none_and_nothing_else(
    body: bytes, status: int, asked: list[str]
) -> None:
    coordinator = Coordinator()
    app = web.Application()
    app.router.add_routes(verdicts(coordinator).routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{address}/probe", data=body) as answer:
                assert answer.status == status
                assert ("error" in await answer.json()) is (status == 400)
            async with session.get(f"{address}/why") as answer:
                assert (await answer.json())["state"] == "cooling"
    finally:
        await runner.cleanup()
    assert coordinator.asked == asked
