"""The callers' certificate: used, followed, and never exchanged for something broken."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from shrk_contract.trouble import Trouble
from shrk_coordinator.data_plane.tls import CallersTls
from support.certificates import write_self_signed
from support.network import a_network, until


async def name_shown(port: int) -> str:
    """The common name that a server's certificate has."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return str(x509.load_der_x509_certificate(shown).subject.rfc4514_string())


@contextlib.asynccontextmanager
async def a_server(tls: CallersTls) -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls.context)
    following = asyncio.create_task(tls.follow(look_seconds=0.01))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        server.close()
        await server.wait_closed()


async def test_a_renewed_certificate_is_shown_to_the_next_caller(tmp_path: Path) -> None:
    async with a_server(CallersTls(*write_self_signed(tmp_path, "old"))) as port:
        assert await name_shown(port) == "CN=old"
        write_self_signed(tmp_path, "new")
        shown = ""
        while shown != "CN=new":
            await asyncio.sleep(0.01)
            shown = await name_shown(port)


async def test_a_broken_renewal_is_said_aloud_and_the_old_certificate_stays(tmp_path: Path) -> None:
    certificate, _ = write_self_signed(tmp_path, "old")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other, _ = write_self_signed(elsewhere, "other")
    with capture_logs() as logs:
        async with a_server(CallersTls(certificate, tmp_path / "callers.key")) as port:
            certificate.write_bytes(other.read_bytes())  # without its key
            await until(lambda: any("cannot be used" in line["event"] for line in logs), "said aloud")
            assert await name_shown(port) == "CN=old"


def test_files_that_cannot_be_used_stop_the_start_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="--tls-cert FILE --tls-key FILE"):
        CallersTls(tmp_path / "nowhere.pem", tmp_path / "nowhere.key")


async def test_callers_reach_a_coordinator_over_tls(tmp_path: Path) -> None:
    certificate, key = write_self_signed(tmp_path, "ours")
    trusting = ssl.create_default_context(cafile=certificate)
    async with a_network(tls_cert=certificate, tls_key=key) as network:
        url = network.base_url.replace("http:", "https:")
        async with network.session() as session, session.get(f"{url}/models", ssl=trusting) as answer:
            assert answer.status == 200
        async with network.session() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{network.base_url}/models")
