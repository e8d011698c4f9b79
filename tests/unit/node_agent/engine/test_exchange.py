"""One attempt against one engine, over a real socket: what comes of every kind of answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from shrk_contract.terms import DENIED_FIELDS, Endpoint, Fault
from shrk_node_agent.attempts import ChoiceEnd, Credit, Envelope, Order
from shrk_node_agent.engine import exchange
from shrk_node_agent.engine.exchange import IDLE_SECONDS_MAX, EngineClient
from shrk_node_agent.engine.text_digest import TextDigest
from support.played_engine import (
    DONE,
    Heard,
    Play,
    PlayedEngine,
    chat_event,
    event,
    played_engine,
    send_parts,
    streaming,
    whole,
)
from support.simulated_engine import until

ENVELOPE = Envelope("chatcmpl-ours", 1234, "asked-for", "call_x_")
ROLE = chat_event("", role="assistant")
END = chat_event("", 2, end="stop")
CHOICE_END = ChoiceEnd(0, "stop")
USAGE = {"prompt_tokens": 3, "completion_tokens": 3}
#: VLLM_HTTP_TIMEOUT_KEEP_ALIVE's default.
VLLM_IDLE_SECONDS = 5


def order(endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, *, stream: bool = True, **body: Any) -> Order:
    return Order(endpoint, "asked-for", stream, ENVELOPE, json.dumps(body).encode(), tell_ids=True)


@asynccontextmanager
async def a_client(play: Play, **figures: float) -> AsyncIterator[tuple[EngineClient, PlayedEngine]]:
    async with played_engine(play) as engine:
        client = EngineClient(engine.socket, **figures)
        try:
            yield client, engine
        finally:
            await client.close()


async def asked(play: Play, order: Order, sink: Heard | None = None) -> Heard:
    """What one attempt came to."""
    sink = sink or Heard()
    async with a_client(play) as (client, _):
        await client.answer(order, sink)
    return sink


def a_chat(content: str = "hi", end: str | None = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": end, **more}
    return {"id": "engine", "created": 1, "model": "engine", "choices": [choice], "usage": USAGE}


# --- streams ---------------------------------------------------------------------------------------


async def test_a_stream_is_told_piece_by_piece_in_our_envelope_and_then_finished() -> None:
    play = streaming(ROLE, chat_event("a", 5), chat_event("b", 6), END, event(choices=[], usage=USAGE), DONE)
    heard = await asked(play, order())
    assert [(piece.tokens, piece.token_ids) for piece in heard.pieces] == [(1, (5,)), (1, (6,)), (1, (2,))]
    assert b'"id":"chatcmpl-ours"' in heard.part
    assert heard.finished is not None
    assert (heard.finished.choices, heard.finished.usage) == ((ChoiceEnd(0, "stop"),), USAGE)


async def test_the_role_waits_for_the_first_token_and_goes_out_with_it() -> None:
    heard = await asked(streaming(ROLE, chat_event("a", 5), END, DONE), order())
    assert heard.pieces[0].tokens == 1
    assert b"assistant" in heard.pieces[0].part


@pytest.mark.parametrize(
    "ending",
    [b"", DONE, chat_event("", end="abort") + DONE, event(error={"message": "boom"})],
    ids=["broken off", "no reason", "aborted", "an error"],
)
async def test_a_stream_that_fails_before_its_first_token_binds_the_caller_to_nothing(ending: bytes) -> None:
    heard = await asked(streaming(ROLE, ending), order())
    assert heard.failed is not None
    assert heard.pieces == []


async def test_an_answer_without_a_single_token_still_says_its_role() -> None:
    heard = await asked(streaming(ROLE, chat_event("", end="stop"), DONE), order())
    assert heard.finished is not None
    assert [(piece.tokens, piece.end) for piece in heard.pieces] == [(0, CHOICE_END)]
    assert b"assistant" in heard.part


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([chat_event("a", 5)], "engine_lost"),
        ([chat_event("a", 5), DONE], "engine_empty"),
        ([chat_event("a", 5), chat_event("", end="abort"), DONE], "engine_aborted"),
        ([chat_event("a", 5), b"data: {\n\n"], "engine_nonsense"),
        ([chat_event("a", 5), b"data: 5\n\n"], "engine_nonsense"),
    ],
)
async def test_a_stream_that_does_not_end_well_is_the_engines_failure(parts: list[bytes], code: str) -> None:
    heard = await asked(streaming(*parts), order())
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.ENGINE, code)
    assert [piece.token_ids for piece in heard.pieces] == [(5,)]


async def test_an_error_in_the_middle_keeps_the_engines_words() -> None:
    heard = await asked(streaming(chat_event("a", 5), event(error={"message": "boom", "code": 500})), order())
    assert heard.failed is not None
    assert (heard.failed.message, heard.failed.http_status) == ("boom", 500)


async def test_a_connection_that_breaks_in_the_middle_is_the_engines_failure() -> None:
    async def play(request: web.Request) -> web.StreamResponse:
        response = await send_parts(request, chat_event("a", 5))
        assert request.transport is not None
        request.transport.abort()
        return response

    heard = await asked(play, order())
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.ENGINE, "engine_lost")


async def test_an_engine_that_is_not_there_is_the_engines_failure() -> None:
    async with played_engine(whole({})) as engine:
        client = EngineClient(engine.socket.with_name("nobody.sock"))
    heard = Heard()
    await client.answer(order(), heard)
    await client.close()
    assert heard.failed is not None
    assert heard.failed.code == "engine_lost"


@pytest.mark.parametrize("wanted", [True, False])
async def test_ids_are_always_asked_for_and_shown_only_to_callers_who_want_them(wanted: bool) -> None:
    first = event(choices=[{"index": 0, "delta": {"content": "a"}, "token_ids": [5]}], prompt_token_ids=[1, 2])
    async with a_client(streaming(first, END, DONE)) as (client, engine):
        heard = Heard()
        await client.answer(order(return_token_ids=wanted), heard)
    assert engine.asked[0]["return_token_ids"] is True
    assert engine.asked[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert [piece.token_ids for piece in heard.pieces] == [(5,), (2,)]
    assert (b'"prompt_token_ids":[1,2]' in heard.part, b'"token_ids":[2]' in heard.part) == (wanted, wanted)


async def test_running_usage_is_shown_to_callers_who_ask_for_it() -> None:
    first = event(choices=[{"index": 0, "delta": {"content": "a"}, "token_ids": [5]}], usage={"completion_tokens": 1})
    for wanted in (True, False):
        heard = await asked(streaming(first, END, DONE), order(stream_options={"continuous_usage_stats": wanted}))
        assert (b'"usage"' in heard.part) == wanted


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_prompt_and_ids_are_told_to_a_coordinator_that_wants_them(wanted: bool) -> None:
    first = event(choices=[{"index": 0, "delta": {"role": "assistant"}}], prompt_token_ids=[1, 2])
    asking = replace(order(), tell_ids=wanted)
    heard = await asked(streaming(first, chat_event("a", 5), END, DONE), asking)
    assert heard.prompts == ([(1, 2)] if wanted else [])
    assert [(piece.tokens, piece.token_ids) for piece in heard.pieces] == [
        (1, ids) for ids in (((5,), (2,)) if wanted else ((), ()))
    ]


async def test_of_tokens_whose_ids_the_engine_does_not_tell_only_the_number_is_told() -> None:
    heard = await asked(streaming(ROLE, chat_event("a", 5) + chat_event("b"), END, DONE), order())
    assert [(piece.tokens, piece.token_ids) for piece in heard.pieces] == [(2, ()), (1, (2,))]


async def test_every_piece_says_what_has_been_said_up_to_it() -> None:
    heard = await asked(streaming(ROLE, chat_event("a", 5), chat_event("b", 6), END, DONE), order())
    digest, expected = TextDigest(), []
    for text in ("a", "b", ""):
        digest.add("content", text)
        expected.append(digest.value)
    assert [piece.text_digest for piece in heard.pieces] == expected


async def test_the_end_comes_with_the_last_token_or_right_after_it() -> None:
    for ending, end in (([END], [None, CHOICE_END]), ([chat_event("", end="length")], [None, ChoiceEnd(0, "length")])):
        heard = await asked(streaming(ROLE, chat_event("a", 5), *ending, DONE), order())
        assert [piece.end for piece in heard.pieces] == end
    assert (heard.pieces[-1].tokens, heard.pieces[-1].part) == (0, b"")


async def test_of_several_choices_no_piece_tells_an_end_or_a_digest() -> None:
    other = event(choices=[{"index": 1, "delta": {"content": "x"}, "token_ids": [6], "finish_reason": "stop"}])
    heard = await asked(streaming(ROLE, chat_event("a", 5), END, other, DONE), order(n=2))
    assert {(piece.end, piece.text_digest) for piece in heard.pieces} == {(None, 0)}
    assert heard.finished is not None
    assert [end.index for end in heard.finished.choices] == [0, 1]


async def test_a_choice_gets_its_number_among_all_that_were_asked_for() -> None:
    third = replace(order(), envelope=replace(ENVELOPE, choice_index=2))
    for play, asking in (
        (streaming(ROLE, chat_event("a", 5), END, DONE), third),
        (whole(a_chat(tool_calls=[])), replace(third, streaming=False)),
    ):
        heard = await asked(play, asking)
        assert heard.finished is not None
        assert [end.index for end in heard.finished.choices] == [2]
        assert b'"index":2' in heard.part


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("own", "used"), [({}, 7), ({"seed": None}, 7), ({"seed": 0}, 0), ({"seed": 5}, 5)])
async def test_a_request_without_a_seed_gets_the_orders(stream: bool, own: dict[str, Any], used: int) -> None:
    play = streaming(chat_event("a", 5), END, DONE) if stream else whole(a_chat())
    async with a_client(play) as (client, engine):
        await client.answer(replace(order(stream=stream, **own), seed=7), Heard())
    assert engine.asked[0]["seed"] == used


async def test_embeddings_and_orders_without_one_get_no_seed() -> None:
    for asking in (replace(order(Endpoint.EMBEDDINGS, stream=False), seed=7), order(stream=False)):
        async with a_client(whole(a_chat())) as (client, engine):
            await client.answer(asking, Heard())
        assert "seed" not in engine.asked[0]


async def test_a_completion_that_begins_with_its_prompt_is_not_asked_for_ids() -> None:
    said = event(choices=[{"index": 0, "text": "hi there", "finish_reason": None}], usage={"completion_tokens": 2})
    async with a_client(streaming(said, END, DONE)) as (client, engine):
        heard = Heard()
        await client.answer(order(Endpoint.COMPLETIONS, echo=True), heard)
    assert "return_token_ids" not in engine.asked[0]
    assert (heard.pieces[0].tokens, heard.pieces[0].token_ids) == (2, ())


def counted(event: bytes, tokens: int) -> bytes:
    """An event with the engine's count of all tokens so far."""
    return event[:-3] + b', "usage": {"completion_tokens": %d}}\n\n' % tokens


