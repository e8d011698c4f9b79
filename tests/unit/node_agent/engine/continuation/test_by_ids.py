"""Going on by ids, against an engine whose tokens are bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from shrk_contract.terms import CANNOT_RESUME, Endpoint, Fault, ResumeMethod
from shrk_node_agent.attempts import ChoiceEnd, Order
from shrk_node_agent.engine.continuation.derender import CHUNKS_MAX
from shrk_node_agent.engine.continuation.rest import seed_after
from shrk_node_agent.engine.exchange import EngineClient
from support.byte_engine import PROMPT, ByteEngine
from support.continued import answered, check_seamless, order_of, resumed, said, unbroken
from support.played_engine import Heard, Play, played_engine

RENDER, GENERATE = "/v1/chat/completions/render", "/inference/v1/generate"
DERENDER, PARSED = "/v1/completions/derender", "/v1/chat/completions/derender"
MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**body: Any) -> Order:
    return order_of(Endpoint.CHAT_COMPLETIONS, {"messages": MESSAGES, **body})


@asynccontextmanager
async def a_client(engine: Play, runner: str = "v2") -> AsyncIterator[EngineClient]:
    async with played_engine(engine) as played:
        client = EngineClient(played.socket, runner=runner)
        try:
            yield client
        finally:
            await client.close()


async def a_first(**body: Any) -> tuple[Order, Heard]:
    """An order and what it came to, unbroken."""
    order = chat(**body)
    async with a_client(ByteEngine()) as client:
        return order, await unbroken(client, order)


async def gone_on(engine: ByteEngine, pieces: int = 4, *, runner: str = "v2", **body: Any) -> Heard:
    """What continuing after some pieces came to."""
    order, first = await a_first(**body)
    async with a_client(engine, runner) as client:
        return await answered(client, resumed(order, first, pieces, ResumeMethod.BY_IDS))


@pytest.mark.parametrize("method", list(ResumeMethod))
@pytest.mark.parametrize(("chunk", "chunk_of_the_other"), [(1, 1), (1, 3), (3, 1), (4, 3)])
async def test_at_every_cut_in_the_middle_of_characters_too_the_answer_goes_on_without_a_seam(
    method: ResumeMethod, chunk: int, chunk_of_the_other: int
) -> None:
    order = chat(return_token_ids=True)
    async with a_client(ByteEngine(chunk=chunk)) as client:
        first = await unbroken(client, order)
    assert said(first.pieces).text["content"] == ByteEngine().text
    async with a_client(ByteEngine(chunk=chunk_of_the_other)) as client:
        for pieces in range(1, len(first.pieces)):
            check_seamless(first, pieces, await answered(client, resumed(order, first, pieces, method)))


async def test_the_last_token_brings_the_prompts_length_without_what_was_delivered() -> None:
    _, first = await a_first()
    rest = await gone_on(ByteEngine())
    assert [piece.prompt_tokens for piece in rest.pieces if piece.end] == [len(first.prompts[0])]


@pytest.mark.parametrize("method", list(ResumeMethod))
async def test_an_end_without_a_token_of_its_own_comes_in_a_piece_of_its_own(method: ResumeMethod) -> None:
    order = chat()
    async with a_client(ByteEngine(end_alone=True)) as client:
        first = await unbroken(client, order)
        assert (first.pieces[-1].tokens, first.pieces[-1].end) == (0, ChoiceEnd(0, "stop", b"null"))
    for in_one_write in (False, True):
        async with a_client(ByteEngine(end_alone=True, in_one_write=in_one_write)) as client:
            for pieces in range(1, len(first.pieces)):
                check_seamless(first, pieces, await answered(client, resumed(order, first, pieces, method)))


async def test_tokens_that_gather_while_one_chunk_is_read_go_together_with_the_next() -> None:
    engine = ByteEngine()
    asked = engine.bodies
    let_go = asyncio.Event()

    async def slowly(request: Any) -> Any:
        if request.path == DERENDER and len(asked(DERENDER)) == 1:
            await let_go.wait()  # the first chunk after the check
        answer = await engine(request)
        if request.path == GENERATE:
            let_go.set()  # all of it has been written
        return answer

    order, first = await a_first()
    async with a_client(slowly) as client:
        check_seamless(first, 4, await answered(client, resumed(order, first, 4, ResumeMethod.BY_IDS)))
    chunks = [body["generate_chunk"]["choices"][0]["token_ids"] for body in asked(DERENDER)]
    assert len(chunks[0]) == 4
    assert len(chunks) <= 4
    assert sum(map(len, chunks)) == len(engine.ids) - 1, "its end is not part of its text"


async def test_the_prompt_that_the_first_node_told_is_not_told_again() -> None:
    assert (await gone_on(ByteEngine())).prompts == []


async def test_usage_is_that_of_the_whole_request_and_no_more_was_cached_than_the_prompt() -> None:
    heard = await gone_on(ByteEngine(), stream_options={"continuous_usage_stats": True})
    total = len(ByteEngine().ids)
    assert heard.finished is not None
    assert heard.finished.usage == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": total,
        "total_tokens": len(PROMPT) + total,
        "prompt_tokens_details": {"cached_tokens": len(PROMPT)},
    }
    running = f'"usage":{{"prompt_tokens":{len(PROMPT)},"completion_tokens":5,"total_tokens":{len(PROMPT) + 5}}}'
    assert running.encode() in heard.part


async def test_an_engine_that_draws_noise_by_sequence_is_given_another_seed() -> None:
    for runner, seed in (("v2", 7), ("v1", seed_after(7, 4)), ("", seed_after(7, 4))):
        engine = ByteEngine()
        await gone_on(engine, runner=runner)
        assert engine.bodies(GENERATE)[0]["sampling_params"]["seed"] == seed


async def test_a_seed_of_the_callers_own_is_kept() -> None:
    engine = ByteEngine()
    await gone_on(engine, seed=99)
    assert engine.bodies(GENERATE)[0]["sampling_params"]["seed"] == 99


async def test_where_no_token_is_left_the_answer_ended_by_its_length() -> None:
    engine = ByteEngine(sampling={"max_tokens": 4})
    heard = await gone_on(engine)
    assert heard.finished is not None
    assert heard.finished.choices == (ChoiceEnd(0, "length"),)
    assert heard.finished.usage["completion_tokens"] == 4
    assert (heard.pieces, engine.bodies(GENERATE)) == ([], [])


async def test_ids_are_read_as_text_where_nothing_but_text_can_come_and_by_parsers_where_tools_can() -> None:
    plain, tools, special = ByteEngine(), ByteEngine(), ByteEngine(sampling={"skip_special_tokens": False})
    await gone_on(plain)
    await gone_on(tools, tools=[{"type": "function", "function": {"name": "f"}}])
    await gone_on(special)
    read = [(bool(engine.bodies(DERENDER)), bool(engine.bodies(PARSED))) for engine in (plain, tools, special)]
    assert read == [(True, False), (False, True), (False, True)]


async def test_where_nothing_has_been_said_yet_the_parsers_have_the_word() -> None:
    order = chat()
    async with a_client(ByteEngine(text="ë!")) as client:
        first = await unbroken(client, order)
    engine = ByteEngine(text="ë!")
    async with a_client(engine) as client:
        check_seamless(first, 1, await answered(client, resumed(order, first, 1, ResumeMethod.BY_IDS)))
    assert len(engine.bodies(DERENDER)) == 1
    assert len(engine.bodies(PARSED)) > 1


@pytest.mark.parametrize("misreads", [1_000_000, 60], ids=["which is read alike", "which is not"])
async def test_a_history_of_many_chunks_becomes_one(misreads: int) -> None:
    text = "all that it has to say, and it has much to say: " * 2
    order = chat(tools=[{"type": "function", "function": {"name": "f"}}])
    async with a_client(ByteEngine(text)) as client:
        first = await unbroken(client, order)
    engine = ByteEngine(text, misreads=misreads)
    async with a_client(engine) as client:
        check_seamless(first, 4, await answered(client, resumed(order, first, 4, ResumeMethod.BY_IDS)))
    states = [body["stream_state"] for body in engine.bodies(PARSED)]
    longest = max(len(state["output_chunk_lens"]) for state in states if state)
    assert (longest <= CHUNKS_MAX) == (misreads > len(text))
    assert states.count(None) < len(text) / CHUNKS_MAX + 1, "and not more often than it pays"


@pytest.mark.parametrize("path", [RENDER, DERENDER, GENERATE])
@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_refusal_on_the_way_means_that_this_way_does_not_work(path: str, status: int) -> None:
    heard = await gone_on(ByteEngine(refuses={path: (status, {"error": {"message": "not here"}})}))
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.code) == (Fault.ENGINE, CANNOT_RESUME)
    assert "not here" in heard.failed.message
    assert heard.pieces == []


@pytest.mark.parametrize("path", [RENDER, DERENDER])
async def test_an_engine_that_fails_on_the_way_is_an_engine_that_failed(path: str) -> None:
    heard = await gone_on(ByteEngine(refuses={path: (500, {"error": {"message": "boom"}})}))
    assert heard.failed is not None
    assert (heard.failed.fault, heard.failed.message, heard.failed.http_status) == (Fault.ENGINE, "boom", 500)
    assert heard.failed.code != CANNOT_RESUME


@pytest.mark.parametrize("path", [RENDER, DERENDER])
@pytest.mark.parametrize("answer", [5, {}, [], {"chunk": {"choices": []}, "stream_state": {}}])
async def test_an_answer_that_cannot_be_read_is_nonsense(path: str, answer: Any) -> None:
    heard = await gone_on(ByteEngine(refuses={path: (200, answer)}))
    assert heard.failed is not None
    assert heard.failed.code == "engine_nonsense"
    assert heard.pieces == []


async def test_an_engine_that_reads_the_ids_as_another_text_is_not_used() -> None:
    order, first = await a_first()
    asking = resumed(order, first, 4, ResumeMethod.BY_IDS)
    assert asking.resume is not None
    engine = ByteEngine()
    async with a_client(engine) as client:
        heard = await answered(client, replace(asking, resume=replace(asking.resume, text_digest=1)))
    assert heard.failed is not None
    assert (heard.failed.code, heard.pieces, engine.bodies(GENERATE)) == (CANNOT_RESUME, [], [])


@pytest.mark.parametrize(
    "body",
    [{"response_format": {"type": "json_object"}}, {"stop": ["x"]}, {"logprobs": True}, {"n": 2}],
)
async def test_what_begins_anew_at_a_seam_is_not_even_asked_for(body: dict[str, Any]) -> None:
    order, first = await a_first()
    engine = ByteEngine()
    asking = replace(resumed(order, first, 4, ResumeMethod.BY_IDS), body=chat(**body).body)
    async with a_client(engine) as client:
        heard = await answered(client, asking)
    assert heard.failed is not None
    assert (heard.failed.code, engine.asked) == (CANNOT_RESUME, [])


async def test_several_choices_are_not_replayed_either() -> None:
    order, first = await a_first()
    async with a_client(ByteEngine()) as client:
        asking = replace(resumed(order, first, 4, ResumeMethod.REPLAY), body=chat(n=2).body)
        heard = await answered(client, asking)
    assert heard.failed is not None
    assert (heard.failed.code, heard.pieces) == (CANNOT_RESUME, [])


async def test_what_the_engine_understands_as_structured_is_not_continued() -> None:
    engine = ByteEngine(sampling={"structured_outputs": {"json_object": True}})
    heard = await gone_on(engine)
    assert heard.failed is not None
    assert (heard.failed.code, engine.bodies(GENERATE)) == (CANNOT_RESUME, [])


async def test_whole_answers_and_kinds_without_ids_are_not_continued_by_them() -> None:
    order, first = await a_first()
    asking = resumed(order, first, 4, ResumeMethod.BY_IDS)
    async with a_client(ByteEngine()) as client:
        for other in (replace(asking, streaming=False), replace(asking, endpoint=Endpoint.EMBEDDINGS)):
            heard = await answered(client, other)
            assert heard.failed is not None
            assert heard.failed.code == CANNOT_RESUME


async def test_cancelling_closes_the_connection_so_that_the_engine_aborts() -> None:
    order, first = await a_first()
    engine = ByteEngine(stops_after=3)
    heard = Heard()
    async with a_client(engine) as client:
        attempt = asyncio.create_task(client.answer(resumed(order, first, 4, ResumeMethod.BY_IDS), heard))
        await heard.first_piece.wait()
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        await engine.left.wait()
    assert (heard.finished, heard.failed) == (None, None)


async def test_where_nothing_was_delivered_the_answer_begins_as_any_other() -> None:
    order, first = await a_first()
    asking = resumed(order, first, 1, ResumeMethod.BY_IDS)
    assert asking.resume is not None
    nothing = replace(asking.resume, delivered_tokens=0, delivered_ids=())
    async with a_client(ByteEngine()) as client:
        for method in ResumeMethod:
            heard = await answered(client, replace(asking, resume=replace(nothing, method=method)))
            assert said(heard.pieces) == said(first.pieces)
