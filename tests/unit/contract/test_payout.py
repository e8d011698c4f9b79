"""Payout addresses: those of EIP-55 itself, and what is said of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shrk_contract.payout import checked_address, checksummed, keccak256, main

#: The test cases of EIP-55.
PUBLISHED = (
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
)


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (b"a" * 135, "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446"),
        (b"a" * 136, "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e"),
        (b"a" * 137, "d869f639c7046b4929fc92a4d988a8b22c55fbadb802c0c66ebcd484f1915f39"),
        (bytes(range(256)) * 4, "5902e53903be0d0f9656bdbd5b9f0d8c2d815f865645d629eef77f5185f6cd7f"),
    ],
    ids=["empty", "abc", "one less than a block", "a block", "one more", "eight blocks"],
)
def test_keccak_gives_the_digests_of_the_original(message: bytes, digest: str) -> None:
    assert keccak256(message).hex() == digest


@pytest.mark.parametrize("address", PUBLISHED)
def test_a_right_address_is_taken_as_it_is(address: str) -> None:
    assert checked_address(f" {address}\n") == address
    assert checksummed(address.lower()) == address


def test_a_wrong_capital_is_refused_with_the_right_form() -> None:
    wrong = PUBLISHED[4].replace("aA", "aa")
    with pytest.raises(ValueError, match=f"wrong checksum.*{PUBLISHED[4]}"):
        checked_address(wrong)


def test_every_single_mistyped_digit_of_an_address_is_noticed() -> None:
    right = PUBLISHED[4]
    for at in range(2, 42):
        for digit in "07fF":
            if (mistyped := right[:at] + digit + right[at + 1 :]) != right:
                with pytest.raises(ValueError, match="wrong checksum"):
                    checked_address(mistyped)


@pytest.mark.parametrize("form", [str.lower, lambda text: "0x" + text[2:].upper()], ids=["lower", "upper"])
def test_without_a_checksum_it_is_refused_and_the_checked_form_is_the_remedy(form: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match=f"no checksum.*write it as {PUBLISHED[4]}"):
        checked_address(form(PUBLISHED[4]))


@pytest.mark.parametrize(
    "text", ["", "0x", "vitalik.eth", PUBLISHED[0][:-1], PUBLISHED[0] + "0", PUBLISHED[0][2:], "0X" + "1" * 40]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits, as a wallet shows it, such as 0x5aAeb"):
        checked_address(text)


def test_an_installer_can_ask_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([PUBLISHED[4]]) == 0
    assert capsys.readouterr().out == f"{PUBLISHED[4]}\n"
    assert main([PUBLISHED[4].lower()]) == 5
    assert f"write it as {PUBLISHED[4]}" in capsys.readouterr().err
