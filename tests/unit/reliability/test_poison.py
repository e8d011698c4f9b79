"""What is held against a query of death."""

from __future__ import annotations

from dataclasses import replace

from reliability.poison import Poisoned, engine_ends, failed, is_told, rows
from reliability.traffic import Told

CONVICTED = Told(0, 0.0, 0.1, 422, "req_1", "status 422", "request_poisoned")
LOST = Told(0, 0.0, 0.1, 502, "req_2", "status 502", "engine_crashed")
WHOLE = Told(0, 0.0, 0.1, 200, "req_3")

GOOD = Poisoned((CONVICTED,) * 5, (WHOLE,) * 7, ("SIGSEGV", "SIGSEGV"), ("engine_crashed", "engine_crashed"))


def _failures(found: Poisoned) -> list[int]:
    return [row.failures for row in rows(found)]


def test_all_is_well_where_two_engines_are_lost_and_all_are_told() -> None:
    assert _failures(GOOD) == [0, 0, 0]
    assert failed(GOOD, 1) == ()


def test_a_third_engine_counts() -> None:
    assert _failures(replace(GOOD, ends=("SIGSEGV", "SIGSEGV", "it hung")))[0] == 1


def test_only_the_first_two_may_hear_anything_else() -> None:
    assert _failures(replace(GOOD, queries=(LOST, LOST, CONVICTED)))[1] == 0
    found = replace(GOOD, queries=(LOST, LOST, LOST, WHOLE))
    assert _failures(found)[1] == 2
    assert "answered" in failed(found, 1)[1]


def test_others_that_are_not_whole_count() -> None:
    assert _failures(replace(GOOD, others=(WHOLE, LOST)))[2] == 1


def test_another_422_is_not_that_word() -> None:
    assert is_told(CONVICTED)
    assert not is_told(replace(CONVICTED, code="invalid_request"))


def test_why_engines_ended_is_read_from_among_other_lines() -> None:
    log = 'Traceback\n{"event": "linked"}\n{"event": "engine ended", "why": "it was killed", "returncode": -11}\n'
    assert engine_ends(log) == ["it was killed"]
