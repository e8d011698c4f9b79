"""Checklists as people and programs read them."""

from __future__ import annotations

import json

from shrk_node_agent.checklist import Line, Mark, document, failed, of_verdict, text

PASSED = Line("settings", Mark.PASSED, "two models", "never shown")
FAILED = Line("disk", Mark.FAILED, "full", "Make room.")


def test_each_line_says_how_it_went_what_was_found_and_where_it_failed_what_to_do() -> None:
    assert text([PASSED, FAILED, Line("gpu", Mark.SKIPPED)]) == (
        "  passed   settings  two models\n  failed   disk      full → Make room.\n  skipped  gpu"
    )


def test_a_list_fails_where_one_line_does() -> None:
    assert failed([PASSED, FAILED])
    assert not failed([PASSED, Line("demand", Mark.NOTED), Line("gpu", Mark.SKIPPED)])
    assert not failed([])


def test_that_nobody_asks_or_all_places_are_taken_is_noted_and_no_failure() -> None:
    checks = [
        {"name": name, "passed": name == "heard", "reason": "", "next_action": ""}
        for name in ("heard", "demand", "room", "models")
    ]
    assert [line.mark for line in of_verdict(checks)] == [Mark.PASSED, Mark.NOTED, Mark.NOTED, Mark.FAILED]


def test_for_programs_it_has_a_schema_and_every_line() -> None:
    assert json.loads(document([FAILED], passed=False)) == {
        "schema": 1,
        "passed": False,
        "checks": [{"name": "disk", "mark": "failed", "reason": "full", "next_action": "Make room."}],
    }