@pytest.mark.parametrize(
    "read",
    [counted(chat_event("b", 6), 2) * 2, counted(chat_event("c", 7), 3)],
    ids=["an event twice", "an event lost"],
)
async def test_nothing_of_a_read_is_passed_on_in_which_tokens_are_missing_or_doubled(read: bytes) -> None:
    heard = await asked(streaming(ROLE, counted(chat_event("a", 5), 1), read, DONE), order())
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.ENGINE, "engine_nonsense")
    assert [piece.token_ids for piece in heard.pieces] == [(5,)]


# --- whole answers ---------------------------------------------------------------------------------


async def test_a_whole_answer_is_one_part_in_our_envelope() -> None:
    heard = await asked(whole(a_chat("hi", stop_reason=7)), order(stream=False))
    answer = json.loads(heard.part)
    assert (answer["id"], answer["created"], answer["model"]) == ("chatcmpl-ours", 1234, "asked-for")
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert heard.finished is not None
    assert (heard.finished.choices, heard.finished.usage) == ((ChoiceEnd(0, "stop", b"7"),), USAGE)


async def test_tool_calls_of_a_whole_answer_get_ids_that_do_not_depend_on_the_node() -> None:
    answer = a_chat()
    answer["choices"][0]["message"]["tool_calls"] = [{"id": "random", "function": {"name": "f"}}]
    heard = await asked(whole(answer), order(stream=False))
    assert json.loads(heard.part)["choices"][0]["message"]["tool_calls"][0]["id"] == "call_x_0_0"


