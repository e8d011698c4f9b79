"""One attempt against one engine: the order in, the engine's own answer out, over its unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from shrk_contract.terms import (
    ANSWER_BYTES_MAX,
    CANNOT_RESUME,
    DENIED_FIELDS,
    DIVERGED,
    Endpoint,
    Fault,
    ResumeMethod,
)
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, CreditWithheld, Failed, Finished, Order, Piece, Resume
from shrk_node_agent.engine.bodies import read_up_to
from shrk_node_agent.engine.caller_events import Batch, CallerEvents, Wishes, name_tool_calls
from shrk_node_agent.engine.continuation.asking import CannotResume
from shrk_node_agent.engine.continuation.by_ids import Continuation
from shrk_node_agent.engine.continuation.replay import Diverged, Seam
from shrk_node_agent.engine.crash import ENGINE_CRASHED, ENGINE_LOST
from shrk_node_agent.engine.delivery import Delivery, judged
from shrk_node_agent.engine.events import EngineEvents, EngineSentNonsense, reading
from shrk_node_agent.engine.refusals import from_response

#: The longest life of one attempt; the coordinator's own deadline for a request is an hour.
ATTEMPT_SECONDS_MAX = 3_700.0
CONNECT_SECONDS_MAX = 10.0
#: A connection that waits for its next attempt. vLLM closes one after 5 s: an attempt sent on it in that moment would
#: be lost, and is not sent twice. We close it first, with time to spare for a machine that is slow.
IDLE_SECONDS_MAX = 3.0
#: A refusal in an engine's words: some sentences.
ERROR_BYTES_MAX = 256 * 1024

#: Endpoints that generate: they take a seed, tell token ids and running usage on request, and why each choice ended.
_GENERATES = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS})


#: What a failure comes to for whoever knows more of the engine than its connections show.
Explain = Callable[[Failed], Awaitable[Failed]]


class EngineClient:
    """Speaks HTTP to one engine; one per engine process."""

    def __init__(self, socket: Path, idle_seconds_max: float = IDLE_SECONDS_MAX, runner: str = "") -> None:
        """`runner` as in the engine's pin: how it draws noise."""
        self._runner = runner
        #: By its own word.
        self._core_gone = False
        self._session = aiohttp.ClientSession(
            # No limit on connections: the agent bounds attempts itself, and says `busy` beyond.
            connector=aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=idle_seconds_max),
            timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close every connection; the engine aborts what still runs on them."""
        await self._session.close()

    async def answer(self, order: Order, sink: AttemptSink, explain: Explain | None = None) -> None:
        """Carry out one order. Cancelling this aborts the generation in the engine.

        `explain` is asked before a failure is told, unless it is none that this attempt can have caused.
        """
        core_was_gone = self._core_gone
        try:
            outcome = await self._outcome(order, sink)
        except aiohttp.ClientConnectorError as error:
            return sink.fail(_broke_off(error))  # The engine has not even heard of it.
        if isinstance(outcome, Finished):
            return sink.finish(outcome)
        if outcome.code == ENGINE_CRASHED and core_was_gone:
            # vLLM's front end serves on for seconds: what comes after its core's end did not cause it.
            outcome = replace(outcome, code=ENGINE_LOST)
        elif explain is not None:
            outcome = await explain(outcome)
        self._core_gone = self._core_gone or outcome.code == ENGINE_CRASHED
        sink.fail(outcome)

    async def _outcome(self, order: Order, sink: AttemptSink) -> Finished | Failed:
        """What comes of one order. Raises aiohttp.ClientConnectorError."""
        deadline = asyncio.timeout(order.deadline_seconds)
        try:
            async with deadline:
                return await self._exchange(order, sink)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if deadline.expired():
                return Failed(Fault.COORDINATOR, "the time of the whole request is over", code="deadline")
            return _broke_off(error)
        except CreditWithheld as error:
            return Failed(Fault.COORDINATOR, f"the coordinator gave {error}", code="credit_withheld")
        except EngineSentNonsense as error:
            return Failed(Fault.ENGINE, f"the engine sent {error}", code="engine_nonsense")
        except CannotResume as error:
            return Failed(Fault.ENGINE, f"this answer cannot be continued here: {error}", code=CANNOT_RESUME)
        except Diverged as error:
            return Failed(Fault.NODE, f"the replay diverged: {error}", code=DIVERGED)

    async def _exchange(self, order: Order, sink: AttemptSink) -> Finished | Failed:
        body: dict[str, Any] = orjson.loads(order.body)
        if denied := DENIED_FIELDS.keys() & body.keys():
            name = min(denied)
            return Failed(Fault.CALLER, f"{name!r} is not accepted here: {DENIED_FIELDS[name]}.", 400, param=name)
        if order.endpoint in _GENERATES and body.get("seed") is None and order.seed is not None:
            body["seed"] = order.seed
        # Where nothing has been delivered there is nothing to continue.
        resume = order.resume if order.resume and order.resume.delivered_tokens else None
        if resume is not None and resume.method is ResumeMethod.BY_IDS:
            return await Continuation(self._session, order, resume, body, self._runner).answer(sink)
        if order.streaming:
            return await self._stream(order, body, resume, sink)
        return await self._whole(order, body, sink)

    async def _stream(
        self, order: Order, body: dict[str, Any], resume: Resume | None, sink: AttemptSink
    ) -> Finished | Failed:
        """An answer as it is generated; of a replay, what follows on what was delivered."""
        wishes = Wishes.of(body)
        if resume is not None and not wishes.one_choice:
            raise CannotResume("it has several choices")
        seam = Seam(resume) if resume is not None else None
        caller = CallerEvents(order.envelope, wishes, seam.digest if seam else None)
        delivery = Delivery(sink, caller, tell_ids=order.tell_ids)
        engine = EngineEvents(one_choice=wishes.one_choice)
        async with self._post(order, _as_stream(order, body)) as response:
            if response.status != 200:
                return from_response(response.status, await read_up_to(response, ERROR_BYTES_MAX))
            async for received in response.content.iter_any():
                batch = Batch()
                for event in engine.read(received):
                    caller.write(event if seam is None else seam.take(event), batch)
                await delivery.send(batch)
                if engine.failed is not None:
                    return engine.failed
                if engine.done:
                    return await delivery.end(Finished(caller.ends, engine.usage))
        return Failed(Fault.ENGINE, "the engine's stream ended in the middle", code=ENGINE_LOST)

    async def _whole(self, order: Order, body: dict[str, Any], sink: AttemptSink) -> Finished | Failed:
        async with self._post(order, body) as response:
            if response.status != 200:
                return from_response(response.status, await read_up_to(response, ERROR_BYTES_MAX))
            raw = await read_up_to(response, ANSWER_BYTES_MAX + 1)
        if len(raw) > ANSWER_BYTES_MAX:
            return Failed(Fault.CALLER, f"the answer is larger than {ANSWER_BYTES_MAX:,} bytes", http_status=413)
        # Large answers (a thousand embeddings) take long enough to parse that other streams would notice.
        answer, finished = await asyncio.to_thread(_in_envelope, raw, order, bool(body.get("return_token_ids")))
        outcome = judged(finished) if order.endpoint in _GENERATES else finished
        if isinstance(outcome, Finished):
            await sink.piece(Piece(0, (), answer))
        return outcome

    def _post(self, order: Order, body: dict[str, Any]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.post(
            f"http://engine{order.endpoint}", data=orjson.dumps(body), headers={"Content-Type": "application/json"}
        )


def _broke_off(error: Exception) -> Failed:
    return Failed(Fault.ENGINE, f"the engine broke off: {str(error) or type(error).__name__}", code=ENGINE_LOST)


def _as_stream(order: Order, body: dict[str, Any]) -> dict[str, Any]:
    """A request that also asks for what is between the engine and us."""
    options = {**(body.get("stream_options") or {}), "include_usage": True}
    if order.endpoint not in _GENERATES:
        return body | {"stream_options": options}
    options["continuous_usage_stats"] = True
    # Asked for ids, vLLM leaves the prompt out of a completion that should begin with it.
    echoes = order.endpoint is Endpoint.COMPLETIONS and bool(body.get("echo"))
    return body | {"stream_options": options} | ({} if echoes else {"return_token_ids": True})


def _in_envelope(raw: bytes, order: Order, caller_wants_ids: bool) -> tuple[bytes, Finished]:
    """The engine's whole answer with the coordinator's identity."""
    with reading("an answer"):
        answer: dict[str, Any] = orjson.loads(raw)
        choices = [_choice(c, order, caller_wants_ids) for c in answer.get("choices") or ()]
    if not caller_wants_ids:
        answer.pop("prompt_token_ids", None)
    answer["id"] = order.envelope.id
    answer["model"] = order.envelope.model
    if "created" in answer:
        answer["created"] = order.envelope.created
    return orjson.dumps(answer), Finished(tuple(choices), answer.get("usage") or {})


def _choice(choice: dict[str, Any], order: Order, caller_wants_ids: bool) -> ChoiceEnd:
    index = choice["index"] = choice["index"] + order.envelope.choice_index
    if not caller_wants_ids:
        choice.pop("token_ids", None)
        choice.pop("prompt_token_ids", None)
    message = choice.get("message")
    if message and order.envelope.tool_call_prefix:
        name_tool_calls(message, order.envelope.tool_call_prefix, index)
    stop = orjson.dumps(choice["stop_reason"]) if "stop_reason" in choice else b""
    return ChoiceEnd(index, choice.get("finish_reason") or "", stop)
