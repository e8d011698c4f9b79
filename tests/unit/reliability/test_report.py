"""The page says what was measured, all of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from reliability.figures import Gaps
from reliability.report import TITLES, page, summary
from reliability.results import Origin, Outcome, Row, read, write

ROOT = Path(__file__).resolve().parents[3]
ORIGIN = Origin("abc1234", "2026-11-20", 2)
GOOD = Row("Nobody notices", "with care", 300, 0, Gaps(200, 45.2, 310.0), seen="200 by ids")
BAD = Row("Somebody noticed", "with care", 10, 2)
RATE = Row("Equal", "as it came", 10, 3, hard=False)


def outcome(*rows: Row, name: str = "matrix", failed: tuple[str, ...] = ()) -> Outcome:
    return Outcome(name, 5, 61.0, ORIGIN, rows, failed)


def test_a_row_says_how_often_how_many_failed_and_what_that_proves() -> None:
    text = page({"matrix": outcome(GOOD)})
    assert "| Nobody notices | 300 | 0 | 1 % | 45 / 310 ms (n = 200) |" in text
    assert "`abc1234` of 2026-11-20 with seed 5: 300 tries, 0 failures, 61 s on 2 cores." in text
    assert "* Nobody notices: 200 by ids." in text


def test_a_failure_stands_on_the_page_without_a_bound() -> None:
    text = page({"matrix": outcome(BAD, failed=("lost  [python -m reliability --case x]",))})
    assert "| Somebody noticed | 10 | 2 |  |  |" in text
    assert "**Failed:** lost" in text


def test_an_experiment_that_did_not_run_is_not_passed_over() -> None:
    text = page({"matrix": outcome(GOOD)})
    assert all(f"## {title}" in text for title in TITLES.values())
    assert text.count("Not measured yet.") == len(TITLES) - 1


def test_a_rate_is_shown_and_is_no_broken_promise() -> None:
    found = outcome(GOOD, RATE)
    assert (found.n, found.failures) == (300, 0)
    assert "| Equal | 10 | 3 |" in page({"matrix": found})


def test_the_terminal_hears_of_every_failure() -> None:
    assert "FAILED lost" in summary(outcome(BAD, failed=("lost",)))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    outcomes = {"matrix": outcome(GOOD, BAD, failed=("lost",)), "load": outcome(RATE, name="load")}
    write(tmp_path / "results.json", outcomes)
    assert read(tmp_path / "results.json") == outcomes


def test_without_a_file_nothing_was_measured(tmp_path: Path) -> None:
    assert read(tmp_path / "results.json") == {}


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": 0, "experiments": {}}')
    with pytest.raises(ValueError, match="schema"):
        read(tmp_path / "results.json")


def test_the_page_in_the_repository_is_what_its_results_say() -> None:
    results = ROOT / "reliability" / "results.json"
    if not results.exists():
        pytest.skip("nothing has been measured yet: make reliability")
    assert (ROOT / "RELIABILITY.md").read_text() == page(read(results))
