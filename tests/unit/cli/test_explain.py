"""`shrk explain`: the coordinator's document in words."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from shrk_cli.errors import Trouble
from shrk_cli.explain import app, lines_of


def a_document(**attempt: Any) -> dict[str, Any]:
    told = {
        "choice": 0,
        "number": 1,
        "node": "calm-otter",
        "resume": None,
        "seam": None,
        "begun_ms": 1,
        "first_piece_ms": None,
        "ended_ms": 250,
        "outcome": "failed",
        "code": "engine_lost",
        "reason": "the engine broke off",
    }
    return {
        "id": "req_1",
        "status": "failed",
        "duration_ms": 1_500,
        "tokens": None,
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "streaming": True,
        "answers": 1,
        "attempts": [told | attempt],
    }


def test_each_attempt_is_a_line_with_what_ended_it() -> None:
    lines = lines_of(a_document())
    assert lines[0] == "req_1: failed after 1.500 s"
    assert lines[2] == (
        "  0.001 s: attempt 1 on calm-otter, from the beginning; failed at 0.250 s: the engine broke off (engine_lost)"
    )


def test_a_strangers_words_move_no_cursor_and_begin_no_line() -> None:
    lines = lines_of(a_document(reason="\x1b]0;owned\x07gone\r\nreq_2: finished", code="\x1b[31m\u202ered"))
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "gonereq_2: finished ([31mred)" in lines[2]


def test_a_reason_without_a_code_is_told_all_the_same() -> None:
    assert lines_of(a_document(code="", reason="'temperature' must be a number"))[2].endswith(
        "failed at 0.250 s: 'temperature' must be a number"
    )


@pytest.mark.parametrize("request_id", ["../models", "req_12", "", "#", "req_" + "0" * 32 + "?x=1"])
def test_what_is_no_request_id_is_refused_before_anybody_is_asked(request_id: str) -> None:
    refused = CliRunner().invoke(app, [request_id], env={"SHRK_API_KEY": "k"}).exception
    assert isinstance(refused, Trouble)
    assert "is no request id" in str(refused)


def test_an_address_without_its_scheme_is_refused_with_one_that_has_it() -> None:
    refused = CliRunner().invoke(app, ["req_" + "0" * 32, "--base-url", "nonsense"]).exception
    assert isinstance(refused, Trouble)
    assert "http://127.0.0.1:8080/v1" in str(refused)
