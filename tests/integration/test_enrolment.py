"""Enrolment over real TLS on loopback, agent against coordinator."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf.unknown_fields import UnknownFieldSet

from shrk_contract.terms import COORDINATOR_TLS_NAME, PROTOCOL, RENEWS_SINCE_MINOR
from shrk_contract.v1 import enrolment_pb2, enrolment_pb2_grpc, refusal_pb2
from shrk_coordinator.control_plane.authority import CLOCK_SKEW, NODE_LIFE, NODE_LIFE_UNRENEWED, Authority
from shrk_coordinator.control_plane.enrolment import (
    EnrolmentServicer,
    LinkAddresses,
    join_token_text,
    serve_enrolment,
)
from shrk_coordinator.control_plane.identity import Peer, peer_of
from shrk_coordinator.control_plane.ports import PortBusy
from shrk_coordinator.settings import Address
from shrk_node_agent.link.enrol import (
    CoordinatorNotRecognised,
    CoordinatorUnreachable,
    EnrolmentRefused,
    enrol,
)
from shrk_node_agent.link.identity import Identity, load
from support.certificates import csr_for, key_pem, p256
from support.enrolment import LINK_PORT, EnrolmentPort, enrolment_port


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[EnrolmentPort]:
    async with enrolment_port(tmp_path / "coordinator") as opened:
        yield opened


async def join(door: EnrolmentPort, token: str, directory: Path) -> Identity:
    return await enrol(door.controller, token, directory, "rig", "0.1.0", retry_delays_seconds=())


async def ask(door: EnrolmentPort, request: enrolment_pb2.EnrolRequest) -> enrolment_pb2.EnrolResponse:
    """Ask as any program could that knows the CA."""
    options = [("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME)]
    credentials = grpc.ssl_channel_credentials(door.authority.ca_pem.encode())
    async with grpc.aio.secure_channel(door.address, credentials, options=options) as channel:
        answer: enrolment_pb2.EnrolResponse = await enrolment_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
            request, timeout=10
        )
    return answer


def request(
    secret: str, csr: str | None = None, major: int = PROTOCOL[0], minor: int = PROTOCOL[1]
) -> enrolment_pb2.EnrolRequest:
    return enrolment_pb2.EnrolRequest(
        protocol=refusal_pb2.ProtocolVersion(major=major, minor=minor),
        join_token=secret,
        csr_pem=csr_for(p256()) if csr is None else csr,
        host_name="rig",
        agent_version="0.1.0",
    )


async def test_a_machine_with_a_token_becomes_its_owners_node(door: EnrolmentPort, tmp_path: Path) -> None:
    identity = await join(door, door.token(await door.secret("ann")), tmp_path / "identity")

    (node,) = await door.store.nodes()
    assert (node.id, node.owner_name, node.host_name) == (identity.node_id, "ann", "rig")
    assert node.labels == {"room": "cellar"}
    assert identity.link_addresses == (f"tcp://127.0.0.1:{LINK_PORT}",)
    assert identity.ca_pem.decode() == door.authority.ca_pem
    assert load(tmp_path / "identity") == identity
    identity.check_dates(door.clock())


async def test_a_node_is_told_the_address_that_the_operator_gave(tmp_path: Path) -> None:
    async with enrolment_port(tmp_path / "coordinator", "tcp://shrk.example.org:443") as door:
        identity = await join(door, door.token(await door.secret()), tmp_path / "identity")
    assert identity.link_addresses == ("tcp://shrk.example.org:443",)


async def test_a_used_token_is_refused_with_the_way_to_a_new_one(door: EnrolmentPort, tmp_path: Path) -> None:
    token = door.token(await door.secret())
    await join(door, token, tmp_path / "first")
    with pytest.raises(EnrolmentRefused, match=r"already used.*tokens create") as caught:
        await join(door, token, tmp_path / "second")
    assert caught.value.code == refusal_pb2.REFUSAL_CODE_TOKEN_USED
    assert load(tmp_path / "second") is None


async def test_an_expired_token_is_refused(door: EnrolmentPort, tmp_path: Path) -> None:
    token = door.token(await door.secret(ttl_ms=60_000))
    door.clock.ahead_ms = 60_001
    with pytest.raises(EnrolmentRefused, match="expired") as caught:
        await join(door, token, tmp_path / "identity")
    assert caught.value.code == refusal_pb2.REFUSAL_CODE_TOKEN_EXPIRED


async def test_a_token_of_nobody_is_refused(door: EnrolmentPort, tmp_path: Path) -> None:
    with pytest.raises(EnrolmentRefused, match="does not know the join token") as caught:
        await join(door, door.token("x" * 43), tmp_path / "identity")
    assert caught.value.code == refusal_pb2.REFUSAL_CODE_TOKEN_INVALID


async def test_of_two_machines_with_one_token_exactly_one_joins(door: EnrolmentPort, tmp_path: Path) -> None:
    token = door.token(await door.secret())
    outcomes = await asyncio.gather(
        *(join(door, token, tmp_path / name) for name in ("first", "second")), return_exceptions=True
    )
    joined = [outcome for outcome in outcomes if isinstance(outcome, Identity)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, EnrolmentRefused)]
    assert (len(joined), len(refused)) == (1, 1)
    assert [node.id for node in await door.store.nodes()] == [joined[0].node_id]


async def test_a_lost_answer_can_be_asked_for_again_with_the_same_key(door: EnrolmentPort) -> None:
    asked = request(await door.secret())
    first, second = await ask(door, asked), await ask(door, asked)
    assert first.enrolled.node_id == second.enrolled.node_id != ""
    assert len(await door.store.nodes()) == 1


async def test_an_impostor_is_recognised_before_the_secret_is_sent(door: EnrolmentPort, tmp_path: Path) -> None:
    secret = await door.secret()
    other = Authority.open(tmp_path / "other", door.clock)
    with pytest.raises(CoordinatorNotRecognised) as caught:
        await join(door, join_token_text(secret, door.port, other.ca_digest()), tmp_path / "identity")
    assert str(caught.value).startswith("The join token belongs to another coordinator, or someone else answers at")
    assert other.ca_fingerprint() in str(caught.value)
    assert door.authority.ca_fingerprint() in str(caught.value)
    assert await door.store.nodes() == []


async def test_a_copied_ca_certificate_does_not_help_an_impostor(door: EnrolmentPort, tmp_path: Path) -> None:
    # The CA's certificate is public: an impostor can show it behind a certificate of its own making.
    secret = await door.secret()
    impostor = p256()
    leaf = Authority.open(tmp_path / "impostor", door.clock).sign_node(csr_for(impostor), "node_x", door.clock())
    chain = leaf.pem + door.authority.ca_pem
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials([(key_pem(impostor), chain.encode())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        with pytest.raises(CoordinatorUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await enrol(
                door.controller,
                join_token_text(secret, port, door.authority.ca_digest()),
                tmp_path / "identity",
                "rig",
                "0.1.0",
                retry_delays_seconds=(),
            )
    finally:
        await server.stop(None)


async def test_a_port_that_speaks_no_tls_is_not_taken_for_a_coordinator(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CoordinatorNotRecognised, match="does not speak TLS"):
            await enrol(
                "tcp://127.0.0.1:1",
                join_token_text("x" * 43, port, bytes(32)),
                tmp_path / "identity",
                "rig",
                "0.1.0",
                retry_delays_seconds=(),
            )


async def test_a_closed_port_is_tried_again_and_then_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(CoordinatorUnreachable, match=rf"127.0.0.1:{port} does not answer: Connection refused"):
        await enrol(
            "tcp://127.0.0.1:9100",
            join_token_text("x" * 43, port, bytes(32)),
            tmp_path / "identity",
            "rig",
            "0.1.0",
            retry_delays_seconds=(0, 0),
        )


async def test_a_newer_minor_of_the_protocol_is_welcome(door: EnrolmentPort) -> None:
    answer = await ask(door, request(await door.secret(), minor=PROTOCOL[1] + 7))
    assert answer.WhichOneof("outcome") == "enrolled"


@pytest.mark.parametrize(("minor", "life"), [(0, NODE_LIFE_UNRENEWED), (RENEWS_SINCE_MINOR, NODE_LIFE)])
async def test_an_agent_that_cannot_renew_gets_a_season_and_others_a_day(
    door: EnrolmentPort, minor: int, life: dt.timedelta
) -> None:
    answer = await ask(door, request(await door.secret(), minor=minor))
    certificate = x509.load_pem_x509_certificate(answer.enrolled.certificate_pem.encode())
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == life + CLOCK_SKEW


@pytest.mark.parametrize(("step", "remedy"), [(-1, "Update the node agent."), (1, "Update the coordinator.")])
async def test_another_major_is_refused_and_the_token_stays_good(door: EnrolmentPort, step: int, remedy: str) -> None:
    secret = await door.secret()
    answer = await ask(door, request(secret, major=PROTOCOL[0] + step))
    assert answer.refusal.code == refusal_pb2.REFUSAL_CODE_PROTOCOL_UNSUPPORTED
    assert answer.refusal.remedy == remedy
    assert answer.refusal.permanent
    assert (await ask(door, request(secret))).HasField("enrolled")


@pytest.mark.parametrize("csr", ["garbage", csr_for(rsa.generate_private_key(65537, 2048))], ids=["garbage", "RSA"])
async def test_a_bad_signing_request_is_refused_and_the_token_stays_good(door: EnrolmentPort, csr: str) -> None:
    secret = await door.secret()
    answer = await ask(door, request(secret, csr))
    assert answer.refusal.code == refusal_pb2.REFUSAL_CODE_CSR_INVALID
    assert (await ask(door, request(secret))).HasField("enrolled")


async def test_fields_of_a_newer_agent_are_skipped(door: EnrolmentPort) -> None:
    wire = request(await door.secret()).SerializeToString() + b"\xba\x3e\x03new"  # field 999, a text
    newer = enrolment_pb2.EnrolRequest.FromString(wire)
    assert len(UnknownFieldSet(newer)) == 1
    assert (await ask(door, newer)).HasField("enrolled")


async def test_a_text_that_is_too_long_is_refused_by_name(door: EnrolmentPort) -> None:
    asked = request(await door.secret())
    asked.host_name = "h" * 254
    answer = await ask(door, asked)
    assert answer.refusal.message == "host_name has 254 characters; 253 are allowed."


async def test_a_huge_request_is_cut_off_by_the_transport(door: EnrolmentPort) -> None:
    asked = request(await door.secret(), "x" * 20_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(door, asked)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_busy_port_is_said_so(door: EnrolmentPort) -> None:
    servicer = EnrolmentServicer(
        door.authority,
        door.store.redeem_join_token,
        LinkAddresses(LINK_PORT),
        clock=door.clock,
        random_bytes=os.urandom,
    )
    with pytest.raises(PortBusy, match=f"cannot listen on 127.0.0.1:{door.port}.*--enrolment-listen"):
        await serve_enrolment(servicer, door.authority.enrolment_credentials(), Address("127.0.0.1", door.port))


# --- the link's port admits what enrolment gave, and nothing else ---


class _Echo(grpc.GenericRpcHandler):
    """Any method answers with the id of the node that asks."""

    def __init__(self, now: int) -> None:
        self._now = now

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            peer = peer_of(context, self._now)
            return peer.node_id.encode() if isinstance(peer, Peer) else peer.message.encode()

        return grpc.unary_unary_rpc_method_handler(answer)


async def who_am_i(port: int, credentials: grpc.ChannelCredentials) -> str:
    options = [("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        return bytes(await channel.unary_unary("/test/WhoAmI")(b"", timeout=10)).decode()


async def test_the_links_port_knows_a_node_and_refuses_a_client_without_certificate(
    door: EnrolmentPort, tmp_path: Path
) -> None:
    identity = await join(door, door.token(await door.secret()), tmp_path / "identity")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(door.clock()),))
    port = server.add_secure_port("127.0.0.1:0", door.authority.link_credentials())
    await server.start()
    try:
        assert await who_am_i(port, identity.channel_credentials()) == identity.node_id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await who_am_i(port, grpc.ssl_channel_credentials(identity.ca_pem))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(None)
