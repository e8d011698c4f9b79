"""What nodes may say on a link, and what happens to those that say something else."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from shrk_contract.convert import report_to_wire
from shrk_contract.terms import COORDINATOR_TLS_NAME, CREDIT_BYTES, MESSAGE_BYTES_MAX, PART_BYTES_MAX, PROTOCOL
from shrk_contract.v1 import link_pb2, refusal_pb2, report_pb2
from shrk_coordinator.app import unix_ms
from shrk_coordinator.control_plane.authority import Authority
from shrk_node_agent.link.identity import Identity
from support.network import Network, a_network, events_of, until
from support.raw_node import Frame, RawLink, a_link, an_identity, hello
from support.states import a_report


@pytest.fixture(scope="module")
async def coordinator() -> AsyncIterator[Network]:
    """A coordinator that only raw nodes link to."""
    async with a_network() as network:
        yield network


@pytest.fixture
async def identity(coordinator: Network, tmp_path: Path) -> Identity:
    return await an_identity(coordinator, tmp_path / "identity", "raw")


@pytest.fixture
async def link(coordinator: Network, identity: Identity) -> AsyncIterator[RawLink]:
    async with a_link(coordinator, identity.channel_credentials()) as link:
        yield link


async def is_well(coordinator: Network) -> bool:
    """Whatever a node did: the coordinator still answers, and no background task of it ended."""
    async with coordinator.session() as session, session.get(f"{coordinator.base_url}/models") as answer:
        return answer.status == 200


async def test_another_major_version_is_refused_with_the_side_to_update(coordinator: Network, link: RawLink) -> None:
    await link.send(hello(major=PROTOCOL[0] + 1))
    refusal = await link.refusal()
    assert refusal.code == refusal_pb2.REFUSAL_CODE_PROTOCOL_UNSUPPORTED
    assert refusal.remedy == "Update the coordinator."
    assert refusal.permanent
    assert await is_well(coordinator)


async def test_a_newer_minor_version_with_frames_we_do_not_know_interoperates(
    coordinator: Network, link: RawLink
) -> None:
    await link.send(hello(minor=PROTOCOL[1] + 7))
    welcome = await link.frame()
    assert welcome is not None
    assert welcome.welcome.boot_id
    unknown = link_pb2.NodeFrame.FromString(b"\xf2\x7d\x03abc")  # field 2014, length-delimited
    assert unknown.WhichOneof("frame") is None
    await link.send(unknown)
    assert await is_well(coordinator)


@pytest.mark.parametrize(
    "frames",
    [(), (Frame(),), (Frame(piece=link_pb2.Piece(stream=1)),)],
    ids=["an empty batch", "an empty frame", "a piece"],
)
async def test_a_first_frame_that_is_no_hello_is_refused(
    coordinator: Network, link: RawLink, frames: tuple[Frame, ...]
) -> None:
    await link.send(*frames)
    assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    assert await is_well(coordinator)


async def test_a_second_hello_is_refused(coordinator: Network, link: RawLink) -> None:
    await link.send(hello(), hello())
    assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    assert await is_well(coordinator)


async def test_a_report_beside_the_hello_is_heard(coordinator: Network, link: RawLink) -> None:
    await link.send(hello(), Frame(report=report_to_wire(a_report("beside"))))
    await until(lambda: coordinator.serving("beside") == 1, "the report was taken in")


ENGINE = report_pb2.Engine(id="e", model="m")


@pytest.mark.parametrize(
    "frame",
    [
        Frame(report=report_pb2.Report(engines=[ENGINE] * 65)),
        Frame(report=report_pb2.Report(engines=[report_pb2.Engine(id="e", model="m" * 301)])),
        Frame(report=report_pb2.Report(engines=[report_pb2.Engine(id="e", model="")])),
        Frame(report=report_pb2.Report(status=report_pb2.Status(reason="x" * 300_000))),
    ],
    ids=["too many engines", "a long name", "no name", "a long reason"],
)
async def test_a_report_that_no_machine_can_have_is_refused(coordinator: Network, link: RawLink, frame: Frame) -> None:
    await link.send(hello())
    await link.frame()
    await link.send(frame)
    assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    assert await is_well(coordinator)


async def test_a_batch_of_more_frames_than_a_tick_can_make_is_refused(coordinator: Network, link: RawLink) -> None:
    await link.send(hello())
    await link.frame()
    await link.send(*[Frame()] * 20_000)
    assert "frames" in (await link.refusal()).message
    assert await is_well(coordinator)


async def test_bytes_that_are_no_message_are_refused_and_harm_nobody(coordinator: Network, identity: Identity) -> None:
    assert coordinator.coordinator.ports is not None
    address = f"127.0.0.1:{coordinator.coordinator.ports.link}"
    options = [("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME)]
    async with grpc.aio.secure_channel(address, identity.channel_credentials(), options) as channel:
        call: Any = channel.stream_stream("/shrk_contract.v1.LinkService/Open")()
        await call.write(b"\xff\xff\xff garbage")
        said = link_pb2.CoordinatorBatch.FromString(await call.read())
        assert said.frames[0].refusal.code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    assert await is_well(coordinator)


async def test_an_oversized_piece_is_refused_in_words(coordinator: Network, link: RawLink) -> None:
    await link.serve("big")
    await link.send(Frame(piece=link_pb2.Piece(stream=1, data=b"x" * (PART_BYTES_MAX + 1))))
    refusal = await link.refusal()
    assert refusal.code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    assert "65,537 bytes" in refusal.message
    assert await is_well(coordinator)


async def test_an_oversized_message_is_refused_by_grpc_with_a_status_that_can_be_printed(
    coordinator: Network, link: RawLink
) -> None:
    await link.serve("bigger")
    await link.send(Frame(rejected=link_pb2.Rejected(message="x" * (MESSAGE_BYTES_MAX + 1))))
    assert await link.call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in await link.call.details()
    assert await is_well(coordinator)
    await until(lambda: coordinator.serving("bigger") == 0, "the link is gone")


async def test_a_client_without_a_certificate_does_not_get_in(coordinator: Network, identity: Identity) -> None:
    async with a_link(coordinator, grpc.ssl_channel_credentials(identity.ca_pem)) as link:
        with pytest.raises(grpc.aio.AioRpcError):
            await link.serve("never")
    assert await is_well(coordinator)


async def test_a_certificate_that_ends_ends_its_link_with_a_word(coordinator: Network, identity: Identity) -> None:
    async with a_link(coordinator, short_lived(coordinator, identity, seconds=2)) as link:
        await link.serve("brief")
        assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CERTIFICATE_EXPIRED
    assert await is_well(coordinator)


async def test_a_certificate_that_has_ended_does_not_get_in(coordinator: Network, identity: Identity) -> None:
    async with a_link(coordinator, short_lived(coordinator, identity, seconds=-1)) as link:
        with pytest.raises(grpc.aio.AioRpcError):
            await link.serve("never")
    assert await is_well(coordinator)


def short_lived(coordinator: Network, identity: Identity, seconds: int) -> grpc.ChannelCredentials:
    """The same node with a certificate that ends in so many seconds."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    authority = Authority.open(coordinator.folder / "c", unix_ms)
    key: Any = serialization.load_pem_private_key(identity.key_pem, None)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    signed = authority.sign_node(pem, identity.node_id, unix_ms(), life=dt.timedelta(seconds=seconds))
    return grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, signed.pem.encode())


