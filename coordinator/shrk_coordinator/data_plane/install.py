"""`GET /install`: the installer for machines that shall become nodes, and beside it the files of a release.

The script comes out of the release folder, with this coordinator's addresses and its CA's digest written into it.
The folder's SHA256SUMS says which files there are: nothing else is served, and nothing whose digest differs. Nobody
needs a key: it is public software, and what admits a machine is its join token.

Whoever asks may well have piped the answer into a shell. So what cannot be served is told by a script that says why
and ends with 1, and no byte of the request gets into a script unless it is part of an address.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from shrk_coordinator.data_plane.http import Handler, Turn
from shrk_coordinator.errors import ApiError
from shrk_coordinator.settings import HOST, LINK_ADDRESS

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
SCRIPT = "install.sh"
#: Our wheels are a tenth of a megabyte each; this bounds what a request makes us read.
FILE_BYTES_MAX = 32 * 1024 * 1024

_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._+-]{0,199})")
_AUTHORITY = re.compile(rf"({HOST})(?::\d{{1,5}})?")
#: What the script has for us to fill in.
_BLANK = re.compile(r"@SHRK_[A-Z0-9_]+@")


class NotServed(Exception):
    """There is no such file, or it is not what SHA256SUMS says. `str()` says which, and the remedy."""


@dataclass(frozen=True, slots=True)
class Release:
    """A folder that `make release` made. It is read anew each time, so that a new release needs no restart."""

    folder: Path

    def read(self, name: str) -> bytes:
        """A file of the release. Blocks. Raises NotServed."""
        try:
            return self._read(name)
        except OSError as error:
            raise NotServed(f"{name} of the release cannot be read here: {error.strerror}") from error

    def _read(self, name: str) -> bytes:
        if name in (SUMS, SIGNATURE):
            return self._bytes(name)
        lines = self._bytes(SUMS).decode(errors="replace").splitlines()
        digests = {match[2]: match[1] for line in lines if (match := _SUM.fullmatch(line))}
        # The path is made of a name that SHA256SUMS has, and those have no slash.
        if name not in digests:
            raise NotServed(f"the release has no file of this name; it has {', '.join(sorted(digests)) or 'none'}")
        content = self._bytes(name)
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise NotServed(f"{name} is not the file that {SUMS} names: the operator should run make release again")
        return content

    def _bytes(self, name: str) -> bytes:
        with (self.folder / name).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise NotServed(f"{name} has more than {FILE_BYTES_MAX} bytes")
        return content


class Installation:
    """Answers `/install` and what lies below it."""

    def __init__(
        self,
        release: Release | None,
        link_port: int,
        ca_digest: bytes,
        public_url: str | None = None,
        public_link_address: str | None = None,
        secure: bool = False,
    ) -> None:
        """`public_url` and `public_link_address`: this coordinator as nodes see it; None: at the address under which
        it was asked. `secure`: callers come through TLS. `ca_digest`: as join tokens pin it."""
        self._release = release
        self._link_port = link_port
        self._pin = base64.urlsafe_b64encode(ca_digest).decode().rstrip("=")
        self._public_url = public_url
        self._public_link_address = public_link_address
        self._scheme = "https" if secure else "http"

    def routes(self) -> Mapping[str, Handler]:
        """What is answered, by path."""
        return {"/install": self._script, "/install/{name}": self._file}

    async def _script(self, turn: Turn) -> web.StreamResponse:
        try:
            text = await self._filled_in(turn.request.host)
        except NotServed as reason:
            text = refusing_script(str(reason))
        headers = turn.headers() | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, content_type="text/x-shellscript", charset="utf-8", headers=headers)

    async def _file(self, turn: Turn) -> web.StreamResponse:
        try:
            content = await self._read(turn.request.match_info["name"])
        except NotServed as reason:
            raise ApiError(404, "file_not_found", f"Not served: {reason}.", type="not_found_error") from reason
        return web.Response(body=content, content_type="application/octet-stream", headers=turn.headers())

    async def _read(self, name: str) -> bytes:
        if self._release is None:
            raise NotServed(
                "this coordinator has no release to install: its operator makes one with make release, and serves it "
                "with shrk coordinator serve --dist-dir DIR"
            )
        return await asyncio.to_thread(self._release.read, name)

    async def _filled_in(self, asked_at: str) -> str:
        """The script for whoever asked under this Host header. Raises NotServed."""
        template = (await self._read(SCRIPT)).decode()
        match = _AUTHORITY.fullmatch(asked_at)
        if match is None and not (self._public_url and self._public_link_address):
            raise NotServed("the Host header of this request is no address; ask for http://HOST:PORT/install")
        host = match[1] if match else ""
        values = {
            "@SHRK_URL@": self._public_url or f"{self._scheme}://{asked_at}",
            "@SHRK_LINK@": self._public_link_address or f"tcp://{host}:{self._link_port}",
            "@SHRK_CA_PIN@": self._pin,
        }
        assert LINK_ADDRESS.fullmatch(values["@SHRK_LINK@"]), "settings and Host header are checked"
        return _BLANK.sub(lambda blank: values.get(blank[0], blank[0]), template)


def refusing_script(reason: str) -> str:
    """A script that says why nothing is installed, and ends with 1; whatever the reason's characters, they are text."""
    quoted = reason.replace("'", "'\\''")
    return f"#!/bin/sh\n{{ printf '%s\\n' 'shrk: not installed: {quoted}' >&2; exit 1; }}\n"
