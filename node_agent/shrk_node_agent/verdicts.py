"""`GET /why` and `POST /probe` on the control socket: what the coordinator says of this node, as one document each.

Whatever keeps the coordinator from answering is an answer, too: `problem` names it, and the words say what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import orjson
from aiohttp import web

from shrk_contract.terms import PROBE_SECONDS_MAX, VERDICT_INTERVAL_SECONDS
from shrk_contract.v1 import link_pb2
from shrk_node_agent.link.dial import LinkStatus
from shrk_node_agent.link.questions import CoordinatorTooOld, LinkEnded, TooManyQuestions

#: Changes only when a field changes its meaning or goes away.
SCHEMA = 1
#: A coordinator answers at the end of the second, over the worst line that is still of use.
VERDICT_SECONDS_MAX = VERDICT_INTERVAL_SECONDS + 5.0
#: The coordinator itself ends a probe sooner, with a reason.
PROBE_ANSWER_SECONDS_MAX = PROBE_SECONDS_MAX + 5.0
#: A question is a model's name.
QUESTION_BYTES_MAX = 4_096
MODEL_LENGTH_MAX = 300


class Problem(StrEnum):
    """Why there is no word of the coordinator. A closed list."""

    NOT_LINKED = "not_linked"
    OLD_COORDINATOR = "old_coordinator"
    NO_ANSWER = "no_answer"
    TOO_MANY = "too_many"


class Asks(Protocol):
    """A link on which the coordinator can be asked."""

    async def verdict(self, seconds: float) -> link_pb2.Verdict:
        """The coordinator's verdict."""
        ...

    async def probe(self, model: str, seconds: float) -> link_pb2.ProbeResult:
        """How a probe went."""
        ...


class Verdicts:
    """Asks the coordinator for whoever asks the agent."""

    def __init__(
        self,
        asks: Callable[[], Asks | None],
        link: Callable[[], LinkStatus | None],
        verdict_seconds: float = VERDICT_SECONDS_MAX,
        probe_seconds: float = PROBE_ANSWER_SECONDS_MAX,
    ) -> None:
        """`asks`: the link on which to ask; None where there is none. `link`: how it is."""
        self._asks = asks
        self._link = link
        self._verdict_seconds = verdict_seconds
        self._probe_seconds = probe_seconds

    def routes(self) -> Sequence[web.RouteDef]:
        """What the control socket serves of it."""
        return [web.get("/why", self._get_why), web.post("/probe", self._post_probe)]

    async def _get_why(self, request: web.Request) -> web.Response:
        return _json(await self.why())

    async def _post_probe(self, request: web.Request) -> web.Response:
        try:
            model = _model(await request.content.read(QUESTION_BYTES_MAX))
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(await self.probe(model))

    async def why(self) -> dict[str, Any]:
        """The coordinator's checklist, or why there is none."""
        asks = self._asks()
        if asks is None:
            return self._unanswered(Problem.NOT_LINKED)
        try:
            verdict = await asks.verdict(self._verdict_seconds)
        except (CoordinatorTooOld, LinkEnded, TooManyQuestions, TimeoutError) as error:
            return self._unanswered(_problem(error))
        return {
            "schema": SCHEMA,
            "problem": "",
            "eligible": verdict.eligible,
            "state": verdict.state,
            "reason": verdict.reason,
            "next_action": verdict.next_action,
            "since_seconds": verdict.since_ms / 1000,
            "address": verdict.address,
            "at_unix_ms": verdict.at_unix_ms,
            "checks": [_check(check) for check in verdict.checks],
        }

    async def probe(self, model: str) -> dict[str, Any]:
        """How a probe went, or why there was none. `model` may be empty."""
        asks = self._asks()
        if asks is None:
            return self._not_probed(Problem.NOT_LINKED)
        try:
            result = await asks.probe(model, self._probe_seconds)
        except (CoordinatorTooOld, LinkEnded, TooManyQuestions, TimeoutError) as error:
            return self._not_probed(_problem(error))
        return {
            "schema": SCHEMA,
            "problem": "",
            "passed": result.passed,
            "reason": result.reason,
            "next_action": result.next_action,
            "model": result.model,
            "first_token_ms": result.first_token_ms if result.passed else None,
        }

    def _unanswered(self, problem: Problem) -> dict[str, Any]:
        reason, next_action = self._words(problem)
        return {
            "schema": SCHEMA,
            "problem": str(problem),
            "eligible": False,
            "state": "",
            "reason": reason,
            "next_action": next_action,
            "since_seconds": 0.0,
            "address": "",
            "at_unix_ms": None,
            "checks": [_failed("connected", reason, next_action)] if problem is Problem.NOT_LINKED else [],
        }

    def _not_probed(self, problem: Problem) -> dict[str, Any]:
        reason, next_action = self._words(problem)
        return {
            "schema": SCHEMA,
            "problem": str(problem),
            "passed": False,
            "reason": reason,
            "next_action": next_action,
            "model": "",
            "first_token_ms": None,
        }

    def _words(self, problem: Problem) -> tuple[str, str]:
        match problem:
            case Problem.OLD_COORDINATOR:
                return "the coordinator is too old to tell", "Have it updated: its operator can."
            case Problem.NO_ANSWER:
                return (
                    "the coordinator did not answer in time",
                    "Try again. If it stays so, the line or the coordinator is overloaded: shrk netcheck",
                )
            case Problem.TOO_MANY:
                return "too many questions about this node are under way", "Try again when they have ended."
            case Problem.NOT_LINKED:
                status = self._link()
                why = f": {status.reason}" if status is not None and status.reason else ""
                return f"this agent has no link to a coordinator now{why}", "Find out why: shrk netcheck"


def _problem(error: Exception) -> Problem:
    if isinstance(error, CoordinatorTooOld):
        return Problem.OLD_COORDINATOR
    if isinstance(error, TooManyQuestions):
        return Problem.TOO_MANY
    return Problem.NOT_LINKED if isinstance(error, LinkEnded) else Problem.NO_ANSWER


def _check(check: link_pb2.Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "passed": check.passed,
        "reason": check.reason,
        "word": check.word,
        "next_action": check.next_action,
    }


def _failed(name: str, reason: str, next_action: str) -> dict[str, Any]:
    return {"name": name, "passed": False, "reason": reason, "word": "", "next_action": next_action}


def _model(content: bytes) -> str:
    """The model's name in a question; empty where it names none. Raises ValueError with words for a person."""
    if not content:
        return ""
    wanted = 'it must be a JSON object such as {"model": "NAME"}, or nothing'
    try:
        question = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ValueError(f"the question cannot be read: {wanted}") from None
    model = question.get("model", "") if isinstance(question, dict) else None
    if not isinstance(model, str) or len(model) > MODEL_LENGTH_MAX:
        raise ValueError(f"model must be a name of at most {MODEL_LENGTH_MAX} characters; {wanted}")
    return model


def _json(payload: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(payload), content_type="application/json", status=status)
