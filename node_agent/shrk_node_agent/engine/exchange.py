"""One attempt against one engine: the order in, the engine's own answer out, over its unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from shrk_contract.terms import DENIED_FIELDS, Endpoint, Fault
from shrk_node_agent.attempts import AttemptSink, ChoiceEnd, Failed, Finished, Order
from shrk_node_agent.engine.events import EngineSentNonsense, EventReader, name_tool_calls
from shrk_node_agent.engine.refusals import from_response

#: The longest life of one attempt; the coordinator's own deadline for a request is an hour.
ATTEMPT_SECONDS_MAX = 3_700.0
CONNECT_SECONDS_MAX = 10.0
#: A whole answer; the coordinator holds no more either.
ANSWER_BYTES_MAX = 32 * 1024 * 1024
ERROR_BYTES_MAX = 256 * 1024

#: Endpoints that tell token ids on request.
_TELLS_IDS = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS})


class EngineClient:
    """Speaks HTTP to one engine; one per engine process."""

    def __init__(self, socket: Path) -> None:
        self._session = aiohttp.ClientSession(
            # No limit on connections: the agent bounds attempts itself, and says `busy` beyond.
            connector=aiohttp.UnixConnector(str(socket), limit=0),
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
            if order.endpoint in _TELLS_IDS:
                body["return_token_ids"] = True
        async with self._session.post(
            f"http://engine{order.endpoint}", data=orjson.dumps(body), headers={"Content-Type": "application/json"}
        ) as response:
            if response.status != 200:
                return from_response(response.status, await response.content.read(ERROR_BYTES_MAX))
            if order.streaming:
                continuous = bool(options.get("continuous_usage_stats"))
                return await _stream(response, EventReader(order.envelope, caller_wants_ids, continuous), sink)
            return await _whole(response, order, caller_wants_ids, sink)


async def _stream(response: aiohttp.ClientResponse, reader: EventReader, sink: AttemptSink) -> Finished | Failed:
    held: list[bytes] = []
    begun = False
    async for received in response.content.iter_any():
        batch = reader.read(received)
        if reader.prompt_token_ids and not begun:
            sink.prompt(reader.prompt_token_ids)
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
    if held:
        await sink.piece(0, (), b"".join(held))
    return _end_of(reader)


def _end_of(reader: EventReader) -> Finished | Failed:
    if not reader.done:
        return Failed(Fault.ENGINE, "the engine's stream ended in the middle", code="engine_lost")
    if not reader.ends:
        return Failed(Fault.ENGINE, "the engine ended without a reason", code="engine_empty")
    if any(end.finish_reason == "abort" for end in reader.ends):
        return Failed(Fault.ENGINE, "the engine aborted the generation", code="engine_aborted")
    return Finished(reader.ends, reader.usage)


async def _whole(
    response: aiohttp.ClientResponse, order: Order, caller_wants_ids: bool, sink: AttemptSink
) -> Finished | Failed:
    parts: list[bytes] = []
    size = 0
    async for received in response.content.iter_any():
        parts.append(received)
        size += len(received)
        if size > ANSWER_BYTES_MAX:
            return Failed(Fault.CALLER, f"the answer is larger than {ANSWER_BYTES_MAX:,} bytes", http_status=413)
    # Large answers (a thousand embeddings) take long enough to parse that other streams would notice.
    answer, finished = await asyncio.to_thread(_in_envelope, b"".join(parts), order, caller_wants_ids)
    await sink.piece(0, (), answer)
    return finished


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