@pytest.mark.parametrize("wanted", [True, False])
async def test_ids_of_a_whole_answer_are_shown_only_to_callers_who_want_them(wanted: bool) -> None:
    heard = await asked(
        whole(a_chat(token_ids=[5]) | {"prompt_token_ids": [1]}), order(stream=False, return_token_ids=wanted)
    )
    answer = json.loads(heard.part)
    assert ("token_ids" in answer["choices"][0], "prompt_token_ids" in answer) == (wanted, wanted)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (a_chat(end="abort"), "engine_aborted"),
        (a_chat(end=None), "engine_empty"),
        (a_chat() | {"choices": []}, "engine_empty"),
        ({}, "engine_empty"),
        ([], "engine_nonsense"),
        ({"choices": [5]}, "engine_nonsense"),
        ({"choices": [{}]}, "engine_nonsense"),
    ],
)
async def test_a_whole_answer_that_is_not_whole_is_a_failure_and_never_sent(answer: Any, code: str) -> None:
    heard = await asked(whole(answer), order(stream=False))
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.ENGINE, code)
    assert heard.pieces == []


async def test_a_whole_answer_cut_off_is_a_failure() -> None:
    heard = await asked(streaming(b'{"choices": [{"index": 0'), order(stream=False))
    assert heard.failed is not None
    assert heard.failed.code == "engine_nonsense"


