"""The request for the rest of an answer, and which answers have none that could be asked for."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from shrk_contract.terms import ResumeMethod
from shrk_node_agent.attempts import Resume
from shrk_node_agent.engine.continuation.rest import rest_of, seed_after, tokens_left, why_not, why_not_rendered

RESUME = Resume(ResumeMethod.BY_IDS, 3, 0, prompt_ids=array("I", [1, 2]), delivered_ids=array("I", [5, 6, 7]))


def rendered(**params: Any) -> dict[str, Any]:
    return {"request_id": "chatcmpl-x", "token_ids": [9, 9], "model": "m", "sampling_params": params}


def test_the_first_engines_prompt_and_what_was_delivered_are_the_new_prompt() -> None:
    rest = rest_of(rendered(), RESUME, "v2")
    assert rest["token_ids"] == [1, 2, 5, 6, 7]
    assert (rest["stream"], rest["model"]) == (True, "m")
    assert "request_id" not in rest


def test_limits_are_what_is_left_of_them() -> None:
    params = rest_of(rendered(max_tokens=10, min_tokens=5), RESUME, "v2")["sampling_params"]
    assert (params["max_tokens"], params["min_tokens"]) == (7, 2)
    assert rest_of(rendered(max_tokens=9, min_tokens=2), RESUME, "v2")["sampling_params"]["min_tokens"] == 0
    assert tokens_left(rendered(max_tokens=3), RESUME) == 0


def test_a_limit_that_the_engine_leaves_out_is_its_default_and_no_limit_is_none() -> None:
    params = rest_of(rendered(), RESUME, "v2")["sampling_params"]
    assert (params["max_tokens"], tokens_left(rendered(), RESUME)) == (13, 13)
    assert rest_of(rendered(max_tokens=None), RESUME, "v2")["sampling_params"]["max_tokens"] is None
    assert tokens_left(rendered(max_tokens=None), RESUME) is None


def test_the_request_for_the_whole_answer_is_left_as_it_is() -> None:
    whole = rendered(max_tokens=10, seed=3)
    rest_of(whole, RESUME, "v1")
    assert whole == rendered(max_tokens=10, seed=3)


def test_noise_by_position_keeps_its_seed_and_noise_by_sequence_gets_another_at_each_seam() -> None:
    assert rest_of(rendered(seed=3), RESUME, "v2")["sampling_params"]["seed"] == 3
    for runner in ("v1", ""):
        assert rest_of(rendered(seed=3), RESUME, runner)["sampling_params"]["seed"] == seed_after(3, 3)
    assert "seed" not in rest_of(rendered(), RESUME, "v1")["sampling_params"]


def test_a_seed_after_a_seam_depends_on_both_and_fits_an_engines_seed() -> None:
    seeds = {seed_after(seed, delivered) for seed in (-(2**63), -1, 0, 1, 2**63 - 1) for delivered in range(1, 50)}
    assert len(seeds) == 5 * 49
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"stop": "x"},
        {"stop": ["x"]},
        {"logprobs": True},
        {"logprobs": 0},
        {"n": 2},
        {"prompt": ["a", "b"]},
    ],
)
def test_what_begins_anew_at_a_seam_cannot_be_continued(body: dict[str, Any]) -> None:
    assert why_not(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": {"type": "text"}, "stop": [], "logprobs": False, "n": 1, "prompt": "a"},
        {"response_format": None, "stop": None, "logprobs": None, "n": None, "tools": [{}]},
    ],
)
def test_plain_requests_and_tools_can(body: dict[str, Any]) -> None:
    assert why_not(body) == ""


@pytest.mark.parametrize(
    "params",
    [
        {"structured_outputs": {"json_object": True}},
        {"stop": ["x"]},
        {"logprobs": 0},
        {"prompt_logprobs": 1},
        {"bad_words": ["x"]},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
    ],
)
def test_the_engines_own_understanding_of_a_request_counts_too(params: dict[str, Any]) -> None:
    assert why_not_rendered(rendered(**params))


def test_pictures_cannot_and_defaults_can() -> None:
    assert why_not_rendered(rendered() | {"features": {"mm_hashes": {}}})
    assert why_not_rendered(rendered() | {"content_parts": [{}]})
    defaults = {"stop": [], "bad_words": [], "presence_penalty": 0.0, "frequency_penalty": 0.0, "logprobs": None}
    assert why_not_rendered(rendered(**defaults, repetition_penalty=1.1)) == ""
