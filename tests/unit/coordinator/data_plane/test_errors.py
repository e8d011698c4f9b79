"""Errors as callers read them."""

from __future__ import annotations

import json

import pytest

from shrk_contract.terms import Fault, State
from shrk_coordinator.data_plane.errors import body_of, error_event, from_failure, from_refusal, response_of
from shrk_coordinator.errors import REASON_WORDS, ApiError
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.placement import Reason

REQUEST = bytes(16)


def no_node(retry_after: float, *counts: tuple[str, int]) -> ApiError:
    return from_refusal(do.RefuseRequest(REQUEST, do.NoNode("m", counts, retry_after)))


@pytest.mark.parametrize("seconds", [0.2, 2.0, 29.4, 300.0])
def test_a_caller_reads_the_same_seconds_that_its_sdk_is_told(seconds: float) -> None:
    error = no_node(seconds, ("busy", 1))
    told = response_of(error, REQUEST, {}).headers["Retry-After"]
    assert error.message.endswith(f"Try again in {told} s.")


@pytest.mark.parametrize("reason", [*Reason, *State])
def test_every_reason_why_no_node_is_asked_has_words(reason: str) -> None:
    assert REASON_WORDS[reason]
    assert f"3 {REASON_WORDS[reason]}" in no_node(1.0, (reason, 3)).message
    assert "_" not in REASON_WORDS[reason]


def test_one_body_satisfies_every_sdk() -> None:
    error = ApiError(402, "insufficient_balance", "Top up.", type="insufficient_quota")
    assert body_of(error, REQUEST) == {
        "error": {
            "message": "Top up.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_balance",
        },
        "code": 402,
        "message": "insufficient balance",
        "request_id": "req_" + "0" * 32,
    }


def test_retry_after_is_never_longer_than_sdks_should_sleep() -> None:
    response = response_of(ApiError(503, "c", "m", retry_after_seconds=3600, should_retry=False), REQUEST, {})
    assert response.headers["Retry-After"] == "30"
    assert response.headers["x-should-retry"] == "false"


def test_an_error_in_a_stream_is_an_event_and_no_done_follows() -> None:
    event = error_event(ApiError(502, "node_lost", "gone"), REQUEST)
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "node_lost"
    assert b"[DONE]" not in event


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (402, "insufficient_balance"), (429, "rate_limited"), (400, "No!")]
)
def test_a_node_cannot_speak_of_keys_or_money(status: int, code: str) -> None:
    error = from_failure(FailureDetail(Fault.CALLER, "words", status, type="authentication_error", code=code))
    assert (error.status, error.code, error.type) == (400, "invalid_request", "invalid_request_error")


@pytest.mark.parametrize(("engine_status", "status"), [(400, 400), (422, 422), (0, 400), (500, 400)])
def test_a_callers_own_error_keeps_the_engines_status_and_words(engine_status: int, status: int) -> None:
    failure = FailureDetail(Fault.CALLER, "the engine's words", engine_status, param="stop")
    error = from_failure(failure)
    assert (error.status, error.message, error.param) == (status, "the engine's words", "stop")


def test_a_nodes_failure_is_a_bad_gateway_that_may_be_tried_again() -> None:
    error = from_failure(FailureDetail(Fault.ENGINE, "it broke off", 500, code="engine_lost"))
    assert (error.status, error.code, error.should_retry) == (502, "engine_lost", True)


def test_refusals_say_what_is_missing() -> None:
    nobody = from_refusal(do.RefuseRequest(REQUEST, do.NoNode("m", (("loading", 2),))))
    assert (nobody.status, nobody.retry_after_seconds) == (503, 2)
    assert nobody.message == (
        "No node can take a request for 'm' now. Of those that have it: 2 loading the model. Try again in 2 s."
    )
    assert from_refusal(do.RefuseRequest(REQUEST, do.NoNode("m", ()))).message == (
        "No node can take a request for 'm' now. None that has it is connected. Try again in 2 s."
    )
    unknown = from_refusal(do.RefuseRequest(REQUEST, do.UnknownModel("x", ("y",))))
    assert (unknown.status, unknown.param) == (400, "model")
