"""How a machine becomes a node: a single-use join token and a signing request in, a certificate out.

Served on a port of its own, since gRPC knows no optional client certificates. Refusals are answers, not
errors: the agent prints them to the person who can mend them.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog

from shrk_contract.terms import PROTOCOL, RENEWS_SINCE_MINOR
from shrk_contract.v1 import enrolment_pb2, enrolment_pb2_grpc, refusal_pb2
from shrk_coordinator.control_plane import ports
from shrk_coordinator.control_plane.authority import (
    NODE_LIFE,
    NODE_LIFE_UNRENEWED,
    Authority,
    CsrRefused,
    csr_public_key,
    public_key_sha256,
)
from shrk_coordinator.control_plane.identity import refusal, troubled
from shrk_coordinator.control_plane.renewal import Renewals
from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.records import NewNode, Node, TokenProblem
from shrk_coordinator.settings import Address

#: Secrets have 43 characters; more is not worth hashing.
SECRET_LENGTH_MAX = 128
#: What DNS allows for a host's name.
HOST_NAME_LENGTH_MAX = 253
VERSION_LENGTH_MAX = 64
#: A signing request and three short texts, or a certificate in their place.
REQUEST_BYTES_MAX = 16 * 1024
#: Each enrolment costs two signatures and a commit: a few milliseconds. Beyond this gRPC refuses, and
#: agents retry.
CONCURRENT_ENROLMENTS_MAX = 64
#: 120 bits, a whole number of base32 letters: two nodes never share a name, and it still fits on a line.
_ID_RANDOM_BYTES = 15

Redeem = Callable[[bytes, NewNode, int], Awaitable[Node | TokenProblem]]

_PROBLEMS = {
    TokenProblem.UNKNOWN: (
        refusal_pb2.REFUSAL_CODE_TOKEN_INVALID,
        "This coordinator does not know the join token.",
        "Copy the whole token, or make a new one: shrk coordinator tokens create --owner NAME",
    ),
    TokenProblem.USED: (
        refusal_pb2.REFUSAL_CODE_TOKEN_USED,
        "The join token was already used; each admits one node.",
        "Make a new one: shrk coordinator tokens create --owner NAME",
    ),
    TokenProblem.EXPIRED: (
        refusal_pb2.REFUSAL_CODE_TOKEN_EXPIRED,
        "The join token has expired.",
        "Make a new one: shrk coordinator tokens create --owner NAME --ttl 1h",
    ),
}


log = structlog.get_logger("shrk.enrolment")


@dataclass(frozen=True, slots=True)
class LinkAddresses:
    """Where a new node is told to open its link."""

    #: The link's port on the host it enrolled with.
    port: int
    #: `tcp://host:port` where the operator gave one; None: the host that answered.
    public: str | None = None


def join_token_text(secret: str, enrolment_port: int, ca_digest: bytes) -> str:
    """What the operator hands over: the secret, where to present it, and whom to trust.

    With the CA's SHA-256 in it, an agent recognises its coordinator at the first contact. The CRC-32 at the end
    tells a letter lost or changed in copying from somebody else's coordinator.
    """
    pin = base64.urlsafe_b64encode(ca_digest).rstrip(b"=").decode()
    text = f"shrk_join_{secret}.{enrolment_port}.{pin}"
    return f"{text}.{zlib.crc32(text.encode()):08x}"


def secret_sha256(secret: str) -> bytes:
    """The digest under which a join token's secret is kept."""
    return hashlib.sha256(secret.encode()).digest()


def new_node_id(random_bytes: Callable[[int], bytes]) -> str:
    """`node_` and 24 letters and digits (base32, lower case)."""
    return "node_" + base64.b32encode(random_bytes(_ID_RANDOM_BYTES)).decode().lower()


