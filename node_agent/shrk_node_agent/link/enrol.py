"""How this machine becomes a node: it recognises its coordinator by the pin in the join token, and asks.

The first TLS connection verifies nothing and says nothing; it only fetches the chain that the port shows. The
CA in it must have the pinned SHA-256, and the secret travels on a second connection that trusts that CA alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from shrk_contract.terms import COORDINATOR_TLS_NAME, PROTOCOL
from shrk_contract.v1 import enrolment_pb2, enrolment_pb2_grpc, refusal_pb2
from shrk_node_agent.link.identity import Identity, new_identity, save
from shrk_node_agent.link.join_token import Controller, JoinToken, parse_controller, parse_join_token

#: One connection and one answer each: a slow line across the world needs two seconds, a dead one never ends.
HANDSHAKE_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 15.0
#: Waits between tries, for a coordinator that is just starting; whoever is at the keyboard gives up soon after.
RETRY_DELAYS_SECONDS: tuple[float, ...] = (1.0, 2.0, 4.0)
#: The answer holds two certificates and some addresses.
ANSWER_BYTES_MAX = 64 * 1024
#: One read or write of the handshake; more is taken in the next round.
_TLS_RECORDS_BYTES = 64 * 1024

_MAYBE_LATER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}


class EnrolmentFailed(Exception):
    """No certificate was got. `str()` is for the owner: what, why, what next."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy


class EnrolmentRefused(EnrolmentFailed):
    """The coordinator said no; the same again cannot help."""

    def __init__(self, refusal: refusal_pb2.Refusal) -> None:
        super().__init__(refusal.message, refusal.remedy)
        self.code = refusal.code


class CoordinatorUnreachable(EnrolmentFailed):
    """Nobody answered in time; later may help."""


class CoordinatorNotRecognised(EnrolmentFailed):
    """Somebody else answers there. Nothing secret was sent."""


async def enrol(
    controller: str,
    join_token: str,
    directory: Path,
    host_name: str,
    agent_version: str,
    *,
    retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
) -> Identity:
    """Trade the join token for an identity, saved in `directory` before this returns.

    `controller` is `tcp://host:port`. Raises JoinTokenInvalid, ControllerInvalid, EnrolmentFailed in one of its
    kinds, or OSError where the folder cannot be written.
    """
    token = parse_join_token(join_token)
    coordinator = parse_controller(controller)
    # One key for all tries: a coordinator whose answer was lost recognises it.
    key = ec.generate_private_key(ec.SECP256R1())
    request = enrolment_pb2.EnrolRequest(
        protocol=refusal_pb2.ProtocolVersion(major=PROTOCOL[0], minor=PROTOCOL[1]),
        join_token=token.secret,
        csr_pem=_signing_request(key),
        host_name=host_name,
        agent_version=agent_version,
    )
    enrolled = await _ask_until_answered(coordinator, token, request, retry_delays_seconds)
    identity = new_identity(
        node_id=enrolled.node_id,
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate_pem=enrolled.certificate_pem.encode(),
        ca_pem=enrolled.ca_pem.encode(),
        link_addresses=tuple(enrolled.link_addresses) or (f"tcp://{coordinator.at(enrolled.link_port)}",),
        controller=controller,
        enrolment_port=token.enrolment_port,
    )
    await asyncio.to_thread(save, directory, identity)
    return identity


async def recognise(controller: str, join_token: str) -> None:
    """Whether the coordinator that the join token pins answers on its enrolment port; nothing secret is sent.

    Raises as `enrol`.
    """
    token, coordinator = parse_join_token(join_token), parse_controller(controller)
    address = coordinator.at(token.enrolment_port)
    _pinned(await _fetch_chain(coordinator.host, token.enrolment_port, address), token.ca_sha256, address)


def _signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    # The name is a placeholder: the coordinator gives the node its id.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


async def _ask_until_answered(
    coordinator: Controller,
    token: JoinToken,
    request: enrolment_pb2.EnrolRequest,
    retry_delays_seconds: Sequence[float],
) -> enrolment_pb2.Enrolled:
    for delay in retry_delays_seconds:
        try:
            return await _ask(coordinator, token, request)
        except CoordinatorUnreachable:
            await asyncio.sleep(delay)
    return await _ask(coordinator, token, request)