async def test_a_revoked_node_is_cut_with_a_word_and_does_not_come_back(
    coordinator: Network, identity: Identity, link: RawLink
) -> None:
    await link.serve("revoked")
    async with coordinator.administration._store() as store:
        await store.revoke_node(identity.node_id, "lost laptop", unix_ms())
    assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CERTIFICATE_REVOKED
    async with a_link(coordinator, identity.channel_credentials()) as again:
        await again.send(hello())
        assert "lost laptop" in (await again.refusal()).message


async def test_a_newer_start_of_the_agent_takes_the_link_and_an_older_one_is_told_so(
    coordinator: Network, identity: Identity, link: RawLink
) -> None:
    await link.send(hello(incarnation=5))
    await link.frame()
    async with a_link(coordinator, identity.channel_credentials()) as newer:
        await newer.send(hello(incarnation=6))
        assert (await newer.frame()) is not None
        assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_SUPERSEDED
        async with a_link(coordinator, identity.channel_credentials()) as older:
            await older.send(hello(incarnation=4))
            assert (await older.refusal()).code == refusal_pb2.REFUSAL_CODE_SUPERSEDED


def a_chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def posted(coordinator: Network, model: str) -> tuple[int, bytes]:
    async with (
        coordinator.session() as session,
        session.post(f"{coordinator.base_url}/chat/completions", json=a_chat(model)) as answer,
    ):
        return answer.status, await answer.read()


