"""What the operator's commands take, checked: times, owners, labels, words. Errors name the option and what fits."""

from __future__ import annotations

import re

import typer

_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
#: An invitation that lies around for longer than a month is a key under the mat.
TTL_MS_MAX = 31 * _UNIT_MS["d"]
EXPIRY_MS_MAX = 3650 * _UNIT_MS["d"]
#: Owners appear in tables, metrics and addresses of reports.
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_LABEL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=([A-Za-z0-9._ /:-]{0,63})")
LABELS_MAX = 32
OWNERS_MAX = 1000
#: Why a node was revoked: a line in its owner's terminal.
REASON_LENGTH_MAX = 200


def duration_ms(text: str, flag: str, limit_ms: int) -> int:
    """Milliseconds in such as 90s, 15m, 2h, 7d. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    length = int(match[1]) * _UNIT_MS[match[2]] if match else 0
    if not 0 < length <= limit_ms:
        raise typer.BadParameter(
            f"{flag} {text!r} is not a time such as 90s, 15m, 2h or 7d, of at most {limit_ms // _UNIT_MS['d']}d"
        )
    return length


def owners(names: list[str]) -> list[str]:
    """The names, if each is one that an owner can have. Raises typer.BadParameter."""
    if len(names) > OWNERS_MAX:
        raise typer.BadParameter(f"--owner was given {len(names)} times; {OWNERS_MAX} are allowed at once")
    for name in names:
        if not _OWNER.fullmatch(name):
            raise typer.BadParameter(
                f"--owner {name!r}: use 1 to 64 letters, digits and . _ @ + -, beginning with a letter or digit"
            )
    return names


def labels(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE, taken apart. Raises typer.BadParameter."""
    if len(texts) > LABELS_MAX:
        raise typer.BadParameter(f"--label was given {len(texts)} times; {LABELS_MAX} are allowed")
    found = {}
    for text in texts:
        match = _LABEL.fullmatch(text)
        if match is None:
            raise typer.BadParameter(
                f"--label {text!r} is not KEY=VALUE with up to 63 letters, digits and . _ - / on each side"
            )
        found[match[1]] = match[2]
    return found


def reason(text: str) -> str:
    """A word for an owner, if it is one line. Raises typer.BadParameter."""
    if not 0 < len(text) <= REASON_LENGTH_MAX or not text.isprintable():
        raise typer.BadParameter(f"--reason must have 1 to {REASON_LENGTH_MAX} printable characters")
    return text
