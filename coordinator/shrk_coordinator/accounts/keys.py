"""API keys: how their text is made and read, and who is behind one.

`shrk_<id>_<secret><checksum>`: the id (11 characters) finds the key, the secret (43, 256 bits) proves it, the
checksum (6) tells a typo without asking the store. Only the SHA-256 of the whole text is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from shrk_coordinator.records import ApiKey

#: What `mint` needs: 8 bytes for the id, 32 for the secret.
RANDOM_BYTES = 40
#: How long an answer of the store is believed: a key revoked by another process stops within this time.
BELIEVED_MS = 5_000
#: Keys kept in memory (about 500 bytes each), and refused texts remembered, so that one client's wrong key
#: does not reach the store with every request.
KEYS_MAX = 100_000
REFUSED_MAX = 10_000
#: Look-ups at once, of new texts and again of known keys: well-formed keys made up by the thousand wait here, not
#: in the database, and those in use do not wait behind them.
LOOKUPS_MAX = 8

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 11  # 62^11 > 2^64
_SECRET_LENGTH = 43  # 62^43 > 2^256
_CHECKSUM_LENGTH = 6  # 62^6 > 2^32
_FORMAT = re.compile(
    rf"shrk_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)


_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What is kept, or compared, of a key's text."""

    id: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. The text is shown once and kept nowhere."""

    id: str
    text: str
    sha256: bytes


class Lookup(Enum):
    """The memory's third answer, besides a key and None."""

    UNKNOWN = "ask the store"


def mint(random_bytes: bytes) -> MintedKey:
    """A key from RANDOM_BYTES bytes of randomness."""
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a key needs {RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    key_id = _base62(int.from_bytes(random_bytes[:8]), _ID_LENGTH)
    body = f"shrk_{key_id}_{base62_secret(random_bytes[8:])}"
    text = body + _checksum(body)
    return MintedKey(id=key_id, text=text, sha256=_digest(text))


def parse(text: str) -> KeyParts | None:
    """The parts of a key's text; None where it cannot be one, by its form or by its checksum."""
    match = _FORMAT.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_LENGTH]) != match[3]:
        return None
    return KeyParts(id=match[1], sha256=_digest(text))


def base62_secret(random_bytes: bytes) -> str:
    """32 random bytes as 43 letters and digits."""
    return _base62(int.from_bytes(random_bytes), _SECRET_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _digest(text: str) -> bytes:
    # aiohttp hands bytes of a header that are no text through as surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class KeyRing:
    """Who is behind a presented key: from memory where that is fresh, else from the store.

    Keys are remembered under their SHA-256: no text outlives its request.
    """

    def __init__(self, find: Callable[[str], Awaitable[ApiKey | None]]) -> None:
        """`find` looks a key up by its id in the store."""
        self._find = find
        self._known: dict[bytes, tuple[ApiKey, int]] = {}
        self._refused: dict[bytes, int] = {}
        self._first_lookups = asyncio.Semaphore(LOOKUPS_MAX)
        self._renewals = asyncio.Semaphore(LOOKUPS_MAX)

    def lookup(self, presented: str, now: int) -> ApiKey | Lookup | None:
        """The key, None where it opens nothing, or Lookup.UNKNOWN: then ask `authenticate`.

        About a microsecond for a key in use. `now` in unix ms.
        """
        digest = _digest(presented)
        known = self._known.get(digest)
        if known is not None and now < known[1]:
            return known[0] if known[0].usable(now) else None
        if now < self._refused.get(digest, 0):
            return None
        return Lookup.UNKNOWN if known is not None or parse(presented) is not None else None

    async def authenticate(self, presented: str, now: int) -> ApiKey | None:
        """The key behind `presented`, or None. Errors of the store are the caller's to answer."""
        remembered = self.lookup(presented, now)
        if remembered is not Lookup.UNKNOWN:
            return remembered
        parts = parse(presented)
        if parts is None:
            return None
        async with self._renewals if parts.sha256 in self._known else self._first_lookups:
            remembered = self.lookup(presented, now)  # an equal one may have been waiting before this
            if remembered is not Lookup.UNKNOWN:
                return remembered
            key = await self._find(parts.id)
        self._known.pop(parts.sha256, None)
        if key is None or not hmac.compare_digest(key.sha256, parts.sha256) or not key.usable(now):
            _keep(self._refused, parts.sha256, now + BELIEVED_MS, REFUSED_MAX)
            return None
        self._refused.pop(parts.sha256, None)
        _keep(self._known, parts.sha256, (key, now + BELIEVED_MS), KEYS_MAX)
        return key


def _keep(memory: dict[bytes, _V], digest: bytes, value: _V, limit: int) -> None:
    """Remember, and forget the oldest beyond the limit (dicts keep their order)."""
    memory.pop(digest, None)
    while len(memory) >= limit:
        del memory[next(iter(memory))]
    memory[digest] = value
