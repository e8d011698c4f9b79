"""Payout addresses: 0x and forty hexadecimal digits, whose capitals are a checksum (EIP-55). Pure.

The checksum is of Keccak-256, which `hashlib` does not have: its SHA-3 ends the text differently. The standard library
is all that it needs, so that an installer can run it before anything is installed: `python -m shrk_contract.payout
ADDRESS` prints the address, or says what is wrong and exits with 5.
"""

from __future__ import annotations

import re
import sys

_FORM = re.compile(r"0x[0-9A-Fa-f]{40}")
#: What one absorption takes: 200 bytes of state less twice the 32 of the digest.
_RATE_BYTES = 136
_LANE = (1 << 64) - 1


def checked_address(text: str) -> str:
    """The address, as it was given. Raises ValueError, which shows the right capitals where only those are wrong.

    Without capitals, or in capitals only, there is no checksum, and a mistyped digit would send money to nobody.
    """
    address = text.strip()
    if not _FORM.fullmatch(address):
        raise ValueError(
            f"{text!r} is not a payout address: it is 0x and 40 hexadecimal digits, as a wallet shows it, such as "
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
        )
    right = checksummed(address)
    if address == right:
        return address
    digits = address[2:]
    if digits in (digits.lower(), digits.upper()):
        raise ValueError(
            f"{address} has no checksum, so a mistyped digit would not be noticed; compare it with your wallet and "
            f"write it as {right}"
        )
    raise ValueError(
        f"{address} has a wrong checksum: a digit is mistyped, or a capital. Copy it again from your wallet; were "
        f"every digit right, it would be {right}"
    )


def checksummed(address: str) -> str:
    """The same address with the capitals of EIP-55. It must be of the right form."""
    digits = address[2:].lower()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(mark, 16) >= 8 else digit for digit, mark in zip(digits, marks, strict=False)
    )


def keccak256(message: bytes) -> bytes:
    """The 32 bytes of the original Keccak, as Ethereum uses it; not SHA-3."""
    padded = bytearray(message) + bytes(_RATE_BYTES - len(message) % _RATE_BYTES)
    padded[len(message)] ^= 0x01
    padded[-1] ^= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), _RATE_BYTES):
        for lane in range(_RATE_BYTES // 8):
            at = start + 8 * lane
            lanes[lane] ^= int.from_bytes(padded[at : at + 8], "little")
        lanes = _permuted(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


def _turned(lane: int, bits: int) -> int:
    return ((lane << bits) | (lane >> (64 - bits))) & _LANE


def _round_constants() -> list[int]:
    """One for each of the 24 rounds, from the shift register that Keccak's authors give."""
    register, constants = 1, []
    for _ in range(24):
        constant = 0
        for power in range(7):
            if register & 1:
                constant |= 1 << ((1 << power) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


_ROUND_CONSTANTS = _round_constants()


def _permuted(lanes: list[int]) -> list[int]:
    """Keccak-f[1600]. Lane (x, y) is at x + 5y."""
    for constant in _ROUND_CONSTANTS:
        # θ: each lane takes in the parity of two columns.
        parity = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        mixed = [parity[(x - 1) % 5] ^ _turned(parity[(x + 1) % 5], 1) for x in range(5)]
        lanes = [lane ^ mixed[at % 5] for at, lane in enumerate(lanes)]
        # ρ and π: lanes are turned, each further than the one before, and change places.
        x, y, carried = 1, 0, lanes[1]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            at = x + 5 * y
            carried, lanes[at] = lanes[at], _turned(carried, (step + 1) * (step + 2) // 2 % 64)
        # χ, the only step that is not linear, and ι.
        lanes = [
            lanes[at] ^ (~lanes[at - at % 5 + (at + 1) % 5] & lanes[at - at % 5 + (at + 2) % 5] & _LANE)
            for at in range(25)
        ]
        lanes[0] ^= constant
    return lanes


def main(arguments: list[str]) -> int:
    """The exit code for the command's arguments."""
    try:
        print(checked_address(" ".join(arguments)))
    except ValueError as error:
        print(f"shrk: {error}", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
