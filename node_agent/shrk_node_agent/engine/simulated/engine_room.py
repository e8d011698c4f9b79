"""What all routes of a simulated engine share: its model, its stepper, its faults and its clock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from shrk_node_agent.engine.simulated import errors
from shrk_node_agent.engine.simulated.errors import Refusal
from shrk_node_agent.engine.simulated.faults import QUERY_OF_DEATH, Faults, Kind
from shrk_node_agent.engine.simulated.sequences import Answer, EngineFullError, Sampling, Stepper, Token
from shrk_node_agent.engine.simulated.vocabulary import decode

VERSION = "1.0"
FINGERPRINT = f"simulated-{VERSION}"


@dataclass(slots=True)
class Choice:
    """One answer as it grows, and in the end as a whole."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""
    stop_reason: str | None = None
    garbled: bool = False

    def take(self, token: Token) -> None:
        """Add a token; an abort brings none."""
        if token.finish_reason != "abort":
            self.ids.append(token.id)
        self.text += token.text
        self.garbled = self.garbled or token.garbled
        if token.finish_reason is not None:
            self.finish_reason, self.stop_reason = token.finish_reason, token.stop_reason


class EngineRoom:
    """One engine."""

    def __init__(
        self, model: str, context_tokens: int, stepper: Stepper, faults: Faults, clock: Callable[[], float]
    ) -> None:
        """`clock` gives seconds since 1970."""
        self.model = model
        self.context_tokens = context_tokens
        self.stepper = stepper
        self.faults = faults
        self._clock = clock
        self.in_flight = 0

    def now(self) -> int:
        """Whole seconds since 1970, as `created` fields want them."""
        return int(self._clock())

    def check_model(self, name: str | None) -> None:
        """Refusal where `name` is not what this engine serves; none given is fine."""
        if name is not None and name != self.model:
            raise errors.unknown_model(name, self.model)

    def request_id(self, request: web.Request, own: str | None, prefix: str) -> str:
        """As vLLM makes it: from the caller's header, the body, or at random."""
        return f"{prefix}-{request.headers.get('X-Request-Id') or own or secrets.token_hex(8)}"

    async def answer(
        self,
        request_id: str,
        prompts: Sequence[Sequence[int]],
        samplings: Sequence[Sequence[Sampling]],
        on_token: Callable[[int, Token], None],
        blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Answer every prompt with every of its samplings; `on_token` gets the choice's index with each token.

        Returns when all have ended. Cancelled, it takes its sequences along.
        """
        self._die_of_query(prompts)
        jobs = [(prompt, sampling) for prompt, mine in zip(prompts, samplings, strict=True) for sampling in mine]
        finished = asyncio.Event()
        left = len(jobs)

        def take(index: int, token: Token) -> None:
            nonlocal left
            on_token(index, token)
            if token.finish_reason is not None:
                left -= 1
                if left == 0:
                    finished.set()

        answers: list[Answer] = []
        self.in_flight += 1
        try:
            for index, (prompt, sampling) in enumerate(jobs):
                sink = _bind(take, index)
                answers.append(Answer(request_id, prompt, sampling, sink, blocked))
                self.stepper.submit(answers[-1])
            await finished.wait()
        except EngineFullError as error:
            raise Refusal(str(error), status=503, kind="ServiceUnavailableError") from error
        finally:
            self.in_flight -= 1
            for answer in answers:
                self.stepper.cancel(answer)

    async def collect(
        self, request_id: str, prompts: Sequence[Sequence[int]], samplings: Sequence[Sequence[Sampling]]
    ) -> list[Choice]:
        """The answers as a whole, in the order of prompts and their samplings."""
        choices = [Choice() for mine in samplings for _ in mine]
        await self.answer(request_id, prompts, samplings, lambda index, token: choices[index].take(token))
        return choices

    def _die_of_query(self, prompts: Sequence[Sequence[int]]) -> None:
        fault = self.faults.due(Kind.QUERY_OF_DEATH, 0)
        if fault is not None and any((fault.text or QUERY_OF_DEATH) in decode(prompt) for prompt in prompts):
            self.stepper.crash_now()


def _bind(take: Callable[[int, Token], None], index: int) -> Callable[[Token], None]:
    return lambda token: take(index, token)


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, object]:
    """Usage as a whole answer tells it."""
    total = prompt_tokens + completion_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": total,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def streamed_usage(prompt_tokens: int, completion_tokens: int) -> bytes:
    """Usage as the last chunk of a stream tells it, as JSON."""
    return b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
        prompt_tokens,
        prompt_tokens + completion_tokens,
        completion_tokens,
    )