async def test_embeddings_end_without_a_reason_and_are_whole() -> None:
    answer = {"id": "e", "model": "e", "created": 1, "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1}}
    heard = await asked(whole(answer), order(Endpoint.EMBEDDINGS, stream=False))
    assert heard.finished is not None
    assert heard.finished.usage == {"prompt_tokens": 1}
    assert json.loads(heard.part)["data"] == [{"embedding": [0.5]}]


async def test_an_answer_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_BYTES_MAX", 1000)
    heard = await asked(whole(a_chat("x" * 1000)), order(stream=False))
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.http_status) == (Fault.CALLER, 413)


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_that_comes_in_pieces_is_read_to_its_end(stream: bool) -> None:
    error = json.dumps({"error": {"message": "too long: " + "x" * 500, "param": "messages", "code": 400}}).encode()
    parts = [error[at : at + 100] for at in range(0, len(error), 100)]
    heard = await asked(streaming(*parts, status=400), order(stream=stream))
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.http_status) == (Fault.CALLER, 400)
    assert (len(heard.failed.message), heard.failed.param) == (510, "messages")


async def test_an_endless_error_is_cut_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ERROR_BYTES_MAX", 250)
    heard = await asked(streaming(*[b"x" * 100] * 5, status=500), order())
    assert heard.failed is not None
    assert len(heard.failed.message) == 250


@pytest.mark.parametrize("field", sorted(DENIED_FIELDS))
async def test_a_field_that_reaches_into_the_machine_never_reaches_the_engine(field: str) -> None:
    async with a_client(whole({})) as (client, engine):
        heard = Heard()
        await client.answer(order(**{field: "x"}), heard)
        assert engine.asked == []
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.param) == (Fault.CALLER, field)


# --- the connection --------------------------------------------------------------------------------


async def test_cancelling_closes_the_connection_so_that_the_engine_aborts() -> None:
    left = asyncio.Event()

    async def play(request: web.Request) -> web.StreamResponse:
        try:
            await send_parts(request, chat_event("a", 5))
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError("nobody wakes it")

    async with a_client(play) as (client, _):
        heard = Heard()
        attempt = asyncio.create_task(client.answer(order(), heard))
        await heard.first_piece.wait()
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        await left.wait()
    assert (heard.finished, heard.failed) == (None, None)


async def test_a_coordinator_that_gives_no_credit_is_not_the_engines_fault() -> None:
    sink = Heard(credit=Credit(0, seconds_max=0))
    heard = await asked(streaming(chat_event("a", 5), END, DONE), order(), sink)
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.COORDINATOR, "credit_withheld")


async def test_an_idle_connection_is_closed_by_us_before_the_engine_closes_it() -> None:
    assert IDLE_SECONDS_MAX < VLLM_IDLE_SECONDS
    async with a_client(whole(a_chat()), idle_seconds_max=0.01) as (client, engine):
        for _ in range(2):
            heard = Heard()
            await client.answer(order(stream=False), heard)
            assert heard.finished is not None
            await until(lambda: engine.connections() == 0)
