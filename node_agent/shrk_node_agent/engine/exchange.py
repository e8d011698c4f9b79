"""One attempt against one engine: the order in, the engine's own answer out, over its unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from shrk_contract.terms import DENIED_FIELDS, Endpoint, Fault
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, CreditWithheld, Failed, Finished, Order
from shrk_node_agent.engine.bodies import read_up_to
from shrk_node_agent.engine.events import EngineSentNonsense, EventReader, name_tool_calls
from shrk_node_agent.engine.refusals import from_response

#: The longest life of one attempt; the coordinator's own deadline for a request is an hour.
ATTEMPT_SECONDS_MAX = 3_700.0
CONNECT_SECONDS_MAX = 10.0
#: A connection that waits for its next attempt. vLLM closes one after 5 s: an attempt sent on it in that moment would
#: be lost, and is not sent twice. We close it first, with time to spare for a machine that is slow.
IDLE_SECONDS_MAX = 3.0
#: A whole answer; the coordinator holds no more either.
ANSWER_BYTES_MAX = 32 * 1024 * 1024
ERROR_BYTES_MAX = 256 * 1024

#: Endpoints that generate: they tell token ids on request, and why each choice ended.
_GENERATES = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS})


class EngineClient:
    """Speaks HTTP to one engine; one per engine process."""

    def __init__(self, socket: Path, idle_seconds_max: float = IDLE_SECONDS_MAX) -> None:
        self._session = aiohttp.ClientSession(
            # No limit on connections: the agent bounds attempts itself, and says `busy` beyond.
            connector=aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=idle_seconds_max),
            timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close every connection; the engine aborts what still runs on them."""
        await self._session.close()

    async def answer(self, order: Order, sink: AttemptSink) -> None:
        """Carry out one order. Cancelling this aborts the generation in the engine."""
        try:
            outcome = await self._exchange(order, sink)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome = Failed(Fault.ENGINE, f"the engine broke off: {error or type(error).__name__}", code="engine_lost")
        except CreditWithheld as error:
            outcome = Failed(Fault.COORDINATOR, f"the coordinator gave {error}", code="credit_withheld")
        except EngineSentNonsense as error:
            outcome = Failed(Fault.ENGINE, f"the engine sent {error}", code="engine_nonsense")
        if isinstance(outcome, Finished):
            sink.finish(outcome)
        else:
            sink.fail(outcome)

    async def _exchange(self, order: Order, sink: AttemptSink) -> Finished | Failed:
        body = orjson.loads(order.body)
        if denied := DENIED_FIELDS.keys() & body.keys():
            name = min(denied)
            return Failed(Fault.CALLER, f"{name!r} is not accepted here: {DENIED_FIELDS[name]}.", 400, param=name)
        caller_wants_ids = bool(body.get("return_token_ids"))
        options = body.get("stream_options") or {}
        if order.streaming:
            body["stream_options"] = {**options, "include_usage": True}
            if order.endpoint in _GENERATES:
                body["return_token_ids"] = True
        async with self._session.post(
            f"http://engine{order.endpoint}", data=orjson.dumps(body), headers={"Content-Type": "application/json"}
        ) as response:
            if response.status != 200:
                return from_response(response.status, await read_up_to(response, ERROR_BYTES_MAX))
            if order.streaming:
                continuous = bool(options.get("continuous_usage_stats"))
                return await _stream(response, EventReader(order.envelope, caller_wants_ids, continuous), sink)
            return await _whole(response, order, caller_wants_ids, sink)


async def _stream(response: aiohttp.ClientResponse, reader: EventReader, sink: AttemptSink) -> Finished | Failed:
    held: list[bytes] = []
    begun = False
    async for received in response.content.iter_any():
        batch = reader.read(received)
        if batch.events or batch.tokens:
            if batch.tokens or begun:
                # Events before the first token (the role) go out with it: a piece without a token would
                # bind the request to this node before it has shown that it can generate.
                part = b"".join(held) + batch.part()
                held.clear()
                await sink.piece(batch.tokens, batch.token_ids if batch.ids_known else (), part)
                begun = True
            else:
                held.append(batch.part())
        if reader.failed is not None:
            return reader.failed
        if reader.done:
            break
    if not reader.done:
        return Failed(Fault.ENGINE, "the engine's stream ended in the middle", code="engine_lost")
    outcome = _judged(Finished(reader.ends, reader.usage))
    if held and isinstance(outcome, Finished):
        await sink.piece(0, (), b"".join(held))
    return outcome


def _judged(finished: Finished) -> Finished | Failed:
    """What was generated is whole only if every choice ended for a reason, and not by being given up."""
    reasons = [end.finish_reason for end in finished.choices]
    if not reasons or not all(reasons):
        return Failed(Fault.ENGINE, "the engine ended without a reason", code="engine_empty")
    if "abort" in reasons:
        return Failed(Fault.ENGINE, "the engine aborted the generation", code="engine_aborted")
    return finished


async def _whole(
    response: aiohttp.ClientResponse, order: Order, caller_wants_ids: bool, sink: AttemptSink
) -> Finished | Failed:
    raw = await read_up_to(response, ANSWER_BYTES_MAX + 1)
    if len(raw) > ANSWER_BYTES_MAX:
        return Failed(Fault.CALLER, f"the answer is larger than {ANSWER_BYTES_MAX:,} bytes", http_status=413)
    # Large answers (a thousand embeddings) take long enough to parse that other streams would notice.
    answer, finished = await asyncio.to_thread(_in_envelope, raw, order, caller_wants_ids)
    outcome = _judged(finished) if order.endpoint in _GENERATES else finished
    if isinstance(outcome, Finished):
        await sink.piece(0, (), answer)
    return outcome


def _in_envelope(raw: bytes, order: Order, caller_wants_ids: bool) -> tuple[bytes, Finished]:
    """The engine's whole answer with the coordinator's identity."""
    try:
        answer: dict[str, Any] = orjson.loads(raw)
        choices = [_choice(c, order, caller_wants_ids) for c in answer.get("choices") or ()]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise EngineSentNonsense(f"an answer that cannot be read ({type(error).__name__})") from error
    if not caller_wants_ids:
        answer.pop("prompt_token_ids", None)
    answer["id"] = order.envelope.id
    answer["model"] = order.envelope.model
    if "created" in answer:
        answer["created"] = order.envelope.created
    return orjson.dumps(answer), Finished(tuple(choices), answer.get("usage") or {})


def _choice(choice: dict[str, Any], order: Order, caller_wants_ids: bool) -> ChoiceEnd:
    if not caller_wants_ids:
        choice.pop("token_ids", None)
        choice.pop("prompt_token_ids", None)
    message = choice.get("message")
    if message and order.envelope.tool_call_prefix:
        name_tool_calls(message, order.envelope.tool_call_prefix, choice["index"])
    stop = orjson.dumps(choice["stop_reason"]) if "stop_reason" in choice else b""
    return ChoiceEnd(choice["index"], choice.get("finish_reason") or "", stop)
