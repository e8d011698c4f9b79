"""Payout addresses: the published vectors, and every single slip of a finger."""

from __future__ import annotations

import pytest

from shrk_contract.payout import PayoutAddressInvalid, checked_payout_address, keccak_256

#: From EIP-55 itself.
PUBLISHED = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (b"testing", "5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02"),
    ],
)
def test_keccak_gives_the_published_digests(message: bytes, digest: str) -> None:
    assert keccak_256(message).hex() == digest


@pytest.mark.parametrize("length", [135, 136, 137, 272])
def test_keccak_differs_from_one_byte_more_at_the_edges_of_a_block(length: int) -> None:
    assert len({keccak_256(b"a" * n) for n in (length - 1, length, length + 1)}) == 3


@pytest.mark.parametrize("address", PUBLISHED)
def test_the_published_addresses_are_taken(address: str) -> None:
    assert checked_payout_address(f" {address}\n") == address


@pytest.mark.parametrize("place", range(2, 42))
def test_one_wrong_digit_is_noticed(place: int) -> None:
    address = PUBLISHED[4]
    other = "1" if address[place] != "1" else "2"
    with pytest.raises(PayoutAddressInvalid, match="checksum"):
        checked_payout_address(address[:place] + other + address[place + 1 :])


@pytest.mark.parametrize("text", [PUBLISHED[4].lower(), "0x" + PUBLISHED[4][2:].upper()])
def test_an_address_that_has_lost_its_capitals_is_refused(text: str) -> None:
    with pytest.raises(PayoutAddressInvalid, match="capitals were lost"):
        checked_payout_address(text)


@pytest.mark.parametrize("text", ["", "0x", PUBLISHED[0][2:], PUBLISHED[0] + "0", "0x" + "g" * 40, "me.eth"])
def test_what_is_no_address_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(PayoutAddressInvalid, match="40 hexadecimal digits"):
        checked_payout_address(text)