async def _ask(
    coordinator: Controller, token: JoinToken, request: enrolment_pb2.EnrolRequest
) -> enrolment_pb2.Enrolled:
    address = coordinator.at(token.enrolment_port)
    chain = await _fetch_chain(coordinator.host, token.enrolment_port, address)
    ca_pem = _pinned(chain, token.ca_sha256, address)
    options = (
        ("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME),
        ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
        # The chain was fetched directly; the question must go to the same place.
        ("grpc.enable_http_proxy", 0),
    )
    credentials = grpc.ssl_channel_credentials(ca_pem)
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        stub: enrolment_pb2_grpc.EnrolmentServiceAsyncStub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)  # type: ignore[assignment]  # one class at run time
        try:
            answer = await stub.Enrol(request, timeout=ANSWER_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            if error.code() in _MAYBE_LATER:
                raise _unreachable(address, error.details() or error.code().name) from error
            raise EnrolmentFailed(
                f"The coordinator at {address} answered {error.code().name}: {error.details()}.",
                "Look into the coordinator's log, then try again.",
            ) from error
    if answer.WhichOneof("outcome") == "enrolled":
        return answer.enrolled
    if answer.HasField("refusal"):
        raise EnrolmentRefused(answer.refusal)
    raise EnrolmentFailed(f"The coordinator at {address} gave an empty answer.", "Update the node agent.")


def _unreachable(address: str, reason: str) -> CoordinatorUnreachable:
    return CoordinatorUnreachable(
        f"The coordinator's enrolment port {address} does not answer: {reason}.",
        "Check that the coordinator runs, that SHRK_CONTROLLER names it, and that no firewall is in between.",
    )


def _pinned(chain: list[x509.Certificate], ca_sha256: bytes, address: str) -> bytes:
    """The PEM of the certificate with the pinned digest. Raises CoordinatorNotRecognised."""
    shown = []
    for certificate in chain:
        digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
        if digest == ca_sha256:
            return certificate.public_bytes(serialization.Encoding.PEM)
        shown.append(digest.hex())
    raise CoordinatorNotRecognised(
        f"The join token belongs to another coordinator, or someone else answers at {address}: the token pins the "
        f"CA {ca_sha256.hex()}, but the certificates shown there are {', '.join(shown) or 'none'}.",
        "Check SHRK_CONTROLLER. If the coordinator was installed anew, ask its operator for a new join token.",
    )


async def _fetch_chain(host: str, port: int, address: str) -> list[x509.Certificate]:
    """The certificates that a TLS port shows, unverified."""
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await _shake_hands(reader, writer)
            finally:
                writer.transport.abort()  # nothing is said on this connection, a goodbye neither
    except TimeoutError as error:
        raise _unreachable(address, f"no answer in {HANDSHAKE_SECONDS_MAX:g} s") from error
    except OSError as error:
        # asyncio's own words name the address a second time; resolvers count their errors below zero
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise _unreachable(address, reason) from error
    except SSL.Error as error:
        raise CoordinatorNotRecognised(
            f"What answers at {address} is no coordinator's enrolment port: it does not speak TLS as one does.",
            "Check SHRK_CONTROLLER, and that no other program uses this port.",
        ) from error


async def _shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[x509.Certificate]:
    # Python's ssl module cannot show the chain of a peer it does not trust (before 3.13); pyOpenSSL can.
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([b"h2"])  # gRPC closes on anybody who does not offer it
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(COORDINATOR_TLS_NAME.encode())
    connection.set_connect_state()
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            writer.write(connection.bio_read(_TLS_RECORDS_BYTES))
        else:
            return connection.get_peer_cert_chain(as_cryptography=True) or []
        received = await reader.read(_TLS_RECORDS_BYTES)
        if not received:
            raise ConnectionResetError("the connection was closed during the TLS handshake")
        connection.bio_write(received)
