"""How far this machine gets on the way to its coordinator: name, TCP, TLS and whose CA, gRPC. For `shrk netcheck`.

No link is opened: a second one would replace that of the agent that runs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio

from shrk_contract.terms import COORDINATOR_TLS_NAME
from shrk_node_agent.checklist import Line, Mark
from shrk_node_agent.link.enrol import EnrolmentFailed, recognise
from shrk_node_agent.link.identity import Identity
from shrk_node_agent.link.join_token import Controller, JoinTokenInvalid, parse_join_token

#: One step: a slow line across the world needs two seconds, a firewall that drops never answers.
STEP_SECONDS_MAX = 5.0
#: What a firewall or a router says, where one says anything.
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


async def name(controller: Controller, seconds: float = STEP_SECONDS_MAX) -> Line:
    """Whether the coordinator's name means an address here."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(controller.host, controller.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        why = f"this machine cannot resolve {controller.host}: no answer within {seconds:g} s"
        return Line("name", Mark.FAILED, why, f"Look at its DNS: getent hosts {controller.host}")
    except (OSError, UnicodeError) as error:
        # Resolvers number their errors apart from the system's, and below zero.
        words = error.strerror if isinstance(error, OSError) and error.strerror else "it is no name"
        why = f"this machine cannot resolve {controller.host}: {words}"
        return Line(
            "name", Mark.FAILED, why, f"Check the name in `controller`, and DNS: getent hosts {controller.host}"
        )
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    return Line("name", Mark.PASSED, f"{controller.host} is {', '.join(addresses[:4])}")


async def tcp(
    controller: Controller, port: int, what: str, clock: Callable[[], float], seconds: float = STEP_SECONDS_MAX
) -> Line:
    """Whether this machine reaches a port. `what`: the line's name. `clock` tells monotonic seconds."""
    where, began = controller.at(port), clock()
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(controller.host, port)
    except (OSError, TimeoutError) as error:
        return Line(what, Mark.FAILED, *_unreachable(where, error, seconds))
    milliseconds = (clock() - began) * 1000
    writer.transport.abort()
    return Line(what, Mark.PASSED, f"this machine reaches {where} in {milliseconds:.0f} ms")


def _unreachable(where: str, error: OSError, seconds: float) -> tuple[str, str]:
    """Which way fails, and what to do."""
    cannot = f"this machine cannot reach {where}"
    if isinstance(error, ConnectionRefusedError):
        return (
            f"{cannot}: connection refused; the coordinator is not running there, or a firewall rejects it",
            "Start the coordinator, or check host and port in `controller`.",
        )
    if isinstance(error, TimeoutError):
        return (
            f"{cannot}: no answer within {seconds:g} s; a firewall on the way drops it, or that machine is off",
            f"Allow outgoing TCP to {where} here, and incoming there.",
        )
    if error.errno in _NO_WAY:
        return (
            f"{cannot}: {os.strerror(error.errno)}; there is no way from here to there",
            "Look at this machine's own network: is it connected, or does it need a VPN?",
        )
    words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"{cannot}: {words}", "Check host and port in `controller`."


async def tls(controller: Controller, identity: Identity, folder: Path, seconds: float = STEP_SECONDS_MAX) -> Line:
    """Whether who answers holds a certificate of the CA that was pinned at enrolment. `folder`: the identity's."""
    where = controller.at(controller.port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.ca_pem.decode())
    context.load_cert_chain(folder / "node.pem", folder / "node.key")
    context.set_alpn_protocols(["h2"])  # gRPC closes on anybody who does not offer it
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(
                controller.host, controller.port, ssl=context, server_hostname=COORDINATOR_TLS_NAME
            )
    except ssl.SSLCertVerificationError as error:
        return Line(
            "tls",
            Mark.FAILED,
            f"who answers at {where} is not the coordinator that this node enrolled with: {error.verify_message}",
            "Check `controller`. Where something on the way opens TLS (a company's proxy), have it leave this port "
            "alone; where the coordinator was installed anew, enrol again with a new join token.",
        )
    except ssl.SSLError as error:
        why = f"what answers at {where} does not speak TLS as a coordinator does: {error.reason or error}"
        return Line("tls", Mark.FAILED, why, "Check the port in `controller`: it is the one for links, mostly 9100.")
    except (OSError, TimeoutError) as error:
        if isinstance(error, ConnectionResetError):
            why = f"the connection to {where} was cut during the TLS handshake"
            return Line("tls", Mark.FAILED, why, "Something on the way does that, or it is no coordinator's link port.")
        return Line("tls", Mark.FAILED, *_unreachable(where, error, seconds))
    writer.transport.abort()
    return Line("tls", Mark.PASSED, f"{where} shows a certificate of the CA that was pinned at enrolment")


async def http2(controller: Controller, identity: Identity, seconds: float = STEP_SECONDS_MAX) -> Line:
    """Whether gRPC gets through, with this node's certificate."""
    where = controller.at(controller.port)
    options = [("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(where, identity.channel_credentials(), options=options) as channel:
        try:
            async with asyncio.timeout(seconds):
                await channel.channel_ready()
        except TimeoutError:
            return Line(
                "grpc",
                Mark.FAILED,
                f"TLS to {where} works, and gRPC does not open within {seconds:g} s",
                "Something on the way lets TLS pass and not HTTP/2, such as a proxy; have it leave this port alone.",
            )
    return Line("grpc", Mark.PASSED, f"gRPC opens to {where}")


async def enrolment(controller: Controller, join_token: str) -> Line:
    """Whether the coordinator that a join token pins answers where nodes enrol."""
    try:
        port = parse_join_token(join_token).enrolment_port
        await recognise(f"tcp://{controller.at(controller.port)}", join_token)
    except JoinTokenInvalid as error:
        return Line("enrolment", Mark.FAILED, str(error), "")
    except EnrolmentFailed as error:
        return Line("enrolment", Mark.FAILED, error.message, error.remedy)
    return Line("enrolment", Mark.PASSED, f"{controller.at(port)} shows the CA that the join token pins")