def a_part(number: int) -> link_pb2.Piece:
    """One of many that are as large as they may be."""
    return link_pb2.Piece(sequence=number, first_index=number, tokens=1, data=b"x" * (PART_BYTES_MAX - 2) + b"\n\n")


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([link_pb2.Piece(sequence=1, tokens=1, data=b"x")], "out of order"),
        ([link_pb2.Piece(sequence=0, first_index=5, tokens=1, data=b"x")], "out of order"),
        ([a_part(number) for number in range(9)], "credit"),
        ([link_pb2.Piece(tokens=3_000_000)], "too many tokens"),
    ],
    ids=["a gap", "a wrong beginning", "more than its credit", "more tokens than fit"],
)
async def test_a_node_that_breaks_the_rules_of_an_answer_is_cancelled(
    coordinator: Network, link: RawLink, pieces: list[link_pb2.Piece], words: str
) -> None:
    await link.serve(f"rules-{words}")
    await until(lambda: coordinator.serving(f"rules-{words}") == 1, "it serves")
    asking = asyncio.create_task(posted(coordinator, f"rules-{words}"))
    start = await link.start()
    for piece in pieces:
        piece.stream = start.stream
    # In one batch: between two, the caller might read and credit come back.
    await link.send(*(Frame(piece=piece) for piece in pieces))
    frame = await link.frame()
    while frame is not None and frame.WhichOneof("frame") != "cancel":
        frame = await link.frame()
    assert frame is not None
    assert words in frame.cancel.reason
    _, body = await asking
    assert b"[DONE]" not in body
    assert await is_well(coordinator)


async def test_a_node_cannot_speak_in_another_nodes_stream(coordinator: Network, link: RawLink, tmp_path: Path) -> None:
    await link.serve("mine")
    await until(lambda: coordinator.serving("mine") == 1, "it serves")
    asking = asyncio.create_task(posted(coordinator, "mine"))
    start = await link.start()
    thief = await an_identity(coordinator, tmp_path / "thief", "thief")
    async with a_link(coordinator, thief.channel_credentials()) as other:
        await other.serve("theirs")
        await other.send(
            Frame(piece=link_pb2.Piece(stream=start.stream, tokens=1, data=b'data: {"stolen":1}\n\n')),
            Frame(finish=link_pb2.Finish(stream=start.stream, end_index=1)),
        )
        await until(lambda: coordinator.serving("theirs") == 1, "its frames were taken in")
    await link.send(
        Frame(piece=link_pb2.Piece(stream=start.stream, tokens=1, data=b'data: {"choices":[]}\n\n')),
        Frame(finish=link_pb2.Finish(stream=start.stream, end_index=1)),
    )
    status, body = await asking
    assert status == 200
    assert b"stolen" not in body
    assert events_of(body)[-1] == "[DONE]"


@pytest.mark.parametrize(
    "finish",
    [
        link_pb2.Finish(end_index=1, usage_json=b"{"),
        link_pb2.Finish(end_index=1, usage_json=b"[]"),
        link_pb2.Finish(end_index=1, usage_json=b'{"a":"' + b"x" * 5_000 + b'"}'),
        link_pb2.Finish(end_index=1, choices=[link_pb2.ChoiceEnd(finish_reason="stop", stop_reason_json=b"}")]),
        link_pb2.Finish(end_index=1, choices=[link_pb2.ChoiceEnd()] * 2_000),
    ],
    ids=["broken usage", "usage of another kind", "long usage", "a broken stop reason", "too many choices"],
)
async def test_a_finish_that_no_engine_can_give_is_refused(
    coordinator: Network, link: RawLink, finish: link_pb2.Finish
) -> None:
    await link.serve("finish")
    await until(lambda: coordinator.serving("finish") == 1, "it serves")
    asking = asyncio.create_task(posted(coordinator, "finish"))
    finish.stream = (await link.start()).stream
    await link.send(
        Frame(piece=link_pb2.Piece(stream=finish.stream, tokens=1, data=b'data: {"choices":[]}\n\n')),
        Frame(finish=finish),
    )
    assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    _, body = await asking
    assert b"[DONE]" not in body
    assert await is_well(coordinator)


