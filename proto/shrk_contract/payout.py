"""Payout addresses: whether the capitals of an Ethereum-style address are its checksum (EIP-55). Pure.

Standard library only, and so is what it is given: the installer runs it out of the wheel, before anything is
installed. `python -m shrk_contract.payout ADDRESS` prints the address, or says what is wrong and exits with 5.

Keccak-256 is written out: `hashlib` has its successor SHA-3 only, which pads otherwise, and the libraries that
have it bring a whole cryptography of their own. Nothing secret passes through here.
"""

from __future__ import annotations

import re
import sys

_ADDRESS = re.compile(r"0x[0-9A-Fa-f]{40}")
#: Bytes that Keccak-256 takes in at once: 1600 bits of state less twice the 256 of the answer.
_RATE_BYTES = 136
_WORD = (1 << 64) - 1


class PayoutAddressInvalid(ValueError):
    """The text is no payout address. `str()` says why and what one looks like."""


def checked_payout_address(text: str) -> str:
    """The address with its checksum's capitals. Raises PayoutAddressInvalid.

    One without any capital, or without any small letter, carries no checksum and is refused as well: a digit
    mistyped in it would send money to nobody.
    """
    address = text.strip()
    if not _ADDRESS.fullmatch(address):
        raise PayoutAddressInvalid(
            f"{text!r} is not a payout address: it is 0x and 40 hexadecimal digits, such as "
            "0x52908400098527886E0F7030069857D2E4169EE7"
        )
    digits = address[2:].lower()
    hashed = keccak_256(digits.encode()).hex()
    right = "0x" + "".join(d.upper() if int(h, 16) >= 8 else d for d, h in zip(digits, hashed, strict=False))
    if address != right:
        raise PayoutAddressInvalid(
            f"{address} does not carry its own checksum (EIP-55): a digit is wrong, or its capitals were lost; "
            "copy it from your wallet again"
        )
    return right


def keccak_256(message: bytes) -> bytes:
    """The 32-byte digest that Ethereum uses."""
    padding = _RATE_BYTES - len(message) % _RATE_BYTES
    padded = bytearray(message + bytes(padding))
    padded[len(message)] ^= 0x01
    padded[-1] ^= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), _RATE_BYTES):
        for i in range(_RATE_BYTES // 8):
            at = start + 8 * i
            lanes[i % 5][i // 5] ^= int.from_bytes(padded[at : at + 8], "little")
        _permute(lanes)
    return b"".join(lanes[i][0].to_bytes(8, "little") for i in range(4))


def _rotated(lane: int, by: int) -> int:
    return ((lane << by % 64) | (lane >> (64 - by % 64))) & _WORD


def _permute(a: list[list[int]]) -> None:
    """Keccak-f[1600], in place; the steps' names are those of the specification (FIPS 202, 3.2)."""
    shift = 1
    for _ in range(24):
        # theta
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[(x - 1) % 5] ^ _rotated(c[(x + 1) % 5], 1) for x in range(5)]
        for x in range(5):
            for y in range(5):
                a[x][y] ^= d[x]
        # rho and pi
        x, y, moved = 1, 0, a[1][0]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            moved, a[x][y] = a[x][y], _rotated(moved, (step + 1) * (step + 2) // 2)
        # chi
        for y in range(5):
            row = [a[x][y] for x in range(5)]
            for x in range(5):
                a[x][y] = row[x] ^ (~row[(x + 1) % 5] & _WORD & row[(x + 2) % 5])
        # iota: the round's constant comes out of a shift register
        for bit in range(7):
            shift = ((shift << 1) ^ ((shift >> 7) * 0x71)) % 256
            if shift & 2:
                a[0][0] ^= 1 << ((1 << bit) - 1)


def _main(arguments: list[str]) -> int:
    try:
        print(checked_payout_address(" ".join(arguments)))
    except PayoutAddressInvalid as error:
        print(f"shrk: {error}", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
