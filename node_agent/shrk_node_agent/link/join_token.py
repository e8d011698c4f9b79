"""What an owner pastes to let a machine join: `shrk_join_<secret>.<enrolment port>.<CA's SHA-256>.<CRC-32>`. Pure."""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import dataclass

_FORMAT = re.compile(r"(shrk_join_([0-9A-Za-z]{20,128})\.(\d{1,5})\.([0-9A-Za-z_-]{43}))\.([0-9a-f]{8})")
_AGAIN = "Copy it again from: shrk coordinator tokens create --owner NAME"
_CONTROLLER = re.compile(r"tcp://(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>\d{1,5})/?")


class JoinTokenInvalid(Exception):
    """The text is no join token. `str()` says what one looks like."""


class ControllerInvalid(Exception):
    """The text is no coordinator's address. `str()` says what one looks like."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """An invitation, taken apart."""

    secret: str
    #: On the coordinator's host; a port of its own, beside the link's.
    enrolment_port: int
    #: SHA-256 of the DER of the CA certificate that the coordinator must show.
    ca_sha256: bytes


@dataclass(frozen=True, slots=True)
class Controller:
    """A coordinator's address as an owner writes it."""

    host: str
    port: int

    def at(self, port: int) -> str:
        """`host:port` on the same host, as gRPC takes it."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def parse_join_token(text: str) -> JoinToken:
    """Raises JoinTokenInvalid; its message never repeats the text, which is a secret."""
    match = _FORMAT.fullmatch(text.strip())
    if match is None:
        raise JoinTokenInvalid(
            "The join token is not complete: it looks like shrk_join_SECRET.PORT.PIN.CHECK, in one piece and "
            f"without spaces. {_AGAIN}"
        )
    covered, secret, port, pin, checksum = match.groups()
    if int(checksum, 16) != zlib.crc32(covered.encode()) or not 0 < int(port) <= 65535:
        raise JoinTokenInvalid(f"The join token was damaged in copying: its checksum does not match. {_AGAIN}")
    return JoinToken(secret, int(port), base64.urlsafe_b64decode(pin + "="))


def parse_controller(text: str) -> Controller:
    """The address in `tcp://host:port`. Raises ControllerInvalid."""
    match = _CONTROLLER.fullmatch(text.strip())
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise ControllerInvalid(
            f"The coordinator's address {text!r} is not tcp://host:port, such as tcp://10.0.0.1:9100. "
            "Set SHRK_CONTROLLER, or `controller` in the settings file."
        )
    return Controller(match["six"] or match["host"], int(match["port"]))
