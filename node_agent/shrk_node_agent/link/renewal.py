"""The node's next certificate: when it is due, the signing request, and how to get one after the last has expired."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import AttributeOID, NameOID

from shrk_contract.terms import COORDINATOR_TLS_NAME, PROTOCOL
from shrk_contract.v1 import enrolment_pb2, enrolment_pb2_grpc, refusal_pb2
from shrk_node_agent.link.identity import Identity, IdentityError
from shrk_node_agent.link.join_token import parse_controller

#: Of a certificate's life, after which it is renewed: of 24 hours, eight are left for a coordinator that is away.
RENEWAL_SHARE = 0.67
#: Of its life, to both sides: the nodes that joined together do not come together for ever.
RENEWAL_JITTER_SHARE = 0.05
#: One signature and a look into a database each; a slow line across the world needs two seconds.
ANSWER_SECONDS_MAX = 15.0
#: Challenges that are asked for in a row: the coordinator may start anew between a challenge and its answer.
CHALLENGES_MAX = 3
#: Two certificates and a few words.
ANSWER_BYTES_MAX = 64 * 1024


class RenewalFailed(IdentityError):
    """The coordinator gives no certificate. `str()` is for the owner: what, why, what next."""


class RenewalUnreachable(IdentityError):
    """Nobody answered; later may help."""


class ClockWrong(IdentityError):
    """This machine and its coordinator do not agree on what day it is."""


@dataclass(frozen=True, slots=True)
class LateIdentity:
    """What a late renewal brought."""

    identity: Identity
    #: The coordinator's clock, unix milliseconds.
    coordinator_now: int

    def check_clock(self, now_unix_ms: int) -> None:
        """Raises ClockWrong where by this machine's clock the new certificate is of no use."""
        here, there = _moment(now_unix_ms), _moment(self.coordinator_now)
        if not self.identity.not_before <= here < self.identity.not_after:
            raise ClockWrong(
                f"This machine's clock says {here:%Y-%m-%d %H:%M} UTC, its coordinator's says {there:%Y-%m-%d %H:%M} "
                "UTC.",
                "Set the clock, for example with: timedatectl set-ntp true",
            )


@dataclass(frozen=True, slots=True)
class Renewal:
    """What renewing does to the rest of the agent."""

    #: Write the identity to disk; returns when it is there. Raises OSError.
    save: Callable[[Identity], Awaitable[None]]
    #: The identity with a new certificate, from the coordinator at this address. Raises IdentityError.
    late: Callable[[Identity, str], Awaitable[LateIdentity]]
    #: Wait for so many seconds.
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


def renewal_due_ms(identity: Identity, fraction: float) -> int:
    """When to renew, in unix milliseconds; `fraction` is random in [0, 1)."""
    life = identity.not_after - identity.not_before
    share = RENEWAL_SHARE + RENEWAL_JITTER_SHARE * (2 * fraction - 1)
    return round((identity.not_before + share * life).timestamp() * 1000)


def signing_request(identity: Identity, challenge: str = "") -> str:
    """A PKCS #10 request, PEM, of the node's key; with the challenge that it answers, if there is one."""
    key = serialization.load_pem_private_key(identity.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey), "an identity's key was looked at"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.node_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if challenge:
        request = request.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return request.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()


async def renew_late(identity: Identity, address: str) -> LateIdentity:
    """A certificate by proof of the key, from the enrolment port of the coordinator at `address` (`tcp://host:port`).

    Raises RenewalFailed, RenewalUnreachable, or IdentityError where the certificate is not for this key.
    """
    coordinator = parse_controller(address)
    target = coordinator.at(identity.enrolment_port or coordinator.port + 1)
    options = (
        ("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME),
        ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
        ("grpc.use_local_subchannel_pool", 1),
    )
    credentials = grpc.ssl_channel_credentials(identity.ca_pem)
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        stub: enrolment_pb2_grpc.EnrolmentServiceAsyncStub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)  # type: ignore[assignment]  # one class at run time
        for _ in range(CHALLENGES_MAX):
            answer = await _ask(stub, target, _request(identity))
            if answer.challenge:
                answer = await _ask(stub, target, _request(identity, signing_request(identity, answer.challenge)))
            if answer.HasField("renewal"):
                given = answer.renewal
                renewed = identity.renewed(given.certificate_pem.encode(), given.ca_pem.encode())
                return LateIdentity(renewed, answer.now_unix_ms)
            refusal = answer.refusal
            if refusal.permanent:
                raise RenewalFailed(refusal.message, refusal.remedy)
    raise RenewalUnreachable(f"The coordinator at {target} does not renew now: {refusal.message}", refusal.remedy)


def _request(identity: Identity, csr_pem: str = "") -> enrolment_pb2.RenewRequest:
    return enrolment_pb2.RenewRequest(
        protocol=refusal_pb2.ProtocolVersion(major=PROTOCOL[0], minor=PROTOCOL[1]),
        certificate_pem=identity.certificate_pem.decode(),
        csr_pem=csr_pem,
    )


async def _ask(
    stub: enrolment_pb2_grpc.EnrolmentServiceAsyncStub, target: str, request: enrolment_pb2.RenewRequest
) -> enrolment_pb2.RenewResponse:
    try:
        return await stub.Renew(request, timeout=ANSWER_SECONDS_MAX)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise RenewalFailed(
                f"The coordinator at {target} is too old to renew it.",
                "Update the coordinator, or enrol again with a new join token.",
            ) from error
        details = error.details() or error.code().name
        hint = "Set this machine's clock." if "CERTIFICATE_VERIFY_FAILED" in details else "The agent tries again."
        raise RenewalUnreachable(
            f"Its coordinator's enrolment port {target} does not answer: {details}.", hint
        ) from error


def _moment(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)
