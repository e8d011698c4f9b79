"""Addresses as people write them: `host:port`, or `[v6]:port`."""

from __future__ import annotations

import re
from typing import NamedTuple

_WRITTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>\d{1,5})")
_PORT_LAST = 65535


class Address(NamedTuple):
    """Where to listen, or whom to dial."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(written: str) -> Address:
    """Raises ValueError with an example for what is no address."""
    match = _WRITTEN.fullmatch(written.strip())
    if match is None or int(match["port"]) > _PORT_LAST:
        raise ValueError(
            f"{written!r} is not host:port with a port of 0 to 65535, such as 127.0.0.1:9100 or [::1]:9100"
        )
    return Address(match["six"] or match["host"], int(match["port"]))