def new_owner_id(random_bytes: Callable[[int], bytes]) -> str:
    """`owner_` and 24 letters and digits (base32, lower case)."""
    return "owner_" + base64.b32encode(random_bytes(_ID_RANDOM_BYTES)).decode().lower()


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Answers `Enrol` and `Renew`. `redeem` consumes the token and creates the node, both or neither."""

    def __init__(
        self,
        authority: Authority,
        redeem: Redeem,
        links: LinkAddresses,
        *,
        clock: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        renewals: Renewals | None = None,
    ) -> None:
        """Without `renewals` nobody renews late."""
        self._renewals = renewals
        self._authority = authority
        self._redeem = redeem
        self._links = links
        self._clock = clock
        self._random_bytes = random_bytes

    async def Enrol(
        self,
        request: enrolment_pb2.EnrolRequest,
        context: grpc.aio.ServicerContext[enrolment_pb2.EnrolRequest, enrolment_pb2.EnrolResponse],
    ) -> enrolment_pb2.EnrolResponse:
        """The node's certificate, or a refusal."""
        outcome = await self._enrol(request)
        if isinstance(outcome, refusal_pb2.Refusal):
            return enrolment_pb2.EnrolResponse(refusal=outcome)
        return enrolment_pb2.EnrolResponse(enrolled=outcome)

    async def Renew(
        self,
        request: enrolment_pb2.RenewRequest,
        context: grpc.aio.ServicerContext[enrolment_pb2.RenewRequest, enrolment_pb2.RenewResponse],
    ) -> enrolment_pb2.RenewResponse:
        """A challenge, the node's next certificate, or a refusal."""
        if self._renewals is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no certificate is renewed here")
        assert self._renewals is not None, "abort raises"
        if (problem := _unsupported_protocol(request.protocol)) is not None:
            return enrolment_pb2.RenewResponse(refusal=problem, now_unix_ms=self._clock())
        return await self._renewals.late(request)

    async def _enrol(self, request: enrolment_pb2.EnrolRequest) -> enrolment_pb2.Enrolled | refusal_pb2.Refusal:
        # All that can be refused without spending the token comes first.
        problem = _unsupported_protocol(request.protocol) or _field_too_long(request)
        if problem is not None:
            return problem
        try:
            public_key = csr_public_key(request.csr_pem)
        except CsrRefused as error:
            return refusal(refusal_pb2.REFUSAL_CODE_CSR_INVALID, error.message, error.remedy)
        now = self._clock()
        asking = NewNode(
            id=new_node_id(self._random_bytes),
            host_name=request.host_name,
            agent_version=request.agent_version,
            public_key_sha256=public_key_sha256(public_key),
        )
        try:
            node = await self._redeem(secret_sha256(request.join_token), asking, now)
        except DatabaseError as error:
            log.error("nobody can enrol: the database failed", why=str(error))
            return troubled()
        if isinstance(node, TokenProblem):
            return refusal(*_PROBLEMS[node])
        return enrolment_pb2.Enrolled(
            node_id=node.id,
            certificate_pem=self._authority.sign_node(request.csr_pem, node.id, now, _life(request.protocol)).pem,
            ca_pem=self._authority.ca_pem,
            link_addresses=[self._links.public] if self._links.public else [],
            link_port=self._links.port,
        )


def _life(protocol: refusal_pb2.ProtocolVersion) -> dt.timedelta:
    return NODE_LIFE if protocol.minor >= RENEWS_SINCE_MINOR else NODE_LIFE_UNRENEWED


def _unsupported_protocol(protocol: refusal_pb2.ProtocolVersion) -> refusal_pb2.Refusal | None:
    major, minor = PROTOCOL
    if protocol.major == major:
        return None
    older = "the node agent" if protocol.major < major else "the coordinator"
    return refusal(
        refusal_pb2.REFUSAL_CODE_PROTOCOL_UNSUPPORTED,
        f"The agent speaks protocol {protocol.major}.{protocol.minor}, the coordinator {major}.{minor}; "
        "the first number must be the same.",
        f"Update {older}.",
    )


def _field_too_long(request: enrolment_pb2.EnrolRequest) -> refusal_pb2.Refusal | None:
    bounds = (
        ("join_token", request.join_token, SECRET_LENGTH_MAX),
        ("host_name", request.host_name, HOST_NAME_LENGTH_MAX),
        ("agent_version", request.agent_version, VERSION_LENGTH_MAX),
    )
    for name, value, limit in bounds:
        if len(value) > limit:
            return refusal(
                refusal_pb2.REFUSAL_CODE_CONTRACT_BROKEN,
                f"{name} has {len(value)} characters; {limit} are allowed.",
                f"Shorten {name}.",
            )
    return None


async def serve_enrolment(
    servicer: EnrolmentServicer, credentials: grpc.ServerCredentials, listen: Address
) -> tuple[grpc.aio.Server, int]:
    """Start serving; the port is told because 0 may have been asked for. Raises PortBusy."""
    server = grpc.aio.server(
        options=[
            # Without this a second process would share the port, and nobody would notice.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
        ],
        maximum_concurrent_rpcs=CONCURRENT_ENROLMENTS_MAX,
    )
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(servicer, server)
    port = await ports.start(server, listen, credentials, "enrolment cannot listen", "--enrolment-listen")
    return server, port
