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


def test_a_join_token_names_secret_port_and_ca() -> None:
    assert parse_join_token(f" shrk_join_{SECRET}.9101.{PIN}\n") == JoinToken(SECRET, 9101, bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f"shrk_join_{SECRET}",
        f"shrk_join_{SECRET}.9101",
        f"shrk_join_{SECRET}.9101.{PIN[:-1]}",
        f"shrk_join_{SECRET}.0.{PIN}",
        f"shrk_join_{SECRET}.65536.{PIN}",
        f"shrk_join_{SECRET}.9101.{PIN}.more",
        f"shrk_join_{SECRET[:20]} {SECRET[20:]}.9101.{PIN}",
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
