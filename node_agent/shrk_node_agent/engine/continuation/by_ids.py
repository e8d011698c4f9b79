"""Goes on after the token ids of the prompt and of what was delivered, as if the engine had said all of it itself.

First the engine turns the delivered ids back into text: only if that is what the caller has, the seam will not show.
Then it generates on, and what it generates is turned into events in the same way. A call for that takes longer the
more its parsers have to read; meanwhile further ids gather in the connection and go together as the next chunk:
however slow the calls are, the stream keeps up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from shrk_contract.terms import Endpoint, Fault
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, Failed, Finished, Order, Resume
from shrk_node_agent.engine.bodies import read_up_to
from shrk_node_agent.engine.caller_events import Batch, CallerEvents, Wishes
from shrk_node_agent.engine.continuation import chat, completions
from shrk_node_agent.engine.continuation.asking import ANSWER_BYTES_MAX, Asking, CannotResume, EngineFailed, refused
from shrk_node_agent.engine.continuation.derender import Derender
from shrk_node_agent.engine.continuation.dialect import Dialect, Reading
from shrk_node_agent.engine.continuation.rest import rest_of, tokens_left, why_not, why_not_rendered
from shrk_node_agent.engine.crash import ENGINE_LOST
from shrk_node_agent.engine.delivery import Delivery
from shrk_node_agent.engine.events import EngineEvents, EngineSentNonsense, Event, reading
from shrk_node_agent.engine.refusals import from_response
from shrk_node_agent.engine.text_digest import NOTHING_SAID, TextDigest

DIALECTS: Mapping[Endpoint, Dialect] = {
    Endpoint.CHAT_COMPLETIONS: chat.DIALECT,
    Endpoint.COMPLETIONS: completions.DIALECT,
}

_GENERATE = "/inference/v1/generate"


@dataclass(slots=True)
class _New:
    """What some of the engine's events brought."""

    ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: Any = None
    #: The last token is what ended the answer, and no part of its text.
    stopped_by_token: bool = False


class Continuation:
    """One answer, continued by ids."""

    def __init__(
        self, session: aiohttp.ClientSession, order: Order, resume: Resume, body: dict[str, Any], runner: str
    ) -> None:
        """`body` is the order's, with its seed; `runner` as in the engine's pin."""
        self._engine = Asking(session)
        self._order = order
        self._resume = resume
        self._body = body
        self._runner = runner
        self._wishes = Wishes.of(body)
        self._caller = CallerEvents(order.envelope, self._wishes, TextDigest())
        self._caller.prompt_tokens = len(resume.prompt_ids)

    async def answer(self, sink: AttemptSink) -> Finished | Failed:
        """Carry it out. Cancelling this aborts the generation in the engine. Raises CannotResume."""
        dialect = DIALECTS.get(self._order.endpoint) if self._order.streaming else None
        if dialect is None:
            raise CannotResume("it is not streamed, or of a kind that has no ids")
        if reason := why_not(self._body):
            raise CannotResume(reason)
        try:
            return await self._go_on(dialect, sink)
        except EngineFailed as error:
            return error.failed

    async def _go_on(self, dialect: Dialect, sink: AttemptSink) -> Finished | Failed:
        rendered = await self._engine.ask(dialect.render, self._body)
        with reading("a rendered request"):
            rendered = dialect.single(rendered)
            if reason := why_not_rendered(rendered):
                raise CannotResume(reason)
            left, rest = tokens_left(rendered, self._resume), rest_of(rendered, self._resume, self._runner)
            readings = dialect.readings(self._body, rendered)
        derender = await self._derender(readings)
        if left is not None and left <= 0:
            return Finished((ChoiceEnd(self._order.envelope.choice_index, "length"),), self._usage({}, 0))
        return await self._generate(rest, derender, Delivery(sink, self._caller, tell_ids=self._order.tell_ids))

    async def _derender(self, readings: tuple[Reading, ...]) -> Derender:
        """The way to read ids that makes of the delivered ones what the caller has. Raises CannotResume."""
        for way in readings:
            derender = Derender(self._engine, way, self._resume, self._body)
            said = await derender.event(self._resume.delivered_ids)
            with reading("a derendered chunk"):
                (choice,) = said["choices"]
                digest = TextDigest()
                digest.add_delta(delta := choice.get("delta", choice))
            # Two ways that read nothing are not known to be the same.
            decided = digest.value != NOTHING_SAID or way is readings[-1]
            if decided and digest.value == self._resume.text_digest:
                self._caller.said(delta)
                return derender
        raise CannotResume("this engine reads the delivered ids as another text")

    async def _generate(self, rest: dict[str, Any], derender: Derender, delivery: Delivery) -> Finished | Failed:
        engine = EngineEvents(one_choice=True)
        spoken_end = bool(rest["sampling_params"].get("include_stop_str_in_output"))
        async with self._engine.post(_GENERATE, rest) as response:
            if response.status != 200:
                raise refused(from_response(response.status, await read_up_to(response, ANSWER_BYTES_MAX)))
            async for received in response.content.iter_any():
                new = _gathered(engine.read(received))
                if new.ids or new.finish_reason:
                    batch = Batch()
                    self._caller.write(await self._event(new, derender, engine.tokens, spoken_end), batch)
                    await delivery.send(batch)
                    if not new.finish_reason:
                        await derender.fold(self._caller.text_digest)
                if engine.failed is not None:
                    raise refused(engine.failed)
                if engine.done:
                    usage = self._usage(engine.usage, engine.tokens)
                    return await delivery.end(Finished(self._caller.ends, usage))
        return Failed(Fault.ENGINE, "the engine's stream ended in the middle", code=ENGINE_LOST)

    async def _event(self, new: _New, derender: Derender, tokens: int, spoken_end: bool) -> Event:
        """New ids as one event of the endpoint's own stream; `tokens` were generated here so far."""
        silent = new.stopped_by_token and not spoken_end
        body = await derender.event(new.ids[:-1] if silent else new.ids, new.finish_reason, new.stop_reason)
        with reading("a derendered chunk"):
            choice = body["choices"][0]
            choice["token_ids"] = new.ids
            if new.finish_reason != "stop":
                # `derender` says "tool_calls" wherever there are some; the endpoint only where they are complete.
                choice["finish_reason"] = new.finish_reason
            if self._wishes.running_usage:
                body["usage"] = self._usage({}, tokens)
        return Event(body, len(new.ids), new.ids)

    def _usage(self, told: dict[str, Any], tokens: int) -> dict[str, Any]:
        """Usage of the whole request: for the engine, what was delivered is a part of its prompt."""
        prompt_tokens, completion_tokens = len(self._resume.prompt_ids), len(self._resume.delivered_ids) + tokens
        usage = {
            **told,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        details = told.get("prompt_tokens_details")
        if details and details.get("cached_tokens"):
            usage["prompt_tokens_details"] = {**details, "cached_tokens": min(details["cached_tokens"], prompt_tokens)}
        return usage


def _gathered(events: list[Event]) -> _New:
    """All that some events brought. Raises EngineSentNonsense."""
    new = _New()
    for event in events:
        if event.token_ids is None:
            raise EngineSentNonsense("tokens without their ids")
        new.ids += event.token_ids
        for choice in event.body["choices"]:
            new.finish_reason, new.stop_reason = choice.get("finish_reason"), choice.get("stop_reason")
            new.stopped_by_token = new.finish_reason == "stop" and bool(event.token_ids)
    return new
