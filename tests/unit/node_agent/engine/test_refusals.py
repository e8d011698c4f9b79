"""An engine's errors: its own words, and whose fault they are."""

from __future__ import annotations

import json

import pytest

from shrk_contract.terms import Fault
from shrk_node_agent.engine.refusals import from_error_object, from_response


@pytest.mark.parametrize(
    ("status", "fault"),
    [(400, Fault.CALLER), (422, Fault.CALLER), (404, Fault.ENGINE), (429, Fault.ENGINE), (500, Fault.ENGINE)],
)
def test_only_statuses_that_blame_the_request_are_the_callers_fault(status: int, fault: Fault) -> None:
    body = json.dumps({"error": {"message": "m", "type": "t_error", "code": status}}).encode()
    assert from_response(status, body).fault is fault


def test_the_engines_wording_is_kept_and_its_class_names_are_not() -> None:
    error = {"message": "no such thing", "type": "BadRequestError", "param": "stop", "code": 400}
    failed = from_error_object(error, 400)
    assert (failed.message, failed.type, failed.param, failed.code) == ("no such thing", "", "stop", "")


def test_a_prompt_that_is_too_long_gets_the_code_that_clients_look_for() -> None:
    words = "This model's maximum context length is 128 tokens. However, your request has 500 input tokens."
    assert from_error_object({"message": words, "code": 400}, 400).code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b'{"error": "words"}', b'{"detail": "words"}'])
def test_an_error_of_any_shape_becomes_a_failure_with_some_words(body: bytes) -> None:
    assert from_response(500, body).message


@pytest.mark.parametrize("status", [500, 0])
def test_a_front_end_whose_core_is_gone_says_that_the_engine_crashed(status: int) -> None:
    words = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    failed = from_error_object({"message": words, "type": "InternalServerError", "param": None, "code": 500}, status)
    assert (failed.fault, failed.code, failed.http_status, failed.message) == (
        Fault.ENGINE,
        "engine_crashed",
        500,
        words,
    )
