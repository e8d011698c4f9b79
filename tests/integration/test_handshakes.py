"""Many connections at once: TLS handshakes run beside each other in gRPC's own threads."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

from support.enrolment import enrolment_port

CALLERS = 16
HANDSHAKES_EACH = 75


def shake_hands(port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    for _ in range(HANDSHAKES_EACH):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
            context.wrap_socket(connection, server_hostname="shrk-coordinator"),
        ):
            pass


async def test_handshakes_beside_each_other_do_not_end_the_process(tmp_path: Path) -> None:
    """gRPC aborts the process when it is handed a certificate, even the same one, while another handshake runs."""
    async with enrolment_port(tmp_path) as port:
        await asyncio.gather(*(asyncio.to_thread(shake_hands, port.port) for _ in range(CALLERS)))