async def test_an_end_that_no_engine_can_give_is_refused_with_its_piece(coordinator: Network, link: RawLink) -> None:
    await link.serve("end")
    await until(lambda: coordinator.serving("end") == 1, "it serves")
    asking = asyncio.create_task(posted(coordinator, "end"))
    stream = (await link.start()).stream
    # Unchecked, it would surprise whoever completes the answer after the node is lost, and leave the caller waiting.
    end = link_pb2.ChoiceEnd(finish_reason="stop", stop_reason_json=b"}")
    await link.send(Frame(piece=link_pb2.Piece(stream=stream, tokens=1, data=b'data: {"choices":[]}\n\n', end=end)))
    assert (await link.refusal()).code == refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN
    _, body = await asking
    assert b"[DONE]" not in body
    assert await is_well(coordinator)


async def test_a_node_that_rejects_what_it_has_begun_loses_the_answer_to_another(
    coordinator: Network, link: RawLink, tmp_path: Path
) -> None:
    identity = await an_identity(coordinator, tmp_path / "second", "second")
    async with a_link(coordinator, identity.channel_credentials()) as second:
        for each in (link, second):
            await each.serve("begun")
        await until(lambda: coordinator.serving("begun") == 2, "two nodes serve it")
        asking = asyncio.create_task(posted(coordinator, "begun"))
        starts = {asyncio.ensure_future(each.start()): each for each in (link, second)}
        [first], [waiting] = await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)
        stream = first.result().stream
        await starts[first].send(
            Frame(piece=link_pb2.Piece(stream=stream, tokens=1, data=b'data: {"choices":[]}\n\n')),
            Frame(rejected=link_pb2.Rejected(stream=stream)),
        )
        moved = await waiting
        assert moved.resume.delivered_tokens == 1
        await starts[waiting].send(
            Frame(piece=link_pb2.Piece(stream=moved.stream, first_index=1, tokens=1, data=b'data: {"on":1}\n\n')),
            Frame(finish=link_pb2.Finish(stream=moved.stream, end_index=2)),
        )
        status, body = await asking
    assert status == 200
    assert body == b'data: {"choices":[]}\n\ndata: {"on":1}\n\ndata: [DONE]\n\n'
    assert await is_well(coordinator)


async def test_a_finish_that_skips_tokens_is_no_whole_answer(coordinator: Network, link: RawLink) -> None:
    await link.serve("skips")
    await until(lambda: coordinator.serving("skips") == 1, "it serves")
    asking = asyncio.create_task(posted(coordinator, "skips"))
    start = await link.start()
    await link.send(
        Frame(piece=link_pb2.Piece(stream=start.stream, tokens=1, data=b'data: {"choices":[]}\n\n')),
        Frame(finish=link_pb2.Finish(stream=start.stream, end_index=9)),
    )
    _, body = await asking
    assert b"stream_lost" in body
    assert b"broke the contract" in body
    assert b"[DONE]" not in body


async def test_credit_is_given_back_as_the_caller_reads_and_an_answer_of_any_size_passes(
    coordinator: Network, link: RawLink
) -> None:
    await link.serve("large")
    await until(lambda: coordinator.serving("large") == 1, "it serves")
    asking = asyncio.create_task(posted(coordinator, "large"))
    start = await link.start()
    credit, event = start.credit_bytes, b"data: " + b"x" * 40_000 + b"\n\n"
    assert credit == CREDIT_BYTES
    for sequence in range(50):
        while credit < len(event):
            frame = await link.frame()
            assert frame is not None
            credit += frame.credit.bytes
        credit -= len(event)
        piece = link_pb2.Piece(stream=start.stream, sequence=sequence, first_index=sequence, tokens=1, data=event)
        await link.send(Frame(piece=piece))
    await link.send(Frame(finish=link_pb2.Finish(stream=start.stream, end_index=50)))
    status, body = await asking
    assert status == 200
    assert body.startswith(event * 50)
