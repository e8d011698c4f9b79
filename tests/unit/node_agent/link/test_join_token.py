"""What an owner pastes, taken apart."""

from __future__ import annotations

import pytest

from shrk_node_agent.link.join_token import (
    Controller,
    ControllerInvalid,
    JoinToken,
    JoinTokenInvalid,
    parse_controller,
    parse_join_token,
)

SECRET = "s" * 43
PIN = "A" * 43
TOKEN = f"shrk_join_{SECRET}.9101.{PIN}.ff61b9a5"


def test_a_join_token_names_secret_port_and_ca() -> None:
    assert parse_join_token(f" {TOKEN}\n") == JoinToken(SECRET, 9101, bytes(32))


@pytest.mark.parametrize(
    "damaged",
    [
        TOKEN.replace("ss", "ts", 1),
        TOKEN.replace("ss", "s", 1),
        TOKEN.replace(".9101.", ".9100."),
        TOKEN.replace("AAA.", "AAB."),
        TOKEN[:-1] + "f",
    ],
)
def test_a_damaged_join_token_is_told_from_an_attack(damaged: str) -> None:
    with pytest.raises(JoinTokenInvalid, match=r"damaged in copying: its checksum does not match.*tokens create") as e:
        parse_join_token(damaged)
    assert SECRET not in str(e.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f"shrk_join_{SECRET}",
        f"shrk_join_{SECRET}.9101",
        f"shrk_join_{SECRET}.9101.{PIN}",
        f"shrk_join_{SECRET}.9101.{PIN[:-1]}.ff61b9a5",
        f"shrk_join_{SECRET}.0.{PIN}.ff61b9a5",
        f"shrk_join_{SECRET}.65536.{PIN}.ff61b9a5",
        f"{TOKEN}.more",
        f"shrk_join_{SECRET[:20]} {SECRET[20:]}.9101.{PIN}.ff61b9a5",
    ],
)
def test_anything_else_is_refused_without_repeating_the_secret(text: str) -> None:
    with pytest.raises(JoinTokenInvalid, match="tokens create") as caught:
        parse_join_token(text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "enrolment"),
    [
        ("tcp://10.0.0.1:9100", "10.0.0.1", "10.0.0.1:9101"),
        ("tcp://shrk.example.org:9100/", "shrk.example.org", "shrk.example.org:9101"),
        ("tcp://[fd00::1]:9100", "fd00::1", "[fd00::1]:9101"),
    ],
)
def test_a_controller_is_a_host_and_a_port(text: str, host: str, enrolment: str) -> None:
    controller = parse_controller(text)
    assert controller == Controller(host, 9100)
    assert controller.at(9101) == enrolment


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1:9100", "http://x:1", "tcp://x", "tcp://x:0", "tcp://x:99999", "tcp://::1:5"]
)
def test_another_controller_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ControllerInvalid, match=r"tcp://10.0.0.1:9100.*SHRK_CONTROLLER"):
        parse_controller(text)
