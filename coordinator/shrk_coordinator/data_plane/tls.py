"""The callers' certificate: read at start, and again whenever it changes on disk."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import structlog

from shrk_contract.trouble import Trouble

#: How often the files are looked at: a renewed certificate is in use within this time.
LOOK_SECONDS = 10.0

log = structlog.get_logger("shrk.tls")


class CallersTls:
    """An SSL context whose certificate follows the files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises Trouble where the files cannot be used."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            self._loaded = self._marks()
            self.context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise Trouble(
                f"the callers' certificate cannot be used: {certificate} with {key}: {error}. "
                "Both must be PEM files that belong together: --tls-cert FILE --tls-key FILE"
            ) from error

    async def follow(self, look_seconds: float = LOOK_SECONDS) -> None:
        """Take in what changes, until cancelled; what cannot be used is said aloud, and the old one stays."""
        while True:
            await asyncio.sleep(look_seconds)
            try:
                marks = self._marks()
                if marks == self._loaded:
                    continue
                # Tried elsewhere first: a certificate without its key would leave the live context with neither.
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self._certificate, self._key)
                self.context.load_cert_chain(self._certificate, self._key)
                self._loaded = marks
                log.info("callers' certificate reloaded", path=str(self._certificate))
            except (OSError, ssl.SSLError) as error:
                log.error("the new certificate cannot be used; the old one stays", why=str(error))

    def _marks(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
